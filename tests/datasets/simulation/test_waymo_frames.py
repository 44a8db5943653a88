import numpy as np
import open3d as o3d
import pytest

from datasets.simulation.raycast import RayScene
from datasets.simulation.waymo_frames import SCAN_S, draw_drive
from datasets.simulation.waymo_rig import cameras, lasers
from datasets.waymo.frame import CAMERAS, LASERS
from datasets.waymo.pictures import camera_of
from datasets.waymo.range_image import frame_points
from detector.geometry import transform_points

COLUMNS = 160


@pytest.fixture(scope="module")
def drive():
    return draw_drive((5, 0, 1), 2, 0.5, columns=COLUMNS, with_pictures=True)


@pytest.fixture(scope="module")
def frame(drive):
    return drive.frame(1)


def test_the_rig_has_the_data_sets_images():
    full = lasers()
    assert [LASERS[laser.laser] for laser in full] == list(LASERS[1:])
    shapes = [(len(laser.inclinations), laser.model.columns) for laser in full]
    assert shapes == [(64, 2650)] + [(200, 600)] * 4
    assert [CAMERAS[camera.camera] for camera in cameras()] == list(CAMERAS[1:])


def test_points_lie_on_what_was_there(drive, frame):
    # The vehicle moves while the top laser turns: without each column's pose this fails by metres.
    moved = drive.world.drive.velocity(0.5)
    assert np.linalg.norm(moved) > 3
    snapshot = drive.world.at(0.5 + SCAN_S / 2)
    scene = RayScene(snapshot.mesh)._scene
    points = frame_points(frame)
    world = transform_points(frame.world_from_vehicle, points.xyz.astype(np.float64))
    off = scene.compute_distance(o3d.core.Tensor(world.astype(np.float32))).numpy()
    for laser in range(1, 6):
        assert np.median(off[points.laser == laser]) < 0.015
        assert np.quantile(off[points.laser == laser], 0.99) < 0.06


def test_both_returns_and_all_lasers_measure(frame):
    points = frame_points(frame)
    assert set(points.laser) == {1, 2, 3, 4, 5}
    assert set(points.echo) == {1, 2}
    assert 0 <= points.intensity.min() and points.intensity.max() < 1
    near = points.laser > 1
    assert np.linalg.norm(points.xyz[near], axis=1).max() < 25
    assert np.linalg.norm(points.xyz[~near], axis=1).max() > 40
    assert not points.in_no_label_zone.any()


def test_labels_have_points_and_speeds(drive, frame):
    labels = frame.labels
    assert len(labels) > 0
    assert set(labels.types) <= {1, 2, 4}
    assert (labels.point_counts > 0).all()
    assert np.isfinite(labels.velocities).all()
    later = dict(zip(drive.frame(0).labels.ids, drive.frame(0).labels.boxes, strict=True))
    assert set(labels.ids) & set(later)


def test_projections_are_where_the_cameras_see_the_points(frame):
    points = frame_points(frame)
    for place in (0, 3):
        for shot in frame.shots:
            camera = camera_of(shot)
            mine = points.projection[:, place] == shot.camera
            xyz = np.c_[points.xyz[mine], np.ones(mine.sum())]
            seen = camera.intrinsics @ camera.camera_from_ego @ xyz.T
            pixel = (seen[:2] / seen[2]).T
            assert (seen[2] > 0).all()
            inside = pixel - points.projection[mine, place + 1 : place + 3]
            assert ((inside > -0.01) & (inside < 1.01)).all()
    first, second = points.projection[:, 0], points.projection[:, 3]
    assert (first > 0).mean() > 0.3
    assert not ((second > 0) & (second == first)).any()


def test_pictures_show_what_is_there(frame):
    assert [camera_of(shot).image.shape for shot in frame.shots] == [
        (320, 480, 3), (320, 480, 3), (320, 480, 3), (221, 480, 3), (221, 480, 3)
    ]  # fmt: skip
    assert all(camera_of(shot).image.std() > 20 for shot in frame.shots)


def test_the_seed_alone_decides():
    first, second, other = (
        draw_drive(seed, 1, 1.0, columns=32) for seed in ((1, 0, 0), (1, 0, 0), (1, 0, 1))
    )
    assert first.segment == second.segment != other.segment
    one, two = first.frame(0), second.frame(0)
    np.testing.assert_array_equal(one.lasers[0].returns[0], two.lasers[0].returns[0])
    np.testing.assert_array_equal(one.labels.boxes, two.labels.boxes)
