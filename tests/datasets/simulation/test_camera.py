"""Pictures: what is followed from other pixels is what a ray through each pixel meets."""

import numpy as np
import pytest

from datasets.simulation.camera import CameraModel, Light, _look, render
from datasets.simulation.materials import Material
from datasets.simulation.meshes import box, join
from datasets.simulation.raycast import RayScene
from datasets.simulation.town import draw_world
from datasets.simulation.world import Snapshot

# x right, y down, z forward, from 1.6 m over the ground.
WORLD_FROM_CAMERA = np.array([[0, 0, 1.0, 0], [-1, 0, 0, 0], [0, -1, 0, 1.6], [0, 0, 0, 1]])
SUN = Light(np.array([0.0, 0.6, 0.8]), 1.0, 1.2)


def camera(width=203, height=101):
    focal = 0.6 * width
    return CameraModel(
        np.array([[focal, 0, width / 2, 0], [0, focal, height / 2, 0], [0, 0, 1, 0.0]]),
        (width, height),
    )


def blocks():
    ground = box(200, 200, 0.1, (0.3, 0.3, 0.3), Material.ASPHALT, 0, 0, -0.1)
    house = box(6, 8, 5, (0.7, 0.2, 0.2), Material.PLASTER, 18, 4)
    return Snapshot(join([ground, house]), np.full(24, -1, np.int32), ())


@pytest.mark.parametrize("size", [(203, 101), (200, 100), (64, 36), (1, 1)])
def test_every_pixel_meets_what_its_own_ray_meets(size):
    scene, model = RayScene(blocks().mesh), camera(*size)
    rays = model.rays(WORLD_FROM_CAMERA, model.all_pixels())
    expected, found = scene.cast(rays), _look(size, scene, rays)
    assert np.array_equal(found.met, expected.met)
    met = expected.met
    # A ray through an edge may meet either side.
    same = met & (found.triangle == expected.triangle)
    assert same.sum() >= 0.999 * met.sum()
    assert np.allclose(found.distance_m[met], expected.distance_m[met], rtol=1e-4)
    assert np.allclose(found.normals[same], expected.normals[same], atol=1e-5)


def test_hardly_anything_is_overlooked_in_a_whole_town():
    world = draw_world(np.random.default_rng(4), 0.0, "city")
    scene, model = RayScene(world.at(0.0).mesh), camera(620, 188)
    rays = model.rays(world.drive.pose(0.0) @ WORLD_FROM_CAMERA, model.all_pixels())
    expected, found = scene.cast(rays), _look(model.size, scene, rays)
    # Only what is thinner than two pixels and lies before one large face.
    same = np.isclose(found.distance_m, expected.distance_m, rtol=1e-3)
    assert same.mean() > 0.99


def test_rays_go_through_their_pixels():
    model = camera()
    rays = model.rays(WORLD_FROM_CAMERA, np.array([[101.5, 50.5], [0.0, 50.5], [101.5, 0.0]]))
    assert np.allclose(rays[:, :3], (0, 0, 1.6)) and np.allclose(rays[0, 3:], (1, 0, 0))
    assert rays[1, 4] > 0.3 and rays[2, 5] > 0.2                     # left; up
    assert np.allclose(np.linalg.norm(rays[:, 3:], axis=1), 1, atol=1e-6)


def test_sun_sky_and_shadow():
    snapshot, model = blocks(), camera()
    scene = RayScene(snapshot.mesh)
    sunny = render(model, scene, snapshot, WORLD_FROM_CAMERA, SUN).astype(int)
    overcast = render(
        model, scene, snapshot, WORLD_FROM_CAMERA, Light(SUN.sun, 0.0, 1.2)
    ).astype(int)
    assert sunny.shape == (101, 203, 3)
    sky = sunny[5, 150]
    assert sky[2] > sky[0]                                           # blue
    # The sun stands to the left: the house's shadow lies on the ground to its right.
    shadow, beside = (slice(60, 63), slice(109, 114)), (slice(60, 63), slice(140, 145))
    assert sunny[beside].mean() > 1.2 * sunny[shadow].mean()
    assert abs(overcast[beside].mean() - overcast[shadow].mean()) < 8
    again = render(model, scene, snapshot, WORLD_FROM_CAMERA, SUN)
    assert np.array_equal(again, sunny)
