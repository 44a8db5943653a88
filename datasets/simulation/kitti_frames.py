"""Frames of simulated drives as KITTI has them: scan, picture, calibration, labels."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float32, Float64, UInt8

from datasets.kitti_boxes import camera_objects, observation_angle
from datasets.kitti_calibration import KittiCalibration
from datasets.simulation.camera import CameraModel, draw_light, render
from datasets.simulation.labels import View, merged, occlusion_level, points_per_actor, views
from datasets.simulation.lidar import LidarModel, scan
from datasets.simulation.meshes import pose
from datasets.simulation.raycast import RayScene
from datasets.simulation.town import draw_world
from datasets.simulation.world import World, boxes_in
from detector.geometry import inverse_rigid
from detector.metrics.kitti import KittiObjects

FRAME_GAP_S = 1.0
IMAGE_SIZE = (1242, 375)
TYPES = {
    "car": "Car", "van": "Van", "truck": "Truck", "pedestrian": "Pedestrian",
    "sitting_person": "Person_sitting", "cyclist": "Cyclist",
}  # fmt: skip
_FARTHEST_LABEL_M = 80.0
_SMALLEST_LABEL_PX = 15.0
_LEAST_VISIBLE = 0.04
"""Less of it, such as glimpses between leaves, nobody draws a box around."""
_FEWEST_POINTS = {"pedestrian": 8, "sitting_person": 8, "cyclist": 6}
_FEWEST_POINTS_OF_VEHICLES = 3
"""Annotators work in the scan: what it hardly shows they leave out, people sooner than cars."""
_FOCAL_LENGTH, _MIDDLE = 721.5377, (609.5593, 172.854)
_BASELINES_M = (0.0, -0.537, 0.060, -0.473)
"""Shift of cameras 0 to 3 along x in the rectified frame, as it enters their projections."""


@dataclass(frozen=True)
class KittiRig:
    """Where scanner, cameras and inertial unit are, in the terms of KITTI's calibration files."""

    projections: Float64[np.ndarray, "4 3 4"]
    """P0 to P3."""
    calibration: KittiCalibration
    velodyne_from_imu: Float64[np.ndarray, "3 4"]

    @property
    def camera(self) -> CameraModel:
        """The left colour camera."""
        return CameraModel(self.projections[2], IMAGE_SIZE)

    def text(self) -> str:
        """A calibration file."""
        matrices = {f"P{i}": matrix for i, matrix in enumerate(self.projections)}
        matrices["R0_rect"] = self.calibration.rectification
        matrices["Tr_velo_to_cam"] = self.calibration.camera_from_velodyne
        matrices["Tr_imu_to_velo"] = self.velodyne_from_imu
        return "".join(
            f"{name}: {' '.join(f'{value:.12e}' for value in np.ravel(matrix))}\n"
            for name, matrix in matrices.items()
        )


@dataclass(frozen=True)
class KittiFrame:
    """What the files of one frame hold."""

    points: Float32[np.ndarray, "P 4"]
    picture: UInt8[np.ndarray, "H W 3"]
    rig: KittiRig
    objects: KittiObjects


def draw_rig(rng: np.random.Generator) -> KittiRig:
    """A rig whose sensors are tilted against each other by up to about a degree, as KITTI's are."""
    projections = np.zeros((4, 3, 4))
    projections[:] = [[_FOCAL_LENGTH, 0, _MIDDLE[0], 0], [0, _FOCAL_LENGTH, _MIDDLE[1], 0],
                      [0, 0, 1, 0]]  # fmt: skip
    projections[:, 0, 3] = _FOCAL_LENGTH * np.array(_BASELINES_M)
    projections[1:, 1, 3] = rng.normal(0, 0.4, 3)
    projections[1:, 2, 3] = rng.normal(0.003, 0.001, 3)
    axes = np.array([[0.0, -1, 0], [0, 0, -1], [1, 0, 0]])       # x right, y down, z forward
    camera_from_velodyne = np.column_stack(
        [_tilt(rng, 0.009) @ axes, rng.normal((-0.005, -0.07, -0.29), (0.01, 0.01, 0.03))]
    )
    imu = np.column_stack([_tilt(rng, 0.008), (-0.81, 0.32, -0.80)])
    calibration = KittiCalibration(projections[2], _tilt(rng, 0.007), camera_from_velodyne)
    return KittiRig(projections, calibration, imu)


