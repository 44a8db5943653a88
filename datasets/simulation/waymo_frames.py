"""Frames of simulated drives as the Waymo Open Dataset has them: range images, labels, pictures."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float, Float32, Float64, Int32

from datasets.simulation.camera import CameraModel, Light, draw_light, render
from datasets.simulation.echoes import measure
from datasets.simulation.materials import Material
from datasets.simulation.meshes import pose
from datasets.simulation.raycast import RayScene
from datasets.simulation.town import draw_world
from datasets.simulation.waymo_rig import RigCamera, RigLaser, cameras, lasers
from datasets.simulation.world import Snapshot, World, boxes_in
from datasets.waymo.frame import TOP, CameraShot, FrameLabels, LaserScan, WaymoFrame
from datasets.waymo.range_image import frame_points
from detector.geometry import inverse_rigid
from detector.ops.boxes.cpu import points_in_boxes

SCAN_S = 0.1
"""A turn of the top laser; a frame's pose and labels are those of its middle."""
TYPES = {
    "car": 1, "van": 1, "truck": 1, "pedestrian": 2, "sitting_person": 2, "cyclist": 4,
}  # fmt: skip
_FIRST_FRAME_US = 1_550_000_000_000_000
# What a pulse may pass in part and meet something behind.
_PERMEABLE = (Material.FOLIAGE, Material.GLASS, Material.GRASS)
_OUTSIDE_ZONES = -1.0
# Ours: x right, y down, z ahead. Waymo's: x ahead, y left, z up.
_WAYMO_FROM_OURS = np.array([[0.0, 0, 1, 0], [-1, 0, 0, 0], [0, -1, 0, 0], [0, 0, 0, 1]])


@dataclass(frozen=True)
class WaymoDrive:
    """One segment: a world, the rig that drives through it, and how often it looks."""

    world: World
    seed: tuple[int, ...]
    frame_count: int
    gap_s: float
    with_pictures: bool
    rig: tuple[RigLaser, ...]

    @property
    def segment(self) -> str:
        return segment_name(self.seed)

    def frame(self, index: int) -> WaymoFrame:
        """The frame that starts at `index * gap_s` seconds; the same however often it is drawn."""
        start_s = index * self.gap_s
        middle_s = start_s + SCAN_S / 2
        rng = np.random.default_rng([*self.seed, 1 + index])
        sway = rng.normal(0, (0.004, 0.003))
        world_from_vehicle = pose(*_body(self.world, np.array([middle_s]), sway)[0])
        snapshot = self.world.at(middle_s)
        scene = RayScene(snapshot.mesh)
        shots: tuple[CameraShot, ...] = ()
        if self.with_pictures:
            light = draw_light(np.random.default_rng([*self.seed, 0, 1]))
            shots = tuple(
                _picture(c, scene, snapshot, world_from_vehicle, light) for c in cameras()
            )
        frame = WaymoFrame(
            segment=self.segment,
            time_us=_FIRST_FRAME_US + round(start_s * 1e6),
            world_from_vehicle=world_from_vehicle,
            lasers=tuple(
                _scan(laser, scene, snapshot, self._poses(laser, start_s, sway), rng)
                for laser in self.rig
            ),
            shots=shots,
        )
        frame = replace(frame, labels=_labels(self.world, middle_s, frame))
        return _with_projections(frame) if shots else frame

    def _poses(
        self, laser: RigLaser, start_s: float, sway: Float[np.ndarray, " 2"]
    ) -> Float32[np.ndarray, "W 6"]:
        """Roll, pitch, yaw, x, y, z of the vehicle at each column: the top laser takes a turn for
        its image, the others' images are made for the frame's pose."""
        columns = laser.model.columns
        shares = (np.arange(columns) + 0.5) / columns
        if laser.laser != TOP:
            shares[:] = 0.5
        found = _body(self.world, start_s + shares * SCAN_S, sway)
        return found[:, [5, 4, 3, 0, 1, 2]].astype(np.float32)


def segment_name(seed: tuple[int, ...]) -> str:
    """A name like the data set's, from the seed alone."""
    digits = int.from_bytes(np.random.default_rng(seed).bytes(8), "little")
    return f"{digits % 10**19:019d}_0000_000_0020_000"


