"""The GPU's index and tables, run on a CPU, against the CPU's own."""

import numpy as np
import pytest
import torch

from detector.ops.occupancy import Occupancy
from detector.ops.occupancy.gpu_bitmap import divisor
from detector.ops.occupancy.shapes import convolved_shape
from tests.oracles.cuda_on_cpu import CpuKernels
from tests.oracles.sparse_scenes import random_coordinates

SPAN, SPANS_PER_BLOCK = 1024, 4
STEP = ((3, 3, 3), (2, 2, 2), (1, 1, 1), (1, 1, 1))


@pytest.fixture(scope="module")
def index(tmp_path_factory):
    names = ("mark", "scan", "emit", "mark_windows", "clear")
    return CpuKernels("occupancy/index.cu", names, tmp_path_factory.mktemp("index"))


@pytest.fixture(scope="module")
def known_windows(tmp_path_factory):
    names = [f"{kind}{axis}" for kind in "KSD" for axis in "ZYX"]
    sizes = STEP[0] + STEP[1] + STEP[3]
    folder = tmp_path_factory.mktemp("windows")
    defines = dict(zip(names, sizes, strict=True))
    return CpuKernels("occupancy/index.cu", ("mark_windows",), folder, defines)


@pytest.fixture(scope="module")
def any_tables(tmp_path_factory):
    return CpuKernels("occupancy/tables.cu", ("fill_table",), tmp_path_factory.mktemp("any"))


@pytest.fixture(scope="module", params=["by row", "in order", "both"])
def tables(request, tmp_path_factory):
    """Kernels for 3 x 3 x 3 offsets by dilation; threads of a block, in order a window; forms."""
    threads = 128 if request.param == "by row" else 64
    defines = dict(KZ=3, KY=3, KX=3, THREADS=threads)
    if request.param != "by row":
        defines["WINDOW"] = threads
    names = ("fill_table", "fill_scanned")
    kernels = {
        dx: CpuKernels(
            "occupancy/tables.cu", names, tmp_path_factory.mktemp("tables"), dict(defines, DX=dx)
        )
        for dx in (1, 2)
    }
    return kernels, threads, request.param


