from dataclasses import replace

import numpy as np
import pytest

from datasets.waymo.frame import LaserScan, WaymoFrame
from datasets.waymo.range_image import column_azimuths, frame_points, uniform_inclinations
from detector.errors import InputError
from tests.oracles.waymo_range_image import pixel_points
from tests.writers.waymo_frames import SEGMENT, laser_scan, waymo_frame


def test_points_agree_with_the_loop():
    frame = waymo_frame()
    points = frame_points(frame)
    expected = []
    for scan in frame.lasers:
        for image in scan.returns:
            expected += pixel_points(
                image[..., 0], scan.inclinations, scan.vehicle_from_laser, scan.pixel_poses,
                frame.world_from_vehicle,
            )  # fmt: skip
    np.testing.assert_allclose(points.xyz, expected, atol=2e-4)


def test_columns_belong_to_their_points():
    frame = waymo_frame()
    points = frame_points(frame)
    scan = frame.lasers[2]
    of_scan = (points.laser == 3) & (points.echo == 2)
    image = scan.returns[1]
    hit = image[..., 0] > 0
    np.testing.assert_array_equal(points.intensity[of_scan], image[hit][:, 1])
    np.testing.assert_array_equal(points.elongation[of_scan], image[hit][:, 2])
    np.testing.assert_array_equal(points.in_no_label_zone[of_scan], image[hit][:, 3] > 0)
    np.testing.assert_array_equal(points.projection[of_scan], scan.projections[1][hit])


def test_lasers_and_echoes_can_be_chosen():
    points = frame_points(waymo_frame(), echoes=(1,), lasers=(2, 4))
    assert set(points.laser) == {2, 4}
    assert set(points.echo) == {1}


def test_directions_of_a_level_laser():
    # Four columns look behind-left, left-front, front-right and right-behind of the vehicle,
    # however the laser is mounted.
    quarter = np.pi / 4
    np.testing.assert_allclose(
        column_azimuths(4, np.eye(4)), [3 * quarter, quarter, -quarter, -3 * quarter]
    )
    image = np.full((1, 4, 4), -1.0, np.float32)
    image[0, :, 0] = 10
    for mounting in (np.eye(4), np.diag([-1.0, -1, 1, 1])):
        scan = LaserScan(2, mounting, np.zeros(1), (image,))
        points = frame_points(WaymoFrame("a", 1, np.eye(4), (scan,))).xyz
        assert np.sign(points[:, :2]).tolist() == [[-1, 1], [1, 1], [1, -1], [-1, -1]]


def test_uniform_beams_are_centres_of_equal_steps():
    np.testing.assert_allclose(uniform_inclinations(-1, 1, 4), [0.75, 0.25, -0.25, -0.75])


def test_nothing_came_back():
    scan = LaserScan(1, np.eye(4), np.zeros(3), (np.full((3, 5, 4), -1, np.float32),))
    for lasers in ((scan,), ()):
        points = frame_points(WaymoFrame("a", 1, np.eye(4), lasers))
        assert points.xyz.shape == (0, 3)
        assert points.intensity.shape == (0,)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(inclinations=np.zeros(3)), "3 beam inclinations"),
        (dict(returns=(np.ones((6, 10, 2), np.float32),)), "rows, columns, 4"),
        (dict(pixel_poses=np.zeros((6, 9, 6), np.float32)), "its poses"),
        (dict(projections=(np.zeros((6, 9, 6), np.int32),)), "its projections"),
        (dict(returns=(np.full((6, 10, 4), np.inf, np.float32),)), "finite"),
    ],
)
def test_images_that_do_not_fit_are_named(change, message):
    scan = replace(laser_scan(1, np.random.default_rng(0)), **change)
    frame = replace(waymo_frame(), lasers=(scan,))
    with pytest.raises(InputError, match=f"{SEGMENT}.*laser 1.*{message}"):
        frame_points(frame)
