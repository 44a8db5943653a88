"""The centre head: a heatmap for each class and, at its peaks, what the box is.

Yin, Zhou, Krähenbühl: "Center-based 3D Object Detection and Tracking", CVPR 2021; the predicted
IoU as in Hu et al.: "AFDetV2", AAAI 2022.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional

from detector.geometry import VoxelGrid
from detector.models.bev import conv_norm_relu
from detector.models.decode import (
    Candidates,
    decode_boxes,
    decode_task,
    encode_boxes,
    keep_best,
    rows_at,
)
from detector.models.losses import (
    center_l1_loss,
    corner_loss,
    decoupled_diou_loss,
    gaussian_focal_loss,
    iou_prediction_loss,
)
from detector.models.targets import BEVGrid, CenterTargets, TrueBoxes, assign_centers
from detector.ops.boxes import iou_3d
from detector.records import Detections

# What is regressed at a centre and how many channels each takes.
OFFSET, HEIGHT, LOG_SIZE, HEADING, VELOCITY, QUALITY = 2, 1, 3, 2, 2, 1


@dataclass(frozen=True)
class TaskMaps:
    """What the head says about one task."""

    heatmap: Float[Tensor, "B K Y X"]
    """Logits of a centre of each of the task's classes."""
    regression: Float[Tensor, "B D Y X"]
    """Columns of `detector.models.decode.encode_boxes`."""
    quality: Float[Tensor, "B 1 Y X"] | None
    """2 IoU - 1 of the box that is regressed here, where the head predicts it."""


