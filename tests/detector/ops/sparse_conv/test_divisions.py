import math

import pytest
import torch

from detector.ops.sparse_conv import tensor_cores
from detector.ops.sparse_conv.divisions import MEASURED, SHARED, Division, Ring, measured, usual


@pytest.fixture
def hopper(monkeypatch):
    monkeypatch.setattr(tensor_cores, "shared_memory_limit", lambda device: 227 << 10)
    monkeypatch.setattr(tensor_cores, "multiprocessors", lambda device: 132)
    monkeypatch.setattr(tensor_cores, "_is_hopper", lambda device: True)
    for function in (tensor_cores._tile, tensor_cores.convolution):
        function.cache_clear()
    yield
    for function in (tensor_cores._tile, tensor_cores.convolution):
        function.cache_clear()


@pytest.mark.parametrize("shape", MEASURED, ids=str)
def test_lines_follow_one_another_and_are_a_hopper_gpus_tiles(hopper, shape):
    words, out_channels, tile = shape
    limits = [line[0] for line in MEASURED[shape]]
    assert limits == sorted(set(limits)) and limits[-1] == math.inf
    assert tile in {tensor_cores._tile(words, out_channels, offsets, 0) for offsets in (3, 27)}


@pytest.mark.parametrize("shape", SHARED, ids=str)
def test_teams_have_a_tile_at_most_where_plans_expect_few_rows(hopper, shape):
    """With half as many rows again as are expected, on a GPU of 132 multiprocessors."""
    words, out_channels, tile = shape
    limits = [limit for limit, _ in SHARED[shape]]
    assert limits == sorted(set(limits)) and tensor_cores._tile(words, out_channels, 27, 0) == tile
    for limit, division in SHARED[shape]:
        teams = 132 // (out_channels // tile) * (division.warps // division.split)
        assert division.warps % division.split == 0 and not division.dealt
        assert 1.5 * limit <= teams * division.tile_rows
        kernels = tensor_cores.convolution(torch.half, words, out_channels, 27, 0, tile, division)
        assert kernels.convolve.shared_bytes <= 227 << 10


def test_plans_alone_share_tiles(hopper, monkeypatch):
    found = [
        tensor_cores.best_convolution(torch.half, 64, 64, offsets, 0, rows, sharing=sharing)
        for offsets, rows, sharing in ((27, 3000, True), (27, 3000, False), (27, 90_000, True))
    ]
    assert [kernels.division.split for kernels in found] == [3, 1, 1]
    assert found[0].convolve.path == tensor_cores.CONV_SPLIT
    few_offsets = tensor_cores.best_convolution(torch.half, 64, 128, 3, 0, 3000, sharing=True)
    assert few_offsets.division.split == 1
    monkeypatch.setattr(tensor_cores, "multiprocessors", lambda device: 16)  # a smaller GPU
    smaller = tensor_cores.best_convolution(torch.half, 64, 64, 27, 0, 3000, sharing=True)
    assert smaller.division.split == 1


def test_rows_and_order_choose_a_line():
    lines = MEASURED[64, 64, 64]
    assert measured(64, 64, 64, 18_564, False) == lines[0][1]
    assert measured(64, 64, 64, 18_564, True) == lines[0][1]
    assert measured(64, 64, 64, 117_011, True) == lines[-1][-1]
    assert measured(64, 64, 64, 78_391, False) != measured(64, 64, 64, 78_391, True)
    assert measured(64, 64, 32, 78_391, True) is None  # of a GPU with less shared memory


def test_best_convolutions_are_those_of_the_table(hopper):
    found = tensor_cores.best_convolution(torch.half, 128, 128, 27, 0, 64_000)
    assert found.division == Ring() and found.tile == 128 and found.threads == 384
    assert found.convolve.path == tensor_cores.CONV_SM90
    found = tensor_cores.best_convolution(torch.half, 64, 64, 27, 0, 18_564)
    assert found.division == Division(16, 12, depth=3) and found.threads == 32 * 12
    assert found.convolve.defines["NB"] == 2 and found.convolve.defines["DEPTH"] == 3
    wide = tensor_cores.best_convolution(torch.float32, 32, 64, 27, 0, 18_564)
    assert wide.division == usual(64, 64, 64, 18_564, False, True)


def test_other_gpus_have_no_ring(hopper, monkeypatch):
    monkeypatch.setattr(tensor_cores, "_is_hopper", lambda device: False)
    found = tensor_cores.best_convolution(torch.half, 128, 128, 27, 0, 64_000)
    assert isinstance(found.division, Division) and found.tile == 32
    assert found.convolve.path == tensor_cores.CONV


@pytest.mark.parametrize("division", {
    division for lines in [*MEASURED.values(), *SHARED.values()] for _, *divisions in lines
    for division in divisions
}, ids=str)  # fmt: skip
def test_divisions_fit_a_multiprocessor(division):
    resident = division.resident if isinstance(division, Division) else 1
    assert division.depth >= 2 and resident * division.warps * 32 <= 1024
    assert division.tile_rows in ((16, 32, 64) if isinstance(division, Division) else (128, 192))
