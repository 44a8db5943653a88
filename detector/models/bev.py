"""The dense part of a detector: SECOND's 2D backbone and feature pyramid over the bird's-eye view.

Yan, Mao, Li: "SECOND: Sparsely Embedded Convolutional Detection", Sensors 2018.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn


def norm_2d(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=1e-3)


def conv_norm_relu(in_channels: int, out_channels: int, stride: int = 1) -> nn.Sequential:
    """A 3 x 3 convolution with batch norm and ReLU."""
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, 3, stride=stride, padding=1, bias=False),
        norm_2d(out_channels),
        nn.ReLU(inplace=True),
    )


class SecondBEV(nn.Module):
    """Blocks of 3 x 3 convolutions at growing strides, brought back to one size and joined.

    Args:
        in_channels: channels of the map that comes in.
        channels: channels of each block.
        layers: convolutions of each block after its first.
        strides: stride of each block's first convolution, relative to the block before.
        upsample_channels: channels of each block's map after upsampling.
        upsample_strides: what each block's map is enlarged by, below 1 made smaller; together
            with `strides` they must bring all blocks to one size.

    Raises:
        ValueError: sequences of unequal length, or strides that lead to different sizes.
    """

    def __init__(
        self,
        in_channels: int,
        channels: Sequence[int] = (128, 256),
        layers: Sequence[int] = (5, 5),
        strides: Sequence[int] = (1, 2),
        upsample_channels: Sequence[int] = (256, 256),
        upsample_strides: Sequence[float] = (1, 2),
    ):
        super().__init__()
        lengths = {len(s) for s in (channels, layers, strides, upsample_channels, upsample_strides)}
        if len(lengths) != 1:
            raise ValueError(
                f"channels, layers, strides, upsample_channels and upsample_strides need one entry "
                f"for each block, got lengths {sorted(lengths)}"
            )
        self.blocks = nn.ModuleList()
        self.upsamples = nn.ModuleList()
        total_strides, total = [], 1
        for width, depth, stride, up_width, up in zip(
            channels, layers, strides, upsample_channels, upsample_strides, strict=True
        ):
            total *= stride
            total_strides.append(total)
            block = [conv_norm_relu(in_channels, width, stride)]
            block += [conv_norm_relu(width, width) for _ in range(depth)]
            self.blocks.append(nn.Sequential(*block))
            self.upsamples.append(_upsample(width, up_width, up))
            in_channels = width
        out_strides = {t / up for t, up in zip(total_strides, upsample_strides, strict=True)}
        if len(out_strides) != 1 or not out_strides.pop().is_integer():
            raise ValueError(
                f"strides {tuple(strides)} and upsample_strides {tuple(upsample_strides)} lead to "
                f"maps of different sizes; each block's total stride divided by its upsampling "
                f"must be the same whole number"
            )
        self.out_channels = sum(upsample_channels)
        self.out_stride = round(total_strides[0] / upsample_strides[0])
        self.size_divisor = max(total_strides[-1], self.out_stride)

    def forward(self, x: Float[Tensor, "B C Y X"]) -> Float[Tensor, "B D Y_out X_out"]:
        """Any size; one that the strides do not divide is padded with zeros and cut again."""
        height, width = x.shape[-2:]
        pad_y, pad_x = -height % self.size_divisor, -width % self.size_divisor
        if pad_y or pad_x:
            x = nn.functional.pad(x, (0, pad_x, 0, pad_y))
        maps = []
        for block, upsample in zip(self.blocks, self.upsamples, strict=True):
            x = block(x)
            maps.append(upsample(x))
        joined = torch.cat(maps, 1)
        return joined[..., : -(-height // self.out_stride), : -(-width // self.out_stride)]


def _upsample(in_channels: int, out_channels: int, scale: float) -> nn.Sequential:
    """Enlarges by `scale` with a transposed convolution; 1 keeps the size, 1/2 halves it."""
    if scale <= 1:
        step = round(1 / scale)
        conv = nn.Conv2d(in_channels, out_channels, step, stride=step, bias=False)
    else:
        conv = nn.ConvTranspose2d(in_channels, out_channels, scale, stride=scale, bias=False)
    return nn.Sequential(conv, norm_2d(out_channels), nn.ReLU(inplace=True))
