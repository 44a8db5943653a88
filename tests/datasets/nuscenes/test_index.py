import dataclasses
import json

import numpy as np
import pytest

from datasets.nuscenes import splits, tables
from datasets.nuscenes.build_index import build_index
from datasets.nuscenes.index import INDEX_NAME, open_index
from detector.errors import InputError
from tests.writers.nuscenes import change_rows, token, write_nuscenes

VERSION = "v1.0-mini"


def assert_equal_indexes(a, b):
    for field in dataclasses.fields(a):
        np.testing.assert_array_equal(getattr(a, field.name), getattr(b, field.name), field.name)


def test_the_index_joins_the_tables(tmp_path):
    folder = write_nuscenes(tmp_path, sweeps_between=1)
    index = open_index(tmp_path, VERSION)
    rows = {
        table: {row["token"]: row for row in json.loads((folder / f"{table}.json").read_text())}
        for table in ("sample", "sample_data", "ego_pose", "calibrated_sensor")
    }
    files = {row["filename"]: row for row in rows["sample_data"].values()}
    # 4 samples: 7 frames of the LiDAR and five radars, 4 key frames of six cameras, two scenes.
    assert len(index.frame_time_us) == 2 * (6 * 7 + 6 * 4)
    for frame in range(len(index.frame_time_us)):
        row = files[index.file_of(frame)]
        assert index.frame_time_us[frame] == row["timestamp"]
        pose = rows["ego_pose"][row["ego_pose_token"]]
        assert index.frame_translation[frame].tolist() == pose["translation"]
        assert index.frame_rotation[frame].tolist() == pose["rotation"]
        previous = index.frame_previous[frame]
        if "CAM" not in row["filename"]:
            expected = rows["sample_data"][row["prev"]]["filename"] if row["prev"] else None
            assert (index.file_of(previous) if previous >= 0 else None) == expected
    for sample, own in enumerate(index.sample_tokens):
        for channel, frame in zip(index.channels, index.key_frames[sample], strict=True):
            row = files[index.file_of(frame)]
            assert row["sample_token"] == own and channel in row["filename"]


def test_a_saved_index_is_read_back_and_used(tmp_path):
    folder = write_nuscenes(tmp_path)
    built = build_index(tmp_path, VERSION)
    built.save(folder / INDEX_NAME)
    assert_equal_indexes(open_index(tmp_path, VERSION), built)
    built.save(tmp_path / "elsewhere.npz")
    assert_equal_indexes(open_index(tmp_path, VERSION, tmp_path / "elsewhere.npz"), built)
    assert not list(tmp_path.rglob("*.partial"))


def test_tables_read_in_pieces_are_the_same(tmp_path, monkeypatch):
    write_nuscenes(tmp_path)
    whole = build_index(tmp_path, VERSION)
    monkeypatch.setattr(tables, "CHUNK_BYTES", 1000)
    assert_equal_indexes(build_index(tmp_path, VERSION), whole)


def test_text_that_looks_like_the_end_of_a_row_is_no_end(tmp_path, monkeypatch):
    folder = write_nuscenes(tmp_path)
    monkeypatch.setattr(tables, "CHUNK_BYTES", 10)
    change_rows(folder, "scene", lambda rows: [{**r, "description": "a}, {b"} for r in rows])
    assert len(open_index(tmp_path, VERSION).scene_names) == 2


def test_an_index_of_other_tables_is_refused(tmp_path):
    folder = write_nuscenes(tmp_path)
    build_index(tmp_path, VERSION).save(folder / INDEX_NAME)
    change_rows(folder, "scene", lambda rows: [{**r, "description": "other"} for r in rows])
    with pytest.raises(InputError, match=r"does not fit the tables .* tools/prepare.py nuscenes"):
        open_index(tmp_path, VERSION)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 cut short", b"\x93NUMPY"])
