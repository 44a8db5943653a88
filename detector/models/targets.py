"""What a centre head should output: a Gaussian at each true centre, and what to regress there.

Everything is computed for the whole batch at once, without a loop over boxes and without waiting
for a GPU: sizes depend on the number of boxes alone, which the host knows.

Zhou, Wang, Krähenbühl: "Objects as Points", 2019; radius from Law, Deng: "CornerNet", ECCV 2018.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from detector.geometry import VoxelGrid
from detector.records import frame_of_rows


@dataclass(frozen=True)
class BEVGrid:
    """The cells of a head's output map. Derived from the voxel grid and a stride, once."""

    minimum: tuple[float, float]
    """Lower corner (x, y), metres."""
    cell: tuple[float, float]
    """Size (x, y) of a cell, metres."""
    shape: tuple[int, int]
    """Number of cells (Y, X)."""

    @classmethod
    def of(cls, grid: VoxelGrid, stride: int, shape: tuple[int, int]) -> BEVGrid:
        return cls(
            minimum=grid.minimum[:2],
            cell=(grid.voxel_size[0] * stride, grid.voxel_size[1] * stride),
            shape=shape,
        )

    def to_cells(self, xy: Float[Tensor, "*n 2"]) -> Float[Tensor, "*n 2"]:
        """Metres to cells; cell (0, 0) covers [0, 1) in both."""
        return torch.stack(
            [(xy[..., i] - self.minimum[i]) / self.cell[i] for i in range(2)], -1
        )

    def to_metres(self, cells: Float[Tensor, "*n 2"]) -> Float[Tensor, "*n 2"]:
        """The inverse of `to_cells`."""
        return torch.stack([cells[..., i] * self.cell[i] + self.minimum[i] for i in range(2)], -1)

    def contains(self, cells: Tensor) -> Bool[Tensor, "*n"]:
        """Whether (x, y) in cells lies on the map; NaN does not."""
        x, y = cells[..., 0], cells[..., 1]
        return (x >= 0) & (x < self.shape[1]) & (y >= 0) & (y < self.shape[0])


@dataclass(frozen=True)
class TrueBoxes:
    """The true boxes of a batch, those of its frames one after another."""

    boxes: Float[Tensor, "N 7|9"]
    labels: Int64[Tensor, " N"]
    """Class index of each; -1 for a row that doesn't count."""
    frames: Int64[Tensor, " N"]
    """Which frame of the batch each belongs to."""
    batch_size: int

    @classmethod
    def of(
        cls, boxes: Sequence[Float[Tensor, "n 7|9"]], labels: Sequence[Int64[Tensor, " n"]]
    ) -> TrueBoxes:
        """Of each frame's boxes and labels."""
        frames = frame_of_rows([len(of_frame) for of_frame in boxes])
        return cls(
            torch.cat(list(boxes)).float(), torch.cat(list(labels)),
            frames.to(boxes[0].device, non_blocking=True), len(boxes),
        )  # fmt: skip


@dataclass(frozen=True)
class CenterTargets:
    """Targets of one task for a batch; N counts the regressed cells of all frames."""

    heatmap: Float[Tensor, "B K Y X"]
    """1 at true centres, falling off as a Gaussian; the largest value wins where boxes meet."""
    cells: Int64[Tensor, " N"]
    """Index of each regressed cell in a flattened (B, Y, X) map."""
    boxes: Float[Tensor, "N 7|9"]
    """The true box to regress from each of these cells."""
    valid: Bool[Tensor, " N"]
    """False for rows that must not count: boxes outside the map or without size, and neighbour
    cells beyond the edge. They stay in place so that shapes do not depend on values."""


def gaussian_radius(
    length: Float[Tensor, " N"], width: Float[Tensor, " N"], min_overlap: float
) -> Float[Tensor, " N"]:
    """How far, in cells, both corners of an axis-aligned box may move with IoU >= `min_overlap`.

    The smallest of the three cases of the paper - one corner inside and one outside, both
    inside, both outside - each the root of a quadratic equation, solved as it stands. (Code in
    wide use divides all roots by 2 instead of 2a, which gives large objects a wider radius.)
    """
    total, area = length + width, length * width
    shifted = _smaller_root(1.0, total, area * (1 - min_overlap) / (1 + min_overlap))
    inside = _smaller_root(4.0, 2 * total, (1 - min_overlap) * area)
    outside = (
        -2 * min_overlap * total
        + (4 * (min_overlap * total) ** 2 + 16 * min_overlap * (1 - min_overlap) * area).sqrt()
    ) / (8 * min_overlap)
    return torch.stack([shifted, inside, outside]).amin(0)


def _smaller_root(a: float, b: Tensor, c: Tensor) -> Tensor:
    """Smaller solution of a r^2 - b r + c = 0."""
    return (b - (b**2 - 4 * a * c).clamp(min=0).sqrt()) / (2 * a)


