"""Sparse 3D backbones: SECOND's encoder and its residual variant, each with focal stages.

Yan, Mao, Li: "SECOND", Sensors 2018; Chen et al.: "Focal Sparse Convolutional Networks for 3D
Object Detection", CVPR 2022. With `focal_stages=()` the same class is the plain backbone.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from detector.sparse import (
    FocalConv3d,
    FocalImportance,
    SparseBatchNorm,
    SparseConv3d,
    SparseModule,
    SparseSequential,
    SparseTensor,
    SubMConv3d,
)


def norm(channels: int) -> SparseBatchNorm:
    return SparseBatchNorm(channels, eps=1e-3)


def subm_block(in_channels: int, out_channels: int) -> SparseSequential:
    """A 3 x 3 x 3 submanifold convolution with batch norm and ReLU."""
    return SparseSequential(
        SubMConv3d(in_channels, out_channels, 3), norm(out_channels), nn.ReLU(inplace=True)
    )


def strided_block(
    in_channels: int, out_channels: int, kernel_size, stride, padding
) -> SparseSequential:
    """A strided sparse convolution with batch norm and ReLU."""
    return SparseSequential(
        SparseConv3d(in_channels, out_channels, kernel_size, stride, padding),
        norm(out_channels),
        nn.ReLU(inplace=True),
    )


class ResidualBlock(SparseModule):
    """Two submanifold convolutions beside the identity."""

    def __init__(self, channels: int):
        super().__init__()
        self.first = subm_block(channels, channels)
        self.second = SparseSequential(SubMConv3d(channels, channels, 3), norm(channels))

    def forward(self, x: SparseTensor) -> SparseTensor:
        return self.second(self.first(x), beside=x)


@dataclass(frozen=True)
class BackboneOutput:
    """What a sparse backbone gives to the rest of a detector."""

    bev: Float[Tensor, "B C Y X"]
    """See `bev_map`."""
    importances: list[FocalImportance]
    """Of each focal stage, for its loss; empty for a plain backbone."""


class SparseEncoder(nn.Module):
    """Stages of submanifold convolutions, halving the size from one to the next.

    Args:
        in_channels: features of a voxel.
        spatial_shape: cells (Z, Y, X) of the grid that comes in.
        channels: of each stage; their number sets the stride, 2^(stages - 1).
        layers: submanifold layers (residual: blocks) of each stage beside the strided one that
            opens it.
        out_channels: of the last convolution, which joins what is left of the height.
        focal_stages: numbers, from 1, of the stages that end with a focal convolution.
        focal: further arguments of `FocalConv3d`.
        residual: residual blocks in place of single layers.

    Raises:
        ValueError: a focal stage that does not exist, or a grid too flat for so many stages.
    """

    def __init__(
        self,
        in_channels: int,
        spatial_shape: tuple[int, int, int],
        *,
        channels: Sequence[int],
        layers: Sequence[int],
        out_channels: int,
        focal_stages: Sequence[int] = (),
        focal: Mapping[str, Any] | None = None,
        residual: bool = False,
    ):
        super().__init__()
        if len(channels) != len(layers):
            raise ValueError(f"channels {channels} and layers {layers} need one entry a stage")
        if not set(focal_stages) <= set(range(1, len(channels) + 1)):
            raise ValueError(
                f"focal_stages {tuple(focal_stages)} must be among the {len(channels)} stages, "
                f"numbered from 1"
            )
        self.stem = subm_block(in_channels, channels[0])
        self.stages = nn.ModuleList()
        self.focal = nn.ModuleDict()
        z, y, x = spatial_shape
        for index, (width, depth) in enumerate(zip(channels, layers, strict=True)):
            blocks = []
            if index > 0:
                # The last of the published stages does not pad the height.
                padding = (0 if index == 3 else 1, 1, 1)
                blocks.append(strided_block(channels[index - 1], width, 3, 2, padding))
                z, y, x = (
                    (size + 2 * pad - 3) // 2 + 1
                    for size, pad in zip((z, y, x), padding, strict=True)
                )
            blocks += [
                ResidualBlock(width) if residual else subm_block(width, width)
                for _ in range(depth)
            ]
            self.stages.append(SparseSequential(*blocks))
            if index + 1 in focal_stages:
                self.focal[str(index + 1)] = FocalStage(width, 2**index, focal or {})
        if z < 3:
            raise ValueError(
                f"{len(channels)} stages leave {z} of {spatial_shape[0]} layers of cells, the last "
                f"convolution needs 3; use fewer stages or a finer voxel height"
            )
        self.out = strided_block(channels[-1], out_channels, (3, 1, 1), (2, 1, 1), 0)
        self._steps = [
            (conv.kernel_size, conv.stride, conv.padding, conv.dilation)
            for conv in self.modules() if isinstance(conv, SparseConv3d)
        ]  # fmt: skip
        self.fused = True
        """In training on a GPU in 16-bit floats: run all layers up to a focal stage as one step of
        autograd, where that can be done (`detector.sparse.planned.training`)."""
        self.stride = 2 ** (len(channels) - 1)
        self.bev_shape = (y, x)
        self.out_channels = out_channels * ((z - 3) // 2 + 1)

    def forward(self, x: SparseTensor) -> BackboneOutput:
        x, importances = self.voxels(x)
        return BackboneOutput(bev_map(x), importances)

    def voxels(self, x: SparseTensor) -> tuple[SparseTensor, list[FocalImportance]]:
        """The last convolution's voxels, and what each focal stage found important."""
        importances = []
        for chain, focal in self.chains():
            x = self._run(chain, x)
            if focal is not None:
                x, importance = focal(x)
                importances.append(importance)
        return x, importances

    def chains(self) -> Iterator[tuple[list[SparseModule], FocalStage | None]]:
        """What runs from one focal stage to the next, and that focal stage; the last has none."""
        chain = [self.stem]
        for number, stage in enumerate(self.stages, 1):
            chain.append(stage)
            if str(number) in self.focal:
                yield chain, self.focal[str(number)]
                chain = []
        yield [*chain, self.out], None

    def _run(self, chain: list[SparseModule], x: SparseTensor) -> SparseTensor:
        if self.fused and self.training and x.features.is_cuda:
            from detector.sparse.planned.training import train_chain

            # A focal stage asks the index of the voxels before it.
            trained = train_chain(chain, x, release=not self.focal)
            if trained is not None:
                return trained
        if not self.focal:
            x.occupancy.prepare(self._steps)
        for module in chain:
            x = module(x)
        return x