def draw_drive(
    seed: tuple[int, ...],
    frame_count: int,
    gap_s: float,
    *,
    with_pictures: bool = False,
    columns: int | None = None,
) -> WaymoDrive:
    """A segment that its seed alone decides.

    Args:
        gap_s: between frames; the data set's own is 0.1.
        columns: of the top laser's range image, for fewer than the data set's 2650.
    """
    rng = np.random.default_rng([*seed, 0])
    world = draw_world(rng, (frame_count - 1) * gap_s + SCAN_S)
    return WaymoDrive(world, seed, frame_count, gap_s, with_pictures, lasers(columns))


def _body(
    world: World, times_s: Float[np.ndarray, " T"], sway: Float[np.ndarray, " 2"]
) -> Float64[np.ndarray, "T 6"]:
    """x, y, z, yaw, pitch, roll of the vehicle, which nods and rolls a little on its springs."""
    track = world.drive
    columns = [np.interp(times_s, track.times_s, column) for column in track.poses.T]
    columns[4] = columns[4] + sway[0]
    columns[5] = columns[5] + sway[1]
    return np.stack(columns, 1)


def _scan(
    laser: RigLaser,
    scene: RayScene,
    snapshot: Snapshot,
    column_poses: Float32[np.ndarray, "W 6"],
    rng: np.random.Generator,
) -> LaserScan:
    """Both returns of one laser.

    Args:
        column_poses: roll, pitch, yaw, x, y, z of the vehicle in the world at each column.
    """
    rows = len(laser.inclinations)
    columns = np.flatnonzero(laser.in_view)
    world_from_vehicle = np.stack(
        [pose(*row[3:], *row[2::-1]) for row in column_poses[columns].astype(np.float64)]
    )                                                                         # (V, 4, 4)
    turn, place = world_from_vehicle[:, :3, :3], world_from_vehicle[:, :3, 3]
    directions = np.einsum("vij,hvj->hvi", turn, laser.directions[:, columns])
    origins = turn @ laser.vehicle_from_laser[:3, 3] + place                  # (V, 3)
    rays = np.concatenate([np.broadcast_to(origins, directions.shape), directions], -1)
    rays = rays.reshape(-1, 6).astype(np.float32)

    first = measure(laser.model, scene, snapshot, rays, rng)
    cosine = np.abs(np.einsum("ij,ij->i", first.hits.normals, rays[:, 3:]))
    images = [_image(laser, columns, first, cosine)]
    # Behind leaves and glass the rest of the pulse may meet something more.
    materials = snapshot.mesh.materials[first.hits.triangle]
    passed = np.flatnonzero(first.hits.met & np.isin(materials, _PERMEABLE))
    onward = rays[passed].copy()
    gone = first.hits.distance_m[passed] + np.float32(0.3)
    onward[:, :3] += gone[:, None] * onward[:, 3:]
    second = measure(laser.model, scene, snapshot, onward, rng)
    distance = second.distance_m + gone
    kept = second.seen & (distance < laser.model.maximum_range_m)
    image = np.full((rows * len(columns), 4), _OUTSIDE_ZONES, np.float32)
    image[passed[kept], 0] = distance[kept]
    image[passed[kept], 1] = 0.6 * second.intensity[kept]
    image[passed[kept], 2] = 0.3 + 0.5 * rng.random(int(kept.sum()), dtype=np.float32)
    images.append(_spread(laser, columns, image))

    poses = None
    if laser.laser == TOP:
        poses = np.ascontiguousarray(np.broadcast_to(column_poses, (rows, *column_poses.shape)))
    return LaserScan(
        laser.laser, laser.vehicle_from_laser, laser.inclinations, tuple(images), poses
    )


def _image(laser: RigLaser, columns: np.ndarray, echoes, cosine) -> Float32[np.ndarray, "H W 4"]:
    """Range, intensity, elongation (the flatter the pulse falls in, the longer it returns), no
    zone."""
    image = np.full((len(echoes.seen), 4), _OUTSIDE_ZONES, np.float32)
    values = np.stack([echoes.distance_m, echoes.intensity, 0.4 * (1 - cosine) ** 2], 1)
    image[echoes.seen, :3] = values[echoes.seen]
    return _spread(laser, columns, image)


