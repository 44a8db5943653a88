"""Worlds: sizes as measured on real streets, motion over time, nothing in each other's way."""

import numpy as np
import pytest

from datasets.simulation.districts import DISTRICTS, draw_piece
from datasets.simulation.meshes import pose
from datasets.simulation.people import draw_cyclist, draw_person
from datasets.simulation.town import draw_world
from datasets.simulation.vehicles import draw_car, draw_truck, draw_van
from datasets.simulation.world import CATEGORIES, Track, boxes_in
from detector.metrics.kitti import KittiObjects


@pytest.fixture(scope="module", params=list(DISTRICTS))
def world(request):
    return draw_world(np.random.default_rng(6), 3.0, request.param)


def moved_shape(world, actor, time_s):
    return world.actors[actor].shape(time_s).vertices


@pytest.mark.parametrize(
    "draw, mean, tolerance",
    [
        # Mean length, width, height over the 7481 labels of KITTI's training set.
        (draw_car, (3.88, 1.63, 1.53), (0.12, 0.05, 0.05)),
        (draw_van, (5.08, 1.90, 2.21), (0.35, 0.12, 0.15)),
        (draw_truck, (10.11, 2.59, 3.25), (1.0, 0.15, 0.25)),
        (lambda rng: (draw_person(rng, rng.random() < 0.72).walking_size, None),
         (0.84, 0.66, 1.76), (0.12, 0.08, 0.05)),
        (lambda rng: (draw_cyclist(rng).size, None), (1.76, 0.60, 1.74), (0.08, 0.06, 0.06)),
    ],
    ids=["car", "van", "truck", "pedestrian", "cyclist"],
)  # fmt: skip
def test_sizes_are_those_of_real_objects(draw, mean, tolerance):
    rng = np.random.default_rng(0)
    sizes = np.array([draw(rng)[0] for _ in range(120)])
    assert (np.abs(sizes.mean(0) - mean) < tolerance).all(), sizes.mean(0)
    assert (sizes.std(0) > [0.05, 0.02, 0.03]).all()


@pytest.mark.parametrize("draw", [draw_car, draw_van, draw_truck])
def test_vehicles_fill_their_size(draw):
    rng = np.random.default_rng(1)
    for _ in range(10):
        size, shape = draw(rng)
        low, high = shape.extent
        mirrors = np.array([0.01, 0.30, 0.01])
        assert (high - low >= np.array(size) - 0.06).all()
        assert (high - low <= np.array(size) + mirrors).all()
        assert abs(low[2]) < 0.02 and abs(low[0] + high[0]) < 0.02


def test_people_stay_inside_their_box_while_they_walk(world):
    for actor in [a for a in world.actors if a.category in ("pedestrian", "cyclist")][:6]:
        for time_s in (0.0, 0.37, 0.8):
            low, high = actor.shape(time_s).extent
            length, width, height = actor.size
            assert max(-low[0], high[0]) < length / 2 + 0.13
            assert max(-low[1], high[1]) < width / 2 + 0.08
            assert low[2] > -0.02 and high[2] < height + 0.03


def test_nothing_drives_into_anything(world):
    import torch

    from detector.ops.boxes import iou_bev

    for time_s in (0.0, 1.1, 2.4):
        boxes = boxes_in(np.eye(4), world, time_s)
        kept = [i for i, a in enumerate(world.actors) if a.category != "sitting_person"]
        overlap = iou_bev(*[torch.from_numpy(boxes[kept, :7])] * 2).numpy()
        np.fill_diagonal(overlap, 0)
        assert overlap.max(initial=0) < 0.02


def test_the_road_ahead_of_the_drive_is_free(world):
    for time_s in (0.0, 1.5, 3.0):
        here = np.linalg.inv(world.drive.pose(time_s))
        boxes = boxes_in(here, world, time_s)
        near = (np.abs(boxes[:, 0]) < 2.4) & (np.abs(boxes[:, 1]) < 0.9)
        assert not near.any()


def test_nothing_of_the_town_stands_on_the_way():
    """Nothing hangs or stands between the road and two metres over it where the drive goes: no
    leaves before the scanner, no wall that cuts the inside of a bend."""
    from datasets.simulation.raycast import RayScene

    footprint = np.array([(x, y, 2.2, 1) for x in (-2, -1, 0, 1, 2) for y in (-0.9, 0, 0.9)])
    for seed in range(12):
        world = draw_world(np.random.default_rng([3, seed]), 4.0)
        town = RayScene(world.town)
        for time_s in (0.0, 1.0, 2.0, 3.0, 4.0):
            above = (footprint @ world.drive.pose(time_s).T)[:, :3]
            down = np.tile([0, 0, -1.0], (len(above), 1))
            free = town.cast(np.column_stack([above, down])).distance_m
            assert (free > 2.0).all(), (seed, world.district)


def test_velocity_is_the_change_of_place(world):
    before, after = (boxes_in(np.eye(4), world, t) for t in (1.1, 1.2))
    assert np.allclose((after - before)[:, :2] / 0.1, after[:, 7:9], atol=0.25)
    assert (np.hypot(*after[:, 7:9].T) > 0.5).any() or len(world.actors) < 3