class SeparateHead(nn.Module):
    """One task's outputs, each from a branch of its own.

    The branches' hidden layers are one convolution. So are the output layers where their kernels
    are a single cell: its weights are those of the branches on a diagonal and zero elsewhere.
    Both are the same function as a branch each, in a fraction of the launches and the time.

    Args:
        in_channels: of the shared map.
        hidden_channels: of each branch.
        branches: output channels of each branch, the heatmap first.
        output_kernel: size of the output layers' kernels.
        heatmap_prior: probability that every heatmap cell starts with.
    """

    def __init__(
        self,
        in_channels: int,
        hidden_channels: int,
        branches: Sequence[int],
        output_kernel: int = 3,
        heatmap_prior: float = 0.1,
    ):
        super().__init__()
        self.branches = tuple(branches)
        self.hidden = conv_norm_relu(in_channels, hidden_channels * len(self.branches))
        self.outputs = nn.ModuleList(
            nn.Conv2d(hidden_channels, channels, output_kernel, padding=output_kernel // 2)
            for channels in self.branches
        )
        for output in self.outputs:
            nn.init.normal_(output.weight, std=0.001)
            nn.init.zeros_(output.bias)
        nn.init.constant_(self.outputs[0].bias, -math.log(1 / heatmap_prior - 1))

    def forward(self, x: Float[Tensor, "B C Y X"]) -> list[Float[Tensor, "B D Y X"]]:
        x = self.hidden(x)
        if self.outputs[0].kernel_size == (1, 1):
            weight = torch.block_diag(*(output.weight.flatten(1) for output in self.outputs))
            bias = torch.cat([output.bias for output in self.outputs])
            return list(functional.conv2d(x, weight[..., None, None], bias).split(self.branches, 1))
        parts = x.chunk(len(self.branches), 1)
        return [output(part) for output, part in zip(self.outputs, parts, strict=True)]


class CenterHead(nn.Module):
    """Finds centres of boxes in a bird's-eye view and regresses the boxes there.

    Args:
        in_channels: of the map that comes in.
        classes: names of all classes, in the order of their labels.
        grid: the voxel grid.
        stride: voxels to a cell of the map.
        shape: cells (Y, X) of the map.
        tasks: groups of class names, one set of outputs each; None puts all classes into one.
        shared_channels, hidden_channels: widths of the shared convolution and of each branch.
        output_kernel: size, odd, of the kernels that read the maps out of the branches.
        with_velocity: whether boxes have nine columns.
        quality_weight: exponent of the predicted IoU in the score, one number or one a task;
            0 leaves the IoU branch out.
        box_weight, diou_weight, corner_weight, quality_loss_weight: factors of the loss terms
            beside the heatmap's; 0 leaves the second and the third out.
        velocity_weight: factor of the velocity's columns within the box term.
        min_overlap, min_radius, neighbours: see `assign_centers`.
        candidates: peaks of each task that are decoded.
        score_threshold, nms_iou, nms_radius_m, max_detections: see `keep_best`.

    Raises:
        ValueError: tasks that do not hold every class exactly once.
    """

    def __init__(
        self,
        in_channels: int,
        classes: Sequence[str],
        grid: VoxelGrid,
        stride: int,
        shape: tuple[int, int],
        *,
        tasks: Sequence[Sequence[str]] | None = None,
        shared_channels: int = 64,
        hidden_channels: int = 64,
        output_kernel: int = 3,
        with_velocity: bool = False,
        quality_weight: float | Sequence[float] = 0.0,
        box_weight: float = 2.0,
        diou_weight: float = 0.0,
        corner_weight: float = 0.0,
        quality_loss_weight: float = 1.0,
        velocity_weight: float = 0.2,
        min_overlap: float = 0.1,
        min_radius: int = 2,
        neighbours: int = 0,
        candidates: int = 500,
        score_threshold: float = 0.1,
        nms_iou: float = 0.2,
        nms_radius_m: Sequence[float] | None = None,
        max_detections: int = 200,
    ):
        super().__init__()
        tasks = [tuple(task) for task in (tasks or [classes])]
        if sorted(name for task in tasks for name in task) != sorted(classes):
            raise ValueError(f"tasks {tasks} must hold each of the classes {tuple(classes)} once")
        if nms_radius_m is not None and len(nms_radius_m) != len(classes):
            raise ValueError(f"nms_radius_m {nms_radius_m} needs a number for each of {classes}")
        self.task_classes = [tuple(list(classes).index(name) for name in task) for task in tasks]
        if isinstance(quality_weight, (int, float)):
            quality_weight = [quality_weight] * len(tasks)
        if len(quality_weight) != len(tasks):
            raise ValueError(f"quality_weight {quality_weight} needs one number or one a task")
        self.quality_weight = tuple(float(w) for w in quality_weight)
        self.bev = BEVGrid.of(grid, stride, shape)
        self.with_velocity = with_velocity
        self.box_weight = box_weight
        self.diou_weight = diou_weight
        self.corner_weight = corner_weight
        self.quality_loss_weight = quality_loss_weight
        self.target_options = dict(
            min_overlap=min_overlap, min_radius=min_radius, neighbours=neighbours
        )
        self.candidates = candidates
        self.keep_options = dict(
            score_threshold=score_threshold, nms_iou=nms_iou, max_detections=max_detections,
            nms_radius_m=nms_radius_m,
        )  # fmt: skip

        regressed = [OFFSET, HEIGHT, LOG_SIZE, HEADING] + [VELOCITY] * with_velocity
        self.shared = conv_norm_relu(in_channels, shared_channels)
        self.tasks = nn.ModuleList(
            SeparateHead(
                shared_channels,
                hidden_channels,
                [len(task), *regressed] + [QUALITY] * (weight > 0),
                output_kernel,
            )
            for task, weight in zip(tasks, self.quality_weight, strict=True)
        )
        for index, task in enumerate(self.task_classes):
            self.register_buffer(f"classes_{index}", torch.tensor(task), persistent=False)
        weights = torch.ones(sum(regressed))
        if with_velocity:
            weights[-VELOCITY:] = velocity_weight
        self.register_buffer("column_weights", weights, persistent=False)

    def forward(self, x: Float[Tensor, "B C Y X"]) -> list[TaskMaps]:
        """Maps of each task."""
        x = self.shared(x)
        result = []
        for task, weight in zip(self.tasks, self.quality_weight, strict=True):
            heatmap, *rest = task(x)
            quality = rest.pop() if weight > 0 else None
            result.append(TaskMaps(heatmap, torch.cat(rest, 1), quality))
        return result

    def loss(
        self, maps: Sequence[TaskMaps], true: TrueBoxes,
        labelled: Bool[Tensor, "B C"] | None = None,
    ) -> dict[str, Float[Tensor, ""]]:  # fmt: skip
        """Named terms, each summed over the tasks.

        Args:
            labelled: of which classes every object of each frame has a box; None: of all.
        """
        terms: dict[str, Tensor] = {}
        for task_maps, task in zip(maps, self.task_classes, strict=True):
            targets = assign_centers(true, task, self.bev, **self.target_options)
            of_task = None
            if labelled is not None:
                of_task = torch.stack([labelled[:, label] for label in task], 1)
            for name, value in self._task_loss(task_maps, targets, of_task).items():
                terms[name] = terms[name] + value if name in terms else value
        return terms

    def _task_loss(
        self, maps: TaskMaps, targets: CenterTargets, labelled: Bool[Tensor, "B K"] | None
    ) -> dict[str, Tensor]:
        rows = rows_at(maps.regression, targets.cells).float()                # (N, 8 or 10)
        columns = 9 if self.with_velocity else 7
        true = targets.boxes[:, :columns]
        valid = targets.valid
        terms = {
            "heatmap": gaussian_focal_loss(maps.heatmap, targets.heatmap, labelled),
            "box": self.box_weight
            * center_l1_loss(
                rows, encode_boxes(true, targets.cells, self.bev), valid, self.column_weights
            ),
        }
        if not (self.diou_weight or self.corner_weight) and maps.quality is None:
            return terms
        found = decode_boxes(rows, targets.cells, self.bev)
        if self.diou_weight:
            terms["diou"] = self.diou_weight * decoupled_diou_loss(found, true, valid)
        if self.corner_weight:
            terms["corner"] = self.corner_weight * corner_loss(found, rows[:, 6:8], true, valid)
        if maps.quality is not None:
            quality = rows_at(maps.quality, targets.cells)[:, 0]
            iou = aligned_iou_3d(found.detach(), true)
            terms["quality"] = self.quality_loss_weight * iou_prediction_loss(quality, iou, valid)
        return terms

    def decode(self, maps: Sequence[TaskMaps]) -> Candidates:
        """A fixed number of candidates of each frame; waits for nothing."""
        return Candidates.joined(
            [
                decode_task(
                    task_maps.heatmap, task_maps.regression, task_maps.quality,
                    getattr(self, f"classes_{index}"), self.bev,
                    candidates=self.candidates, quality_weight=self.quality_weight[index],
                )
                for index, task_maps in enumerate(maps)
            ]
        )  # fmt: skip

    def predict(
        self, maps: Sequence[TaskMaps], frame_ids: Sequence[str], occupied: Bool[Tensor, " B"]
    ) -> list[Detections]:
        """Detections of each frame; none in frames that are not `occupied`."""
        found = self.decode(maps)
        scores = torch.where(occupied[:, None], found.scores, 0.0)
        return keep_best(replace(found, scores=scores), frame_ids, **self.keep_options)


@torch.no_grad()
def aligned_iou_3d(
    a: Float[Tensor, "N 7+"], b: Float[Tensor, "N 7+"]
) -> Float[Tensor, " N"]:
    """3D IoU of row i of `a` with row i of `b`; in chunks, since `iou_3d` compares all pairs. A GPU
    compares 65,000 in the time that a kernel takes to start."""
    chunk = 256 if a.is_cuda else 64
    parts = [
        iou_3d(x, y).diagonal() for x, y in zip(a[:, :7].split(chunk), b[:, :7].split(chunk),
                                                strict=True)
    ]  # fmt: skip
    return torch.cat(parts) if parts else a.new_zeros(0)
