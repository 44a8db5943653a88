"""The GPU's voxelization, run on a CPU, against the CPU's own."""

import numpy as np
import pytest
import torch

from detector.geometry import VoxelGrid
from detector.ops.voxelize import voxelize
from detector.ops.voxelize.gpu import BUCKET, TOTALS
from tests.oracles.cuda_on_cpu import CpuKernels

GRID = VoxelGrid((0, -2, -2, 4, 2, 2), (0.1, 0.1, 0.5))
BATCH = 3
LAYERS = GRID.shape[0] + 1  # the bitmap has one more than the points' grid
LINE = -(-GRID.shape[2] // 32)
NAMES = ("mark_points", "count_points", "average", "list_late", "average_crowded", "first_points")


@pytest.fixture(scope="module")
def kernels(tmp_path_factory):
    return CpuKernels("voxelize/voxelize.cu", NAMES, tmp_path_factory.mktemp("voxelize"))


def scan(crowds, channels=5, seed=0):
    """Points anywhere, also outside, and crowds that share one cell each; shuffled."""
    rng = np.random.default_rng(seed)
    points = rng.uniform((-0.3, -2.2, -2.2), (4.3, 2.2, 2.2), (600, 3))
    points[::97] = np.nan
    for number, size in enumerate(crowds):
        cell = rng.uniform((0, 0, 0), (0.1, 0.1, 0.5), (size, 3))
        points = np.concatenate([points, cell + (0.1 * (3 * number + 1), 0, 0.0)])
    frames = rng.integers(0, BATCH, len(points))
    frames[600:] = 1
    more = rng.normal(size=(len(points), channels - 3))
    order = rng.permutation(len(points))
    points = np.concatenate([points, more], 1).astype(np.float32)[order]
    return torch.from_numpy(points), torch.from_numpy(frames.astype(np.int32))[order]


def run(kernels, points, frames, limit, dtype, pitch):
    """Means, counts, voxel_of_point and cells as the kernels leave them."""
    count, threads = len(points), 64
    everywhere = -(-count // threads)
    shape = (BATCH, LAYERS, GRID.shape[1], LINE)
    words = torch.zeros(shape, dtype=torch.int32).flatten()
    lines = torch.zeros(len(words) // 32 + 1, dtype=torch.uint8)
    cells = torch.full((count,), -5, dtype=torch.int64)
    zeros = torch.full((3 * count,), 9, dtype=torch.int32)
    kernels.mark_points(
        everywhere, threads, points, int(points.dtype == torch.float64), points.shape[1], frames,
        None, count, *map(float, (*GRID.minimum, *GRID.voxel_size)), *GRID.shape, BATCH, LAYERS,
        GRID.shape[1], LINE, words, lines, cells, zeros, len(zeros),
    )  # fmt: skip
    assert not zeros.any()
    bits = np.array([bin(int(word) & 0xFFFFFFFF).count("1") for word in words])
    assert set(np.flatnonzero(bits) // 32) == set(np.flatnonzero(lines))
    rank = torch.from_numpy((np.cumsum(bits) - bits).astype(np.int32))
    rows = torch.tensor([bits.sum()], dtype=torch.int32)
    room = int(rows) + 5

    def numbers(*shape):
        return torch.full(shape, -77, dtype=torch.int32)

    counts = torch.zeros(room + TOTALS, dtype=torch.int32)
    totals = counts[room:]
    voxel_of_point, buckets, late = numbers(count), numbers(room, BUCKET), numbers(count, 2)
    members, starts, crowded = numbers(count), numbers(room), numbers(room)
    means = torch.full((room, pitch), torch.nan, dtype=dtype)
    about = points, int(points.dtype == torch.float64), points.shape[1]
    kind = {torch.float32: 0, torch.float64: 1, torch.float16: 2}[dtype]
    kernels.count_points(
        everywhere, threads, cells, None, count, words, rank, room, voxel_of_point, counts,
        buckets, late, totals,
    )  # fmt: skip
    kernels.average(
        -(-room // 32), 32, *about, buckets, rows, room, limit or 0, counts, starts, crowded,
        totals, voxel_of_point, means, pitch, kind,
    )  # fmt: skip
    kernels.list_late(2, 64, late, totals, voxel_of_point, starts, members)
    kernels.average_crowded(
        2, 256, *about, buckets, starts, members, late, totals, crowded, limit or 0, counts,
        voxel_of_point, means, pitch, kind,
    )  # fmt: skip
    return means[: int(rows)], counts[: int(rows)], voxel_of_point


@pytest.mark.parametrize("limit", [None, 10, 3])
@pytest.mark.parametrize(
    ("dtype", "crowds", "channels"),
    [
        (torch.float32, (7, 8, 9, 33, 64, 200, 513), 5),
        (torch.float64, (9, 4200), 3),
        (torch.float32, (5000,), 4),
        (torch.float32, (20, 40), 11),
    ],
)
def test_the_same_bits_as_the_cpus(kernels, dtype, crowds, channels, limit):
    points, frames = scan(crowds, channels)
    points = points.to(dtype)
    expected = voxelize(points, GRID, limit, frame_of_point=frames, batch_size=BATCH)
    pitch = channels + 2
    means, counts, voxel_of_point = run(kernels, points, frames, limit, dtype, pitch)
    assert torch.equal(means[:, :channels], expected.features)
    assert not means[:, channels:].any()
    assert torch.equal(counts, expected.point_counts)
    assert torch.equal(voxel_of_point.long(), expected.voxel_of_point)


def test_means_as_float16(kernels):
    points, frames = scan((30,))
    expected = voxelize(points, GRID, frame_of_point=frames, batch_size=BATCH)
    means, _, _ = run(kernels, points, frames, None, torch.float16, 8)
    assert torch.equal(means[:, :5], expected.features.half())


def test_first_points(kernels):
    voxel_of_point = torch.tensor([3, -1, 0, 3, 0, 1], dtype=torch.int32)
    first = torch.full((4,), 6, dtype=torch.int32)
    kernels.first_points(1, 32, voxel_of_point, 6, first)
    assert first.tolist() == [2, 5, 6, 0]
