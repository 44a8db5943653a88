"""Weight layouts of sparse convolutions, stated here once.

    here               (kz, ky, kx, in, out)
    spconv 2           (out, kz, ky, kx, in)
    spconv 1           (kz, ky, kx, in, out), as here
    dense nn.Conv3d    (out, in, kz, ky, kx)

All correlate rather than convolve: offset (0, 0, 0) is the neighbour with the lowest index. An
inverse convolution's weight at one offset is what its partner's has there: no flip.
"""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor


def weight_from_spconv(
    weight: Float[Tensor, "out kz ky kx in"],
) -> Float[Tensor, "kz ky kx in out"]:
    """Ours from spconv 2's layout."""
    return weight.permute(1, 2, 3, 4, 0).contiguous()


def weight_to_spconv(
    weight: Float[Tensor, "kz ky kx in out"],
) -> Float[Tensor, "out kz ky kx in"]:
    """spconv 2's layout from ours."""
    return weight.permute(4, 0, 1, 2, 3).contiguous()