def blocks(items, threads):
    return -(-items // threads)


@pytest.mark.parametrize("by", [1, 2, 3, 7, 41, 45, 1440, 65_535, 65_536, 65_537, (1 << 31) - 1])
def test_divisors_divide(by):
    times, shift = divisor(by)
    around = [n + by * m for m in (0, 1, 2, 1000, (1 << 31) // by - 1) for n in (-1, 0, 1)]
    for n in [*around, (1 << 31) - 1, (1 << 30) + 12_345]:
        if 0 <= n < 1 << 31:
            assert n // by == (n if shift < 0 else n * times >> 32 >> shift)


class Grid:
    """The memory of one bitmap."""

    def __init__(self, shape, batch_size, most):
        self.shape, self.batch_size = shape, batch_size
        self.line = -(-shape[2] // 32)
        words = batch_size * shape[0] * shape[1] * self.line
        self.spans = blocks(words, SPAN)
        self.words = torch.zeros(self.spans * SPAN, dtype=torch.int32)
        self.lines = torch.zeros(self.spans * 32, dtype=torch.uint8)
        self.state = torch.zeros(blocks(self.spans, SPANS_PER_BLOCK), dtype=torch.int64)
        self.rank = torch.full_like(self.words, -7)
        self.listed = torch.full((max(1, min(most, words)),), -9, dtype=torch.int32)
        self.tile_words = torch.full((blocks(most, 32),), -9, dtype=torch.int32)
        self.totals = torch.full((2,), -3, dtype=torch.int32)

    def scan(self, index, coordinates):
        index.scan(
            blocks(self.spans, SPANS_PER_BLOCK), 256, self.words, self.lines, self.spans,
            self.state, self.rank, self.listed, len(self.listed), self.tile_words,
            len(self.tile_words), self.totals,
        )  # fmt: skip
        most = min(len(self.listed), len(coordinates))
        index.emit(
            blocks(most, 256), 256, self.words, self.rank, self.listed, self.totals[1:], most,
            coordinates, len(coordinates), *self.shape[:2], self.line,
        )  # fmt: skip


def marked(index, coordinates, shape, batch_size):
    grid = Grid(shape, batch_size, len(coordinates))
    facts = torch.zeros(2, dtype=torch.int32)
    index.mark(
        blocks(len(coordinates), 256), 256, coordinates, None, len(coordinates), grid.words,
        grid.lines, batch_size, *shape, grid.line, facts, facts[1:],
    )  # fmt: skip
    return grid, facts


@pytest.mark.parametrize(("shape", "density"), [
    ((2, 30, 70), 0.3), ((3, 40, 200), 0.01), ((1, 3, 31), 1.0), ((2, 70, 500), 0.9),
])  # fmt: skip
@pytest.mark.parametrize("known", [False, True])
def test_rows_windows_and_clearing(index, known_windows, shape, density, known):
    marking = known_windows if known else index
    coordinates = random_coordinates(shape, 2, density, 0)
    shuffled = coordinates[torch.randperm(len(coordinates))].contiguous()
    true = Occupancy.of_any(coordinates, shape, 2)
    grid, facts = marked(index, shuffled, shape, 2)
    found = torch.full((len(true) + 3, 4), -5, dtype=torch.int32)
    grid.scan(index, found)
    used = torch.nonzero(grid.words)[:, 0].int()
    assert facts.tolist() == [0, 1]
    assert grid.totals.tolist() == [len(true), len(used)]
    assert torch.equal(found[: len(true)], true.coordinates)
    assert (found[len(true) :] == -5).all()
    assert torch.equal(grid.listed[: len(used)], used)
    coarse_shape = convolved_shape(shape, *STEP)
    coarse = Grid(coarse_shape, 2, 8 * len(true))
    marking.mark_windows(
        blocks(3 * len(grid.listed), 128), 128, grid.words, grid.listed, grid.totals[1:],
        len(grid.listed), *shape[:2], grid.line, coarse.words, coarse.lines, *coarse_shape,
        coarse.line, *sum(STEP, ()),
    )  # fmt: skip
    below = true.downsample(*STEP)[0]
    found = torch.full((len(below), 4), -5, dtype=torch.int32)
    coarse.scan(index, found)
    assert int(coarse.totals[0]) == len(below)
    assert torch.equal(found, below.coordinates)
    index.clear(
        blocks(grid.spans * 32, 256), 256, grid.words, grid.lines, grid.spans, grid.state,
        len(grid.state),
    )  # fmt: skip
    assert not grid.words.any()
    assert not grid.lines.any()
    assert not grid.state.any()


class Forms:
    """Room for a table by row, in order or both, as the kernels take it."""

    def __init__(self, rows, forms):
        self.rows, self.pitch = rows, blocks(rows, 32) * 32
        self.plain = self._empty() if forms != "in order" else (None, None)
        self.ordered = self._empty() if forms != "by row" else (None, None)
        self.order = torch.full((rows,), -5, dtype=torch.int32) if forms != "by row" else None

    def _empty(self):
        masks = torch.zeros(self.pitch // 32, 1, dtype=torch.int32)
        return torch.full((27, self.pitch), -5, dtype=torch.int32), masks

    @property
    def arguments(self):
        (table, masks), (ordered, ordered_masks) = self.plain, self.ordered
        return table, self.pitch, masks, 1, ordered, self.pitch, ordered_masks, self.order

    def check(self, expected, window):
        if self.plain[0] is not None:
            self._check(*self.plain, expected)
        if self.order is not None:
            for start in range(0, self.rows, window):
                some = self.order[start : start + window]
                assert some.sort().values.tolist() == list(range(start, start + len(some)))
            self._check(*self.ordered, expected[:, self.order.long()])

    def _check(self, table, masks, expected):
        assert torch.equal(table[:, : self.rows], expected)
        seen = torch.nn.functional.pad(expected >= 0, (0, self.pitch - self.rows))
        bits = (seen.view(27, -1, 32).any(2).numpy() * (1 << np.arange(27))[:, None]).sum(0)
        assert np.array_equal(masks[:, 0].numpy(), bits)


@pytest.mark.parametrize("dilation", [1, 2])
@pytest.mark.parametrize(("shape", "density"), [((3, 9, 70), 0.3), ((2, 5, 31), 1.0)])
def test_tables(index, tables, any_tables, shape, density, dilation):
    coordinates = random_coordinates(shape, 2, density, 1)
    true = Occupancy.of_any(coordinates, shape, 2)
    rows = len(true)
    grid, _ = marked(index, coordinates, shape, 2)
    grid.scan(index, torch.empty(rows, 4, dtype=torch.int32))
    ones, apart = (1, 1, 1), (dilation,) * 3
    about = (
        true.coordinates, grid.totals, rows, grid.words, grid.rank, *shape, grid.line, 3, 3, 3,
        *ones, *apart, *apart, 1 << 30,
    )  # fmt: skip
    expected = true.neighbours(3, dilation).table
    kernels, threads, kind = tables
    forms = Forms(rows, kind)
    kernels[dilation].fill_table(blocks(rows, threads), threads, *about, *forms.arguments)
    forms.check(expected, threads)
    forms = Forms(rows, "by row")
    any_tables.fill_table(blocks(rows, 128), 128, *about, *forms.arguments[:4])
    forms.check(expected, 0)


@pytest.mark.parametrize(("shape", "density", "room"), [
    ((3, 9, 70), 0.3, 1000), ((2, 5, 31), 1.0, 1000), ((3, 40, 200), 0.01, 1000),
    ((2, 5, 90), 0.5, 333),
])  # fmt: skip
def test_a_table_and_the_coordinates_of_what_was_scanned(index, tables, shape, density, room):
    kernels, threads, kind = tables
    coordinates = random_coordinates(shape, 2, density, 1)
    true = Occupancy.of_any(coordinates, shape, 2)
    room = min(room, len(true))
    grid, _ = marked(index, coordinates, shape, 2)
    grid.listed, grid.tile_words = grid.listed[:room], grid.tile_words[: blocks(room, 32)]
    grid.scan(index, torch.empty(0, 4, dtype=torch.int32))
    found = torch.full((room + 1, 4), -5, dtype=torch.int32)
    forms, ones = Forms(room, kind), (1, 1, 1)
    sizes = *shape[:2], grid.line
    kernels[1].fill_scanned(
        blocks(room, threads), threads, grid.words, grid.rank, grid.listed, len(grid.listed),
        grid.tile_words, grid.totals, *sizes,
        *(number for size in sizes for number in divisor(size)), found, room, grid.words,
        grid.rank, *shape, grid.line, *ones, *ones, *ones, room, *forms.arguments,
    )  # fmt: skip
    assert torch.equal(found[:room], true.coordinates[:room])
    assert (found[room:] == -5).all()
    expected = true.neighbours(3).table[:, :room]
    forms.check(expected.masked_fill(expected >= room, -1), threads)


@pytest.mark.parametrize("columns", [1, 63, 64, 65, 300])
@pytest.mark.parametrize("offsets", [27, 32])
def test_ordered_columns_are_the_same_columns_with_fewer_offsets_a_tile(
    tmp_path, columns, offsets
):
    kernels = CpuKernels(
        "occupancy/order.cu", ("order_table",), tmp_path, dict(OFFSETS=offsets, WINDOW=64)
    )
    generator = torch.Generator().manual_seed(columns)
    # A few patterns of neighbours, one of them with every offset, in any order.
    patterns = torch.rand(5, offsets, generator=generator) < 0.25
    patterns[0] = True
    seen = patterns[torch.randint(5, (columns,), generator=generator)].T
    rows = torch.randint(1 << 30, (offsets, columns), generator=generator)
    pitch = blocks(columns, 32) * 32
    table = torch.full((offsets, pitch), -5, dtype=torch.int32)
    table[:, :columns] = torch.where(seen, rows, -1)
    out = torch.full_like(table, -7)
    masks = torch.zeros(pitch // 32, 1, dtype=torch.int32)
    order = torch.full((columns,), -7, dtype=torch.int32)
    count = torch.tensor([columns], dtype=torch.int32)
    kernels.order_table(
        blocks(columns, 64), 64, table, pitch, count, columns, out, pitch, masks, order
    )
    for start in range(0, columns, 64):
        window = order[start : start + 64]
        assert window.sort().values.tolist() == list(range(start, start + len(window)))
    assert torch.equal(out[:, :columns], table[:, order.long()])
    assert (out[:, columns:] == -7).all()
    tiles = torch.nn.functional.pad(out[:, :columns] >= 0, (0, pitch - columns))
    tiles = tiles.view(offsets, -1, 32).any(2)
    assert [int(mask) & 0xFFFFFFFF for mask in masks] == [
        sum(1 << k for k in range(offsets) if tiles[k, tile]) for tile in range(pitch // 32)
    ]
    before = torch.nn.functional.pad(seen, (0, pitch - columns)).view(offsets, -1, 32).any(2)
    assert tiles.sum() <= before.sum()
    if columns == 300:
        assert tiles.sum() < 0.95 * before.sum()


@pytest.mark.parametrize("columns", [1, 64, 96, 1000])
def test_tiles_with_most_offsets_come_first(tmp_path, columns):
    kernels = CpuKernels(
        "occupancy/order.cu", ("list_tiles",), tmp_path, dict(OFFSETS=27, WINDOW=64)
    )
    generator = torch.Generator().manual_seed(columns)
    parts = blocks(columns, 32)
    masks = torch.randint(1 << 27, (parts + 2,), generator=generator).int()
    masks &= torch.randint(1 << 27, (parts + 2,), generator=generator).int()
    listed = torch.full((blocks(columns, 64),), -7, dtype=torch.int32)
    kernels.list_tiles(1, 1024, masks, torch.tensor([columns]).int(), columns + 50, listed)
    assert listed.sort().values.tolist() == list(range(len(listed)))
    both = masks[:parts].tolist() + [0]
    offsets = [(both[2 * tile] | both[2 * tile + 1]).bit_count() for tile in listed.tolist()]
    assert offsets == sorted(offsets, reverse=True)
