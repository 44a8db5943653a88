import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from detector.ops.occupancy import Occupancy, reference
from detector.ops.occupancy.bitmap import BitmapIndex
from detector.ops.occupancy.sorted_keys import SortedKeyIndex
from tests.oracles.sparse_scenes import GRIDS, random_coordinates

KINDS = {"bitmap": None, "sorted keys": 0}
"""Name -> byte budget that brings it about."""

CONVOLUTIONS = [
    # kernel, stride, padding, dilation
    ((3, 3, 3), (2, 2, 2), (1, 1, 1), (1, 1, 1)),
    ((3, 3, 3), (2, 2, 2), (0, 1, 1), (1, 1, 1)),
    ((3, 1, 1), (2, 1, 1), (0, 0, 0), (1, 1, 1)),
    ((2, 2, 2), (2, 2, 2), (0, 0, 0), (1, 1, 1)),
    ((1, 2, 3), (1, 3, 2), (0, 1, 2), (1, 2, 2)),
    ((4, 5, 4), (3, 2, 1), (2, 2, 3), (1, 1, 2)),
    ((1, 1, 1), (2, 2, 2), (0, 0, 0), (1, 1, 1)),
]


@pytest.fixture(params=list(KINDS))
def byte_budget(request):
    return KINDS[request.param]


def convolved(shape, kernel_size, stride, padding, dilation):
    return tuple(
        (n + 2 * p - d * (k - 1) - 1) // s + 1
        for n, k, s, p, d in zip(shape, kernel_size, stride, padding, dilation, strict=True)
    )


def test_the_budget_chooses_the_kind():
    coordinates = torch.zeros(1, 4, dtype=torch.int32)
    kinds = {budget: Occupancy.of_any(coordinates, (4, 4, 4), 1, byte_budget=budget)._index
             for budget in (191, 192)}  # 16 lines of one word  # fmt: skip
    assert isinstance(kinds[191], SortedKeyIndex)
    assert isinstance(kinds[192], BitmapIndex)


def test_a_grid_of_more_cells_than_memory_still_works():
    shape = (1 << 20, 1 << 20, 1 << 20)
    cells = torch.tensor([[1, 5, 5, 5], [0, 0, 0, 0], [1, 5, 5, 6], [0, (1 << 20) - 1, 3, 2]])
    occupancy = Occupancy.of_any(cells.int(), shape, 2)
    assert occupancy.rows(cells).tolist() == [2, 0, 3, 1]
    assert occupancy.neighbours(3).table[14].tolist() == [-1, -1, 3, -1]  # the next cell along x


def test_a_grid_of_more_cells_than_int64_holds_is_refused():
    with pytest.raises(ValueError, match="64-bit"):
        Occupancy.of_any(torch.zeros(0, 4, dtype=torch.int32), (1 << 21,) * 3, 1)


@pytest.mark.parametrize("shape", GRIDS)
def test_rows_are_positions_in_sorted_order_and_minus_one_elsewhere(shape, byte_budget):
    cells = random_coordinates(shape, 3, 0.3, seed=1)
    shuffled = cells[torch.randperm(len(cells))].repeat(2, 1)
    occupancy = Occupancy.of_any(shuffled, shape, 3, byte_budget=byte_budget)
    assert torch.equal(occupancy.coordinates, cells)
    everything = list(itertools.product(range(-1, 4), *(range(-1, n + 1) for n in shape)))
    row_of = {tuple(cell): row for row, cell in enumerate(cells.tolist())}
    expected = [row_of.get(cell, -1) for cell in everything]
    assert occupancy.rows(torch.tensor(everything)).tolist() == expected


def test_rows_with_a_negative_frame_do_not_count(byte_budget):
    cells = torch.tensor([[-1, -1, -1, -1], [0, 1, 1, 1]], dtype=torch.int32)
    occupancy = Occupancy.of_any(cells, (2, 2, 2), 1, byte_budget=byte_budget)
    assert occupancy.coordinates.tolist() == [[0, 1, 1, 1]]
    assert occupancy.rows(cells).tolist() == [-1, 0]


