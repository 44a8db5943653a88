"""A sparse backbone of stages, planned: `detector.models.backbones.SparseEncoder` without waiting.

Two kinds of work overlap: the indices of later levels are made beside the convolutions of earlier
ones. A focal stage adds voxels to its level, so that the indices after it start from its choice.
"""

from __future__ import annotations

import math
from pathlib import Path

import torch
from torch import Tensor, nn

from detector.ops.cuda_runtime import THREADS, Kernel, blocks
from detector.ops.occupancy.shapes import ONE, Triple, convolved_shape
from detector.sparse.conv import SparseConv3d, SubMConv3d
from detector.sparse.focal import FocalConv3d
from detector.sparse.planned.convolution import After, PlannedConvolution
from detector.sparse.planned.focal import PlannedFocal
from detector.sparse.planned.levels import Level, Levels, Step, make_table
from detector.sparse.planned.network import Block, encoder_units

SOURCE = Path(__file__).with_name("planned.cu")
ROOM = (1.0, 2.0, 1.25, 0.6, 0.5)
"""Voxels of each stage's grid there is room for, as shares of the first level's: the first halving
of a LiDAR scan's grid keeps their number, the later ones halve it or more."""
ADDED, MORE_BELOW = 2.0, 1.5
"""Voxels that a focal stage may add, as share of its stage's, and how many times the usual ones
there is room for after it."""
EXPECTED = 0.6
"""Share of a capacity that is usually taken; only the choice of kernels depends on it."""

Layer = PlannedConvolution | PlannedFocal


def numbers_of(dtype: torch.dtype) -> dict[str, int]:
    """Macros of `planned.cu` for numbers of this type."""
    return dict(BF16=int(dtype == torch.bfloat16), FLOAT32=int(dtype == torch.float32))


