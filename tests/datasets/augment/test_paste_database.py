"""The database of objects: what comes out is what went in, and nothing else is taken for one."""

import os
import pickle

import numpy as np
import pytest

from datasets.augment.paste_database import (
    MAGIC,
    ObjectsOfFrames,
    PasteDatabase,
    write_paste_database,
)
from detector.errors import InputError
from detector.records import Sample
from tests.writers.street import CLASSES, FEATURES, Street, street


def write(path, *frames):
    class Frames:
        def __len__(self):
            return len(frames)

        def __getitem__(self, index):
            return frames[index]

    objects = ObjectsOfFrames(Frames())
    write_paste_database(path, (objects[i] for i in range(len(objects))), CLASSES, "streets")
    return path


@pytest.fixture
def path(tmp_path):
    empty = Sample("000009", np.zeros((0, 4), np.float32), FEATURES)
    return write(tmp_path / "objects.db", street("000001"), empty, street("000002", seed=1))


def test_objects_come_back_with_their_points(path):
    database = PasteDatabase(path)
    assert database.classes == CLASSES and database.point_features == FEATURES
    assert database.source == "streets" and len(database) == 10
    assert database.frame_ids == ("000001", "000002")
    sample = street("000002", seed=1)
    for row in range(5):
        assert np.array_equal(database.boxes[5 + row], sample.boxes[row])
        own = sample.points[sample.points[:, 3] == np.float32((row + 1) * 0.01)]
        pasted = database.points(5 + row)
        inside = pasted[:, 3] > 0           # the ground touches some boxes' lower faces
        assert np.allclose(pasted[inside, :3] + sample.boxes[row, :3], own[:, :3], atol=1e-5)
        assert np.array_equal(pasted[inside, 3], own[:, 3])
    assert np.abs(database.above_ground - 0.01).max() < 0.02
    assert len(list(database.check())) == 10


def test_it_travels_to_other_processes_as_its_path(path):
    database = pickle.loads(pickle.dumps(PasteDatabase(path)))
    assert len(database) == 10 and len(pickle.dumps(database)) < 500


def test_objects_without_points_are_left_out(tmp_path):
    sample = street("000001")
    boxes = np.concatenate([sample.boxes, sample.boxes[:1] + np.float32([0, 0, 50, 0, 0, 0, 0])])
    sample = sample.replace(boxes=boxes, labels=np.append(sample.labels, 0))
    assert len(PasteDatabase(write(tmp_path / "a.db", sample))) == 5


def test_what_moves_is_cut_with_where_it_was_in_older_sweeps(tmp_path):
    age_s = np.float32([0, 0.2, 0.4, 0, 0.2, 0.4])
    points = np.zeros((6, 5), np.float32)
    points[:, 0], points[:, 3], points[:, 4] = 10, 0.5, age_s
    points[:3, 1] = 4 - 5 * age_s[:3]                  # something that goes by at 5 m/s
    points[3:, 1] = 0.5                                # and something that stands behind it
    boxes = np.float32([[10, 4, 0, 1, 1, 2, np.pi / 2, 0, 5]])
    columns = ("x", "y", "z", "intensity", "age_s")
    sample = Sample("000001", points, columns, boxes, np.array([0]))
    for name, frame, kept in (
        ("moving", sample, points[:3]),
        ("still", sample.replace(boxes=boxes * np.float32([1] * 7 + [0, 0])), points[:1]),
        ("unknown", sample.replace(boxes=boxes * np.float32([1] * 7 + [np.nan] * 2)), points[:1]),
    ):
        own = PasteDatabase(write(tmp_path / name, frame)).points(0)
        own[:, :3] += boxes[0, :3]
        assert np.allclose(own, kept), name


def test_a_broken_frame_leaves_the_old_file_and_no_other(path):
    def broken():
        yield ObjectsOfFrames(Street())[0]
        raise InputError("000001.bin: is broken; copy it again")

    before = path.read_bytes()
    with pytest.raises(InputError, match="is broken"):
        write_paste_database(path, broken(), CLASSES, "streets")
    assert path.read_bytes() == before and os.listdir(path.parent) == ["objects.db"]


def test_frames_of_different_columns_are_refused(tmp_path):
    other = street("000002").replace(point_features=("x", "y", "z", "age_s"))
    with pytest.raises(InputError, match="000002 has point columns"):
        write(tmp_path / "a.db", street("000001"), other)


def test_frames_without_objects_give_no_database(tmp_path):
    with pytest.raises(InputError, match="has no box with points"):
        write(tmp_path / "a.db", Sample("0", np.zeros((3, 4), np.float32), FEATURES))
    assert not os.listdir(tmp_path)


@pytest.mark.parametrize("size", [0, 5, 40, 2000, -1])
def test_a_file_that_was_cut_short_is_recognised(path, size):
    data = path.read_bytes()
    path.write_bytes(data[:size])
    words = "no database" if size in (0, 5) else "cut short"
    with pytest.raises(InputError, match=f"{words}.*prepare.py paste"):
        PasteDatabase(path)


def test_a_damaged_object_is_named(path):
    data = bytearray(path.read_bytes())
    data[len(MAGIC) + 8] ^= 1
    path.write_bytes(data)
    database = PasteDatabase(path)
    with pytest.raises(InputError, match="object 0, a Car of frame 000001.*write it anew"):
        database.points(0)
    database.points(1)
    with pytest.raises(InputError, match="object 0"):
        list(database.check())


def test_a_damaged_array_or_table_is_named(path):
    data = path.read_bytes()
    table = data.index(b'{"format"')
    for place, words in ((table - 5, "'frames'"), (table + 30, "its table")):
        damaged = bytearray(data)
        damaged[place] ^= 1
        path.write_bytes(damaged)
        with pytest.raises(InputError, match=f"checksum of {words} does not match"):
            PasteDatabase(path)


def test_other_files_and_releases_are_refused(tmp_path, path):
    with pytest.raises(InputError, match="can't be read.*prepare.py paste"):
        PasteDatabase(tmp_path / "absent.db")
    (tmp_path / "text").write_text("x" * 500)
    with pytest.raises(InputError, match="is no database of objects"):
        PasteDatabase(tmp_path / "text")


def test_a_full_disk_is_one_sentence(path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(InputError, match="can't be written .No space left"):
        write(path, street("000001"))
    assert len(PasteDatabase(path)) == 10 and os.listdir(path.parent) == ["objects.db"]
