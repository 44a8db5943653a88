"""Weight layouts of sparse convolutions, stated here once.

    here               (kz, ky, kx, in, out)
    spconv 2           (out, kz, ky, kx, in)
    spconv 1           (kz, ky, kx, in, out), as here
    dense nn.Conv3d    (out, in, kz, ky, kx)

All correlate rather than convolve: offset (0, 0, 0) is the neighbour with the lowest index. An
inverse convolution's weight at one offset is what its partner's has there: no flip.

One exception, found by running spconv 2.3.8: a layer of kernel size 1 and stride 1 has a weight of
shape (out, 1, 1, 1, in) there, but its numbers are used in memory order as (in, out).
"""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor


def weight_from_spconv(
    weight: Float[Tensor, "out kz ky kx in"], *, strided: bool = False
) -> Float[Tensor, "kz ky kx in out"]:
    """Ours from spconv 2's layout. `strided` says that the layer has a stride, which matters for
    kernel size 1 alone."""
    if weight.shape[1:4] == (1, 1, 1) and not strided:
        return weight.reshape(1, 1, 1, weight.shape[4], weight.shape[0]).clone()
    return weight.permute(1, 2, 3, 4, 0).contiguous()


def weight_to_spconv(
    weight: Float[Tensor, "kz ky kx in out"], *, strided: bool = False
) -> Float[Tensor, "out kz ky kx in"]:
    """spconv 2's layout from ours; `strided` as above."""
    if weight.shape[:3] == (1, 1, 1) and not strided:
        return weight.reshape(weight.shape[4], 1, 1, 1, weight.shape[3]).clone()
    return weight.permute(4, 0, 1, 2, 3).contiguous()
