from dataclasses import replace

import numpy as np
import pytest
import torch

from datasets.waymo import WaymoDataset
from datasets.waymo.objects import paired_frames, read_objects
from datasets.waymo.range_image import frame_points
from datasets.waymo.segments import INDEX_NAME, save_index
from datasets.waymo.writer_v1 import v1_path, write_v1
from datasets.waymo.writer_v2 import write_v2
from detector.errors import InputError
from detector.metrics.waymo import evaluate_waymo
from detector.records import Detections, Sample
from tests.writers.waymo_frames import SEGMENT, pose, waymo_frame

OTHER = "20000000000000000000_0_000_20_000"


@pytest.fixture(scope="module")
def roots(tmp_path_factory):
    """The same two segments, of three frames and of one, in both formats."""
    frames = {
        SEGMENT: [waymo_frame(index) for index in range(3)],
        OTHER: [waymo_frame(7, segment=OTHER)],
    }
    folder = tmp_path_factory.mktemp("waymo")
    for name, found in frames.items():
        write_v1(folder / "v1" / "training", name, found)
        write_v2(folder / "v2" / "training", name, found)
    return folder


@pytest.fixture(params=["v1", "v2"])
def root(roots, request):
    return roots / request.param


def exact(dataset) -> list[Detections]:
    """The samples' own boxes as detections."""
    samples = [dataset[index] for index in range(len(dataset))]
    return [
        Detections(
            s.frame_id, torch.from_numpy(s.boxes), torch.full((len(s.boxes),), 0.9),
            torch.from_numpy(s.labels),
        )
        for s in samples
    ]  # fmt: skip


def test_frames_are_in_order_and_named(root):
    dataset = WaymoDataset(root, "training")
    times = [waymo_frame(index).time_us for index in (0, 1, 2, 7)]
    names = [SEGMENT] * 3 + [OTHER]
    assert dataset.frame_ids == tuple(f"{n}_{t}" for n, t in zip(names, times, strict=True))
    assert len(dataset) == 4


def test_both_formats_give_the_same_samples(roots):
    options = dict(split="training", features=("echo", "intensity"), sweeps=2, with_images=True)
    first = WaymoDataset(roots / "v1", **options)
    second = WaymoDataset(roots / "v2", **options)
    for a, b in zip(first, second, strict=True):
        assert (a.frame_id, a.point_features) == (b.frame_id, b.point_features)
        for name in ("points", "boxes", "labels"):
            np.testing.assert_array_equal(getattr(a, name), getattr(b, name))
        for one, other in zip(a.cameras, b.cameras, strict=True):
            np.testing.assert_array_equal(one.image, other.image)


def test_a_sample_holds_points_and_trainable_boxes(root):
    dataset = WaymoDataset(root, "training")
    sample, frame = dataset[1], waymo_frame(1)
    assert isinstance(sample, Sample)
    points = frame_points(frame)
    assert sample.point_features == ("x", "y", "z", "intensity", "elongation")
    np.testing.assert_array_equal(sample.points[:, :3], points.xyz)
    np.testing.assert_array_equal(sample.points[:, 3], np.tanh(points.intensity))
    # Of types vehicle, pedestrian, sign, cyclist, vehicle the first has no points, the third
    # isn't asked for.
    assert sample.labels.tolist() == [1, 2, 0]
    np.testing.assert_array_equal(sample.boxes[:, :7], frame.labels.boxes[[1, 3, 4]].astype("f4"))


def test_velocities_turn_into_the_vehicle_frame(root):
    dataset = WaymoDataset(root, "training", ("Sign", "Vehicle"), min_points=0)
    sample, frame = dataset[0], waymo_frame(0)
    assert sample.labels.tolist() == [1, 0, 1]
    assert np.isnan(sample.boxes[0, 7:]).all()
    expected = frame.world_from_vehicle[:3, :3].T @ frame.labels.velocities[2]
    np.testing.assert_allclose(sample.boxes[1, 7:], expected[:2], rtol=1e-5)


def test_sweeps_come_from_the_same_segment_with_their_age(root):
    dataset = WaymoDataset(root, "training", sweeps=3)
    assert dataset.point_features[-1] == "age_s"
    ages = [np.unique(dataset[index].points[:, -1]) for index in range(4)]
    for found, expected in zip(ages, ([0], [0, 0.1], [0, 0.1, 0.2], [0]), strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-6)
    now, before = waymo_frame(1), waymo_frame(0)
    moved = np.linalg.inv(now.world_from_vehicle) @ before.world_from_vehicle
    xyz = frame_points(before).xyz @ moved[:3, :3].T + moved[:3, 3]
    points = dataset[1].points
    np.testing.assert_allclose(points[points[:, -1] > 0, :3], xyz, atol=1e-4)


def test_frames_points_and_features_can_be_chosen(root):
    dataset = WaymoDataset(root, "training", features=("no_label_zone", "echo"), every=2)
    assert [frame_id.split("_")[-1][-6:] for frame_id in dataset.frame_ids] == [
        str(waymo_frame(index).time_us)[-6:] for index in (0, 2, 7)
    ]
    points = dataset[0].points
    assert set(points[:, 3]) == {0, 1}
    assert set(points[:, 4]) == {1, 2}
    few = WaymoDataset(
        root, "training", features=("no_label_zone",), drop_no_label_zones=True, echoes=(1,),
        lasers=(2,),
    )[0].points  # fmt: skip
    assert 0 < len(few) < len(points) / 5
    assert set(few[:, 3]) == {0}


