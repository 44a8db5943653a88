"""A sparse backbone of stages, planned: `detector.models.backbones.SparseEncoder` without waiting.

The network is read from its modules: a `stem`, `stages` of convolution blocks and residual blocks,
focal stages between them, and `out`. Nothing here imports the models.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from detector.ops.cuda_runtime import Kernel
from detector.ops.occupancy.gpu import THREADS, blocks
from detector.ops.occupancy.shapes import Triple
from detector.sparse.conv import SparseConv3d, SubMConv3d
from detector.sparse.modules import SparseBatchNorm, SparseSequential
from detector.sparse.planned.convolution import PlannedConvolution
from detector.sparse.planned.levels import Level, Levels, Step, make_table, shapes_along

SOURCE = Path(__file__).with_name("planned.cu")
ROOM = (1.0, 2.0, 1.25, 0.6, 0.5)
"""Voxels of each level there is room for, as shares of the first level's: the first halving of a
LiDAR scan's grid keeps their number, the later ones halve it or more."""
EXPECTED = 0.6
"""Share of a capacity that is usually taken; only the choice of kernels depends on it."""


@dataclass
class Block:
    """A convolution with what follows it."""

    conv: SubMConv3d | SparseConv3d
    norm: SparseBatchNorm | None
    relu: bool


