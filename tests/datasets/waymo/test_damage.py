"""Damage that checksums don't find: whatever a frame's bytes are, a frame or an InputError."""

import zlib
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from datasets.waymo import WaymoDataset
from datasets.waymo.range_image import frame_points
from datasets.waymo.tables import Component
from datasets.waymo.tfrecord import write_records
from datasets.waymo.v1 import SegmentV1
from datasets.waymo.v2 import SegmentV2
from datasets.waymo.wire import WireError, read_matrix
from datasets.waymo.writer_v1 import frame_message, write_v1
from datasets.waymo.writer_v2 import write_v2
from detector.errors import InputError
from tests.writers.waymo_frames import SEGMENT, waymo_frame

CONTENT = frame_message(waymo_frame(0, lasers=(1, 2))).SerializeToString()
quick = settings(
    max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@quick
@given(st.data())
def test_a_frame_or_a_clear_error(tmp_path, data):
    content = bytearray(CONTENT)
    for _ in range(data.draw(st.integers(1, 3))):
        # Near the start or the end as often as within the images.
        place = data.draw(st.one_of(st.integers(0, 300), st.integers(0, len(content) - 1)))
        kind = data.draw(st.sampled_from(["flip", "cut", "repeat"]))
        if kind == "flip":
            content[place] ^= data.draw(st.integers(1, 255))
        elif kind == "cut":
            del content[place : place + data.draw(st.integers(1, 50))]
        else:
            content[place:place] = content[place : place + data.draw(st.integers(1, 50))]
    path = tmp_path / "damaged.tfrecord"
    write_records(path, [bytes(content)])
    try:
        segment = SegmentV1(path)
        for time in segment.table.times_us.tolist():
            segment.frame(time, lasers=())
            frame_points(segment.frame(time, images=True, projections=True))
    except InputError as error:
        assert "\n" not in str(error)


@quick
@given(st.data())
def test_a_damaged_table_is_a_clear_error(tmp_path, data):
    if not (tmp_path / "lidar").is_dir():
        write_v2(tmp_path, SEGMENT, [waymo_frame(0, lasers=(1, 2))])
    folder = data.draw(
        st.sampled_from(["vehicle_pose", "lidar", "lidar_pose", "lidar_calibration", "lidar_box"])
    )
    path = tmp_path / folder / f"{SEGMENT}.parquet"
    whole = path.read_bytes()
    place = data.draw(st.integers(0, len(whole) - 1))
    if data.draw(st.booleans()):
        path.write_bytes(whole[:place])
    else:
        flipped = bytes([whole[place] ^ data.draw(st.integers(1, 255))])
        path.write_bytes(whole[:place] + flipped + whole[place + 1 :])
    try:
        segment = SegmentV2(tmp_path, SEGMENT)
        for time in segment.table.times_us.tolist():
            frame_points(segment.frame(time))
    except InputError as error:
        assert "\n" not in str(error)
    finally:
        path.write_bytes(whole)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"no zlib", "decompressed"),
        (zlib.compress(b"\x0a\x04\0\0\0\0\x12\x02\x08\x01")[:-5], "cut short"),
        (zlib.compress(b"\x0a\x04\0\0\0\0\x12\x02\x08\x02"), "1 values for a shape of"),
        (zlib.compress(b"\x0a\x03\0\0\0\x12\x02\x08\x01"), "3 bytes of single precision"),
        (zlib.compress(b"\x0f"), "wire type 7"),
        (zlib.compress(b"\x0a\x7f\0"), "cut short"),
    ],
)
def test_damaged_matrices_are_explained(content, message):
    with pytest.raises(WireError, match=message):
        read_matrix(content, "f4")


def test_a_table_of_something_else_names_the_column(tmp_path):
    write_v2(tmp_path, SEGMENT, [waymo_frame(0)])
    table = Component(tmp_path / "lidar_box" / f"{SEGMENT}.parquet", "LiDARComponent")
    with pytest.raises(InputError, match="range_image_return1.values"):
        table.rows([0], ["range_image_return1.values"])


def test_a_damaged_picture_is_named(tmp_path):
    frame = waymo_frame(0)
    shot = replace(frame.shots[0], jpeg=frame.shots[0].jpeg[:40])
    write_v1(tmp_path / "training", SEGMENT, [replace(frame, shots=(shot,))])
    with pytest.raises(InputError, match=f"{SEGMENT}_{frame.time_us}.*FRONT"):
        WaymoDataset(tmp_path, "training", with_images=True)[0]


def test_a_missing_table_is_named(tmp_path):
    write_v2(tmp_path / "training", SEGMENT, [waymo_frame(0)])
    (tmp_path / "training" / "lidar" / f"{SEGMENT}.parquet").unlink()
    with pytest.raises(InputError, match="lidar/.*parquet"):
        WaymoDataset(tmp_path, "training")[0]
