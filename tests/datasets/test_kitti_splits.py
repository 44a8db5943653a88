"""Split files for folders without."""

import pytest

from datasets.kitti_files import read_split
from datasets.kitti_splits import halves, write_splits
from detector.errors import InputError

IDS = [f"{i:06d}" for i in range(101)]


def test_halves_are_halves_in_order_and_depend_on_the_ids_alone():
    first, second = halves(IDS)
    assert len(first) == 51 and len(second) == 50
    assert sorted(first + second) == IDS
    assert first == sorted(first) and second == sorted(second)
    assert set(halves(IDS[::-1])[0]) == set(first)
    assert first[:5] == ["000000", "000003", "000004", "000006", "000009"]
    assert halves([]) == ([], []) and halves(["000003"]) == (["000003"], [])


def test_absent_splits_are_written_loudly(tmp_path):
    sentences = write_splits(tmp_path, IDS, ["000000"], None)
    train, val, trainval, test = (
        read_split(tmp_path / "ImageSets" / f"{name}.txt")
        for name in ("train", "val", "trainval", "test")
    )
    assert sorted(train + val) == trainval == IDS and test == ["000000"]
    assert "NOT the 3712/3769 split" in sentences[-1]


def test_splits_that_are_there_stay(tmp_path):
    (tmp_path / "ImageSets").mkdir()
    (tmp_path / "ImageSets" / "train.txt").write_text("000001\n")
    sentences = write_splits(tmp_path, IDS, [], None)
    assert read_split(tmp_path / "ImageSets" / "train.txt") == ["000001"]
    assert not (tmp_path / "ImageSets" / "val.txt").exists()    # it might overlap with train
    assert not (tmp_path / "ImageSets" / "test.txt").exists()   # there is no testing/
    assert len(sentences) == 1 and "trainval.txt: written, 101 frames" in sentences[0]


def test_splits_are_copied_from_the_folder_given(tmp_path):
    source = tmp_path / "source"
    source.mkdir()
    with pytest.raises(InputError, match="holds no split file"):
        write_splits(tmp_path, IDS, [], source)
    (source / "train.txt").write_text("000003\n000001")
    (source / "val.txt").write_text("000002\n")
    sentences = write_splits(tmp_path, IDS, [], source)
    assert read_split(tmp_path / "ImageSets" / "train.txt") == ["000003", "000001"]
    assert len(sentences) == 2 and not any("ATTENTION" in s for s in sentences)
