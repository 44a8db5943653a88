from dataclasses import replace

import numpy as np
import pytest

from datasets.nuscenes.sensor_files import read_radar
from datasets.simulation.materials import Material
from datasets.simulation.meshes import box, join, pose
from datasets.simulation.moments import Moments
from datasets.simulation.nuscenes_rig import MOUNTS
from datasets.simulation.nuscenes_scene import write_radar_file
from datasets.simulation.radar import (
    MOVING,
    ONCOMING,
    STATIONARY,
    STOPPED,
    UNKNOWN,
    RadarModel,
    RadarTargets,
    sense,
)
from datasets.simulation.reflectors import Reflectors
from datasets.simulation.town import draw_world
from datasets.simulation.vehicles import draw_car
from datasets.simulation.world import Actor, Track, World

SIZE = (4.0, 2.0, 1.5)
WORLD_FROM_RADAR = pose(z=0.5)
# Without what is unsure by chance: detours, speeds that are not known or of another target.
SURE = RadarModel(
    detour_share=0, no_speed_share=0, ambiguous_share=0, own_speed_noise_mps=0,
    angle_noise_deg=(0.3, 0.3, 0.3),
)  # fmt: skip


def block(size, material=Material.PAINT):
    return box(*size, (0.5, 0.5, 0.5), material)


def actor(x, y, speed=0.0, category="car", size=SIZE) -> Actor:
    """Drives along x."""
    times = np.array([0.0, 10.0]) if speed else np.zeros(1)
    poses = np.zeros((len(times), 6))
    poses[:, 0], poses[:, 1] = x + speed * times, y
    return Actor(category, size, Track(times, poses), lambda time_s: block(size))


def world(*actors, town=None, own_speed=0.0) -> World:
    ground = block((200, 200, 0.01), Material.ASPHALT).at(z=-0.02)
    drive = np.zeros((2, 6))
    drive[1, 0] = 10 * own_speed
    town = join([ground, *(town or [])])
    return World(town, tuple(actors), Track(np.array([0.0, 10.0]), drive), "test")


def sweeps(
    a_world: World, count=30, radar=None, time_s=0.0, reflectors=None
) -> list[RadarTargets]:
    """Of one moment, each with scattering centres of its own unless they are given."""
    radar = radar or SURE
    scene, snapshot = Moments(a_world).at(time_s)
    rng = np.random.default_rng(1)
    return [
        sense(
            radar, scene, snapshot, a_world, reflectors or Reflectors.draw(a_world, rng), time_s,
            WORLD_FROM_RADAR, rng,
        )
        for _ in range(count)
    ]  # fmt: skip


def on_actor(targets: list[RadarTargets], field: str, index=0) -> np.ndarray:
    return np.concatenate([getattr(t, field)[t.owner == index] for t in targets])


def test_targets_lie_on_the_side_of_a_car_that_faces_the_radar():
    position = on_actor(sweeps(world(actor(20, 3))), "position")
    assert len(position) > 20
    assert np.abs(position[:, 0] - 18).mean() < 1.5
    assert (position[:, 0] > 16.5).all() and (np.abs(position[:, 1] - 3) < 2.5).all()


@pytest.mark.parametrize(("speed", "state"), [(5.0, MOVING), (-5.0, ONCOMING)])
def test_doppler_is_the_radial_part_of_the_velocity_over_ground(speed, state):
    found = sweeps(world(actor(20, 10, speed), own_speed=3.0))
    velocity, position = on_actor(found, "velocity"), on_actor(found, "position")
    unit = position / np.linalg.norm(position, axis=1, keepdims=True)
    radial = (velocity * unit).sum(1)
    np.testing.assert_allclose(radial, speed * unit[:, 0], atol=1.2)
    assert radial.mean() == pytest.approx(speed * unit[:, 0].mean(), abs=0.15)
    relative = (on_actor(found, "relative_velocity") * unit).sum(1)
    # It comes in steps of 0.25 m/s.
    np.testing.assert_allclose(relative, radial - 3.0 * unit[:, 0], atol=0.16)
    assert (on_actor(found, "dynamic_property") == state).all()