def test_cameras_project_in_our_axes(root):
    cameras = WaymoDataset(root, "training", with_images=True)[0].cameras
    assert [camera.name for camera in cameras] == ["FRONT", "SIDE_LEFT"]
    assert cameras[0].image.shape == (8, 12, 3)
    assert abs(int(cameras[0].image[0, 0, 0]) - 200) < 20  # RGB
    shot = waymo_frame(0).shots[0]
    ahead = shot.vehicle_from_camera @ [10, 1, 2, 1]  # x ahead, y left, z up of the camera
    seen = cameras[0].intrinsics @ cameras[0].camera_from_ego @ ahead
    np.testing.assert_allclose(seen[:2] / seen[2], [6 - 20 / 10, 4 - 21 * 2 / 10], rtol=1e-3)


def test_a_perfect_detector_scores_one(root):
    dataset = WaymoDataset(root, "training", ("Vehicle", "Pedestrian", "Sign", "Cyclist"))
    scores = dataset.evaluate(exact(dataset)).scalars()
    for kind in ("vehicle", "pedestrian", "sign", "cyclist"):
        assert scores[f"{kind}/L2/APH"] == pytest.approx(1)
    assert dataset.evaluate(exact(dataset), bev=True).bev


def test_files_of_results_score_as_evaluate_does(root, tmp_path):
    dataset = WaymoDataset(root, "training")
    detections = [replace(d, boxes=d.boxes + 0.05) for d in exact(dataset)]
    found = dataset.write_results(detections, tmp_path / "results")
    assert found == tmp_path / "results" / "predictions.bin"
    truth = dataset.write_ground_truth(tmp_path / "truth.bin")
    from_files = evaluate_waymo(paired_frames(read_objects(truth), read_objects(found)))
    assert from_files.as_dict() == dataset.evaluate(detections).as_dict()


def test_no_label_zones_forgive(roots):
    frame = waymo_frame(0)
    stray = np.array([[3.0, 2, 12, 1, 1, 1, 0, 0, 0], [3000, 2, 12, 1, 1, 1, 0, 0, 0]])
    vehicle = np.linalg.inv(pose(0, 0, 0, 0.6, 0)) @ np.c_[
        stray[:, :2] - frame.world_from_vehicle[:2, 3], np.zeros(2), np.ones(2)
    ].T
    stray[:, :2] = vehicle[:2].T
    dataset = WaymoDataset(roots / "v1", "training")
    detections = exact(dataset)
    detections[0] = replace(
        detections[0], boxes=torch.from_numpy(stray), scores=torch.tensor([0.5, 0.5]),
        labels=torch.zeros(2, dtype=torch.int64),
    )  # fmt: skip
    forgiven = next(dataset._pairs({d.frame_id: d for d in detections}))[1].in_no_label_zone
    assert forgiven.tolist() == [True, False]


def test_detections_must_be_of_all_frames(root):
    dataset = WaymoDataset(root, "training")
    with pytest.raises(ValueError, match="every frame is needed once"):
        dataset.evaluate(exact(dataset)[:-1])


def test_a_split_without_labels_has_none(roots, tmp_path):
    (tmp_path / "testing").symlink_to(roots / "v2" / "training")
    unlabelled = WaymoDataset(tmp_path, "testing", with_labels=False)
    assert len(unlabelled[0].boxes) == 0
    with pytest.raises(InputError, match="no labels to evaluate with"):
        unlabelled.evaluate(exact(unlabelled))


def test_the_index_replaces_a_look_into_the_files(root, monkeypatch, tmp_path):
    plain = WaymoDataset(root, "training")
    save_index(tmp_path / "index.npz", plain.segments)
    for name in ("v1._read_table", "v2.SegmentV2._read_table"):
        monkeypatch.setattr(f"datasets.waymo.{name}", None)
    indexed = WaymoDataset(root, "training", index=tmp_path / "index.npz")
    assert indexed.frame_ids == plain.frame_ids
    np.testing.assert_array_equal(indexed[2].points, plain[2].points)


def test_an_index_of_other_files_is_refused(tmp_path):
    folder = tmp_path / "training"
    write_v1(folder, SEGMENT, [waymo_frame(0)])
    save_index(folder / INDEX_NAME, WaymoDataset(tmp_path, "training").segments)
    write_v1(folder, SEGMENT, [waymo_frame(0), waymo_frame(1)])
    with pytest.raises(InputError, match="prepare.py waymo"):
        WaymoDataset(tmp_path, "training")
    (folder / INDEX_NAME).write_bytes(b"PK no archive")
    with pytest.raises(InputError, match="prepare.py waymo"):
        WaymoDataset(tmp_path, "training")


def test_one_segment_in_two_files_is_an_error(tmp_path):
    path = write_v1(tmp_path / "training", SEGMENT, [waymo_frame(0)])
    path.with_name("copy.tfrecord").write_bytes(path.read_bytes())
    with pytest.raises(InputError, match="in two files"):
        WaymoDataset(tmp_path, "training")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(classes=("Car",)), "Vehicle, Pedestrian, Sign, Cyclist"),
        (dict(features=("rcs",)), "elongation"),
        (dict(classes=()), "classes is empty"),
        (dict(lasers=(1, 6)), "1, 2, 3, 4, 5"),
        (dict(echoes=(0,)), "1, 2"),
        (dict(sweeps=0), "sweeps is 0"),
        (dict(every=0), "every is 0"),
        (dict(split="train"), "neither .tfrecord"),
        (dict(index="none.npz"), "none.npz"),
    ],
)
def test_wrong_options_are_explained(roots, options, message):
    with pytest.raises(InputError, match=message):
        WaymoDataset(roots / "v1", **{"split": "training", **options})


def test_v1_paths_are_the_official_ones(roots):
    assert v1_path(roots / "v1" / "training", SEGMENT).is_file()
    assert v1_path("x", "1_2").name == "segment-1_2_with_camera_labels.tfrecord"
