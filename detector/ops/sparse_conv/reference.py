"""Sparse convolution in plain torch, differentiable: gather, multiply, add, offset by offset."""

from __future__ import annotations

from jaxtyping import Float, Int32
from torch import Tensor


def sparse_conv(
    features: Float[Tensor, "V_in Cin"],
    weight: Float[Tensor, "kz ky kx Cin Cout"],
    table: Int32[Tensor, "K V_out"],
    bias: Float[Tensor, " Cout"] | None = None,
) -> Float[Tensor, "V_out Cout"]:
    """out[o] = bias + sum over k of features[table[k, o]] @ weight[k], where the row is not -1."""
    out = features.new_zeros(table.shape[1], weight.shape[-1])
    for rows, matrix in zip(table.long(), weight.flatten(0, 2), strict=True):
        seen = rows >= 0
        out = out.index_add(0, seen.nonzero()[:, 0], features[rows[seen]] @ matrix)
    return out if bias is None else out + bias
