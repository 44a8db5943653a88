"""Detectors: the parts composed. `loss(batch)` gives named losses, `predict(batch)` detections."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from detector.geometry import VoxelGrid
from detector.models.flips import FLIPS, check_symmetric, flipped, mean_maps
from detector.models.heads import TaskMaps
from detector.models.losses import focal_importance_loss
from detector.models.targets import TrueBoxes
from detector.records import Batch, Detections
from detector.sparse import SparseTensor


class CenterPoint(nn.Module):
    """Voxels, a sparse 3D backbone, a 2D backbone and a centre head.

    The four parts are given as factories - a class, or one with some arguments already set - and
    are called with what follows from the parts before them, so that no size is written twice.

    Args:
        classes: names of the classes, in the order of their labels.
        grid: the voxel grid.
        encoder: called with (grid, point_channels).
        backbone: called with (in_channels, spatial_shape).
        bev: called with (in_channels).
        head: called with (in_channels, classes, grid, stride, shape).
        point_channels: columns of the points.
        importance_weight: factor of the focal stages' loss.
        norm_momentum: of all batch norms' running statistics, which prediction uses; a short
            training needs a larger one, so that they keep up with the weights.
        double_flip: predict from four mirror images of each frame, at four times the cost; the
            grid must be symmetric.
        velocity_columns: of points that have velocities (radar), their columns along x and y,
            which mirror along.

    Raises:
        ValueError: `double_flip` with a grid that is not symmetric.
    """

    def __init__(
        self,
        classes: Sequence[str],
        grid: VoxelGrid,
        encoder: Callable[..., nn.Module],
        backbone: Callable[..., nn.Module],
        bev: Callable[..., nn.Module],
        head: Callable[..., nn.Module],
        *,
        point_channels: int = 4,
        importance_weight: float = 1.0,
        norm_momentum: float = 0.01,
        double_flip: bool = False,
        velocity_columns: tuple[int, int] | None = None,
    ):
        super().__init__()
        self.classes = tuple(classes)
        self.grid = grid
        self.importance_weight = importance_weight
        self.encoder = encoder(grid, point_channels)
        self.backbone = backbone(self.encoder.out_channels, self.encoder.spatial_shape)
        self.bev = bev(self.backbone.out_channels)
        stride = self.backbone.stride * self.bev.out_stride
        self.double_flip, self.velocity_columns = double_flip, velocity_columns
        if double_flip:
            check_symmetric(grid, stride)
        shape = tuple(-(-cells // self.bev.out_stride) for cells in self.backbone.bev_shape)
        self.head = head(self.bev.out_channels, self.classes, grid, stride, shape)
        for part in (self.bev, self.head):
            part.to(memory_format=torch.channels_last)
        for module in self.modules():
            if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)):
                module.momentum = norm_momentum

    def loss(
        self, batch: Batch, dense_loss: Callable[..., dict[str, Tensor]] | None = None
    ) -> dict[str, Float[Tensor, ""]]:
        """Named terms that training adds up: the head's and, with focal stages, `importance`.

        Args:
            dense_loss: what computes `self.dense_loss`, if not that itself.
        """
        features = self.backbone(self.encoder(batch))
        true = TrueBoxes.of(batch.boxes, batch.labels)
        terms = (dense_loss or self.dense_loss)(features.bev, true, batch.labelled)
        if features.importances:
            terms["importance"] = self.importance_weight * sum(
                focal_importance_loss(importance, batch.boxes, self.grid, batch.labelled)
                for importance in features.importances
            )
        return terms

    def dense_loss(
        self, bev: Float[Tensor, "B C Y X"], true: TrueBoxes,
        labelled: Bool[Tensor, "B K"] | None = None,
    ) -> dict[str, Float[Tensor, ""]]:  # fmt: skip
        """The head's terms, from the backbone's map on: shapes don't depend on the points."""
        return self.head.loss(self.head(self.bev(bev)), true, labelled)

    @torch.no_grad()
    def predict(self, batch: Batch) -> list[Detections]:
        """What is found in each frame, best score first; nothing in one without a voxel."""
        voxels = self.encoder(batch)
        occupied = torch.zeros(batch.batch_size, dtype=torch.bool, device=batch.points.device)
        occupied.index_fill_(0, voxels.coordinates[:, 0].long(), True)
        maps = self._maps(voxels)
        if self.double_flip:
            seen = [(FLIPS[0], maps)]
            for signs in FLIPS[1:]:
                mirrored = flipped(batch, signs, self.velocity_columns)
                seen.append((signs, self._maps(self.encoder(mirrored))))
            maps = mean_maps(seen)
        return self.head.predict(maps, batch.frame_ids, occupied)

    def _maps(self, voxels: SparseTensor) -> list[TaskMaps]:
        return self.head(self.bev(self.backbone(voxels).bev))

    def points_in_range(self, points: Float[np.ndarray, "P C"]) -> int:
        """How many points lie in the detector's grid."""
        return int((self.grid.coordinates(torch.from_numpy(points))[:, 0] >= 0).sum())
