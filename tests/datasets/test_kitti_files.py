"""KITTI's files: what is read, what is written, and the sentence for each thing that is wrong."""

import os

import numpy as np
import pytest

from datasets.kitti_files import (
    KittiObjects,
    read_calibration,
    read_image_size,
    read_objects,
    read_plane,
    read_scan,
    read_split,
    write_calibration,
    write_objects,
)
from detector.errors import InputError
from tests.writers.kitti import DONT_CARE, P2, R0_RECT, TR_VELO_TO_CAM, calibration_text, write_png

LABEL = "Car 0.00 1 1.85 387.63 181.54 423.81 203.12 1.67 1.87 3.69 -16.53 2.39 58.49 1.57"


@pytest.fixture
def write(tmp_path):
    def write(text, name="000042.txt"):
        path = tmp_path / name
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return write


def test_label_columns_land_in_their_fields(write):
    objects = read_objects(write(f"{LABEL}\n{DONT_CARE}\n"))
    assert objects.types == ("Car", "DontCare")
    assert objects.truncation.tolist() == [0, -1]
    assert objects.occlusion.tolist() == [1, -1]
    assert objects.alpha.tolist() == [1.85, -10]
    assert objects.bbox[0].tolist() == [387.63, 181.54, 423.81, 203.12]
    assert objects.dimensions[0].tolist() == [1.67, 1.87, 3.69]
    assert objects.location[0].tolist() == [-16.53, 2.39, 58.49]
    assert objects.rotation_y[0] == 1.57
    assert objects.score is None


def test_result_lines_have_a_score(write):
    assert read_objects(write(f"{LABEL} 0.75\n"), with_scores=True).score.tolist() == [0.75]


@pytest.mark.parametrize("text", ["", "\n", "  \n\n"])
def test_an_empty_file_is_a_frame_without_objects(write, text):
    assert len(read_objects(write(text))) == 0
    assert read_objects(write(text), with_scores=True).score.shape == (0,)


def test_types_are_matched_without_case_and_come_back_in_kittis_spelling(write):
    path = write(LABEL.replace("Car", "CAR") + "\n" + LABEL.replace("Car", "person_SITTING"))
    assert read_objects(path).types == ("Car", "Person_sitting")


def test_other_types_are_accepted_where_named(write):
    path = write(LABEL.replace("Car", "rider"))
    assert read_objects(path, other_types=["rider"]).types == ("rider",)


@pytest.mark.parametrize(
    ("text", "with_scores", "words"),
    [
        (f"{LABEL}\nCar 0.00 0 1.85 387.63", False, ":2: 5 fields where a label line has 15"),
        (LABEL, True, ":1: 15 fields where a result line has 16 .* score is missing"),
        (f"{LABEL} 0.5", False, "16 fields .* result file"),
        (LABEL.replace("Car", "Spaceship"), False, "unknown type 'Spaceship'; .*Car, Van"),
        (LABEL.replace("58.49", "far"), False, "z is 'far', not a finite number"),
        (LABEL.replace("58.49", "nan"), False, "z is 'nan'"),
        (f"{LABEL} inf", True, "score is 'inf'"),
        (b"\xff\xfe\x00\x81", False, "not a text file"),
    ],
)
def test_a_bad_line_is_named(write, text, with_scores, words):
    path = write(text)
    with pytest.raises(InputError, match=words) as error:
        read_objects(path, with_scores)
    assert str(path) in str(error.value)


def test_objects_survive_writing_and_reading(tmp_path, write):
    objects = read_objects(write(f"{LABEL} 0.25\n{DONT_CARE} 1\n"), with_scores=True)
    write_objects(tmp_path / "deep" / "out.txt", objects)
    again = read_objects(tmp_path / "deep" / "out.txt", with_scores=True)
    for name, value in vars(objects).items():
        assert np.array_equal(getattr(again, name), value), name
    write_objects(tmp_path / "none.txt", KittiObjects.empty(with_scores=True))
    assert (tmp_path / "none.txt").read_text() == ""


def test_labels_are_written_without_a_score(tmp_path, write):
    write_objects(tmp_path / "out.txt", read_objects(write(LABEL)))
    assert len((tmp_path / "out.txt").read_text().split()) == 15


def test_an_unwritable_folder_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="file/out.txt: can't be written .*choose a folder"):
        write_objects(tmp_path / "file" / "out.txt", KittiObjects.empty())


def test_calibration_lines_land_in_their_matrices(write):
    calibration = read_calibration(write(calibration_text()))
    assert np.allclose(calibration.projection, P2, atol=1e-9)
    assert np.allclose(calibration.rectification, R0_RECT, atol=1e-9)
    assert np.allclose(calibration.camera_from_velodyne, TR_VELO_TO_CAM, atol=1e-9)
    ahead = calibration.camera_points(np.array([[10.0, 0, 0]], np.float32))
    assert np.allclose(ahead, [[0, 0, 10]], atol=0.5)


