"""What the look through a KITTI folder finds."""

from dataclasses import replace

import numpy as np
import pytest

from datasets.kitti_boxes import EASY
from datasets.kitti_check import check_frame, check_split, frames_present, missing_files
from datasets.kitti_report import frames_table, objects_tables
from detector.errors import InputError
from tests.writers.kitti import CAR, CYCLIST, PEDESTRIAN, VAN, write_kitti


@pytest.fixture
def folder(tmp_path):
    return write_kitti(tmp_path) / "training"


def rewrite(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def test_a_good_frame_is_described(folder):
    check = check_frame(folder, "000000", labelled=True)
    assert check.errors == check.remarks == ()
    assert check.types == ("Car", "Pedestrian", "Van")
    assert check.levels.tolist() == [EASY] * 3
    expected = [CAR.points, PEDESTRIAN.points, VAN.points]
    assert check.box_points.tolist() == pytest.approx(expected, rel=0.05)
    assert check.points == 3000 + sum(expected) and 0 < check.points_in_view < check.points


def test_a_frame_without_objects_is_fine(folder):
    check = check_frame(folder, "000007", labelled=True)
    assert check.errors == check.remarks == check.types == ()


def test_scans_are_what_makes_a_frame(folder, tmp_path):
    assert frames_present(folder) == ["000000", "000001", "000007"]
    with pytest.raises(InputError, match="velodyne: no such folder; --root"):
        frames_present(tmp_path / "nowhere")
    (tmp_path / "empty" / "velodyne").mkdir(parents=True)
    with pytest.raises(InputError, match="holds no .bin scan"):
        frames_present(tmp_path / "empty")


def test_missing_files_are_counted_by_kind(folder):
    ids = frames_present(folder)
    assert missing_files(folder, ids, labelled=True) == []
    (folder / "calib" / "000001.txt").unlink()
    (folder / "label_2" / "000001.txt").unlink()
    (folder / "label_2" / "000007.txt").unlink()
    (folder / "image_2" / "000007.png").unlink()
    found = missing_files(folder, ids, labelled=True)
    assert [s.split(";")[0].split(": ")[1] for s in found] == [
        "1 of 3 scans lack their file, the first is 000001.txt",
        "2 of 3 scans lack their file, the first is 000001.txt",
        "1 of 3 scans lack their file, the first is 000007.png",
    ]
    assert len(missing_files(folder, ids, labelled=False)) == 2
    for path in (folder / "image_2").iterdir():
        path.unlink()
    assert len(missing_files(folder, ids, labelled=False)) == 1         # pictures are optional
    assert check_frame(folder, "000001", labelled=True).errors == ()


@pytest.mark.parametrize(
    ("kind", "data", "words"),
    [
        ("velodyne/000000.bin", b"\0" * 33, "33 bytes is not a multiple of 16"),
        ("velodyne/000000.bin", b"", "empty"),
        ("velodyne/000000.bin", np.array([-9, 0, 0, 0], "<f4").tobytes(), "none of its 1 points"),
        ("velodyne/000000.bin", np.full(4, np.nan, "<f4").tobytes(), "NaN or infinite"),
        ("calib/000000.txt", b"P2: 1 2 3\n", "P2 has 3 values"),
        ("label_2/000000.txt", b"Car 0 0 0\n", "000000.txt:1: 4 fields"),
        ("label_2/000000.txt", b"Ufo" + b" 0" * 14, "unknown type 'Ufo'"),
        ("label_2/000000.txt", b"Car" + b" 0" * 14, "object 1 is a Car without size"),
        ("image_2/000000.png", b"GIF89a", "not a PNG"),
    ],
)
def test_what_stops_a_frame_is_an_error(folder, kind, data, words):
    (folder / kind).write_bytes(data)
    check = check_frame(folder, "000000", labelled=True)
    assert len(check.errors) == 1 and words in check.errors[0] and str(folder) in check.errors[0]


def test_one_frame_can_have_several_errors(folder):
    (folder / "calib" / "000000.txt").write_text("")
    (folder / "velodyne" / "000000.bin").write_bytes(b"1")
    assert len(check_frame(folder, "000000", labelled=True).errors) == 2


def test_odd_scans_are_remarked(folder):
    path = folder / "velodyne" / "000000.bin"
    points = np.fromfile(path, "<f4").reshape(-1, 4)
    points[:, 3] *= 255
    points[0, 0] = 1e5
    points.tofile(path)
    first, second = check_frame(folder, "000000", labelled=True).remarks
    assert "intensity runs from" in first and "100000 m away" in second


def test_odd_labels_are_remarked(tmp_path):
    far = replace(CAR, location=(2.0, 1.7, 400.0))
    long = replace(CAR, dimensions=(3.0, 2.5, 60.0), location=(2.0, 1.7, 60.0))
    folder = write_kitti(tmp_path, {"000000": [far, long, CYCLIST]}) / "training"
    remarks = check_frame(folder, "000000", labelled=True).remarks
    assert ["object 1 (Car) is 400 m away" in r for r in remarks] == [True, False]
    assert "object 2 (Car) is 60.0 m long" in remarks[1]


def test_labels_that_contradict_themselves_or_the_calibration_are_remarked(folder):
    label = folder / "label_2" / "000001.txt"
    words = label.read_text().split("\n")
    car = words[0].split()
    car[3] = "2.90"                                             # alpha
    cyclist = words[1].split()
    cyclist[11] = "-60.00"                                      # x
    words[:2] = [" ".join(car), " ".join(cyclist)]
    label.write_text("\n".join(words))
    turned, outside = check_frame(folder, "000001", labelled=True).remarks[:2]
    assert "object 1 (Car) has alpha 2.90, but 0.1" in turned
    assert "object 2 (Cyclist) lies outside the picture" in outside


def test_another_frames_calibration_is_noticed(folder):
    rewrite(folder / "calib" / "000000.txt", "P2: 7.215", "P2: 3.215")
    remarks = check_frame(folder, "000000", labelled=True).remarks
    assert any("projects far from its 2D box" in remark for remark in remarks)


def test_splits_are_checked_against_the_scans(folder, tmp_path):
    path = tmp_path / "ImageSets" / "trainval.txt"
    assert check_split(path, {"000000", "000001", "000007"}) == []
    (sentence,) = check_split(path, {"000000", "000007"})
    assert "1 of its 3 frames have no scan, the first is 000001" in sentence
    path.write_text("000000\n000000\n")
    assert "stands in line 1 already" in check_split(path, {"000000"})[0]


def test_tables_fit_80_columns(folder):
    checks = [check_frame(folder, i, True) for i in frames_present(folder)]
    sizes, places = objects_tables(checks)
    assert sizes.row_count == places.row_count == 4
    assert list(sizes.columns[1].cells) == ["2", "1", "1", "1"]         # Car, Van, Ped., Cyclist
    assert list(frames_table("training", checks).columns[2].cells) == ["1"]


def test_the_real_frames_have_nothing_to_mend(real_data):
    for name in ("kitti", "kitti_drive"):
        folder = real_data / name / "training"
        for frame_id in frames_present(folder)[:6]:
            check = check_frame(folder, frame_id, labelled=True)
            assert check.errors == check.remarks == ()
