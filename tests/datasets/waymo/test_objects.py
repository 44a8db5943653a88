import numpy as np
import pytest

from datasets.waymo.objects import paired_frames, read_objects
from detector.errors import InputError
from detector.metrics.waymo import evaluate_waymo
from tests.writers.waymo_objects import ObjectRow, write_objects_file

OBJECTS = [
    ObjectRow("b", 7, 1, (10, 2, 3, 4, 5, 6, 0.5), 0.5, 9),
    ObjectRow("a", 8, 2, (11, 2, 3, 4, 5, 6, 0.5), None, 5),
    ObjectRow("b", 7, 4, (12, 2, 3, 4, 5, 6, 0.5), 0.25, 0),
    ObjectRow("b", 6, 99, (13, 2, 3, 4, 5, 6, 0.5), 0.75, 1, camera=1),
]


def test_columns_hold_the_file(tmp_path):
    table = read_objects(write_objects_file(tmp_path / "o.bin", OBJECTS, zones=2))
    assert table.frames == (("b_0", 7), ("a_0", 8), ("b_1", 6))
    assert table.frame.tolist() == [0, 1, 0, 2]
    assert table.boxes[0].tolist() == [10, 2, 3, 4, 5, 6, 0.5]
    assert table.types.tolist() == [1, 2, 4, 0]
    assert table.scores.tolist() == [0.5, 1.0, 0.25, 0.75]  # unset means certain
    assert table.point_counts.tolist() == [9, 5, 0, 1]


def test_pieces_hold_the_same(tmp_path, monkeypatch):
    path = write_objects_file(tmp_path / "o.bin", OBJECTS * 5, zones=1)
    whole = read_objects(path)
    monkeypatch.setattr("datasets.waymo.objects.PIECE_BYTES", 100)
    pieces = read_objects(path)
    assert pieces.frames == whole.frames
    np.testing.assert_array_equal(pieces.boxes, whole.boxes)


def test_frames_are_paired_and_sorted_by_name_and_time(tmp_path):
    table = read_objects(write_objects_file(tmp_path / "o.bin", OBJECTS))
    nothing = read_objects(write_objects_file(tmp_path / "empty.bin", []))
    frames = list(paired_frames(table, nothing))
    assert [t.boxes[:, 0].tolist() for t, _ in frames] == [[11], [10], [13]]  # no points: left out
    frames = list(paired_frames(nothing, table))
    assert [p.boxes[:, 0].tolist() for _, p in frames] == [[11], [10, 12], [13]]


@pytest.mark.parametrize("damage", ["cut", "text", "flipped"])
def test_a_broken_file_is_named(tmp_path, damage):
    path = write_objects_file(tmp_path / "o.bin", OBJECTS)
    content = bytearray(path.read_bytes())
    if damage == "cut":
        content = content[:-3]
    elif damage == "text":
        content = b"these are not objects"
    else:
        content[2] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(InputError, match="o.bin"):
        read_objects(path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(InputError, match="none.bin"):
        read_objects(tmp_path / "none.bin")


def test_numbers_must_be_finite(tmp_path):
    path = write_objects_file(tmp_path / "o.bin", [*OBJECTS, ObjectRow(score=float("nan"))])
    with pytest.raises(InputError, match="object 4"):
        read_objects(path)


def test_official_example(real_data):
    folder = real_data / "waymo"
    truth = read_objects(folder / "fake_ground_truths.bin")
    predictions = read_objects(folder / "fake_predictions.bin")
    result = evaluate_waymo(paired_frames(truth, predictions))
    printed = [f"{n}: [mAP {c.ap:.6g}] [mAPH {c.aph:.6g}]" for n, c in result.curves.items()]
    expected = (folder / "fake_expected.txt").read_text().split("\n")
    assert printed[:8] == [line.strip() for line in expected if line.strip()]
    assert printed[8:] == OFFICIAL_RANGES.strip().split("\n")


# From the comment at the head of metrics/tools/compute_detection_metrics_main.cc (2022-05-03).
OFFICIAL_RANGES = """
RANGE_TYPE_VEHICLE_[0, 30)_LEVEL_1: [mAP 0.154727] [mAPH 0.129927]
RANGE_TYPE_VEHICLE_[0, 30)_LEVEL_2: [mAP 0.154727] [mAPH 0.129927]
RANGE_TYPE_VEHICLE_[30, 50)_LEVEL_1: [mAP 0.27302] [mAPH 0.230956]
RANGE_TYPE_VEHICLE_[30, 50)_LEVEL_2: [mAP 0.270492] [mAPH 0.228818]
RANGE_TYPE_VEHICLE_[50, +inf)_LEVEL_1: [mAP 0.218596] [mAPH 0.155501]
RANGE_TYPE_VEHICLE_[50, +inf)_LEVEL_2: [mAP 0.212188] [mAPH 0.150963]
RANGE_TYPE_PEDESTRIAN_[0, 30)_LEVEL_1: [mAP 0.19352] [mAPH 0.155428]
RANGE_TYPE_PEDESTRIAN_[0, 30)_LEVEL_2: [mAP 0.19352] [mAPH 0.155428]
RANGE_TYPE_PEDESTRIAN_[30, 50)_LEVEL_1: [mAP 0.144201] [mAPH 0.103131]
RANGE_TYPE_PEDESTRIAN_[30, 50)_LEVEL_2: [mAP 0.134931] [mAPH 0.0966024]
RANGE_TYPE_PEDESTRIAN_[50, +inf)_LEVEL_1: [mAP 0.0985548] [mAPH 0.0779858]
RANGE_TYPE_PEDESTRIAN_[50, +inf)_LEVEL_2: [mAP 0.0960544] [mAPH 0.075891]
RANGE_TYPE_SIGN_[0, 30)_LEVEL_1: [mAP 0.106175] [mAPH 0.0716929]
RANGE_TYPE_SIGN_[0, 30)_LEVEL_2: [mAP 0.0651952] [mAPH 0.0439717]
RANGE_TYPE_SIGN_[30, 50)_LEVEL_1: [mAP 0.15528] [mAPH 0.117763]
RANGE_TYPE_SIGN_[30, 50)_LEVEL_2: [mAP 0.13587] [mAPH 0.103042]
RANGE_TYPE_SIGN_[50, +inf)_LEVEL_1: [mAP 0.075276] [mAPH 0.0507518]
RANGE_TYPE_SIGN_[50, +inf)_LEVEL_2: [mAP 0.0596342] [mAPH 0.040206]
RANGE_TYPE_CYCLIST_[0, 30)_LEVEL_1: [mAP 0] [mAPH 0]
RANGE_TYPE_CYCLIST_[0, 30)_LEVEL_2: [mAP 0] [mAPH 0]
RANGE_TYPE_CYCLIST_[30, 50)_LEVEL_1: [mAP 0] [mAPH 0]
RANGE_TYPE_CYCLIST_[30, 50)_LEVEL_2: [mAP 0] [mAPH 0]
RANGE_TYPE_CYCLIST_[50, +inf)_LEVEL_1: [mAP 0] [mAPH 0]
RANGE_TYPE_CYCLIST_[50, +inf)_LEVEL_2: [mAP 0] [mAPH 0]
"""