def test_a_broken_index_is_named(tmp_path, content):
    folder = write_nuscenes(tmp_path)
    (folder / INDEX_NAME).write_bytes(content)
    with pytest.raises(InputError, match=r"not a readable index .* tools/prepare.py"):
        open_index(tmp_path, VERSION)


def without(table_token):
    return lambda rows: [row for row in rows if row["token"] != table_token]


MISSING = {
    "ego_pose": (token("scene-0061", "LIDAR_TOP", 1), "sample_data"),
    "sample": (token("scene-0061", "sample", 1), "sample_data"),
    "calibrated_sensor": (token("cs", "LIDAR_TOP"), "sample_data"),
    "sensor": (token("LIDAR_TOP"), "calibrated_sensor"),
    "scene": (token("scene", "scene-0061"), "sample"),
    "instance": (token("scene-0061", "instance", 3), "sample_annotation"),
    "category": (token("category", "vehicle.car"), "instance"),
    "visibility": ("2", "sample_annotation"),
    "attribute": (token("attribute", "pedestrian.moving"), "sample_annotation"),
    "sample_data": (token("scene-0061", "LIDAR_TOP", 1), "sample_data"),
}


@pytest.mark.parametrize("table", MISSING)
def test_a_token_that_a_table_lacks_is_named(tmp_path, table):
    folder = write_nuscenes(tmp_path, objects_per_scene=60)
    missing, found_in = MISSING[table]
    change_rows(folder, table, without(missing))
    with pytest.raises(InputError, match=rf"{table}\.json lacks token {missing}, .*{found_in}"):
        open_index(tmp_path, VERSION)


def test_an_absent_or_broken_table_is_named(tmp_path):
    folder = write_nuscenes(tmp_path)
    path = folder / "ego_pose.json"
    content = path.read_text()
    for spoiled, message in (
        (content[:-300], "not valid JSON"),
        ("", "is empty"),
        ('{"a": 1}', "holds no list"),
        ('[{"token": "a"}]', "a row lacks translation, rotation"),
    ):
        path.write_text(spoiled)
        with pytest.raises(InputError, match=rf"ego_pose\.json.*{message}"):
            open_index(tmp_path, VERSION)
    path.unlink()
    with pytest.raises(InputError, match=r"ego_pose\.json is missing"):
        open_index(tmp_path, VERSION)


def test_a_wrong_version_folder_names_those_that_are_there(tmp_path):
    with pytest.raises(InputError, match="is it the right root folder"):
        open_index(tmp_path, VERSION)
    write_nuscenes(tmp_path)
    with pytest.raises(InputError, match=r"v1\.0-trainval holds no .* take one of v1\.0-mini"):
        open_index(tmp_path, "v1.0-trainval")


def test_official_splits_are_those_of_the_development_kit(tmp_path):
    official = pytest.importorskip("nuscenes.utils.splits").create_splits_scenes()
    of_version = {
        "trainval": official["train"] + official["val"],
        "mini": official["mini_train"] + official["mini_val"],
        "test": official["test"],
    }
    for split, ending in splits.OFFICIAL.items():
        folder = tmp_path / f"v1.0-{ending}"
        found = splits.scenes_of_split(folder, split, of_version[ending])
        assert found == set(official[split]), split


def test_sizes_of_the_official_splits():
    scenes = [f"scene-{number:04d}" for number in range(1, 1111)]
    assert len(splits.scenes_of_split(splits.Path("v1.0-trainval"), "val", scenes)) >= 150
    assert splits.default_split("v1.0-trainval") == "val"
    assert splits.default_split("v1.0-simulated") is None


def test_a_broken_file_of_splits_is_named(tmp_path):
    folder = write_nuscenes(tmp_path)
    for content in ("{", "[]", '{"a": "b"}'):
        (folder / "splits.json").write_text(content)
        with pytest.raises(InputError, match=r"splits\.json"):
            splits.scenes_of_split(folder, "mine", ["scene-0061"])
