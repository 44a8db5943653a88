"""The GPU's index and tables, run on a CPU, against the CPU's own."""

import math

import numpy as np
import pytest
import torch

from detector.ops.occupancy import Occupancy
from detector.ops.occupancy.shapes import convolved_shape
from tests.oracles.cuda_on_cpu import CpuKernels
from tests.oracles.sparse_scenes import random_coordinates

SPAN = 1024
STEP = ((3, 3, 3), (2, 2, 2), (1, 1, 1), (1, 1, 1))


@pytest.fixture(scope="module")
def index(tmp_path_factory):
    names = ("mark", "scan", "emit", "mark_windows", "clear")
    return CpuKernels("occupancy/index.cu", names, tmp_path_factory.mktemp("index"))


@pytest.fixture(scope="module", params=[None, (3, 3, 3)])
def tables(request, tmp_path_factory):
    defines = dict(zip(("KZ", "KY", "KX"), request.param, strict=True)) if request.param else {}
    folder = tmp_path_factory.mktemp("tables")
    return CpuKernels("occupancy/tables.cu", ("fill_table",), folder, defines)


def blocks(items, threads):
    return -(-items // threads)


class Grid:
    """The memory of one bitmap."""

    def __init__(self, shape, batch_size, most):
        self.shape, self.batch_size = shape, batch_size
        self.line = -(-shape[2] // 32)
        words = batch_size * shape[0] * shape[1] * self.line
        self.spans = blocks(words, SPAN)
        self.words = torch.zeros(self.spans * SPAN, dtype=torch.int32)
        self.summary = torch.zeros(self.spans, dtype=torch.int32)
        self.state = torch.zeros(blocks(self.spans, 2), dtype=torch.int64)
        self.rank = torch.full_like(self.words, -7)
        self.listed = torch.full((max(1, min(most, words)),), -9, dtype=torch.int32)
        self.totals = torch.full((2,), -3, dtype=torch.int32)

    def scan(self, index, coordinates):
        index.scan(
            blocks(self.spans, 2), 256, self.words, self.summary, self.spans, self.state, self.rank,
            self.listed, len(self.listed), self.totals,
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
        grid.summary, batch_size, *shape, grid.line, facts, facts[1:],
    )  # fmt: skip
    return grid, facts


@pytest.mark.parametrize(("shape", "density"), [
    ((2, 30, 70), 0.3), ((3, 40, 200), 0.01), ((1, 3, 31), 1.0), ((2, 70, 500), 0.9),
])  # fmt: skip
def test_rows_windows_and_clearing(index, shape, density):
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
    index.mark_windows(
        blocks(len(grid.listed), 128), 128, grid.words, grid.listed, grid.totals[1:],
        len(grid.listed), *shape[:2], grid.line, coarse.words, coarse.summary, *coarse_shape,
        coarse.line, *sum(STEP, ()),
    )  # fmt: skip
    below = true.downsample(*STEP)[0]
    found = torch.full((len(below), 4), -5, dtype=torch.int32)
    coarse.scan(index, found)
    assert int(coarse.totals[0]) == len(below)
    assert torch.equal(found, below.coordinates)
    index.clear(
        blocks(grid.spans * 32, 256), 256, grid.words, grid.summary, grid.spans, grid.state,
        len(grid.state),
    )  # fmt: skip
    assert not grid.words.any()
    assert not grid.summary.any()
    assert not grid.state.any()


@pytest.mark.parametrize("dilation", [1, 2])
@pytest.mark.parametrize(("shape", "density"), [((3, 9, 70), 0.3), ((2, 5, 31), 1.0)])
def test_tables(index, tables, shape, density, dilation):
    coordinates = random_coordinates(shape, 2, density, 1)
    true = Occupancy.of_any(coordinates, shape, 2)
    rows = len(true)
    grid, _ = marked(index, coordinates, shape, 2)
    grid.scan(index, torch.empty(rows, 4, dtype=torch.int32))
    pitch = blocks(rows, 32) * 32
    table = torch.full((27, pitch), -5, dtype=torch.int32)
    masks = torch.zeros(pitch // 32, 1, dtype=torch.int32)
    size, ones, apart = (3, 3, 3), (1, 1, 1), (dilation,) * 3
    tables.fill_table(
        blocks(rows, 128), 128, true.coordinates, grid.totals, rows, grid.words, grid.rank, *shape,
        grid.line, *size, *ones, *apart, *apart, 1 << 30, table, pitch, masks, 1,
    )  # fmt: skip
    expected = true.neighbours(3, dilation).table
    assert torch.equal(table[:, :rows], expected)
    seen = torch.nn.functional.pad(expected >= 0, (0, pitch - rows)).view(27, -1, 32).any(2)
    bits = (seen.numpy() * (1 << np.arange(27))[:, None]).sum(0)
    assert np.array_equal(masks[:, 0].numpy(), bits)
    assert math.prod(size) == len(table)
