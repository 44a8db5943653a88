"""Sparse convolution from torch's own operations, offset by offset: any dtype, any device.

Both directions gather, so that no order of additions is left to chance.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int32
from torch import Tensor


def convolve(
    features: Float[Tensor, "V_in Cin"],
    weight: Float[Tensor, "K Cin Cout"],
    table: Int32[Tensor, "K V_out"],
) -> Float[Tensor, "V_out Cout"]:
    """out[o] = sum over k of features[table[k, o]] @ weight[k]."""
    padded = torch.cat([features, features.new_zeros(1, features.shape[1])])
    out = features.new_zeros(table.shape[1], weight.shape[2])
    for rows, matrix in zip(table.long(), weight, strict=True):
        out += padded[rows] @ matrix  # row -1 is the zeros
    return out


def weight_gradient(
    features: Float[Tensor, "V_in Cin"],
    out_gradient: Float[Tensor, "V_out Cout"],
    table: Int32[Tensor, "K V_out"],
) -> Float[Tensor, "K Cin Cout"]:
    """gradient[k] = sum over o of features[table[k, o]] (outer) out_gradient[o]."""
    padded = torch.cat([features, features.new_zeros(1, features.shape[1])])
    return torch.stack([padded[rows].T @ out_gradient for rows in table.long()])
