import numpy as np
from shapely import affinity
from shapely.geometry import Polygon
from shapely.geometry import box as rectangle

from datasets.waymo.zones import boxes_in_zones, zones_in_vehicle
from tests.writers.waymo_frames import pose

# A concave outline: an L.
ZONE = np.array([[0.0, 0], [10, 0], [10, 4], [4, 4], [4, 10], [0, 10]])


def test_agrees_with_shapely():
    rng = np.random.default_rng(0)
    boxes = np.c_[
        rng.uniform(-5, 15, (300, 2)), np.zeros(300), rng.uniform(0.5, 6, (300, 2)), np.ones(300),
        rng.uniform(-4, 4, 300),
    ]  # fmt: skip
    zone = Polygon(ZONE)
    expected = []
    for x, y, _, l, w, _, yaw in boxes:
        outline = affinity.rotate(rectangle(-l / 2, -w / 2, l / 2, w / 2), yaw, (0, 0), True)
        expected.append(affinity.translate(outline, x, y).intersects(zone))
    assert 50 < sum(expected) < 250
    assert boxes_in_zones(boxes, [ZONE]).tolist() == expected


def test_a_box_inside_and_a_zone_inside():
    boxes = np.array([[2.0, 2, 0, 1, 1, 1, 0.3], [5, 5, 0, 90, 90, 1, 0.3], [7, 7, 0, 1, 1, 1, 0]])
    assert boxes_in_zones(boxes, [ZONE]).tolist() == [True, True, False]
    assert boxes_in_zones(boxes, [ZONE, ZONE + 6]).tolist() == [True, True, True]


def test_without_boxes_or_zones_nothing_overlaps():
    assert boxes_in_zones(np.zeros((0, 7)), [ZONE]).tolist() == []
    assert boxes_in_zones(np.ones((2, 7)), []).tolist() == [False, False]


def test_zones_move_with_the_vehicle():
    world_from_vehicle = pose(100, 50, 3, 0.5)
    corners = np.array([[1.0, 2], [3, 4], [5, 0]])
    # The plane at the vehicle's height is tilted against its own: as good as the tilt is small.
    in_world = (world_from_vehicle @ np.c_[corners, np.zeros(3), np.ones(3)].T).T[:, :2]
    (found,) = zones_in_vehicle([in_world], world_from_vehicle)
    np.testing.assert_allclose(found, corners, atol=2e-3)