def test_some_speeds_are_not_known_and_some_are_another_targets():
    found = sweeps(world(actor(15, 0), own_speed=8.0), 200, RadarModel())
    position, velocity = on_actor(found, "position"), on_actor(found, "velocity")
    relative = on_actor(found, "relative_velocity")
    unknown = on_actor(found, "dynamic_property") == UNKNOWN
    assert 0.02 < unknown.mean() < 0.1
    # As nuScenes gives them: no relative speed, and the vehicle's own taken off that.
    assert (relative[unknown] == 0).all()
    np.testing.assert_allclose(np.linalg.norm(velocity[unknown], axis=1), 8.0, rtol=0.05)
    wrong = (np.linalg.norm(velocity, axis=1) > 2) & ~unknown
    assert 0.01 < wrong.mean() < 0.1
    assert (on_actor(found, "ambiguity_state")[wrong] != 3).all()
    assert len(position) > 500


def test_a_standing_car_is_stationary_or_stopped():
    states = on_actor(sweeps(world(actor(15, 0), own_speed=8.0)), "dynamic_property")
    assert {STATIONARY, STOPPED} == set(states.tolist())


def test_cars_give_as_many_targets_as_in_nuscenes_and_people_few():
    """The key frame of the sample data: 6, 2, 1 and 1 targets on cars at 22, 36, 38 and 41 m; 6 on
    8 people within 20 m, none on 24 farther ones."""
    people = [actor(x, y, category="pedestrian", size=(0.6, 0.6, 1.8))
              for x, y in ((14, 6), (16, -6), (30, 8), (35, -8))]  # fmt: skip
    cars = [actor(22, 2), actor(39, -2), actor(75, 3)]
    found = sweeps(world(*cars, *people), 300, RadarModel())
    each = [len(on_actor(found, "rcs_dbsm", index)) / len(found) for index in range(7)]
    assert 2.5 < each[0] < 6 and 0.5 < each[1] < 2 and each[2] < 0.5
    assert 0.2 < np.mean(each[3:5]) < 0.9 and np.mean(each[5:]) < 0.25


def test_sweeps_of_one_drive_show_the_same_places_again():
    """Other drives have other scattering centres, so that their sweeps together blur."""
    wall = block((0.3, 60, 3), Material.PLASTER).at(25, 0)
    size, shape = draw_car(np.random.default_rng(0))
    a_world = world(replace(actor(12, 3), size=size, shape=lambda time_s: shape), town=[wall])
    quiet = replace(SURE, range_noise_m=0.0, angle_noise_deg=(0.0, 0.0, 0.0), step_m=0.01)
    one = Reflectors.draw(a_world, np.random.default_rng(3))
    same, other = sweeps(a_world, 80, quiet, reflectors=one), sweeps(a_world, 80, quiet)

    def places_on_car(found):
        return len(np.unique(on_actor(found, "position").round(1), axis=0))

    assert places_on_car(same) <= 16 and places_on_car(other) > 48

    def unevenness(found):
        place = np.concatenate([t.position[t.owner == -1] for t in found])
        along = place[np.abs(place[:, 0] - 24.85) < 0.2, 1]
        each = np.histogram(along, np.arange(-12, 2.1, 0.6))[0]
        return each.std() / each.mean()

    assert unevenness(same) > 1.5 * unevenness(other)


def test_some_cars_answer_well_and_some_hardly_sweep_after_sweep():
    a_world = world(*[actor(20, y) for y in np.arange(-14, 15, 4.0)])
    spread = []
    for seed in range(6):
        drawn = Reflectors.draw(a_world, np.random.default_rng(seed))
        found = sweeps(a_world, 25, reflectors=drawn)
        spread += [len(on_actor(found, "rcs_dbsm", i)) / 25 for i in range(len(a_world.actors))]
    spread = np.array(spread)
    assert (spread < 1).mean() > 0.08 and (spread > 1.5 * spread.mean()).mean() > 0.08


def test_the_town_answers_alike_from_everywhere():
    """Strong cells are a matter of the place in the world alone."""
    drawn = Reflectors.draw(world(), np.random.default_rng(0))
    places = np.random.default_rng(1).uniform(-50, 50, (4000, 3))
    cell, gain, strength = drawn.of_town(places)
    nudged = drawn.of_town((np.floor(places / 0.6) + 0.5) * 0.6)
    np.testing.assert_array_equal(cell, nudged[0])
    np.testing.assert_array_equal(gain, nudged[1])
    assert gain.mean() == pytest.approx(1, abs=0.05) and (gain < 0.5).mean() > 0.35
    assert abs(strength.mean()) < 0.1 and strength.std() == pytest.approx(1, abs=0.05)
    assert len(np.unique(cell)) > 3900


