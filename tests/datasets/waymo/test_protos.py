import pytest

from datasets.waymo import protos
from detector.errors import InputError


def test_fields_have_their_published_numbers():
    label = protos.message_class("Label")()
    label.box.width, label.type, label.num_lidar_points_in_box = 2.0, 1, 3
    # Field 1: a box of one double in field 4; field 3: 1; field 7: 3.
    assert label.SerializeToString() == b"\x0a\x09\x21" + b"\0" * 7 + b"\x40\x18\x01\x38\x03"


def test_matrices_are_packed():
    matrix = protos.message_class("MatrixInt32")(data=[1, 300])
    assert matrix.SerializeToString() == b"\x0a\x03\x01\xac\x02"


def test_score_is_one_unless_given():
    assert protos.message_class("Object")().score == 1


def test_unknown_fields_survive():
    frame = protos.message_class("Frame")
    map_feature = b"\x52\x02\x08\x05"  # field 10, not declared here
    assert frame.FromString(map_feature).SerializeToString() == map_feature


def test_every_message_can_be_made():
    for name in protos.MESSAGES:
        assert protos.message_class(name)().SerializeToString() == b""


def test_missing_protobuf_is_explained(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "google.protobuf", None)
    protos.message_class.cache_clear()
    protos._pool.cache_clear()
    with pytest.raises(InputError, match=r"focal3d\[waymo\]"):
        protos.message_class("Frame")


def test_fields_agree_with_the_official_package():
    """Runs where the wheel waymo-open-dataset-tf-2-12-0 is installed, which takes no TensorFlow:
    `pip install --no-deps`."""
    dataset = pytest.importorskip("waymo_open_dataset.dataset_pb2")
    metrics = pytest.importorskip("waymo_open_dataset.protos.metrics_pb2")
    submission = pytest.importorskip("waymo_open_dataset.protos.submission_pb2")
    nested = {"Box": "Label.Box", "Metadata": "Label.Metadata", "Stats": "Context.Stats"}
    pool = dataset.DESCRIPTOR.pool
    assert metrics.DESCRIPTOR.pool is submission.DESCRIPTOR.pool is pool
    for name in protos.MESSAGES:
        theirs = pool.FindMessageTypeByName(f"waymo.open_dataset.{nested.get(name, name)}")
        for field in protos.message_class(name).DESCRIPTOR.fields:
            official = theirs.fields_by_name[field.name]
            assert field.number == official.number
            enum = official.type == official.TYPE_ENUM
            assert field.type == (official.TYPE_INT32 if enum else official.type)