def assign_centers(
    true: TrueBoxes,
    classes: Sequence[int],
    bev: BEVGrid,
    *,
    min_overlap: float = 0.1,
    min_radius: int = 2,
    max_radius: int = 16,
    neighbours: int = 0,
) -> CenterTargets:
    """Targets of the classes `classes` (indices into the config's tuple), one channel each.

    Args:
        true: boxes outside the map or without a positive size are left out, as are labels that
            are not in `classes`.
        min_overlap: see `gaussian_radius`.
        min_radius, max_radius: bounds of the Gaussian's radius, cells.
        neighbours: cells up to this far from the centre's, along x and y, regress the box as
            well; 0 is the published way, 1 learns from nine cells instead of one.
    """
    box, label, frame, device = true.boxes, true.labels, true.frames, true.boxes.device
    channel_of_class = _channel_of_class(tuple(classes), device)
    known = (label >= 0) & (label < len(channel_of_class))
    channel = channel_of_class[torch.where(known, label, 0)]

    rows, columns = bev.shape
    position = bev.to_cells(box[:, :2])                                     # (N, 2) x, y
    cell = position.floor()
    valid = known & (channel >= 0) & bev.contains(cell)
    # An unknown velocity is NaN, and only the velocity's loss leaves the box out for it.
    valid = valid & (box[:, 3:6] > 0).all(1) & box[:, :7].isfinite().all(1)
    # Rows that do not count are moved to a harmless place: cell 0, a box of one metre.
    cell = torch.where(valid[:, None], cell, 0.0).long()
    channel = torch.where(valid, channel, 0)
    harmless = torch.zeros_like(box)
    harmless[:, 3:6] = 1
    box = torch.where(valid[:, None], box, harmless)

    length, width = (box[:, 3 + i] / bev.cell[i] for i in range(2))
    radius = gaussian_radius(length, width, min_overlap).floor()
    heatmap = _draw_gaussians(
        frame, channel, cell, radius.clamp(min_radius, max_radius), valid,
        (true.batch_size, len(classes), rows, columns), max_radius,
    )  # fmt: skip

    reach = torch.arange(-neighbours, neighbours + 1, device=device)
    shift = torch.stack(torch.meshgrid(reach, reach, indexing="xy"), -1).reshape(-1, 2)
    around = cell[:, None] + shift                                          # (N, S, 2)
    on_map = bev.contains(around) & valid[:, None]
    around = torch.where(on_map[..., None], around, 0)
    flat = (frame[:, None] * rows + around[..., 1]) * columns + around[..., 0]
    return CenterTargets(
        heatmap=heatmap,
        cells=flat.reshape(-1),
        boxes=box.repeat_interleave(len(shift), 0),
        valid=on_map.reshape(-1),
    )


@functools.cache
def _channel_of_class(classes: tuple[int, ...], device: torch.device) -> Int64[Tensor, " C"]:
    """The place of each class in `classes`, -1 for those that aren't there."""
    channels = torch.full((max(max(classes), 0) + 1,), -1, dtype=torch.int64)
    channels[list(classes)] = torch.arange(len(classes))
    return channels.to(device)


def _draw_gaussians(
    frame: Tensor, channel: Tensor, cell: Tensor, radius: Tensor, valid: Tensor,
    shape: tuple[int, int, int, int], max_radius: int,
) -> Float[Tensor, "B K Y X"]:  # fmt: skip
    """All Gaussians into one map by one scatter; sigma is a sixth of the window's width."""
    _, channels, rows, columns = shape
    reach = torch.arange(-max_radius, max_radius + 1, device=cell.device)
    dx, dy = torch.meshgrid(reach, reach, indexing="xy")
    dx, dy = dx.reshape(1, -1), dy.reshape(1, -1)                           # (1, W * W)
    x, y = cell[:, :1] + dx, cell[:, 1:] + dy                               # (N, W * W)
    sigma = (2 * radius[:, None] + 1) / 6
    value = torch.exp(-(dx**2 + dy**2) / (2 * sigma**2))
    drawn = (
        (torch.maximum(dx.abs(), dy.abs()) <= radius[:, None])
        & (x >= 0) & (x < columns) & (y >= 0) & (y < rows) & valid[:, None]
    )  # fmt: skip
    # What is not drawn adds its 0 near by: at one cell for all, atomic updates would queue.
    x, y = x.clamp(0, columns - 1), y.clamp(0, rows - 1)
    flat = ((frame * channels + channel)[:, None] * rows + y) * columns + x
    heatmap = value.new_zeros(shape)
    heatmap.view(-1).scatter_reduce_(
        0, flat.reshape(-1), torch.where(drawn, value, 0.0).reshape(-1), "amax"
    )
    return heatmap