def test_actors_stand_on_the_ground(world):
    """A ray straight down from inside an actor meets the town at its foot."""
    from datasets.simulation.raycast import RayScene

    tracks = np.array([actor.track.pose(0.0)[:3, 3] for actor in world.actors])
    rays = np.column_stack([tracks + (0, 0, 3.0), np.tile([0, 0, -1.0], (len(tracks), 1))])
    drop = RayScene(world.town).cast(rays).distance_m
    assert np.median(np.abs(drop - 3.0)) < 0.05


def test_worlds_follow_from_their_seed():
    first, again = (draw_world(np.random.default_rng(8), 1.0) for _ in range(2))
    other = draw_world(np.random.default_rng(9), 1.0)
    assert np.array_equal(first.at(0.5).mesh.vertices, again.at(0.5).mesh.vertices)
    assert len(first.town) != len(other.town)


def test_snapshots_know_whose_triangles_they_hold(world):
    snapshot = world.at(1.0)
    assert len(snapshot.owner) == len(snapshot.mesh)
    assert {a.category for a in world.actors} <= set(CATEGORIES)
    for actor in range(0, len(world.actors), 5):
        first, last = snapshot.ranges[actor]
        assert (snapshot.owner[first:last] == actor).all()
        assert len(snapshot.part(actor)) == len(world.actors[actor].shape(1.0)) == last - first
    assert (snapshot.owner[: len(world.town)] == -1).all()


def test_every_kind_of_frontage_can_be_drawn():
    rng = np.random.default_rng(2)
    for kind in {kind for district in DISTRICTS.values() for kind in district.pieces}:
        piece = draw_piece(rng, kind)
        assert piece.length > 2 and len(piece.mesh) > 10
        low, high = piece.mesh.extent
        assert low[2] > -0.5 and high[2] < 40


def test_tracks_interpolate_and_stand_still_outside_their_time():
    track = Track(np.array([0.0, 2.0]), np.array([[0, 0, 0, 0, 0, 0], [4, 0, 1, 1, 0, 0.0]]))
    assert np.allclose(track.pose(1.0), pose(2, 0, 0.5, 0.5))
    assert np.allclose(track.velocity(1.0), (2, 0, 0.5))
    assert np.allclose(track.velocity(5.0), 0) and np.allclose(track.pose(5.0), pose(4, 0, 1, 1))


def test_an_empty_world_has_no_boxes():
    world = draw_world(np.random.default_rng(0), 0.0, "road")
    empty = type(world)(world.town, (), world.drive, "road")
    assert boxes_in(np.eye(4), empty, 0.0).shape == (0, 9)
    assert (empty.at(0.0).owner == -1).all()
    assert len(KittiObjects.empty()) == 0


def test_clutter_and_plants_stand_on_the_ground():
    from datasets.simulation import clutter, plants

    rng = np.random.default_rng(4)
    things = (
        clutter.bins, clutter.bicycles, clutter.trailer, clutter.motorcycle, clutter.stack,
        clutter.planter, clutter.shelter, clutter.display, clutter.barrier, clutter.container,
        lambda rng: plants.hedge(rng, 8, 2, 0.9, 0.8), lambda rng: plants.bush(rng, 2, 1, 1.5),
        lambda rng: plants.shrubbery(rng, 9, 2),
    )  # fmt: skip
    for draw in things:
        shapes = [draw(rng) for _ in range(4)]
        for shape in shapes:
            low, high = shape.extent
            assert -0.35 < low[2] < 0.2 and 0.2 < high[2] < 4 and (high - low < 10).all()
        assert len({tuple(shape.extent[1]) for shape in shapes}) > 1 or draw is clutter.motorcycle


def test_windows_lie_behind_the_wall():
    from datasets.simulation.buildings import building
    from datasets.simulation.materials import Material

    house = building(np.random.default_rng(1), 12, 10, 3, pitched=True)
    glass = house.vertices[house.triangles[house.materials == Material.GLASS]]
    front = glass[(np.ptp(glass[..., 1], 1) < 1e-4) & (glass[:, 0, 1] < 1)]
    assert len(front) > 6 and (front[:, 0, 1] > 0.04).all()


def test_tall_hedges_are_as_rough_as_leaves():
    """Neighbouring pulses meet a hedge at depths that differ by decimetres, a wall's by none."""
    from datasets.simulation import plants, scenery
    from datasets.simulation.raycast import RayScene

    rng = np.random.default_rng(2)
    rays = np.zeros((400, 6), np.float32)
    rays[:, 0], rays[:, 1], rays[:, 2] = np.linspace(1, 9, 400), -10, 0.8
    rays[:, 4] = 1
    spread = [
        np.std(RayScene(shape).cast(rays).distance_m)
        for shape in (plants.hedge(rng, 10, 2, 1.0, 0.8), scenery.board_fence(rng, 10))
    ]
    assert spread[0] > 0.06 > 2 * spread[1]