def test_calibration_survives_writing_and_reading(tmp_path, write):
    calibration = read_calibration(write(calibration_text()))
    write_calibration(tmp_path / "out.txt", calibration)
    again = read_calibration(tmp_path / "out.txt")
    assert np.allclose(again.camera_from_ego, calibration.camera_from_ego, atol=1e-11)


def test_the_names_of_the_tracking_benchmark_are_read_too(write):
    text = calibration_text().replace("R0_rect:", "R_rect")
    text = text.replace("Tr_velo_to_cam:", "Tr_velo_cam")
    assert np.allclose(read_calibration(write(text)).rectification, R0_RECT)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("Tr_velo_to_cam", "Tr_other", "the line 'Tr_velo_to_cam:' is missing"),
        ("P2: ", "P2: 1 ", ":3: P2 has 13 values, not 12"),
        ("P2: 7", "P2: seven", "P2 is 'seven.* not a finite number"),
        ("P2: 7", "P2: -7", "focal lengths"),
        ("R0_rect: 9", "R0_rect: 5", "R0_rect holds no rotation"),
    ],
)
def test_a_bad_calibration_is_named(write, old, new, words):
    path = write(calibration_text().replace(old, new))
    with pytest.raises(InputError, match=words) as error:
        read_calibration(path)
    assert str(path) in str(error.value)


def test_scan_columns_are_x_y_z_intensity(write):
    points = np.arange(8, dtype="<f4").reshape(2, 4)
    read, dropped = read_scan(write(points.tobytes(), "s.bin"))
    assert read.dtype == np.float32 and read.tolist() == points.tolist() and dropped == 0


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"\0" * 17, "17 bytes is not a multiple of 16.*complete"),
        (b"", r"the scan is empty \(0 points\)"),
        (np.full(8, np.nan, "<f4").tobytes(), "2 of 2 points are NaN or infinite"),
        (np.array([0, 0, 0, 0, 1, np.inf, 3, 4], "<f4").tobytes(), r"first is point 1 \(1, inf"),
    ],
)
def test_a_bad_scan_is_named(write, data, words):
    path = write(data, "000042.bin")
    with pytest.raises(InputError, match=words) as error:
        read_scan(path)
    assert str(path) in str(error.value)


def test_points_that_are_not_finite_are_dropped_and_counted_on_request(write):
    points = np.array([[1, 2, 3, 0.5], [1, np.nan, 3, 0.5], [np.inf, 2, 3, 0.5]], "<f4")
    read, dropped = read_scan(write(points.tobytes()), drop_not_finite=True)
    assert read.tolist() == [[1, 2, 3, 0.5]] and dropped == 2


@pytest.mark.parametrize("reader", [read_objects, read_calibration, read_scan, read_split,
                                    read_plane, read_image_size])  # fmt: skip
def test_a_missing_file_is_named(tmp_path, reader):
    with pytest.raises(InputError, match="absent.txt: can't read .*No such file"):
        reader(tmp_path / "absent.txt")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_an_unreadable_file_is_named(write):
    path = write(LABEL)
    path.chmod(0)
    with pytest.raises(InputError, match="Permission denied"):
        read_objects(path)


def test_split_ids_keep_their_order(write):
    assert read_split(write("000007\n\n000001\n")) == ["000007", "000001"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("\n", "lists no frame"),
        ("000001\n000002 1\n", ":2: '000002 1' is no frame id"),
        ("../000001\n", ":1: .* no frame id"),
        ("000001\n000002\n000001\n", ":3: frame 000001 stands in line 1 already"),
    ],
)
def test_a_bad_split_is_named(write, text, words):
    with pytest.raises(InputError, match=words):
        read_split(write(text))


def test_planes_come_with_a_unit_normal_that_points_up(write):
    header = "# Plane\nWidth 4\nHeight 1\n"
    assert np.allclose(read_plane(write(f"{header}0 -2 0 3.3\n")), [0, -1, 0, 1.65])
    assert np.allclose(read_plane(write(f"{header}0 1 0 -1.65\n")), [0, -1, 0, 1.65])
    with pytest.raises(InputError, match="4 numbers of a plane, found 3"):
        read_plane(write("0 1 0\n"))


def test_image_size_is_read_from_the_header(tmp_path, write):
    write_png(tmp_path / "a.png", (7, 5))
    assert read_image_size(tmp_path / "a.png") == (7, 5)
    with pytest.raises(InputError, match="not a PNG"):
        read_image_size(write(b"GIF89a" + b"\0" * 30))


def test_real_labels_survive_writing_and_reading(real_data, tmp_path):
    for path in sorted((real_data / "kitti" / "training" / "label_2").glob("*.txt")):
        objects = read_objects(path)
        write_objects(tmp_path / path.name, objects)
        again = read_objects(tmp_path / path.name)
        assert again.types == objects.types
        for name in ("bbox", "dimensions", "location", "rotation_y", "alpha", "occlusion"):
            assert np.array_equal(getattr(again, name), getattr(objects, name)), name
