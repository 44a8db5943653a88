"""Streets with all that nuScenes labels: sizes, places, attributes."""

from collections import Counter

import numpy as np
import pytest
import torch

from datasets.nuscenes.categories import CLASS_OF_CATEGORY
from datasets.simulation import clutter, heavy, roadworks
from datasets.simulation.nuscenes_scene import attributes_of
from datasets.simulation.nuscenes_tables import CATEGORY_OF_ACTOR
from datasets.simulation.people import draw_motorcyclist
from datasets.simulation.town import draw_world
from datasets.simulation.world import CATEGORIES, boxes_in
from detector.metrics.nuscenes import ATTRIBUTES, CLASSES
from detector.ops.boxes import iou_bev


@pytest.fixture(scope="module")
def worlds():
    return [draw_world(np.random.default_rng([1, i]), 4.0, many_kinds=True) for i in range(10)]


# Mean length, width, height of nuScenes' labels; trailers here are those of lorries alone and
# motorcycles have riders.
@pytest.mark.parametrize(
    "draw, mean, tolerance",
    [
        (heavy.draw_bus, (11.2, 2.93, 3.46), (0.5, 0.2, 0.25)),
        (heavy.draw_trailer, (12.2, 2.92, 3.87), (2.5, 0.4, 0.5)),
        (heavy.draw_construction_vehicle, (6.45, 2.82, 3.2), (0.5, 0.3, 0.3)),
        (roadworks.draw_cone, (0.41, 0.41, 1.07), (0.1, 0.1, 0.3)),
        (roadworks.draw_barrier, (0.50, 2.53, 0.98), (0.2, 0.4, 0.3)),
        (lambda rng: (draw_motorcyclist(rng, clutter.motorcycle(rng)).size, None),
         (2.11, 0.77, 1.47), (0.2, 0.15, 0.35)),
    ],
    ids=["bus", "trailer", "construction vehicle", "cone", "barrier", "motorcyclist"],
)  # fmt: skip
def test_sizes_are_about_those_of_real_objects(draw, mean, tolerance):
    rng = np.random.default_rng(0)
    sizes = np.array([draw(rng)[0] for _ in range(100)])
    assert (np.abs(sizes.mean(0) - mean) < tolerance).all(), sizes.mean(0)


@pytest.mark.parametrize(
    "draw",
    [heavy.draw_bus, heavy.draw_construction_vehicle, roadworks.draw_cone, roadworks.draw_barrier],
)
def test_shapes_fill_their_size_and_stand_on_the_ground(draw):
    rng = np.random.default_rng(1)
    for _ in range(20):
        size, shape = draw(rng)
        low, high = shape.extent
        mirrors = np.array([0.05, 0.4, 0.01])
        assert (high - low >= np.array(size) - 0.11).all()
        assert (high - low <= np.array(size) + mirrors).all()
        assert abs(low[2]) < 0.02 and (np.abs(low + high)[:2] < 0.05).all()


def test_a_trailer_is_as_long_as_its_bed_and_the_drawbar_sticks_out_ahead():
    rng = np.random.default_rng(2)
    for _ in range(20):
        (length, width, height), shape = heavy.draw_trailer(rng)
        low, high = shape.extent
        assert low[0] == pytest.approx(-length / 2, abs=0.08)
        assert length / 2 + 0.9 < high[0] < length / 2 + 1.6
        assert high[1] - low[1] == pytest.approx(width - 0.1, abs=0.02) and high[2] <= height + 1e-5


def test_a_few_worlds_hold_all_ten_classes(worlds):
    found = Counter(
        CLASS_OF_CATEGORY[CATEGORY_OF_ACTOR[a.category]] for w in worlds for a in w.actors
    )
    assert set(found) == set(CLASSES)
    assert min(found.values()) >= len(worlds) / 2, found


def test_nothing_touches(worlds):
    for world in worlds:
        for time_s in (0.0, 1.7, 3.9):
            boxes = boxes_in(np.eye(4), world, time_s)
            kept = [i for i, a in enumerate(world.actors) if a.category != "sitting_person"]
            overlap = iou_bev(*[torch.from_numpy(boxes[kept, :7])] * 2).numpy()
            np.fill_diagonal(overlap, 0)
            assert overlap.max(initial=0) < 0.02
            ahead = boxes_in(np.linalg.inv(world.drive.pose(time_s)), world, time_s)
            assert not ((np.abs(ahead[:, 0]) < 2.4) & (np.abs(ahead[:, 1]) < 0.9)).any()


def test_other_worlds_have_none_of_it():
    for seed in range(4):
        world = draw_world(np.random.default_rng([2, seed]), 2.0)
        assert {a.category for a in world.actors} <= set(CATEGORIES[:6])


def test_trailers_on_the_road_follow_a_lorry(worlds):
    pairs = 0
    for world in worlds:
        moving = [(i, a) for i, a in enumerate(world.actors) if len(a.track.times_s) > 1]
        for index, trailer in moving:
            if trailer.category != "trailer":
                continue
            lorry = world.actors[index - 1]
            assert lorry.category == "truck"
            for time_s in (0.0, 3.0):
                apart = (lorry.track.pose(time_s) - trailer.track.pose(time_s))[:2, 3]
                gap = np.linalg.norm(apart) - (lorry.size[0] + trailer.size[0]) / 2
                assert 1.5 < gap < 2.6
            pairs += 1
    assert pairs


def test_every_kind_has_attributes_that_nuscenes_knows(worlds):
    seen = {}
    for world in worlds:
        for actor in world.actors:
            seen.setdefault(actor.category, set()).update(attributes_of(actor, 0.5))
    assert seen["traffic_cone"] == seen["barrier"] == set()
    assert seen["motorcycle"] == {"cycle.without_rider"}
    assert seen["bus"] == {"vehicle.moving", "vehicle.stopped"}
    assert seen["trailer"] == {"vehicle.moving", "vehicle.parked"}
    assert seen["trailer"] == {"vehicle.moving", "vehicle.parked"}
    assert seen["motorcyclist"] == {"cycle.with_rider"}
    assert set().union(*seen.values()) <= set(ATTRIBUTES)
