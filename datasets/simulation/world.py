"""A piece of a town in which things move: everything is a function of time.

The world frame has z up. The vehicle that carries the sensors stands on the ground; its own frame
is x forward, y left, z up with z = 0 on the ground below the scanner.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Float, Float64, Int32

from datasets.simulation.meshes import Mesh, join, pose

CATEGORIES = (
    "car", "van", "truck", "pedestrian", "sitting_person", "cyclist",
    # In worlds of `many_kinds` alone; see `town.draw_world`.
    "bus", "trailer", "construction_vehicle", "motorcycle", "motorcyclist", "traffic_cone",
    "barrier",
)  # fmt: skip


@dataclass(frozen=True)
class Track:
    """Where something is over time, straight between moments; before and after, it stands."""

    times_s: Float64[np.ndarray, " K"]
    """Ascending."""
    poses: Float64[np.ndarray, "K 6"]
    """x, y, z, yaw, pitch, roll in the world frame; yaw runs on past pi."""

    def pose(self, time_s: float) -> Float64[np.ndarray, "4 4"]:
        """world_from_object at a time."""
        x, y, z, yaw, pitch, roll = (
            np.interp(time_s, self.times_s, column) for column in self.poses.T
        )
        return pose(x, y, z, yaw, pitch, roll)

    def velocity(self, time_s: float) -> Float64[np.ndarray, " 3"]:
        """Metres a second in the world frame: of the stretch that holds the time."""
        if len(self.times_s) == 1 or not self.times_s[0] <= time_s <= self.times_s[-1]:
            return np.zeros(3)
        after = int(np.clip(np.searchsorted(self.times_s, time_s), 1, len(self.times_s) - 1))
        step = self.times_s[after] - self.times_s[after - 1]
        return (self.poses[after, :3] - self.poses[after - 1, :3]) / step


@dataclass(frozen=True)
class Actor:
    """Something with a label: it has a size, a track and a shape at each time."""

    category: str
    """One of CATEGORIES."""
    size: tuple[float, float, float]
    """Length, width, height of its box, metres."""
    track: Track
    """Of the middle of its bottom face."""
    shape: Callable[[float], Mesh]
    """Mesh at a time in the actor's frame: on z = 0, heading along +x."""


@dataclass(frozen=True)
class Snapshot:
    """The world at one moment."""

    mesh: Mesh
    """All of it, in the world frame."""
    owner: Int32[np.ndarray, " T"]
    """Index in `World.actors` of the one each triangle belongs to; -1: the town itself."""
    ranges: tuple[tuple[int, int], ...]
    """First triangle of each actor, and the one after its last."""

    def part(self, actor: int) -> Mesh:
        """One actor's mesh in the world frame."""
        first, last = self.ranges[actor]
        whole = self.mesh
        triangles = whole.triangles[first:last]
        low, high = int(triangles.min()), int(triangles.max()) + 1
        return Mesh(
            whole.vertices[low:high],
            triangles - low,
            whole.colors[first:last],
            whole.materials[first:last],
        )


@dataclass(frozen=True)
class World:
    """A town, what moves in it, and the drive through it."""

    town: Mesh
    """What never moves and has no label."""
    actors: tuple[Actor, ...]
    """In a fixed order: an actor's index is its identity over time."""
    drive: Track
    """Of the vehicle with the sensors."""
    district: str
    """What kind of place it is."""

    @property
    def duration_s(self) -> float:
        return float(self.drive.times_s[-1])

    def places(self, time_s: float) -> Float64[np.ndarray, "N 3"]:
        """Where the middle of each actor's bottom face is."""
        places = self._standing_places.copy()
        for index in self._moving:
            track = self.actors[index].track
            places[index] = [np.interp(time_s, track.times_s, c) for c in track.poses.T[:3]]
        return places

    @cached_property
    def _standing_places(self) -> Float64[np.ndarray, "N 3"]:
        return np.array([a.track.poses[0, :3] for a in self.actors], float).reshape(-1, 3)

    @cached_property
    def _moving(self) -> list[int]:
        return [i for i, a in enumerate(self.actors) if len(a.track.times_s) > 1]

    def at(self, time_s: float) -> Snapshot:
        """Everything at one moment."""
        shapes = [
            actor.shape(time_s).moved(actor.track.pose(time_s)) for actor in self.actors
        ]
        lengths = [len(self.town)] + [len(shape) for shape in shapes]
        ends = np.cumsum(lengths)
        return Snapshot(
            mesh=join([self.town, *shapes]),
            owner=np.repeat(np.arange(-1, len(shapes), dtype=np.int32), lengths),
            ranges=tuple(zip(ends[:-1].tolist(), ends[1:].tolist(), strict=True)),
        )


def boxes_in(
    frame_from_world: Float[np.ndarray, "4 4"], world: World, time_s: float
) -> Float64[np.ndarray, "N 9"]:
    """The actors' boxes with their velocities over ground, in a frame about as upright as they.

    A box takes the actor's centre exactly and its heading as seen in the frame's x-y plane.
    """
    rows = []
    for actor in world.actors:
        length, width, height = actor.size
        frame_from_actor = frame_from_world @ actor.track.pose(time_s)
        center = frame_from_actor @ (0, 0, height / 2, 1)
        yaw = np.arctan2(frame_from_actor[1, 0], frame_from_actor[0, 0])
        velocity = frame_from_world[:3, :3] @ actor.track.velocity(time_s)
        rows.append([*center[:3], length, width, height, yaw, *velocity[:2]])
    return np.array(rows, np.float64).reshape(-1, 9)
