from dataclasses import replace

import numpy as np
import pytest

from datasets.simulation.waymo_writer import Settings, open_folder, simulate
from datasets.waymo import WaymoDataset
from detector.errors import InputError

SETTINGS = Settings(frames=3, val_frames=1, seed=4, segment_frames=2, columns=24)


def run(out, settings=SETTINGS, overwrite=False) -> int:
    return len(list(simulate(out, open_folder(out, settings, overwrite), workers=1)))


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    folder = tmp_path_factory.mktemp("simulated") / "waymo"
    assert run(folder) == 3
    return folder


def test_both_formats_hold_the_same_points_and_boxes(out):
    for split, frames in (("training", 3), ("validation", 1)):
        first = WaymoDataset(out / "v1", split, with_images=True)
        second = WaymoDataset(out / "v2", split, with_images=True)
        assert first.frame_ids == second.frame_ids
        assert len(first) == frames
        for a, b in zip(first, second, strict=True):
            assert len(a.points) > 100
            np.testing.assert_array_equal(a.points, b.points)
            np.testing.assert_array_equal(a.boxes, b.boxes)


def test_frames_of_a_segment_are_a_gap_apart(out):
    dataset = WaymoDataset(out / "v2", "training", sweeps=2)
    ages = [np.unique(sample.points[:, -1]).tolist() for sample in dataset]
    assert sorted(ages) == [[0], [0], [0, 1]]


def test_an_interrupted_run_goes_on(out):
    path = next((out / "v1" / "training").glob("*.tfrecord"))
    before = path.read_bytes()
    path.unlink()
    (path.parent / ".torn.partial").write_bytes(b"half")
    assert run(out) == 3
    assert path.read_bytes() == before
    assert not list(out.rglob(".*.partial"))


def test_other_settings_need_overwrite(out, tmp_path):
    with pytest.raises(InputError, match="--overwrite"):
        open_folder(out, replace(SETTINGS, seed=5), overwrite=False)
    strange = tmp_path / "mine"
    (strange / "v1").mkdir(parents=True)
    with pytest.raises(InputError, match="no simulation wrote"):
        open_folder(strange, SETTINGS, overwrite=True)


def test_one_format_alone(tmp_path):
    settings = Settings(frames=1, val_frames=0, columns=16, formats=("v1",))
    run(tmp_path / "a", settings)
    assert not (tmp_path / "a" / "v2").exists()
    run(tmp_path / "a", replace(settings, formats=("v2",)), overwrite=True)
    assert not (tmp_path / "a" / "v1").exists()
    assert len(WaymoDataset(tmp_path / "a" / "v2", "training")) == 1
