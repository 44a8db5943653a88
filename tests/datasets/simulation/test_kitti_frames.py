"""Labels of simulated KITTI frames agree with what the sensors saw."""

import numpy as np
import pytest

from datasets.kitti_boxes import camera_objects
from datasets.simulation.kitti_frames import TYPES, KittiRig, draw_rig, label_objects
from datasets.simulation.labels import View, merged, occlusion_level, points_per_actor, views
from datasets.simulation.lidar import LIDARS, scan
from datasets.simulation.materials import Material
from datasets.simulation.meshes import box, join, pose
from datasets.simulation.raycast import RayScene
from datasets.simulation.town import draw_world
from datasets.simulation.world import boxes_in
from detector.geometry import inverse_rigid
from detector.ops.boxes import points_in_boxes

TIME_S = 1.0


class Drive:
    """One moment of one world, seen by scanner and camera."""

    def __init__(self, district: str, seed: int):
        rng = np.random.default_rng(seed)
        self.lidar = LIDARS["hdl64e"]()
        self.world = draw_world(rng, 2.0, district)
        self.rig = draw_rig(rng)
        self.snapshot = self.world.at(TIME_S)
        self.scene = RayScene(self.snapshot.mesh)
        self.world_from_velodyne = self.world.drive.pose(TIME_S) @ pose(z=1.73)
        self.scan = scan(self.lidar, self.scene, self.snapshot, self.world_from_velodyne, rng)
        world_from_camera = self.world_from_velodyne @ self.rig.calibration.ego_from_camera
        self.views = views(self.rig.camera, self.scene, self.snapshot, world_from_camera)
        self.boxes = boxes_in(inverse_rigid(self.world_from_velodyne), self.world, TIME_S)


@pytest.fixture(scope="module", params=["residential", "pedestrian_zone"])
def drive(request) -> Drive:
    return Drive(request.param, seed=3)


def test_points_on_an_actor_lie_in_its_box(drive):
    import torch

    owner = drive.scan.owner
    hit = np.flatnonzero(points_per_actor(owner, len(drive.boxes)) > 20)
    assert len(hit) >= 5
    for actor in hit:
        box = drive.boxes[actor, :7].copy()
        box[3:6] += 2 * 0.12                    # noise, mirrors, the tilt of the ground
        points = torch.from_numpy(drive.scan.points[owner == actor, :3].astype(np.float64))
        inside = points_in_boxes(points, torch.from_numpy(box[None])).numpy()
        assert inside.mean() > 0.97, drive.world.actors[actor].category


def test_picture_boxes_hold_the_visible_points(drive):
    calibration = drive.rig.calibration
    checked = 0
    for view in drive.views:
        points = drive.scan.points[drive.scan.owner == view.actor]
        pixels, depth = calibration.pixels(calibration.camera_points(points))
        inside_picture = (depth > 1) & (pixels >= 0).all(1) & (pixels < (1241, 374)).all(1)
        pixels, depth = pixels[inside_picture], depth[inside_picture]
        if len(pixels) < 10:
            continue
        # Range noise and millimetres move a point by a pixel or two when it is near.
        margin = 1.0 + 30 / depth.min()
        within = (pixels > view.bbox[:2] - margin) & (pixels < view.bbox[2:] + margin)
        assert within.all(1).mean() > 0.99
        checked += 1
    assert checked >= 3


def test_hidden_actors_have_no_points_and_visible_ones_have(drive):
    counts = points_per_actor(drive.scan.owner, len(drive.boxes))
    near = np.hypot(drive.boxes[:, 0], drive.boxes[:, 1]) < 35
    visible = [v.actor for v in drive.views if v.visible > 0.5 and v.truncation < 0.2]
    assert (counts[[a for a in visible if near[a]]] > 0).all()