class PlannedEncoder:
    """Runs an encoder from voxels in any order; nothing waits.

    Args:
        encoder: in evaluation mode, on a GPU.
        spatial_shape: cells (Z, Y, X) of the grid that comes in.
        capacity: voxels of a batch there is room for.
        dtype: of features, float16 or bfloat16.

    Raises:
        ValueError: modules that can't be planned.
    """

    def __init__(
        self, encoder: nn.Module, spatial_shape: Triple, batch_size: int, capacity: int,
        dtype: torch.dtype = torch.float16, room: tuple[float, ...] = ROOM,
    ):  # fmt: skip
        if encoder.training:
            raise ValueError("a plan is made of a network in evaluation mode; call .eval() first")
        self.encoder, self.dtype = encoder, dtype
        self.device = next(encoder.parameters()).device
        units = list(encoder_units(encoder))
        strided = [unit for unit in units if isinstance(_first(unit).conv, SparseConv3d)]
        keys = [
            (c.kernel_size, c.stride, c.padding, c.dilation)
            for c in (_first(unit).conv for unit in strided)
        ]
        shapes = shapes_along(spatial_shape, keys)
        shares = [*room, *[room[-1]] * len(shapes)][: len(shapes)]
        capacities = [-(-int(capacity * share) // 64) * 64 for share in shares]
        self.levels = Levels(
            shapes, capacities, batch_size, self.device,
            [f"level {number} {shape}" for number, shape in enumerate(shapes)],
        )  # fmt: skip
        self.steps: list[Step] = []
        self.layers: list[tuple[int, list[PlannedConvolution]]] = []
        level = 0
        self._columns = 0  # of the rows that the next layer gets
        for unit in units:
            conv = _first(unit).conv
            if isinstance(conv, SparseConv3d):
                finer, coarser = self.levels[level], self.levels[level + 1]
                table = make_table(coarser, conv.kernel_size)
                self.steps.append(
                    Step(finer, coarser, table, conv.stride, conv.padding, conv.dilation)
                )
                level += 1
                self.layers.append((level, [self._planned(unit[0], coarser, table)]))
                continue
            here = self.levels[level]
            tables = [here.submanifold(block.conv.kernel_size) for block in unit]
            self.layers.append(
                (level, [self._planned(b, here, t) for b, t in zip(unit, tables, strict=True)])
            )
        self.in_channels = self.layers[0][1][0].in_channels
        first = self.levels[0]
        self.rows = torch.zeros(
            first.capacity, self.in_channels, dtype=dtype, device=self.device
        )
        # Indices go first where both could run: convolutions wait for them.
        self._side = torch.cuda.Stream(self.device, priority=-1)
        defines = dict(BF16=int(dtype == torch.bfloat16))
        self._place_rows = Kernel(SOURCE, "place_rows", "PPiPiPPiiiiPi", defines)
        self._remember = Kernel(SOURCE, "remember", "PPi", defines)

    @property
    def out_level(self) -> Level:
        """Where the result's voxels are."""
        return self.levels[len(self.steps)]

    def _planned(self, block: Block, sites: Level, table) -> PlannedConvolution:
        made = PlannedConvolution(
            block.conv.weight.detach(), block.conv.bias, block.norm, sites, table, self.dtype,
            columns=self._columns, relu=block.relu,
            expected_rows=int(EXPECTED * sites.capacity),
        )  # fmt: skip
        self._columns = made.out_channels
        return made

    def from_voxels(self, coordinates: Tensor, features: Tensor, count: Tensor) -> Tensor:
        """Rows of the last level, of the first `count` voxels (in any order, distinct).

        Args:
            coordinates: (N, 4) int32, b < 0 where there is none.
            features: (N, C) float32.
            count: (1,) int32 on the GPU.
        """
        first = self.levels[0]
        first.bitmap.mark(coordinates, count)
        first.bitmap.scan(first.coordinates)
        self._place_rows(
            (blocks(len(coordinates)),), THREADS, coordinates, features, features.shape[1],
            count, len(coordinates), first.bitmap.words, first.bitmap.rank,
            *first.bitmap.shape[:2], first.bitmap.line_words, first.capacity, self.rows,
            self.in_channels, device=self.device.index,
        )  # fmt: skip
        return self.from_rows()

    def from_rows(self) -> Tensor:
        """The same from `self.rows`, once the first level's coordinates and count are there.

        Indices of later levels are made beside the convolutions of the earlier ones.
        """
        main, side = torch.cuda.current_stream(), self._side
        ready = self._index_beside(main, side)
        x = self.rows
        made = 0
        for level, group in self.layers:
            if level > made:
                made = level
                main.wait_event(ready[level])
            if len(group) == 1:
                x = group[0](x)
            else:
                x = group[1](group[0](x), residual=x)
        main.wait_stream(side)
        return x

    def _index_beside(self, main, side) -> dict[int, torch.cuda.Event]:
        ready = {}
        side.wait_stream(main)
        self.levels[0].fill_submanifold()
        with torch.cuda.stream(side):
            for number, step in enumerate(self.steps, 1):
                step.mark()
                step.coarser.bitmap.scan(step.coarser.coordinates)
                step.fill()
                step.coarser.fill_submanifold()
                ready[number] = torch.cuda.Event()
                ready[number].record(side)
            self._remember(
                (1,), 32, self.levels.totals, self.levels.most, self.levels.totals.numel(),
                device=self.device.index,
            )  # fmt: skip
        # Where bits are read by the first level's table too, they may not be cleared before.
        filled = torch.cuda.Event()
        filled.record(main)
        with torch.cuda.stream(side):
            side.wait_event(filled)
            self.levels.clear()
        return ready

    def check_capacity(self) -> None:
        """Waits for the GPU and raises if a frame since the last check had too many voxels.

        Raises:
            OverflowError: names the level, its count and its capacity.
        """
        most = self.levels.most[:, 0].tolist()
        self.levels.most.zero_()
        for level, count in zip(self.levels.levels, most, strict=True):
            if count > level.capacity:
                raise OverflowError(
                    f"{level.name} had {count} voxels, the plan has room for {level.capacity}; "
                    f"make it with a capacity at least {count / level.capacity:.2f} times as large"
                )


def _first(unit: list[Block]) -> Block:
    return unit[0]


def encoder_units(encoder: nn.Module) -> Iterator[list[Block]]:
    """Blocks in order; a residual block's two come together."""
    if len(getattr(encoder, "focal", ())):
        raise ValueError("focal stages can't be planned yet; run the network without a plan")
    yield from _blocks(encoder.stem)
    for stage in encoder.stages:
        for module in stage:
            if hasattr(module, "first") and hasattr(module, "second"):
                first, second = next(_blocks(module.first)), next(_blocks(module.second))
                second[0].relu = True  # after the sum
                yield [first[0], second[0]]
            else:
                yield from _blocks(module)
    yield from _blocks(encoder.out)


def _blocks(sequence: nn.Module) -> Iterator[list[Block]]:
    if not isinstance(sequence, SparseSequential):
        raise ValueError(f"a {type(sequence).__name__} can't be planned")
    block = None
    for module in sequence:
        if isinstance(module, (SubMConv3d, SparseConv3d)):
            if block:
                yield [block]
            block = Block(module, None, False)
        elif isinstance(module, SparseBatchNorm) and block and not block.norm and not block.relu:
            block.norm = module
        elif isinstance(module, nn.ReLU) and block:
            block.relu = True
        else:
            raise ValueError(f"a {type(module).__name__} at this place can't be planned")
    if block:
        yield [block]
