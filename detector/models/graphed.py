"""A whole detector, points to boxes, as one CUDA graph: nothing waits, nothing is launched singly.

Buffers have a fixed capacity and counts stay on the GPU. The sparse backbone runs as planned by
`detector.sparse.planned`, the 2D parts in the same type with batch norm folded in, and
suppression on all candidates. What a graph has no room for is an OverflowError.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from itertools import pairwise
from types import SimpleNamespace

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from detector.models.backbones import SparseEncoder
from detector.models.flips import FLIPS, mean_maps
from detector.models.heads import TaskMaps
from detector.ops.boxes.gpu import kept_apart, kept_in_order
from detector.ops.cuda_runtime import THREADS, Kernel
from detector.records import Batch, Detections
from detector.sparse.planned import PlannedEncoder, PlannedVoxelizer
from detector.sparse.planned.encoder import SOURCE, numbers_of

MAP_BLOCKS = 1024


class GraphedDetector:
    """Replays a `CenterPoint` on batches of one size.

    The result equals the eager one's within the rounding of `dtype`.

    Args:
        model: in evaluation mode, on a GPU.
        batch_size: frames of a batch.
        most_points: points of a batch there is room for; None takes what so many voxels may hold.
        most_voxels: voxels of a batch there is room for; None takes the model's own limit.
        dtype: of features and weights, as `PlannedEncoder` takes it.

    Raises:
        ValueError: a model that can't be captured: one without a sparse encoder of voxels, such as
            pillars, or with layers that have no kernels in `dtype`.
    """

    def __init__(
        self, model: nn.Module, batch_size: int = 1, most_points: int | None = None,
        most_voxels: int | None = None, dtype: torch.dtype = torch.float16,
    ):  # fmt: skip
        if not isinstance(model.backbone, SparseEncoder):
            raise ValueError(
                f"a graph needs a sparse encoder of voxels, not a {type(model.backbone).__name__}"
            )
        if most_voxels is None:
            most_voxels = batch_size * (model.encoder.max_voxels[1] or 150_000)
        if most_points is None:
            most_points = max(200_000 * batch_size, 4 * most_voxels)
        self.model, self.batch_size, self.dtype = model, batch_size, dtype
        encoder = model.encoder
        self.plan = PlannedEncoder(
            model.backbone, encoder.spatial_shape, batch_size, min(most_voxels, most_points), dtype
        )
        self.device = device = self.plan.device
        self.bev = _fused(model.bev, dtype)
        self.head = _fused(model.head, dtype)
        first = self.plan.levels[0]
        self.voxelizer = PlannedVoxelizer(
            encoder.grid, first, most_points, encoder.point_channels, encoder.max_points_per_voxel
        )
        last = self.plan.out_level
        layers, rows, columns = last.bitmap.shape
        self.out_channels = self.plan.out_channels
        self.map = torch.zeros(
            batch_size, rows, columns, self.out_channels, layers, dtype=dtype, device=device
        )
        radius = model.head.keep_options["nms_radius_m"]
        self.radius_m = (
            None if radius is None
            else torch.tensor(radius, dtype=torch.float64, device=device)
        )  # fmt: skip
        self._to_map = Kernel(SOURCE, "to_map", "PPiiPiiiiP", numbers_of(dtype))
        self.graph = torch.cuda.CUDAGraph()
        stream = torch.cuda.Stream(device)
        stream.wait_stream(torch.cuda.current_stream(device))
        with torch.no_grad(), torch.cuda.stream(stream):
            for _ in range(2):  # compiles what is needed and lets cuDNN choose
                with torch.backends.cudnn.flags(enabled=True, benchmark=True):
                    self._run()
            stream.synchronize()
            with torch.cuda.graph(self.graph, stream=stream):
                self.out = self._run()

    def predict(self, batch: Batch) -> list[Detections]:
        """As `CenterPoint.predict`.

        Raises:
            ValueError: another batch size.
            OverflowError: more points or voxels than there is room for.
        """
        if batch.batch_size != self.batch_size:
            raise ValueError(
                f"the graph takes batches of {self.batch_size}, got {batch.batch_size}"
            )
        if batch.points.shape[1] != self.voxelizer.points.shape[1]:
            raise ValueError(
                f"points have {batch.points.shape[1]} columns, the graph takes "
                f"{self.voxelizer.points.shape[1]}"
            )
        self.voxelizer.load(batch.points, batch.frame_of_point if self.batch_size > 1 else None)
        self.graph.replay()
        boxes, scores, labels, numbers = self.out
        # The one wait of a batch: how many there are decides the results' sizes.
        found = numbers.tolist()
        counts, voxels = found[: self.batch_size], found[self.batch_size :]
        levels = self.plan.levels.levels
        if any(n > level.capacity for n, level in zip(voxels, levels, strict=True)):
            self.plan.check_capacity()
        boxes, scores, labels = boxes.clone(), scores.clone(), labels.clone()
        return [
            Detections(frame_id, boxes[frame, :n], scores[frame, :n], labels[frame, :n])
            for frame, (frame_id, n) in enumerate(zip(batch.frame_ids, counts, strict=True))
        ]

    def _run(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        maps, occupied = self._maps()
        if self.model.double_flip:
            seen = [(FLIPS[0], maps)]
            for before, signs in pairwise(FLIPS):
                self._mirror([a * b for a, b in zip(before, signs, strict=True)])
                seen.append((signs, self._maps()[0]))
            maps = mean_maps(seen)
        return self._kept(self.model.head.decode(maps), occupied)

    def _maps(self) -> tuple[list[TaskMaps], Tensor]:
        """The head's maps of the voxelizer's points; (B,) bool, which frames have a voxel."""
        occupied = self._voxels()
        rows = self.plan.from_rows()
        last = self.plan.out_level
        self.map.zero_()
        layers, height, width = last.bitmap.shape
        self._to_map(
            (MAP_BLOCKS,), THREADS, last.coordinates, rows, self.out_channels, rows.shape[1],
            last.count, last.capacity, layers, height, width, self.map,
            device=self.device.index,
        )  # fmt: skip
        bev = self.map.flatten(3).permute(0, 3, 1, 2)                           # (B, C * Z, Y, X)
        return self.head(self.bev(bev)), occupied

    def _mirror(self, signs: Sequence[int]) -> None:
        """Turns the points, as `detector.models.flips.flipped` does, in place: the next frame's
        overwrite them."""
        for columns in [(0, 1), *filter(None, [self.model.velocity_columns])]:
            for column, sign in zip(columns, signs, strict=True):
                if sign < 0:
                    self.voxelizer.points[:, column].neg_()

    def _voxels(self) -> Tensor:
        """Fills the plan's rows; (B,) bool, which frames have a voxel."""
        encoder, first = self.model.encoder, self.plan.levels[0]
        self.voxelizer.find()
        self.plan.begin()
        self.voxelizer.place()
        self.voxelizer.average()
        described = encoder.describe(
            SimpleNamespace(
                features=self.voxelizer.means, coordinates=first.coordinates,
                point_counts=self.voxelizer.point_counts,
            )
        )  # fmt: skip
        self.plan.rows[:, : described.shape[1]].copy_(described)
        real = torch.arange(first.capacity, device=self.device) < first.count
        frames = torch.arange(self.batch_size, device=self.device)
        return ((first.coordinates[:, 0] == frames[:, None]) & real).any(1)

    def _kept(self, found, occupied: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Boxes of each frame that remain, best first, and numbers: how many, and the plan's voxels
        of each level."""
        options = self.model.head.keep_options
        scores = torch.where(occupied[:, None], found.scores, 0.0)
        strong = (scores >= options["score_threshold"]) & (scores > 0)
        strong &= found.boxes.isfinite().all(2)
        order = torch.argsort(torch.where(strong, -scores, 1.0), dim=1, stable=True)
        keep = [
            self._survivors(boxes, labels, places, ~good[places])
            for boxes, labels, places, good in zip(
                found.boxes, found.labels, order, strong, strict=True
            )
        ]
        # The kept ones first, in their order, as many as may be.
        keep = torch.stack(keep)
        place = torch.argsort((~keep).byte(), dim=1, stable=True)[:, : options["max_detections"]]
        order = order.gather(1, place)
        columns = order[:, :, None].expand(-1, -1, found.boxes.shape[2])
        counts = keep.sum(1).clamp(max=place.shape[1])
        return (
            found.boxes.gather(1, columns), scores.gather(1, order), found.labels.gather(1, order),
            torch.cat([counts, self.plan.levels.most[:, 0]]),
        )  # fmt: skip

    def _survivors(self, boxes: Tensor, labels: Tensor, order: Tensor, skip: Tensor) -> Tensor:
        if self.radius_m is not None:
            return kept_apart(boxes, order, self.radius_m[labels], labels, skip)
        iou = self.model.head.keep_options["nms_iou"]
        return kept_in_order(boxes[:, :7], order, iou, labels, skip)


def _fused(module: nn.Module, dtype: torch.dtype) -> nn.Module:
    """A copy with batch norms folded into the 2D convolutions before them, in `dtype`."""
    made = copy.deepcopy(module).eval()
    for parent in list(made.modules()):
        if not isinstance(parent, nn.Sequential):
            continue
        for place in range(len(parent) - 1):
            conv, norm = parent[place], parent[place + 1]
            if isinstance(conv, (nn.Conv2d, nn.ConvTranspose2d)) and isinstance(
                norm, nn.BatchNorm2d
            ):
                turned = isinstance(conv, nn.ConvTranspose2d)
                parent[place] = fuse_conv_bn_eval(conv, norm, transpose=turned)
                parent[place + 1] = nn.Identity()
    return made.to(dtype).to(memory_format=torch.channels_last)