class PlannedEncoder:
    """Runs an encoder from voxels in any order; nothing waits.

    Its levels are the first grid, for each strided convolution the one that comes out, and for each
    focal stage one of the voxels that it adds.

    Args:
        encoder: in evaluation mode, on a GPU.
        spatial_shape: cells (Z, Y, X) of the grid that comes in.
        capacity: voxels of a batch there is room for.
        dtype: of features, float16 or bfloat16; float32, multiplied as TF32, where torch is set
            to that and there are no focal stages.
        room: voxels of each level there is room for, as shares of `capacity`; None takes usual
            ones.

    Raises:
        ValueError: modules that can't be planned.
    """

    def __init__(
        self, encoder: nn.Module, spatial_shape: Triple, batch_size: int, capacity: int,
        dtype: torch.dtype = torch.float16, room: tuple[float, ...] | None = None,
    ):  # fmt: skip
        if encoder.training:
            raise ValueError("a plan is made of a network in evaluation mode; call .eval() first")
        self.encoder, self.dtype = encoder, dtype
        self.device = next(encoder.parameters()).device
        units = list(encoder_units(encoder))
        shapes, names, shares = [spatial_shape], [f"level 0 {spatial_shape}"], [ROOM[0]]
        stage, grown, grow = 0, 1.0, []
        for conv in (unit[0].conv for unit in units):
            if isinstance(conv, SparseConv3d):
                stage += 1
                shapes.append(
                    convolved_shape(
                        shapes[-1], conv.kernel_size, conv.stride, conv.padding, conv.dilation
                    )
                )
                names.append(f"level {stage} {shapes[-1]}")
                shares.append(ROOM[min(stage, len(ROOM) - 1)] * grown)
            elif isinstance(conv, FocalConv3d):
                grow.append(len(shapes) - 1)
                shapes.append(shapes[-1])
                names.append(f"the focal stage of level {stage} {shapes[-1]}")
                shares.append(shares[-1] * ADDED)
                grown = MORE_BELOW
        if room is not None:
            shares = [*room, *[room[-1]] * len(shapes)][: len(shapes)]
        capacities = [
            min(-(-int(capacity * share) // 64) * 64, batch_size * math.prod(shape))
            for share, shape in zip(shares, shapes, strict=True)
        ]
        self.levels = Levels(shapes, capacities, batch_size, self.device, names)
        for number in grow:
            self.levels[number].added = self.levels[number + 1].capacity
        self.steps: list[Step | PlannedFocal] = []
        """What makes each level but the first; a focal stage makes two."""
        self.layers: list[tuple[int, list[Layer]]] = []
        """In order, with the level that each is on; a residual block's two come together."""
        columns = 0  # of the rows that the next layer gets
        for unit, following in zip(units, [*units[1:], None], strict=True):
            made = self._planned(unit, following, columns)
            columns = made[-1].out_channels
            self.layers.append((len(self.steps), made))
        self.in_channels = self.layers[0][1][0].in_channels
        first = self.levels[0]
        self.rows = torch.zeros(
            first.capacity, self.in_channels, dtype=dtype, device=self.device
        )
        # Indices go first where both could run: convolutions wait for them.
        self._index = torch.cuda.Stream(self.device, priority=-1)
        self._tables = torch.cuda.Stream(self.device, priority=-1)
        defines = numbers_of(dtype)
        self._place_rows = Kernel(SOURCE, "place_rows", "PPiPiPPiiiiPi", defines)
        self._remember = Kernel(SOURCE, "remember", "PPi", defines)

    @property
    def out_level(self) -> Level:
        """Where the result's voxels are."""
        return self.levels[len(self.steps)]

    @property
    def out_channels(self) -> int:
        """Channels of the result; its rows may be wider."""
        return self.layers[-1][1][-1].channels

    @property
    def focal(self) -> list[PlannedFocal]:
        """The focal stages, in order."""
        return [
            layers[0] for _, layers in self.layers if isinstance(layers[0], PlannedFocal)
        ]

    def _planned(
        self, unit: list[Block], following: list[Block] | None, columns: int
    ) -> list[Layer]:
        number, conv = len(self.steps), unit[0].conv
        before = self.steps[-1] if self.steps else None
        here = self.levels[number]
        if isinstance(conv, SubMConv3d):
            made = []
            for block in unit:
                table = here.submanifold(block.conv.kernel_size)
                made.append(self._convolution(block, here, table, columns))
                columns = made[-1].out_channels
            return made
        if isinstance(conv, FocalConv3d):
            after = following[0].conv if following else None
            if not isinstance(after, SparseConv3d) or after.dilation != ONE:
                raise ValueError(
                    "a planned focal stage needs a strided convolution without dilation after it"
                )
            levels = here, self.levels[number + 1], self.levels[number + 2]
            focal = PlannedFocal(
                unit[0], after, *levels, self.dtype, columns=columns,
                expected_rows=tuple(int(EXPECTED * level.capacity) for level in levels[:2]),
            )  # fmt: skip
            self.steps.append(focal)
            return [focal]
        after = self.levels[number + 1]
        if isinstance(before, PlannedFocal) and before.below is after:
            self.steps.append(before)
            return [self._convolution(unit[0], after, before.below_table, columns)]
        table = make_table(after, conv.kernel_size, conv.dilation)
        self.steps.append(Step(here, after, table, conv.stride, conv.padding, conv.dilation))
        return [self._convolution(unit[0], after, table, columns)]

    def _convolution(self, block: Block, sites: Level, table, columns: int) -> PlannedConvolution:
        return PlannedConvolution(
            block.conv.weight.detach(), block.conv.bias, block.norm, sites, table, self.dtype,
            columns=columns, relu=block.relu, expected_rows=int(EXPECTED * sites.capacity),
        )  # fmt: skip

    def from_voxels(self, coordinates: Tensor, features: Tensor, count: Tensor) -> Tensor:
        """Rows of the last level, of the first `count` voxels (in any order, distinct).

        Args:
            coordinates: (N, 4) int32, b < 0 where there is none.
            features: (N, C) float32.
            count: (1,) int32 on the GPU.
        """
        first = self.levels[0]
        first.bitmap.mark(coordinates, count)
        first.bitmap.scan()
        self.begin()
        self._place_rows(
            (blocks(len(coordinates)),), THREADS, coordinates, features, features.shape[1],
            count, len(coordinates), first.bitmap.words, first.bitmap.rank,
            *first.bitmap.shape[:2], first.bitmap.line_words, first.capacity, self.rows,
            self.in_channels, device=self.device.index,
        )  # fmt: skip
        return self.from_rows()

    def begin(self) -> None:
        """Starts what needs the first level's index alone, once it is scanned. Before
        `from_rows`."""
        main = torch.cuda.current_stream()
        self._tables.wait_stream(main)
        with torch.cuda.stream(self._tables):
            self.levels[0].fill_submanifold(first=True)
        # What comes next would slow down this table, which the first convolution waits for.
        self._index.wait_stream(self._tables)
        # For each level: when its voxels and the table of how they are reached are there, and
        # when the table of its neighbours is.
        self._reached: dict[int, torch.cuda.Event] = {}
        self._mapped: dict[int, torch.cuda.Event] = {}
        self._index_after(0, self._reached, self._mapped)

    def from_rows(self) -> Tensor:
        """The same from `self.rows`."""
        main = torch.cuda.current_stream()
        placed = main.record_event()
        main.wait_stream(self._tables)
        reached, mapped = self._reached, self._mapped
        x = self.rows
        after: After = "table"
        for level, layers in self.layers:
            focal = isinstance(layers[0], PlannedFocal)
            for events in (reached, mapped):
                if level - focal in events:
                    main.wait_event(events.pop(level - focal))
                    after = "table"
                    if not focal:  # the first layer of a level needs no more
                        break
            if focal:
                x = self._run_focal(layers[0], level, x, after, reached, mapped)
            elif len(layers) == 1:
                x = layers[0](x, after=after)
            else:
                x = layers[1](layers[0](x, after=after), residual=x)
            after = "features"
        self._finish(main, placed)
        return x

    def _index_after(self, level: int, reached: dict, mapped: dict) -> None:
        """Makes the levels after this one, up to those that a choice decides on."""
        with torch.cuda.stream(self._index):
            for number in range(level, len(self.steps)):
                step = self.steps[number]
                if isinstance(step, PlannedFocal):
                    step.keep()
                    return
                step.mark()
                step.coarser.bitmap.scan()
                step.fill()
                reached[number + 1] = self._index.record_event()
                step.coarser.fill_submanifold()
                mapped[number + 1] = self._index.record_event()

    def _run_focal(
        self, focal: PlannedFocal, level: int, x: Tensor, after: After, reached: dict,
        mapped: dict,
    ) -> Tensor:  # fmt: skip
        """While its features are gated and convolved, the voxels that it adds and the levels after
        it are made."""
        main, index, tables = torch.cuda.current_stream(), self._index, self._tables
        main.wait_stream(index)  # what the stage keeps
        focal.choose(x, after)
        tables.wait_stream(main)
        focal.mark()
        index.wait_stream(main)
        focal.number()
        numbered = main.record_event()
        with torch.cuda.stream(tables):
            focal.gate(x)
        with torch.cuda.stream(index):
            focal.below.bitmap.scan()
            scanned = index.record_event()
            index.wait_event(numbered)
            focal.fill_below()
            reached[level + 1] = index.record_event()
            focal.below.fill_submanifold()
            mapped[level + 1] = index.record_event()
        self._index_after(level + 1, reached, mapped)
        main.wait_stream(tables)
        # A convolution's blocks take whole multiprocessors until it ends: what the next level's
        # index still needs goes first.
        main.wait_event(scanned)
        return focal.convolve(x)

    def _finish(self, main: torch.cuda.Stream, placed: torch.cuda.Event) -> None:
        """Remembers the counts and clears all bits once nothing reads them."""
        index = self._index
        with torch.cuda.stream(index):
            self._remember(
                (1,), 32, self.levels.totals, self.levels.most, self.levels.totals.numel(),
                device=self.device.index,
            )  # fmt: skip
        # Rows were placed by the bits, and tables made of them on three streams.
        index.wait_event(placed)
        index.wait_stream(self._tables)
        with torch.cuda.stream(index):
            self.levels.clear()
            for focal in self.focal:
                focal.forget()
        main.wait_stream(index)

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