def test_weak_targets_are_not_reported():
    found = sweeps(world(actor(15, 0, category="pedestrian", size=(0.6, 0.6, 1.8))), 100)
    assert min(t.rcs_dbsm.min(initial=0) for t in found) >= -5


def test_metal_returns_more_than_people():
    person = actor(20, 4, category="pedestrian", size=(0.6, 0.6, 1.8))
    found = sweeps(world(actor(20, -4), person))
    assert on_actor(found, "rcs_dbsm", 0).mean() > on_actor(found, "rcs_dbsm", 1).mean() + 5
    assert len(on_actor(found, "rcs_dbsm", 0)) > 2 * len(on_actor(found, "rcs_dbsm", 1))


def test_a_wall_hides_a_car_and_another_car_only_partly():
    wall = block((0.3, 10, 3), Material.CONCRETE).at(15, 0)
    assert not len(on_actor(sweeps(world(actor(20, 0), town=[wall])), "rcs_dbsm"))
    behind = sweeps(world(actor(25, 0), actor(15, 0, size=(4.0, 6.0, 1.6))), 200)
    seen = on_actor(behind, "position", 0)
    assert 0 < len(seen) < 0.1 * len(on_actor(behind, "rcs_dbsm", 1))
    # They lie on the car that is hidden, not on the one that hides it.
    assert (np.abs(seen[:, 0] - 25) < 3).all()


def test_there_are_ghosts_and_clutter_and_they_are_marked():
    found = sweeps(world(actor(12, 0, 5.0)), 200)
    nobody = np.concatenate([t.position[t.owner < 0] for t in found])
    moving = np.concatenate([t.dynamic_property[t.owner < 0] == MOVING for t in found])
    doubtful = np.concatenate([t.false_alarm[t.owner < 0] > 1 for t in found])
    ghosts = moving & (np.hypot(*nobody.T) > 13)
    assert len(nobody) > 20 and ghosts.sum() > 3
    assert doubtful[ghosts].all()
    invalid = np.concatenate([t.invalid_state for t in found])
    # Of the 250 targets of two real sweeps, 106 have another state than valid.
    assert 0.25 < (invalid != 0).mean() < 0.55


def test_no_more_targets_than_the_radar_reports():
    walls = [block((0.3, 60, 3), Material.METAL).at(8, 0)]
    found = sweeps(world(town=walls), 3, RadarModel(maximum_targets=20))
    assert [len(t.rcs_dbsm) for t in found] == [20, 20, 20]
    assert all((np.abs(np.arctan2(*t.position.T[::-1])) < np.radians(75)).all() for t in found)


def test_sweeps_look_like_the_two_real_ones(real_data, tmp_path):
    """As many targets near by, as strong, as still and as doubtful as in the sample data."""
    real = np.concatenate([read_radar(path) for path in sorted(real_data.glob("nuscenes/*RADAR*"))])
    assert len(real) == 250
    files = []
    mounts = [m.ego_from_sensor for m in MOUNTS.values() if m.modality == "radar"]
    for seed in range(8):
        rng = np.random.default_rng(seed)
        drive = draw_world(rng, 1.0)
        scene, snapshot = Moments(drive).at(0.5)
        centres = Reflectors.draw(drive, rng)
        for ego_from_radar in mounts:
            pose_of_radar = drive.drive.pose(0.5) @ ego_from_radar
            files.append(tmp_path / f"{len(files)}.pcd")
            seen = sense(RadarModel(), scene, snapshot, drive, centres, 0.5, pose_of_radar, rng)
            write_radar_file(files[-1], seen)
    ours = np.concatenate([read_radar(path) for path in files])

    def near(targets):
        return targets[np.hypot(targets["x"], targets["y"]) < 55]

    def speed(targets):
        return np.hypot(targets["vx_comp"], targets["vy_comp"])

    assert 35 < len(near(ours)) / len(files) < len(near(real)) / 2 + 10
    strength = [np.percentile(near(t)["rcs"], (10, 50, 90)) for t in (ours, real)]
    np.testing.assert_allclose(*strength, atol=2.5)
    np.testing.assert_allclose(*(np.percentile(speed(t), (25, 50)) for t in (ours, real)), atol=0.1)
    for field, state in (("invalid_state", 0), ("ambig_state", 3)):
        shares = [(t[field] == state).mean() for t in (ours, real)]
        np.testing.assert_allclose(*shares, atol=0.1, err_msg=field)
    moving = [(speed(t) > 2).mean() for t in (ours, real)]
    np.testing.assert_allclose(*moving, atol=0.08)