@dataclass(frozen=True)
class Scene:
    """One world with the rig, the light and the scanner that drive through it."""

    world: World
    rig: KittiRig
    lidar: LidarModel
    seed: tuple[int, ...]

    def frame(self, index: int) -> KittiFrame:
        """The frame at `index * FRAME_GAP_S` seconds; the same however often it is drawn."""
        time_s = index * FRAME_GAP_S
        rng = np.random.default_rng([*self.seed, 1 + index])
        # The body nods and rolls a little on its springs.
        sway = pose(pitch=rng.normal(0, 0.004), roll=rng.normal(0, 0.003))
        world_from_velodyne = (
            self.world.drive.pose(time_s) @ sway @ pose(z=self.lidar.mounting_height_m)
        )
        snapshot = self.world.at(time_s)
        scene = RayScene(snapshot.mesh)
        sweep = scan(self.lidar, scene, snapshot, world_from_velodyne, rng)
        world_from_camera = world_from_velodyne @ self.rig.calibration.ego_from_camera
        camera = self.rig.camera
        light = draw_light(np.random.default_rng([*self.seed, 0, 1]))
        picture = render(camera, scene, snapshot, world_from_camera, light)
        counts = points_per_actor(sweep.owner, len(self.world.actors))
        seen = views(camera, scene, snapshot, world_from_camera)
        boxes = boxes_in(inverse_rigid(world_from_velodyne), self.world, time_s)
        objects = label_objects(self.world, seen, boxes, counts, self.rig.calibration)
        return KittiFrame(sweep.points, picture, self.rig, objects)


def draw_scene(seed: tuple[int, ...], lidar: LidarModel, frames: int) -> Scene:
    """A scene for so many frames; besides them its seed alone decides it."""
    rng = np.random.default_rng([*seed, 0])
    world = draw_world(rng, (frames - 1) * FRAME_GAP_S)
    return Scene(world, draw_rig(rng), lidar, seed)


def label_objects(
    world: World,
    seen: list[View],
    boxes: Float[np.ndarray, "N 9"],
    point_counts,
    calibration: KittiCalibration,
) -> KittiObjects:
    """Labels of what the camera sees, as KITTI's annotators set them.

    What is hidden wholly gets no label. What the scan has too few points of to be drawn a box
    around, what is all but hidden, too far or too small in the picture, is covered by DontCare
    regions.

    Args:
        seen: what the camera sees of the actors.
        boxes: of all actors, in the Velodyne frame.
        point_counts: points of the scan on each actor.
    """
    labelled: list[View] = []
    ignored = []
    for view in seen:
        if view.visible == 0:
            continue
        hidden = view.visible < _LEAST_VISIBLE
        far = np.hypot(*boxes[view.actor, :2]) > _FARTHEST_LABEL_M
        small = view.bbox[3] - view.bbox[1] < _SMALLEST_LABEL_PX
        category = world.actors[view.actor].category
        fewest = _FEWEST_POINTS.get(category, _FEWEST_POINTS_OF_VEHICLES)
        if far or small or hidden or point_counts[view.actor] < fewest:
            ignored.append(view.bbox)
        else:
            labelled.append(view)
    regions = merged(np.array(ignored).reshape(-1, 4))
    location, dimensions, rotation_y = camera_objects(
        boxes[[view.actor for view in labelled]].reshape(-1, 9), calibration
    )
    unknown = np.full(len(regions), -1.0)
    return KittiObjects(
        types=[TYPES[world.actors[view.actor].category] for view in labelled]
        + ["DontCare"] * len(regions),
        truncation=[*(view.truncation for view in labelled), *unknown],
        occlusion=[*(occlusion_level(view.visible) for view in labelled), *unknown],
        alpha=[*observation_angle(location, rotation_y, calibration), *(unknown * 10)],
        bbox=np.concatenate([np.array([v.bbox for v in labelled]).reshape(-1, 4), regions]),
        dimensions=np.concatenate([dimensions, np.full((len(regions), 3), -1.0)]),
        location=np.concatenate([location, np.full((len(regions), 3), -1000.0)]),
        rotation_y=[*rotation_y, *(unknown * 10)],
    )


def _tilt(rng: np.random.Generator, spread: float) -> Float64[np.ndarray, "3 3"]:
    return pose(0, 0, 0, *rng.normal(0, spread, 3))[:3, :3]
