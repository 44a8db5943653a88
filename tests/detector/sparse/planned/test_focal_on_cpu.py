"""The kernels of a planned focal convolution, run on a CPU, against the module's own choice."""

import ctypes
import itertools
import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from detector.ops.occupancy.gpu_bitmap import divisor
from detector.ops.occupancy.shapes import convolved_shape
from detector.sparse import FocalConv3d, SparseModule, SparseTensor
from detector.sparse.focal import _kernel_gate
from detector.sparse.planned.focal import rows_of_block
from tests.oracles.cuda_on_cpu import CpuKernels
from tests.oracles.plans_on_cpu import SOURCES
from tests.oracles.sparse_scenes import random_coordinates

SHAPE, BATCH = (5, 9, 70), 3
# A focal kernel with the strided convolution that follows: kernel, stride, padding.
KERNELS = {
    (3, 3, 3): ((3, 3, 3), (2, 2, 2), (1, 1, 1)),
    (5, 5, 3): ((3, 1, 1), (2, 1, 1), (0, 0, 0)),
}
CASES = [
    ((3, 3, 3), True, 0.5, "different"), ((3, 3, 3), True, 0.37, "equal"),
    ((3, 3, 3), True, 0.5, "nan"), ((3, 3, 3), True, 1.0, "equal"), ((3, 3, 3), True, 0.0, "equal"),
    ((3, 3, 3), False, 0.5, "equal"), ((5, 5, 3), True, 0.37, "equal"),
    ((5, 5, 3), False, 0.6, "different"),
]  # fmt: skip


class Given(SparseModule):
    def __init__(self, logits):
        super().__init__()
        self.logits = logits

    def forward(self, x):
        return x.replace(self.logits)