def _spread(laser: RigLaser, columns: np.ndarray, measured) -> Float32[np.ndarray, "H W 4"]:
    rows = len(laser.inclinations)
    image = np.full((rows, laser.model.columns, 4), _OUTSIDE_ZONES, np.float32)
    image[:, columns] = measured.reshape(rows, len(columns), 4)
    return image


def _labels(world: World, time_s: float, frame: WaymoFrame) -> FrameLabels:
    """Every object with a point in its box; which are hard, their number of points decides."""
    boxes = boxes_in(inverse_rigid(frame.world_from_vehicle), world, time_s)[:, :7]
    points = frame_points(frame).xyz.astype(np.float64)
    counts = points_in_boxes(points, np.ascontiguousarray(boxes)).sum(0)
    kept = np.flatnonzero(counts)
    return FrameLabels(
        boxes=boxes[kept],
        velocities=np.array([world.actors[i].track.velocity(time_s) for i in kept]).reshape(-1, 3),
        types=np.array([TYPES[world.actors[i].category] for i in kept], np.int64),
        difficulties=np.zeros(len(kept), np.int64),
        point_counts=counts[kept],
        ids=tuple(f"{frame.segment}-{index}" for index in kept),
    )


def _camera_model(camera: RigCamera) -> CameraModel:
    projection = np.array(
        [[camera.focal_px, 0, camera.center_px[0], 0], [0, camera.focal_px, camera.center_px[1], 0],
         [0, 0, 1, 0]]
    )  # fmt: skip
    return CameraModel(projection, camera.size)


def _picture(
    camera: RigCamera, scene: RayScene, snapshot: Snapshot, world_from_vehicle, light: Light
) -> CameraShot:
    import cv2

    world_from_camera = world_from_vehicle @ camera.vehicle_from_camera @ _WAYMO_FROM_OURS
    picture = render(_camera_model(camera), scene, snapshot, world_from_camera, light)
    _, jpeg = cv2.imencode(".jpg", np.ascontiguousarray(picture[..., ::-1]))
    return CameraShot(
        camera.camera, jpeg.tobytes(), camera.vehicle_from_camera,
        np.array([camera.focal_px, camera.focal_px, *camera.center_px, 0, 0, 0, 0, 0]),
        camera.size,
    )  # fmt: skip


def _with_projections(frame: WaymoFrame) -> WaymoFrame:
    """The same frame with the pixels of up to two pictures that each point lies in."""
    scans = []
    for scan in frame.lasers:
        projections = []
        for echo, image in enumerate(scan.returns, 1):
            xyz = frame_points(frame, echoes=(echo,), lasers=(scan.laser,)).xyz
            found = np.zeros((len(xyz), 6), np.int32)
            for camera in cameras():
                _project(camera, xyz, found)
            whole = np.zeros((*image.shape[:2], 6), np.int32)
            whole[image[..., 0] > 0] = found
            projections.append(whole)
        scans.append(replace(scan, projections=tuple(projections)))
    return replace(frame, lasers=tuple(scans))


def _project(camera: RigCamera, xyz: np.ndarray, found: Int32[np.ndarray, "P 6"]) -> None:
    """Enters a camera's pixels where a point lies in its picture and a place is left."""
    ahead, left, up = (
        xyz @ camera.vehicle_from_camera[:3, :3]
        - camera.vehicle_from_camera[:3, 3] @ camera.vehicle_from_camera[:3, :3]
    ).T
    depth = np.where(ahead > 0.1, ahead, np.inf)
    u = camera.center_px[0] - camera.focal_px * left / depth
    v = camera.center_px[1] - camera.focal_px * up / depth
    inside = (ahead > 0.1) & (u >= 0) & (v >= 0) & (u < camera.size[0]) & (v < camera.size[1])
    for place in (0, 3):
        free = inside & (found[:, place] == 0)
        found[free, place] = camera.camera
        found[free, place + 1], found[free, place + 2] = u[free], v[free]
        inside &= ~free
