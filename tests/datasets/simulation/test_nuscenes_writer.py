import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from datasets.nuscenes import NuScenesDataset
from datasets.nuscenes.score import score_results
from datasets.nuscenes.sensor_files import read_radar
from datasets.nuscenes.tables import TABLES
from datasets.simulation.nuscenes_writer import (
    TRAIN,
    VAL,
    VERSION,
    NuScenesSettings,
    open_folder,
    simulate,
)
from detector.errors import InputError
from detector.ops.boxes import points_in_boxes
from tests.oracles.nuscenes_devkit import numbers, official_summary
from tests.writers.nuscenes_results import random_results

SETTINGS = NuScenesSettings(1, 1, samples=3, seed=2, lidar_columns=271, image_size=(64, 36))


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("simulated")
    open_folder(folder, SETTINGS, overwrite=False)
    assert list(simulate(folder, SETTINGS, workers=1)) == ["scene-9000", "scene-9001"]
    return folder


def test_all_tables_are_there_and_the_adapter_reads_every_sample(root):
    assert {path.stem for path in (root / VERSION).glob("*.json")} == {*TABLES, "splits"}
    for split in (TRAIN, VAL):
        data = NuScenesDataset(root, VERSION, split, sensors=("lidar", "radar"), with_images=True)
        assert len(data) == 3
        sample = data[2]
        ages = np.unique(sample.points[sample.points[:, -1] == 0, 4])
        np.testing.assert_allclose(ages, np.arange(10) * 0.05, atol=1e-5)
        assert len(sample.cameras) == 6 and len(sample.boxes) > 3


def test_points_lie_in_their_boxes(root):
    data = NuScenesDataset(root, VERSION, TRAIN, lidar_sweeps=1)
    annotations = data.annotations(1)
    inside = points_in_boxes(
        torch.from_numpy(data[1].points), torch.from_numpy(annotations.boxes[:, :7]).float()
    )
    counts = inside.sum(0).numpy()
    many = annotations.lidar_points >= 10
    assert many.sum() >= 3
    # Boxes stand upright and vehicles, long ones above all, lean with the street; noise puts some
    # points outside.
    assert (counts[many] > 0.5 * annotations.lidar_points[many]).all()
    assert counts[many].sum() > 0.75 * annotations.lidar_points[many].sum()


def test_still_things_stay_where_they_are_under_way(root):
    """Sweeps of all ages agree: poses, calibration and times fit together."""
    data = NuScenesDataset(root, VERSION, TRAIN)
    points = data[2].points
    still = [
        box for box, attribute in zip(
            data.annotations(2).boxes, data.annotations(2).attributes, strict=True
        ) if attribute == "vehicle.parked"
    ]  # fmt: skip
    inside = points_in_boxes(
        torch.from_numpy(points), torch.from_numpy(np.array(still)[:, :7]).float()
    ).numpy()
    ages = points[:, 4]
    newest, oldest = (inside[np.isclose(ages, age)].sum(0) for age in (0.0, 0.45))
    seen = newest >= 10
    assert seen.any()
    # A shift by a frame's way of some metres would leave next to none inside.
    assert 0.5 < oldest[seen].sum() / newest[seen].sum() < 2


def test_velocities_are_those_of_the_tracks(root):
    from datasets.simulation.town import draw_world

    rng = np.random.default_rng((SETTINGS.seed, 0))
    world = draw_world(rng, (SETTINGS.samples - 1) * 0.5 + 0.2, many_kinds=True)
    data = NuScenesDataset(root, VERSION, TRAIN)
    annotations = data.annotations(1)
    names = json.loads((root / VERSION / "instance.json").read_text())
    assert len(names) >= annotations.instances.max()
    expected = sorted(
        np.hypot(*actor.track.velocity(0.5)[:2]) for actor in world.actors
    )
    speeds = np.linalg.norm(annotations.boxes[:, 7:], axis=1)
    for speed in speeds[np.isfinite(speeds)]:
        assert np.abs(np.array(expected) - speed).min() < 0.3


