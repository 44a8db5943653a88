"""Simulated KITTI folders: complete, readable, the same bytes however they were made."""

import hashlib
import os
from pathlib import Path

import numpy as np
import pytest

from datasets.kitti import KittiDataset
from datasets.kitti_files import read_objects, read_scan, read_split
from datasets.simulation import kitti_writer
from datasets.simulation.kitti_writer import Settings, finish, open_folder, simulate
from detector.errors import InputError

SETTINGS = Settings(frames=2, val_frames=1, seed=11)
SMALL = Settings(frames=1, val_frames=0, seed=11)


def run(out: Path, settings: Settings, workers: int = 1) -> Path:
    for _ in simulate(out, open_folder(out, settings, overwrite=False), workers):
        pass
    finish(out, settings)
    return out


def digests(out: Path) -> dict[str, str]:
    return {
        str(path.relative_to(out)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(out.rglob("*"))
        if path.is_file()
    }


@pytest.fixture(scope="module")
def drive(tmp_path_factory) -> Path:
    return run(tmp_path_factory.mktemp("drive") / "out", SETTINGS)


def test_the_adapter_reads_what_was_written(drive):
    train = KittiDataset(drive, "train", with_images=True)
    assert len(train) == 2 and len(KittiDataset(drive, "val")) == 1
    sample = train[0]
    assert len(sample.points) > 5000 and sample.points[:, 3].max() < 1
    assert sample.cameras[0].image.shape == (375, 1242, 3)
    assert sample.cameras[0].image.std() > 20
    assert sum(len(train[i].boxes) for i in range(2)) > 0
    assert read_split(drive / "ImageSets" / "trainval.txt") == [f"{i:06d}" for i in range(3)]


def test_scans_are_as_full_as_real_ones(drive):
    for path in (drive / "training" / "velodyne").iterdir():
        points, _ = read_scan(path)
        distance = np.linalg.norm(points[:, :3], axis=1)
        assert 85_000 < len(points) < 130_000
        assert 1.0 < distance.min() and distance.max() < 80.1
        azimuth = np.arctan2(points[:, 1], points[:, 0])
        assert (np.histogram(azimuth, 12)[0] > 3000).all()           # all around


def test_labels_are_rated_and_in_the_picture(drive):
    for path in (drive / "training" / "label_2").iterdir():
        objects = read_objects(path)
        assert (objects.bbox >= 0).all() and (objects.bbox <= [1241, 374, 1241, 374]).all()
        assert (objects.bbox[:, 2:] > objects.bbox[:, :2]).all()
        known = np.array(objects.types, str) != "DontCare"
        assert np.isin(objects.occlusion[known], [0, 1, 2, 3]).all()
        assert ((objects.truncation[known] >= 0) & (objects.truncation[known] <= 1)).all()
        assert (np.abs(objects.alpha[known]) <= np.pi).all()


def test_calibration_has_all_lines_and_small_tilts(drive):
    lines = (drive / "training" / "calib" / "000000.txt").read_text().splitlines()
    names = [line.split(":")[0] for line in lines]
    assert names == ["P0", "P1", "P2", "P3", "R0_rect", "Tr_velo_to_cam", "Tr_imu_to_velo"]
    rotation = np.array(lines[4].split()[1:], float).reshape(3, 3)
    angle = np.arccos((np.trace(rotation) - 1) / 2)
    assert 1e-4 < angle < 0.05


def test_the_number_of_workers_changes_no_byte(drive, tmp_path):
    assert digests(run(tmp_path / "two", SETTINGS, workers=2)) == digests(drive)


def test_other_seeds_and_the_validation_part_give_other_worlds(drive):
    scans = [drive / "training" / "velodyne" / f"{i:06d}.bin" for i in range(3)]
    assert len({path.read_bytes()[:4000] for path in scans}) == 3
    jobs = Settings(frames=7, val_frames=6, seed=11).scenes()
    assert [job.count for job in jobs] == [5, 2, 5, 1]
    assert len({job.seed for job in jobs}) == 4
    assert len({job.seed for job in Settings(7, 6, seed=12).scenes() + jobs}) == 8
    alone = Settings(frames=3, val_frames=2, seed=11, scene_frames=1).scenes()
    assert [job.count for job in alone] == [1] * 5 and len({job.seed for job in alone}) == 5
    more = Settings(frames=20, val_frames=6, seed=11).scenes()       # validation stays the same
    assert [job.seed for job in more[-2:]] == [job.seed for job in jobs[-2:]]


def test_a_killed_run_is_continued_and_ends_the_same(drive, tmp_path):
    out = tmp_path / "out"
    jobs = open_folder(out, SETTINGS, overwrite=False)
    next(simulate(out, jobs, workers=1))                             # killed after a scene ...
    (out / "training" / "label_2" / "000001.txt").unlink()           # ... and within a frame
    torn = out / "training" / "image_2" / ".000001.png.123.partial"
    torn.write_bytes(b"half a pictu")
    assert not (out / "ImageSets").exists()
    left = open_folder(out, SETTINGS, overwrite=False)
    assert len(left) == 2 and not torn.exists()
    assert digests(run(out, SETTINGS)) == digests(drive)


def test_a_full_folder_is_left_alone(drive, tmp_path):
    with pytest.raises(InputError, match="--overwrite"):
        open_folder(drive, SETTINGS, overwrite=False)
    (tmp_path / "thesis.tex").write_text("precious")
    with pytest.raises(InputError, match="not empty"):
        open_folder(tmp_path, SMALL, overwrite=False)


def test_overwriting_replaces_a_simulation_and_nothing_else(tmp_path):
    out = tmp_path / "out"
    (out / "training" / "label_2").mkdir(parents=True)
    (out / "training" / "label_2" / "000000.txt").write_text("")
    with pytest.raises(InputError, match="no simulation wrote"):
        open_folder(out, SMALL, overwrite=True)
    assert (out / "training" / "label_2" / "000000.txt").exists()
    (out / "simulation.json").write_text("{}")
    (out / "notes.txt").write_text("kept")
    assert len(open_folder(out, SMALL, overwrite=True)) == 1
    assert not (out / "training" / "label_2" / "000000.txt").exists()
    assert (out / "notes.txt").read_text() == "kept"


def test_an_unfinished_run_with_other_options_is_not_continued(tmp_path):
    open_folder(tmp_path / "out", SMALL, overwrite=False)
    with pytest.raises(InputError, match="not empty"):
        open_folder(tmp_path / "out", Settings(1, 0, seed=12), overwrite=False)
    assert len(open_folder(tmp_path / "out", SMALL, overwrite=False)) == 1


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="file"):
        open_folder(tmp_path / "file" / "out", SMALL, overwrite=False)


def test_a_full_disk_is_reported_with_the_frame(tmp_path, monkeypatch):
    jobs = open_folder(tmp_path, SMALL, overwrite=False)

    def no_room(*_):
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(kitti_writer, "write_frame", no_room)
    with pytest.raises(InputError, match="000000.*No space left"):
        next(simulate(tmp_path, jobs, workers=1))