def blocks(items, each):
    return max(1, -(-items // each))


def bitmap(cells, shape):
    """Words and ranks of cells, by NumPy."""
    line = -(-shape[2] // 32)
    bits = np.zeros((BATCH, *shape[:2], line * 32), np.uint8)
    bits[tuple(np.asarray(cells).T)] = 1
    bits = bits.reshape(-1, 32)
    words = np.packbits(bits, axis=1, bitorder="little").view(np.int32).reshape(-1)
    counts = bits.sum(1)
    return torch.from_numpy(words.copy()), torch.from_numpy((counts.cumsum() - counts).astype("i4"))


def cells_of(words, shape):
    line = -(-shape[2] // 32)
    bits = np.unpackbits(words.numpy().view(np.uint8), bitorder="little")
    bits = bits.reshape(BATCH, *shape[:2], line * 32)
    assert not bits[..., shape[2] :].any()
    return np.argwhere(bits[..., : shape[2]]).astype(np.int32)


def check_table(grown_table, tiles, sites, cells, kernel):
    """The table of sites for what they see of cells, and the masks of 32."""
    row_of = {tuple(cell): row for row, cell in enumerate(cells.tolist())}
    apart = list(itertools.product(*(range(-(size // 2), size // 2 + 1) for size in kernel)))
    rows = torch.tensor([
        [row_of.get((b, z + dz, y + dy, x + dx), -1) for b, z, y, x in sites.tolist()]
        for dz, dy, dx in apart
    ], dtype=torch.int32)  # fmt: skip
    assert torch.equal(grown_table[:, : len(sites)], rows)
    assert (grown_table[:, len(sites) :] == -5).all()
    masks = masks_of(rows >= 0)
    assert torch.equal(tiles[: len(masks)], masks)


def masks_of(seen):
    """Which offsets each 32 columns see anything through, in words of 32."""
    masks = torch.zeros(blocks(seen.shape[1], 32), blocks(len(seen), 32), dtype=torch.int32)
    for tile, part in enumerate(seen.split(32, 1)):
        for offset in torch.nonzero(part.any(1))[:, 0].tolist():
            bit = 1 << offset % 32
            masks[tile, offset // 32] |= bit - (bit >> 31 << 32)
    return masks


@pytest.mark.parametrize(("kernel", "top_k", "threshold", "values"), CASES)
def test_choice_growth_tables_and_gates(tmp_path, kernel, top_k, threshold, values):
    offsets, pitch = math.prod(kernel), 32 if kernel == (3, 3, 3) else 128
    size, stride, padding = KERNELS[kernel]
    defines = dict(
        zip(("KZ", "KY", "KX", "NZ", "NY", "NX"), (*kernel, *size), strict=True), PITCH=pitch,
        TOP_K=int(top_k), BF16=0, ROWS=rows_of_block(kernel),
    )  # fmt: skip
    kernels = SimpleNamespace()
    for file in ("foreground.cu", "choice.cu", "grown.cu"):
        compiled = CpuKernels(f"../sparse/planned/{file}", SOURCES[file], tmp_path, defines)
        vars(kernels).update({name: getattr(compiled, name) for name in SOURCES[file]})
    coordinates = random_coordinates(SHAPE, BATCH, 0.05, 1, (1,) if values == "equal" else ())
    rows = len(coordinates)
    capacity = blocks(rows + 70, 64) * 64
    generator = torch.Generator().manual_seed(2)
    logits = torch.randn(capacity, pitch, generator=generator)
    if values != "different":
        logits = (logits * 2).round() / 2
    if values == "nan":
        logits[::97, offsets - 1] = math.nan
    logits = logits.half()
    mine = logits[:rows, :offsets].float()
    x = SparseTensor(torch.zeros(rows, 16), coordinates, SHAPE, BATCH)
    layer = FocalConv3d(16, 16, kernel, top_k=top_k, threshold=threshold)
    layer.importance = Given(mine)
    grown, _ = layer(x)

    cells = torch.full((capacity, 4), 7, dtype=torch.int32)
    cells[:rows] = coordinates
    count = torch.tensor([rows], dtype=torch.int32)
    keys = torch.zeros(capacity, dtype=torch.int16)
    counts, cuts = torch.zeros(BATCH, 256, dtype=torch.int32), torch.zeros(BATCH, 2).int()
    given = logits, cells, count, capacity
    if top_k:
        kernels.list_keys(blocks(capacity, 256), 256, *given, keys, counts)
        kernels.find_cuts(BATCH, 1024, keys, counts, ctypes.c_double(threshold), cuts)

    line = -(-SHAPE[2] // 32)
    old, old_rank = bitmap(coordinates, SHAPE)
    added, added_rank = torch.zeros_like(old), torch.full_like(old, -7)
    lines = torch.zeros(blocks(len(old), 32), dtype=torch.uint8)
    most = 30 * rows
    listed, totals = torch.zeros(most, dtype=torch.int32), torch.zeros(2, dtype=torch.int32)
    more = torch.full((most, 4), -1, dtype=torch.int32)
    below, true = grown.occupancy.downsample(size, stride, padding)
    assert below.spatial_shape == convolved_shape(SHAPE, size, stride, padding, (1, 1, 1))
    below_line = -(-below.spatial_shape[2] // 32)
    # Old voxels have marked their part below before, and have their part of the table.
    marked_before, _ = bitmap(
        x.occupancy.downsample(size, stride, padding)[0].coordinates, below.spatial_shape
    )
    marked = marked_before.clone()
    marked_lines = torch.zeros(blocks(len(marked), 32), dtype=torch.uint8)
    columns = blocks(rows + most, 32) * 32
    grown_table = torch.full((offsets, columns), -5, dtype=torch.int32)
    kernel_map = x.occupancy.neighbours(kernel)
    grown_table[:, :rows] = kernel_map.table
    tiles = torch.full((columns // 32, blocks(offsets, 32)), -1, dtype=torch.int32)
    old_tiles = blocks(rows, 32)
    tiles[:old_tiles] = masks_of(kernel_map.table >= 0)[:old_tiles]
    grown_count = torch.full((1,), -3, dtype=torch.int32)
    looking = blocks(capacity, rows_of_block(kernel))
    kernels.mark_chosen(
        looking, 256, *given, cuts, threshold, old, added, lines, listed, most, totals, *SHAPE,
        line, marked, marked_lines, *below.spatial_shape, below_line, *stride,
        *padding, grown_count, tiles, tiles.shape[1], tiles.numel(),
    )  # fmt: skip
    assert int(grown_count) == rows
    assert not tiles[old_tiles:].any()
    assert torch.equal(
        torch.from_numpy(cells_of(marked, below.spatial_shape)), below.coordinates
    )
    for number in range(len(marked_lines)):
        part = slice(32 * number, 32 * number + 32)
        first = (marked_before[part] == 0) & (marked[part] != 0)
        assert bool(marked_lines[number]) == bool(first.any())
    for number, words in enumerate(added.view(-1).split(32)):
        assert bool(lines[number]) == bool(words.any())
    kernels.number_added(
        blocks(int(totals[1]), 32), 128, added, added_rank, listed, most, totals, more, most, old,
        old_rank, count, capacity, *SHAPE, line, grown_count, rows + most, grown_table, columns,
        tiles, tiles.shape[1],
    )  # fmt: skip
    new = cells_of(added, SHAPE)
    assert int(totals[0]) == len(new)
    assert sorted(map(tuple, more[: len(new)].tolist())) == list(map(tuple, new.tolist()))
    assert int(grown_count) == rows + len(new)
    sites = torch.cat([coordinates, more[: len(new)]])
    check_table(grown_table, tiles, sites, coordinates, kernel)
    union = sorted(map(tuple, [*coordinates.tolist(), *new.tolist()]))
    assert union == list(map(tuple, grown.coordinates.tolist()))

    room = len(below) + 40
    sites = torch.full((room, 4), 3, dtype=torch.int32)
    site_words, site_rank = bitmap(below.coordinates, below.spatial_shape)
    held = torch.nonzero(site_words)[:, 0].int()
    first_rows = torch.arange(0, len(below), 32, dtype=torch.int32)
    tile_words = torch.searchsorted(site_rank[held.long()], first_rows, right=True).int() - 1
    columns = blocks(room, 32) * 32
    table = torch.full((math.prod(size), columns), -99, dtype=torch.int32)
    masks = torch.zeros(columns // 32, 1, dtype=torch.int32)
    sizes = *below.spatial_shape[:2], -(-below.spatial_shape[2] // 32)
    kernels.fill_grown(
        blocks(room, 128), 128, site_words, site_rank, held, len(held),
        torch.nn.functional.pad(tile_words, (0, 3)), torch.tensor([len(below), len(held)]).int(),
        *sizes, *(number for length in sizes for number in divisor(length)), sites, room, old,
        old_rank, capacity, added, added_rank, rows + most, *SHAPE, line, *stride, *padding, table,
        columns, masks, 1,
    )  # fmt: skip
    assert torch.equal(sites[: len(below)], below.coordinates)
    assert (sites[len(below) :] == 3).all()
    found, there = table[:, : len(below)], true.table >= 0
    assert torch.equal(found >= 0, there)
    place = torch.cat([coordinates, more])
    assert torch.equal(
        place[found[there].long()], grown.coordinates[true.table[there].long()]
    )
    for tile, part in enumerate(there.split(32, 1)):
        assert int(masks[tile, 0]) == sum(1 << k for k, seen in enumerate(part.any(1)) if seen)

    foreground = layer._foreground(mine[:, -1], x.occupancy)
    chosen = foreground[:, None] & (mine[:, :-1].sigmoid() >= threshold)
    by_neighbours = _kernel_gate(mine[:, :-1].sigmoid(), chosen, foreground, kernel_map)
    seen = torch.full((offsets, capacity), -1, dtype=torch.int32)
    seen[:, :rows] = kernel_map.table
    features = torch.randn(capacity, 16, generator=generator).half()
    for neighbours, own in ((1, 0), (0, 1), (1, 1)):
        gated = features.clone()
        kernels.gate(
            looking, 256, *given, cuts, threshold, seen, capacity, neighbours, own, gated, 16,
        )  # fmt: skip
        factor = (by_neighbours if neighbours else 1) * (mine[:, -1].sigmoid() if own else 1)
        expected = features[:rows].float() * factor[:, None]
        torch.testing.assert_close(
            gated[:rows].float(), expected, rtol=1e-3, atol=1e-4, equal_nan=True
        )
        assert torch.equal(gated[rows:], features[rows:])