def test_labels_undo_to_the_boxes_they_were_made_from(drive):
    counts = points_per_actor(drive.scan.owner, len(drive.boxes))
    objects = label_objects(
        drive.world, drive.views, drive.boxes, counts, drive.rig.calibration
    )
    labelled = [v for v in drive.views if v.visible > 0 and counts[v.actor] > 0]
    named = [name for name in objects.types if name != "DontCare"]
    assert 0 < len(named) <= len(labelled)
    assert set(named) <= set(TYPES.values())
    location, _, _ = camera_objects(drive.boxes, drive.rig.calibration)
    for row in range(len(named)):
        gap = np.abs(location - objects.location[row]).max(1)
        assert gap.min() < 1e-9
    assert ((objects.truncation >= 0) == (np.array(objects.types) != "DontCare")).all()


def test_occlusion_grows_as_less_is_seen():
    levels = [occlusion_level(share) for share in np.linspace(1, 0, 101)]
    assert levels == sorted(levels)
    assert levels[0] == 0 and levels[-1] == 3 and set(levels) == {0, 1, 2, 3}


def test_a_wall_before_an_actor_hides_it():
    drive = Drive("road", seed=4)
    seen = max(drive.views, key=lambda view: view.visible)
    assert seen.visible > 0.5
    sight = drive.world_from_velodyne @ [*(0.6 * drive.boxes[seen.actor, :3]), 1]
    x, y = sight[:2] - drive.world_from_velodyne[:2, 3]
    wall = box(0.5, 12, 6, (0.5, 0.5, 0.5), Material.CONCRETE)
    wall = wall.moved(pose(*sight[:2], sight[2] - 3, yaw=float(np.arctan2(y, x))))
    snapshot = drive.snapshot
    blocked = type(snapshot)(
        join([snapshot.mesh, wall]),
        np.concatenate([snapshot.owner, np.full(len(wall), -1, np.int32)]),
        snapshot.ranges,
    )
    world_from_camera = drive.world_from_velodyne @ drive.rig.calibration.ego_from_camera
    again = views(drive.rig.camera, RayScene(blocked.mesh), blocked, world_from_camera)
    behind = {view.actor: view.visible for view in again}
    assert behind[seen.actor] == 0


def test_overlapping_regions_become_one():
    boxes = np.array([[0, 0, 10, 10], [50, 0, 60, 10], [8, 8, 20, 20], [19, 0, 51, 9.0]])
    assert merged(boxes).tolist() == [[0, 0, 60, 20]]
    assert merged(np.zeros((0, 4))).shape == (0, 4)


def test_nothing_seen_gives_an_empty_label():
    rig: KittiRig = draw_rig(np.random.default_rng(0))
    world = draw_world(np.random.default_rng(0), 0.0, "road")
    objects = label_objects(world, [], np.zeros((len(world.actors), 9)), [], rig.calibration)
    assert len(objects) == 0


def test_far_and_unscanned_actors_become_regions():
    rig = draw_rig(np.random.default_rng(0))
    world = draw_world(np.random.default_rng(0), 0.0, "road")
    boxes = np.zeros((len(world.actors), 9))
    boxes[:, 0], boxes[:, 3:6] = 20.0, 1.5
    boxes[0, 0] = 95.0
    counts = np.full(len(boxes), 10)
    counts[1] = 0
    seen = [
        View(actor, np.array([100.0 * actor, 100, 100.0 * actor + 40, 140]), 0.0, 1.0)
        for actor in range(3)
    ]
    objects = label_objects(world, seen, boxes, counts, rig.calibration)
    assert sorted(objects.types).count("DontCare") == 2 and len(objects) == 3


def test_what_is_all_but_hidden_becomes_a_region():
    """Glimpses between leaves are no label, however many points got through."""
    world = draw_world(np.random.default_rng(0), 0.0, "city")
    rig = draw_rig(np.random.default_rng(0))
    actors = [i for i, actor in enumerate(world.actors) if actor.category == "car"][:2]
    boxes = np.zeros((len(world.actors), 9))
    boxes[:, 0] = 20.0
    box = np.array([100.0, 100, 140, 140])
    seen = [
        View(actor, box + 200 * number, 0.0, visible)
        for number, (actor, visible) in enumerate(zip(actors, (0.02, 0.1), strict=True))
    ]
    counts = np.full(len(world.actors), 50)
    objects = label_objects(world, seen, boxes, counts, rig.calibration)
    assert list(objects.types) == ["Car", "DontCare"]
    assert np.array_equal(objects.bbox[1], box)
