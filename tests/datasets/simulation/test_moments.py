import numpy as np

from datasets.simulation.meshes import pose
from datasets.simulation.moments import Moments
from datasets.simulation.raycast import RayScene, owners
from datasets.simulation.town import draw_world


def test_two_scenes_see_what_one_would():
    world = draw_world(np.random.default_rng(4), 3.0, "residential")
    moments = Moments(world, reach_m=1000)
    scene, snapshot = moments.at(1.5)
    whole = world.at(1.5)
    rng = np.random.default_rng(0)
    directions = rng.normal(size=(20000, 3)) * [1, 1, 0.15]
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    origin = (world.drive.pose(1.5) @ pose(z=1.8))[:3, 3]
    rays = np.column_stack([np.broadcast_to(origin, directions.shape), directions])
    ours, expected = scene.cast(rays), RayScene(whole.mesh).cast(rays)
    # Standing actors are taken as they are at time 0: people among them breathe a little.
    same = np.isclose(ours.distance_m, expected.distance_m, atol=1e-3)
    same |= ~ours.met & ~expected.met
    assert same.mean() > 0.998
    agree = owners(ours, snapshot) == owners(expected, whole)
    assert agree.mean() > 0.998 and (owners(ours, snapshot) >= 0).sum() > 50
    assert (scene.blocked(rays) == ours.met).mean() > 0.998


def test_moving_actors_far_away_are_left_out():
    world = draw_world(np.random.default_rng(4), 3.0, "city")
    _, near = Moments(world, reach_m=20).at(0.0)
    moving = [i for i, a in enumerate(world.actors) if len(a.track.times_s) > 1]
    gone = [i for i in moving if near.ranges[i] == (0, 0)]
    assert gone and all(
        np.hypot(*world.actors[i].track.pose(0.0)[:2, 3] - world.drive.pose(0.0)[:2, 3]) >= 20
        for i in gone
    )