def bev_map(x: SparseTensor) -> Float[Tensor, "B C*Z Y X"]:
    """The dense map with height folded into the channels, channel c of layer z at c * Z + z; laid
    out channels last, which 2D convolutions run fastest on."""
    layers, rows, columns = x.spatial_shape
    channels = x.features.shape[1]
    frame, z, row, column = x.coordinates.long().unbind(1)
    grid = x.features.new_zeros(x.batch_size, rows, columns, channels, layers)
    grid[frame, row, column, :, z] = x.features
    return grid.flatten(3).permute(0, 3, 1, 2)


class FocalStage(nn.Module):
    """A focal convolution with batch norm and ReLU."""

    def __init__(self, channels: int, stride: int, options: Mapping[str, Any]):
        super().__init__()
        self.conv = FocalConv3d(channels, channels, stride=stride, **options)
        self.after = SparseSequential(norm(channels), nn.ReLU(inplace=True))

    def forward(self, x: SparseTensor) -> tuple[SparseTensor, FocalImportance]:
        x, importance = self.conv(x)
        return self.after(x), importance


class SparseEncoder8x(SparseEncoder):
    """SECOND's encoder: stride 8, 16 to 64 channels."""

    def __init__(
        self,
        in_channels: int,
        spatial_shape: tuple[int, int, int],
        *,
        channels: Sequence[int] = (16, 32, 64, 64),
        layers: Sequence[int] = (1, 2, 2, 2),
        out_channels: int = 128,
        focal_stages: Sequence[int] = (),
        focal: Mapping[str, Any] | None = None,
    ):
        super().__init__(
            in_channels, spatial_shape, channels=channels, layers=layers,
            out_channels=out_channels, focal_stages=focal_stages, focal=focal,
        )  # fmt: skip


class ResidualSparseEncoder8x(SparseEncoder):
    """The residual variant: two blocks a stage, 16 to 128 channels."""

    def __init__(
        self,
        in_channels: int,
        spatial_shape: tuple[int, int, int],
        *,
        channels: Sequence[int] = (16, 32, 64, 128),
        layers: Sequence[int] = (2, 2, 2, 2),
        out_channels: int = 128,
        focal_stages: Sequence[int] = (),
        focal: Mapping[str, Any] | None = None,
    ):
        super().__init__(
            in_channels, spatial_shape, channels=channels, layers=layers,
            out_channels=out_channels, focal_stages=focal_stages, focal=focal, residual=True,
        )  # fmt: skip