def test_radar_files_are_read_by_the_adapter(root):
    files = sorted(root.glob("samples/RADAR_*/*.pcd"))
    assert len(files) == 2 * 5 * 3
    counts = [len(read_radar(file)) for file in files]
    assert max(counts) <= 125 and np.mean(counts) > 5


def test_the_official_kit_opens_renders_and_evaluates(root, tmp_path):
    devkit = pytest.importorskip("nuscenes", reason="the official development kit is absent")
    import matplotlib

    matplotlib.use("Agg")
    database = devkit.NuScenes(version=VERSION, dataroot=str(root), verbose=False)
    sample = database.sample[1]
    for channel in ("LIDAR_TOP", "RADAR_FRONT", "CAM_FRONT"):
        picture = tmp_path / f"{channel}.png"
        database.render_sample_data(
            sample["data"][channel], out_path=str(picture), verbose=False, nsweeps=2,
            underlay_map=False,
        )  # fmt: skip
        assert picture.stat().st_size > 1000
    assert database.map[0]["mask"].mask().shape == (10000, 10000)
    results = tmp_path / "results.json"
    content = random_results(root / VERSION, noise_m=0.4, samples=samples_of(root, VAL))
    results.write_text(json.dumps(content))
    ours, meta = score_results(root, VERSION, results, VAL)
    official = numbers(official_summary(root, VERSION, results, VAL))
    found = numbers(json.loads(json.dumps(ours.as_dict(meta))))
    assert found.keys() == official.keys() and ours.mean_ap > 0
    for key, value in official.items():
        if isinstance(value, float):
            np.testing.assert_allclose(found[key], value, rtol=0, atol=1e-9, err_msg=key)


def samples_of(root, split) -> set[str]:
    return set(NuScenesDataset(root, VERSION, split).frame_ids)


def test_a_folder_with_other_things_is_left_alone(tmp_path):
    (tmp_path / "mine.txt").write_text("")
    with pytest.raises(InputError, match="not empty"):
        open_folder(tmp_path, SETTINGS, overwrite=False)
    (tmp_path / "samples").mkdir()
    with pytest.raises(InputError, match="'samples' folder that no simulation wrote"):
        open_folder(tmp_path, SETTINGS, overwrite=True)
    file = tmp_path / "mine.txt"
    with pytest.raises(InputError, match="is a file"):
        open_folder(file, SETTINGS, overwrite=True)


def test_overwriting_removes_what_a_simulation_wrote(tmp_path):
    open_folder(tmp_path, SETTINGS, overwrite=False)
    for name in ("samples", VERSION):
        (tmp_path / name).mkdir()
    (tmp_path / "mine.txt").write_text("")
    open_folder(tmp_path, SETTINGS, overwrite=True)
    assert {path.name for path in tmp_path.iterdir()} == {"scenes", "simulation.json", "mine.txt"}


def test_an_interrupted_run_goes_on_to_the_same_files(root, tmp_path):
    open_folder(tmp_path, SETTINGS, overwrite=False)
    assert next(simulate(tmp_path, SETTINGS, workers=1)) == "scene-9000"
    assert not (tmp_path / VERSION).exists()
    with pytest.raises(InputError, match="interrupted run goes on with the same options"):
        open_folder(tmp_path, replace(SETTINGS, seed=6), overwrite=False)
    assert open_folder(tmp_path, SETTINGS, overwrite=False) == 1
    assert list(simulate(tmp_path, SETTINGS, workers=1)) == ["scene-9001"]
    files = {path.relative_to(root) for path in root.rglob("*") if path.is_file()}
    assert files == {p.relative_to(tmp_path) for p in tmp_path.rglob("*") if p.is_file()}
    assert all((root / name).read_bytes() == (tmp_path / name).read_bytes() for name in files)
    with pytest.raises(InputError, match="not empty; give --overwrite"):
        open_folder(tmp_path, SETTINGS, overwrite=False)
