"""The typed records that travel: `Sample` -> `Batch` -> `Detections`; nothing else does.

Conventions of boxes, frames and columns are stated in `detector.geometry`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from jaxtyping import Float32, Int64, UInt8
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

    def replace(self, **changes) -> Sample:
        """A copy with some fields changed."""
        return replace(self, **changes)


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

    @property
    def batch_size(self) -> int:
        return len(self.frame_ids)

    @property
    def frame_of_point(self) -> Tensor:
        """(P,) int32: which frame of the batch each point belongs to, on the points' device."""
        frames = torch.repeat_interleave(
            torch.arange(self.batch_size, dtype=torch.int32), self.point_counts
        )
        return frames.to(self.points.device, non_blocking=True)

    def to(self, device: torch.device | str) -> Batch:
        """The same batch with points, boxes and labels on `device`."""
        return replace(
            self,
            points=self.points.to(device, non_blocking=True),
            boxes=tuple(b.to(device, non_blocking=True) for b in self.boxes),
            labels=tuple(l.to(device, non_blocking=True) for l in self.labels),
        )


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
    return Batch(
        frame_ids=tuple(s.frame_id for s in samples),
        points=torch.from_numpy(np.concatenate([s.points for s in samples])),
        point_counts=torch.tensor([len(s.points) for s in samples]),
        boxes=tuple(torch.from_numpy(s.boxes) for s in samples),
        labels=tuple(torch.from_numpy(s.labels) for s in samples),
    )
