"""A thousand random scenes on the GPU: index, maps and voxels against the CPU's, which share no
code with them, and products against float64 through the CPU's maps."""

import numpy as np
import pytest
import torch

from detector.geometry import VoxelGrid
from detector.ops.occupancy import KernelMap, Occupancy
from detector.ops.sparse_conv import gathered, sparse_conv
from detector.ops.voxelize import voxelize
from tests.oracles.sparse_scenes import random_coordinates

pytestmark = pytest.mark.gpu

SCENES = 1000
# The sizes of which there are kernels, so that a run compiles few.
KERNELS = [(1, 1, 1), (3, 3, 3), (3, 1, 1), (2, 2, 2), (1, 3, 5)]
CHANNELS = [(4, 16), (7, 16), (16, 16), (16, 32), (32, 27), (32, 64), (64, 64), (64, 128)]
TOLERANCE = {torch.float16: 1e-3, torch.float64: 1e-12}


def same_map(found: KernelMap, true: KernelMap):
    assert torch.equal(found.table.cpu(), true.table)
    return found


def close(found, true, dtype):
    error = (found.double() - true).norm() / true.norm().clamp(min=1e-30)
    assert error < TOLERANCE[dtype]


def check_products(rng, seed, kernel_map: KernelMap, true: KernelMap):
    dtype = torch.float16 if rng.random() < 0.9 else torch.float64
    c_in, c_out = CHANNELS[rng.integers(len(CHANNELS))]
    generator = torch.Generator("cuda").manual_seed(seed)

    def random(*shape):
        made = torch.randn(*shape, generator=generator, device="cuda", dtype=torch.float64)
        return made.to(dtype)

    x = random(true.rows_in, c_in).requires_grad_()
    weight = (random(*true.kernel_size, c_in, c_out) / 16).requires_grad_()
    gradient = random(true.rows_out, c_out)
    out = sparse_conv(x, weight, kernel_map)
    out.backward(gradient)
    x64, w64 = x.detach().double(), weight.detach().double().flatten(0, 2)
    table, back, gradient = true.table.cuda(), true.transposed().table.cuda(), gradient.double()
    close(out.detach(), gathered.convolve(x64, w64, table), dtype)
    close(x.grad, gathered.convolve(gradient, w64.transpose(1, 2), back), dtype)
    close(weight.grad.flatten(0, 2), gathered.weight_gradient(x64, gradient, table), dtype)


def check_voxels(rng, shape):
    z, y, x = shape
    grid = VoxelGrid((0, 0, 0, x / 4, y / 4, z / 4), (0.25, 0.25, 0.25))
    count, limit = int(rng.integers(0, 3000)), [None, 1, 3][rng.integers(3)]
    points = rng.uniform(-0.5, [x / 4 + 0.5, y / 4 + 0.5, z / 4 + 0.5, 1], (count, 4))
    points = torch.from_numpy(points.astype(np.float32))
    found, true = voxelize(points.cuda(), grid, limit), voxelize(points, grid, limit)
    assert torch.equal(found.coordinates.cpu(), true.coordinates)
    assert torch.equal(found.features.cpu(), true.features)


@pytest.mark.parametrize("first", range(0, SCENES, SCENES // 10))
def test_random_scenes(first):
    for seed in range(first, first + SCENES // 10):
        rng = np.random.default_rng(seed)
        shape = tuple(int(n) for n in rng.integers(1, (9, 25, 100)))
        batch_size, density = int(rng.integers(1, 4)), 10 ** rng.uniform(-3, -0.5)
        coordinates = random_coordinates(shape, batch_size, density, seed, corners=seed % 3 == 0)
        true = Occupancy.of_any(coordinates, shape, batch_size)
        mixed = coordinates[torch.from_numpy(rng.permutation(len(coordinates)))]
        found = Occupancy.of_any(mixed.cuda(), shape, batch_size)
        assert torch.equal(found.coordinates.cpu(), true.coordinates), seed
        kernel = KERNELS[rng.integers(len(KERNELS))]
        dilation = int(rng.integers(1, 3))
        near = same_map(found.neighbours(kernel, dilation), true.neighbours(kernel, dilation))
        stride = tuple(int(n) for n in rng.integers(1, 4, 3))
        padding = tuple(int(rng.integers(0, k)) for k in kernel)
        if all(n + 2 * p >= k for n, p, k in zip(shape, padding, kernel, strict=True)):
            coarse, down = found.downsample(kernel, stride, padding)
            true_coarse, true_down = true.downsample(kernel, stride, padding)
            assert torch.equal(coarse.coordinates.cpu(), true_coarse.coordinates), seed
            same_map(down, true_down)
            check_products(rng, seed, down, true_down)
        check_products(rng, seed, near, true.neighbours(kernel, dilation))
        odd = tuple(k + 1 - k % 2 for k in kernel)
        chosen = torch.from_numpy(rng.random((len(true), int(np.prod(odd)))) < 0.2)
        grown = found.dilate(chosen.cuda(), odd)
        assert torch.equal(grown.coordinates.cpu(), true.dilate(chosen, odd).coordinates), seed
        check_voxels(rng, shape)
