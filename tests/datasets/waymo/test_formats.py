"""Both formats, written and read: the same frames come back."""

import pickle
from dataclasses import fields, replace

import numpy as np
import pytest

from datasets.waymo.frame import FrameLabels, WaymoFrame
from datasets.waymo.range_image import frame_points
from datasets.waymo.v1 import SegmentV1
from datasets.waymo.v2 import SegmentV2
from datasets.waymo.writer_v1 import write_v1
from datasets.waymo.writer_v2 import write_v2
from detector.errors import InputError
from tests.writers.waymo_frames import SEGMENT, waymo_frame


@pytest.fixture(params=["v1", "v2", "v2 in one group", "v2 in one large group"])
def stored(request, tmp_path, monkeypatch):
    """Writes frames in a format and opens the segment."""
    if "large" in request.param:
        monkeypatch.setattr("datasets.waymo.tables.LARGEST_GROUP_BYTES", 0)
        monkeypatch.setattr("datasets.waymo.tables.BATCH_ROWS", 3)

    def store(frames):
        if request.param == "v1":
            return SegmentV1(write_v1(tmp_path, SEGMENT, frames))
        group = 1 if request.param == "v2" else 9
        write_v2(tmp_path, SEGMENT, frames, frames_per_group=group)
        return SegmentV2(tmp_path, SEGMENT)

    return store


def assert_same(found, expected, path="frame"):
    """Records of arrays, records and plain values, compared field by field."""
    if hasattr(expected, "__dataclass_fields__"):
        for part in fields(expected):
            assert_same(
                getattr(found, part.name), getattr(expected, part.name), f"{path}.{part.name}"
            )
    elif isinstance(expected, tuple):
        assert len(found) == len(expected), path
        for index, pair in enumerate(zip(found, expected, strict=True)):
            assert_same(*pair, f"{path}[{index}]")
    else:
        np.testing.assert_array_equal(found, expected, err_msg=path)


def test_frames_come_back(stored):
    frames = [waymo_frame(index) for index in (2, 0, 1)]
    segment = stored(frames)
    assert segment.table.segment == SEGMENT
    assert segment.table.times_us.tolist() == sorted(f.time_us for f in frames)
    for frame in frames:
        found = segment.frame(frame.time_us, images=True, projections=True)
        if isinstance(segment, SegmentV2):
            frame = replace(frame, no_label_zones=())
        assert_same(found, frame)
        pose = segment.table.world_from_vehicle[segment.table.row(frame.time_us)]
        assert_same(pose, frame.world_from_vehicle)


def test_what_is_not_asked_for_stays_empty(stored):
    frame = waymo_frame()
    found = stored([frame]).frame(frame.time_us, lasers=(), labels=False)
    assert (found.lasers, len(found.labels), found.shots) == ((), 0, ())


def test_labels_alone_are_the_same(stored):
    frame = waymo_frame()
    found = stored([frame, waymo_frame(1)]).frame(frame.time_us, lasers=())
    assert_same(found.labels, frame.labels)


def test_lasers_and_returns_can_be_chosen(stored):
    frame = waymo_frame()
    found = stored([frame]).frame(frame.time_us, lasers=(1, 3), echoes=1, projections=True)
    wanted = [
        replace(scan, returns=scan.returns[:1], projections=scan.projections[:1])
        for scan in frame.lasers
        if scan.laser in (1, 3)
    ]
    assert_same(found.lasers, tuple(wanted))


def test_an_unknown_time_is_a_key_error(stored):
    with pytest.raises(KeyError, match="no frame at 5"):
        stored([waymo_frame()]).frame(5)


def test_a_segment_travels_to_another_process(stored):
    frame = waymo_frame()
    segment = stored([frame])
    segment.frame(frame.time_us)
    assert_same(pickle.loads(pickle.dumps(segment)).frame(frame.time_us).lasers[0].returns,
                frame.lasers[0].returns)  # fmt: skip


def test_bare_frames_are_legal(stored):
    full, bare = waymo_frame(0), waymo_frame(1)
    bare = WaymoFrame(bare.segment, bare.time_us, bare.world_from_vehicle)
    found = stored([full, bare]).frame(bare.time_us, images=True)
    assert_same(found, bare)
    assert len(frame_points(found).xyz) == 0


def test_one_return_and_uniform_beams_are_legal(stored):
    frame = waymo_frame(0)
    scan = frame.lasers[1]
    scan = replace(scan, returns=scan.returns[:1], projections=scan.projections[:1])
    frame = replace(frame, lasers=(frame.lasers[0], scan))
    found = stored([frame]).frame(frame.time_us, projections=True)
    assert_same(found.lasers, frame.lasers)


def test_boxes_without_points_or_objects(stored):
    frame = replace(waymo_frame(0), labels=FrameLabels.empty())
    assert len(stored([frame, waymo_frame(1)]).frame(frame.time_us).labels) == 0


def test_a_frame_twice_is_an_error(stored):
    with pytest.raises(InputError, match="twice"):
        stored([waymo_frame(0), waymo_frame(0)])


def test_a_file_without_frames_is_an_error(tmp_path):
    with pytest.raises(InputError, match="holds no frame"):
        SegmentV1(write_v1(tmp_path, SEGMENT, []))


def test_two_segments_in_a_file_are_an_error(tmp_path):
    frames = [waymo_frame(0), waymo_frame(1, segment="other")]
    with pytest.raises(InputError, match="one segment a file"):
        SegmentV1(write_v1(tmp_path, SEGMENT, frames))


def test_real_frame_of_labels_only(real_data):
    segment = SegmentV1(real_data / "waymo" / "frame_labels_only.tfrecord")
    frame = segment.frame(segment.table.times_us[0], images=True)
    assert np.bincount(frame.labels.types).tolist() == [0, 37, 12, 25, 1]
    assert len(frame.shots) == 5
    assert len(frame_points(frame).xyz) == 0
