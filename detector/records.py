"""The typed records that travel: `Sample` -> `Batch` -> `Detections`; nothing else does.

Conventions of boxes, frames and columns are stated in `detector.geometry`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from jaxtyping import Bool, Float32, Int64, UInt8
from torch import Tensor


@dataclass(frozen=True)
class Camera:
    """One picture and where it was taken from."""

    name: str
    """The data set's own name of the camera, such as `image_2` or `CAM_FRONT`."""
    image: UInt8[np.ndarray, "H W 3"]
    """RGB."""
    camera_from_ego: Float32[np.ndarray, "4 4"]
    """From the ego frame to the camera's: x right, y down, z forward, metres."""
    intrinsics: Float32[np.ndarray, "3 4"]
    """Projects homogeneous camera coordinates to pixels times depth."""


@dataclass(frozen=True)
class Sample:
    """One frame in the ego frame, in NumPy, as an adapter reads it and augmentation changes it."""

    frame_id: str
    """The data set's own name of the frame; unique within a split."""
    points: Float32[np.ndarray, "P C"]
    """x, y, z in metres, then the columns that `point_features` names; all finite."""
    point_features: tuple[str, ...]
    """Names of the C columns: ("x", "y", "z", "intensity", ...)."""
    boxes: Float32[np.ndarray, "N 7|9"] = field(
        default_factory=lambda: np.zeros((0, 7), np.float32)
    )
    """True boxes of the classes trained on."""
    labels: Int64[np.ndarray, " N"] = field(default_factory=lambda: np.zeros(0, np.int64))
    """Index of each box's class in the config's `classes`."""
    cameras: tuple[Camera, ...] = ()
    """Pictures, where the adapter was asked to read them."""
    labelled: Bool[np.ndarray, " K"] | None = None
    """Of which of the config's classes every object in the frame has a box; None: of all."""

    def replace(self, **changes) -> Sample:
        """A copy with some fields changed."""
        return replace(self, **changes)


def frame_of_rows(counts: Sequence[int]) -> Int64[Tensor, " N"]:
    """Which frame each row is of, where the rows of frames follow one another. By NumPy: torch's
    `repeat_interleave` on a CPU wakes all its threads, for milliseconds where they are busy."""
    return torch.from_numpy(np.repeat(np.arange(len(counts)), counts))


@dataclass(frozen=True)
class Batch:
    """Frames put together for a model: points of all frames one after another."""

    frame_ids: tuple[str, ...]
    """One id a frame; their number is the batch size, empty frames included."""
    points: Float32[Tensor, "P C"]
    """Points of frame 0, then of frame 1, and so on."""
    point_counts: Int64[Tensor, " B"]
    """How many rows of `points` each frame has; always on the CPU, so that reading it never
    waits for a GPU."""
    boxes: tuple[Float32[Tensor, "N 7|9"], ...]
    """True boxes of each frame."""
    labels: tuple[Int64[Tensor, " N"], ...]
    """Class index of each true box."""
    labelled: Bool[Tensor, "B K"] | None = None
    """Of which classes every object of each frame has a box; None: of all, in all frames."""

    @property
    def batch_size(self) -> int:
        return len(self.frame_ids)

    @property
    def frame_of_point(self) -> Tensor:
        """(P,) int32: which frame of the batch each point belongs to, on the points' device."""
        device = self.points.device
        return torch.repeat_interleave(
            torch.arange(self.batch_size, dtype=torch.int32, device=device),
            self.point_counts.to(device, non_blocking=True),
            output_size=len(self.points),   # which a GPU would otherwise be asked for
        )

    def to(self, device: torch.device | str) -> Batch:
        """The same batch with points, boxes and labels on `device`."""
        counts = [len(boxes) for boxes in self.boxes]
        return replace(
            self,
            points=self.points.to(device, non_blocking=True),
            boxes=torch.cat(self.boxes).to(device, non_blocking=True).split(counts),
            labels=torch.cat(self.labels).to(device, non_blocking=True).split(counts),
            labelled=None if self.labelled is None else self.labelled.to(device, non_blocking=True),
        )

    def __reduce__(self):
        """Between processes a batch travels as a few tensors, however many frames it has: each one
        costs a file descriptor there."""
        counts = [len(boxes) for boxes in self.boxes]
        joined = torch.cat(self.boxes), torch.cat(self.labels), counts, self.labelled
        return _joined_batch, (self.frame_ids, self.points, self.point_counts, *joined)


def _joined_batch(
    frame_ids: tuple[str, ...], points: Tensor, point_counts: Tensor, boxes: Tensor,
    labels: Tensor, counts: list[int], labelled: Tensor | None,
) -> Batch:  # fmt: skip
    parts = boxes.split(counts), labels.split(counts)
    return Batch(frame_ids, points, point_counts, *parts, labelled)


@dataclass(frozen=True)
class Detections:
    """What a model found in one frame, in the ego frame, best score first."""

    frame_id: str
    boxes: Float32[Tensor, "N 7|9"]
    scores: Float32[Tensor, " N"]
    """In [0, 1]."""
    labels: Int64[Tensor, " N"]
    """Index of each box's class in the config's `classes`."""

    def __len__(self) -> int:
        return len(self.scores)

    def cpu(self) -> Detections:
        return replace(
            self, boxes=self.boxes.cpu(), scores=self.scores.cpu(), labels=self.labels.cpu()
        )


def collate(samples: Sequence[Sample]) -> Batch:
    """Samples -> Batch. All samples must have the same point columns.

    Raises:
        ValueError: no samples, or samples whose columns differ.
    """
    if not samples:
        raise ValueError("a batch needs at least one sample")
    features = samples[0].point_features
    for sample in samples:
        if sample.point_features != features:
            raise ValueError(
                f"frame {sample.frame_id} has point columns {sample.point_features}, frame "
                f"{samples[0].frame_id} has {features}; a batch needs the same columns in all"
            )
    labelled = None
    if any(s.labelled is not None for s in samples):
        classes = next(len(s.labelled) for s in samples if s.labelled is not None)
        every = np.ones(classes, bool)
        rows = [every if s.labelled is None else s.labelled for s in samples]
        labelled = torch.from_numpy(np.stack(rows))
    return Batch(
        frame_ids=tuple(s.frame_id for s in samples),
        points=torch.from_numpy(np.concatenate([s.points for s in samples])),
        point_counts=torch.tensor([len(s.points) for s in samples]),
        boxes=tuple(torch.from_numpy(s.boxes) for s in samples),
        labels=tuple(torch.from_numpy(s.labels) for s in samples),
        labelled=labelled,
    )