@pytest.mark.parametrize("shape", GRIDS)
@pytest.mark.parametrize(
    ("kernel_size", "dilation"),
    [((3, 3, 3), (1, 1, 1)), ((1, 3, 5), (1, 2, 3)), ((2, 4, 1), (1, 1, 1))],
)
def test_neighbours_equal_the_reference(shape, kernel_size, dilation, byte_budget):
    cells = random_coordinates(shape, 2, 0.3, seed=2)
    occupancy = Occupancy.of_sorted(cells, shape, 2, byte_budget=byte_budget)
    kernel_map = occupancy.neighbours(kernel_size, dilation)
    padding = tuple(d * (k // 2) for k, d in zip(kernel_size, dilation, strict=True))
    expected = reference.table(
        cells.numpy(), cells.numpy(), kernel_size, (1, 1, 1), padding, dilation
    )
    np.testing.assert_array_equal(kernel_map.table.numpy(), expected)


@pytest.mark.parametrize("shape", GRIDS)
@pytest.mark.parametrize("sizes", CONVOLUTIONS)
def test_downsampling_equals_the_reference(shape, sizes, byte_budget):
    cells = random_coordinates(shape, 2, 0.2, seed=3)
    occupancy = Occupancy.of_sorted(cells, shape, 2, byte_budget=byte_budget)
    out_shape = convolved(shape, *sizes)
    if min(out_shape) < 1:
        with pytest.raises(ValueError, match="no output cell"):
            occupancy.downsample(*sizes)
        return
    coarse, kernel_map = occupancy.downsample(*sizes)
    expected = reference.windows(cells.numpy(), out_shape, *sizes)
    assert coarse.spatial_shape == out_shape
    np.testing.assert_array_equal(coarse.coordinates.numpy(), expected)
    np.testing.assert_array_equal(
        kernel_map.table.numpy(), reference.table(cells.numpy(), expected, *sizes)
    )


@pytest.mark.parametrize("empty_frames", [(0,), (1,), (2,), (0, 1, 2)])
def test_empty_frames_stay_in_the_batch(empty_frames, byte_budget):
    cells = random_coordinates((4, 5, 6), 3, 0.3, 4, empty_frames)
    occupancy = Occupancy.of_sorted(cells, (4, 5, 6), 3, byte_budget=byte_budget)
    coarse, kernel_map = occupancy.downsample(3, 2, 1)
    assert coarse.batch_size == 3
    assert coarse.spatial_shape == (2, 3, 3)
    assert set(coarse.coordinates[:, 0].tolist()) == set(range(3)) - set(empty_frames)
    assert kernel_map.table.shape == (27, len(coarse))
    assert occupancy.neighbours(3).table.shape == (27, len(cells))


def test_union_adds_cells_once(byte_budget):
    cells = random_coordinates((3, 4, 70), 2, 0.2, seed=5)
    more = random_coordinates((3, 4, 70), 2, 0.2, seed=6)
    occupancy = Occupancy.of_sorted(cells, (3, 4, 70), 2, byte_budget=byte_budget)
    both = occupancy.union(torch.cat([more, more, torch.full((1, 4), -1, dtype=torch.int32)]))
    expected = sorted({tuple(cell) for cell in torch.cat([cells, more]).tolist()})
    assert both.coordinates.tolist() == [list(cell) for cell in expected]
    assert torch.equal(occupancy.coordinates, cells)


def test_maps_are_made_once_and_shared():
    occupancy = Occupancy.of_sorted(random_coordinates((4, 4, 4), 1, 0.5, 7), (4, 4, 4), 1)
    assert occupancy.neighbours(3) is occupancy.neighbours((3, 3, 3), 1)
    assert occupancy.neighbours(3) is not occupancy.neighbours(3, 2)
    assert occupancy.downsample(3, 2, 1)[0] is occupancy.downsample((3, 3, 3), 2, (1, 1, 1))[0]
    assert occupancy.downsample(3, 2, 1)[0] is not occupancy.downsample(3, 2, 0)[0]


def test_the_transposed_map_undoes_the_map():
    occupancy = Occupancy.of_sorted(random_coordinates((5, 6, 7), 2, 0.4, 8), (5, 6, 7), 2)
    for kernel_map in (occupancy.neighbours(3), occupancy.neighbours((2, 3, 1)),
                       occupancy.downsample(3, 2, 1)[1]):  # fmt: skip
        transposed = kernel_map.transposed()
        assert transposed.table.shape == (len(kernel_map.table), kernel_map.rows_in)
        pairs = {(k, o, i) for k, row in enumerate(kernel_map.table.tolist())
                 for o, i in enumerate(row) if i >= 0}  # fmt: skip
        swapped = {(k, o, i) for k, row in enumerate(transposed.table.tolist())
                   for i, o in enumerate(row) if o >= 0}  # fmt: skip
        if kernel_map.mirrored:
            last = len(kernel_map.table) - 1
            swapped_as_table = {(k, o, i) for k, row in enumerate(kernel_map.table.tolist())
                                for o, i in enumerate(row) if i >= 0}  # fmt: skip
            assert {(last - k, i, o) for k, o, i in swapped_as_table} == pairs
        assert swapped == pairs


@settings(max_examples=30, deadline=None)
@given(
    shape=st.tuples(st.integers(1, 4), st.integers(1, 5), st.integers(1, 140)),
    sizes=st.tuples(*(st.tuples(*[st.integers(low, high)] * 3)
                      for low, high in ((1, 5), (1, 3), (0, 2), (1, 2)))),
    seed=st.integers(0, 1000),
)  # fmt: skip
def test_both_kinds_agree_on_any_convolution(shape, sizes, seed):
    if min(convolved(shape, *sizes)) < 1:
        return
    cells = random_coordinates(shape, 2, 0.1, seed, corners=bool(seed % 2))
    results = []
    for budget in KINDS.values():
        occupancy = Occupancy.of_any(cells, shape, 2, byte_budget=budget)
        coarse, kernel_map = occupancy.downsample(*sizes)
        neighbours = occupancy.neighbours(sizes[0], sizes[3])
        results.append((coarse.coordinates, kernel_map.table, neighbours.table))
    for one, other in zip(*results, strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("kernel_size", [(3, 3, 3), (1, 3, 5), (5, 1, 1)])
def test_dilation_adds_the_chosen_neighbours_inside_the_grid(kernel_size, byte_budget):
    shape = (3, 4, 70)
    cells = random_coordinates(shape, 2, 0.05, seed=9)
    occupancy = Occupancy.of_sorted(cells, shape, 2, byte_budget=byte_budget)
    offsets = list(itertools.product(*(range(-(k // 2), k // 2 + 1) for k in kernel_size)))
    chosen = torch.rand(len(cells), len(offsets)) < 0.3
    expected = {tuple(cell) for cell in cells.tolist()}
    for (b, *cell), of_cell in zip(cells.tolist(), chosen.tolist(), strict=True):
        for offset, wanted in zip(offsets, of_cell, strict=True):
            moved = [c + o for c, o in zip(cell, offset, strict=True)]
            if wanted and all(0 <= m < n for m, n in zip(moved, shape, strict=True)):
                expected.add((b, *moved))
    dilated = occupancy.dilate(chosen, kernel_size)
    assert dilated.coordinates.tolist() == [list(cell) for cell in sorted(expected)]
    with pytest.raises(ValueError, match="chosen must be"):
        occupancy.dilate(chosen[:, 1:], kernel_size)
