"""What the sparse benchmark reckons and prints; nothing here is timed."""

import pytest
import torch
from torch import nn

from detector.benchmarks.floors import dense_floor_ms, encoder_floor_ms, product_floor_ms
from detector.benchmarks.report import comparison
from detector.benchmarks.rows import Row
from detector.benchmarks.timing import Ceilings, Time
from detector.ops.occupancy import Occupancy
from detector.sparse import SparseSequential, SparseTensor, SubMConv3d

HALF = torch.float16
LINE = torch.tensor([[0, 0, 0, x] for x in range(4)], dtype=torch.int32)


def test_the_best_of_ours_stands_beside_the_best_peer():
    def row(engine, ms, **more):
        return Row("forward", "kitti", engine, Time(ms, ms, ms) if ms else None, **more)

    (line,) = comparison([
        row("native", 3.0), row("native, one graph", 2.0, floor_ms=0.5, mebibytes=7.0),
        row("slow", 9.0, mebibytes=30.0), row("fast", 5.0, mebibytes=40.0), row("broken", None),
    ]).splitlines()  # fmt: skip
    words = line.split()
    assert words[:2] == ["kitti", "forward"]
    assert words[2:7] == ["2.000", "5.000", "2.50", "x", "fast"]
    assert "4.0 floors" in line
    assert "7 MiB (least peer 30)" in line


def test_figures_without_peers_and_without_ours():
    ours, theirs = Row("a", "kitti", "native", Time(1, 1, 1)), Row("b", "kitti", "x", Time(1, 1, 1))
    assert comparison([ours, theirs]).split() == ["kitti", "a", "1.000"]


def test_a_products_floor_is_the_larger_of_bytes_and_operations():
    kernel_map = Occupancy.of_any(LINE, (1, 1, 4), 1).neighbours((1, 1, 3))  # 4 + 2 * 3 pairs
    weight = torch.zeros(1, 1, 3, 8, 16)
    moved, work = 2 * (4 * 8 + 4 * 16 + 3 * 8 * 16), 2 * 10 * 8 * 16
    bound_by_bytes = product_floor_ms(kernel_map, weight, HALF, Ceilings(10.0, {HALF: 1e9}))
    assert bound_by_bytes == pytest.approx(moved / 10)
    bound_by_work = product_floor_ms(kernel_map, weight, HALF, Ceilings(1e9, {HALF: 100.0}))
    assert bound_by_work == pytest.approx(work / 100)


def test_an_encoders_floor_adds_its_layers_and_coordinates():
    x = SparseTensor(torch.zeros(4, 8), LINE, (1, 1, 4), 1)
    layers = SparseSequential(SubMConv3d(8, 16, (1, 1, 3)), SubMConv3d(16, 8, (1, 1, 3)))
    ceilings = Ceilings(1.0, {HALF: 1e9})
    each = 2 * (4 * 8 + 4 * 16 + 3 * 8 * 16)
    assert encoder_floor_ms(layers, x, HALF, ceilings) == pytest.approx(4 * 4 * 4 + 2 * each)


def test_a_dense_floor_counts_every_output_of_a_convolution_and_every_input_of_a_transposed_one():
    ceilings, x = Ceilings(1e12, {HALF: 1.0}), torch.zeros(2, 3, 6, 6)
    assert dense_floor_ms(nn.Conv2d(3, 5, 3, 2, 1), x, HALF, ceilings) == 2 * 5 * 3 * 9 * 2 * 9
    assert dense_floor_ms(nn.ConvTranspose2d(3, 5, 2, 2), x, HALF, ceilings) == (
        2 * 5 * 3 * 4 * 2 * 36
    )
