"""The KITTI adapter, on a tiny data set in KITTI's layout and on real frames."""

import itertools
import tarfile

import numpy as np
import pytest
import torch

from datasets.kitti import KittiDataset
from datasets.kitti_files import KittiObjects, read_objects, read_scan
from datasets.kitti_view import in_camera_view
from detector.errors import InputError
from detector.ops.boxes import points_in_boxes
from detector.records import Detections
from tests.writers.kitti import CAR, CYCLIST, PEDESTRIAN, TinyObject, write_kitti


@pytest.fixture
def root(tmp_path):
    return write_kitti(tmp_path / "kitti")


def as_detections(dataset, index, score=0.9):
    sample = dataset[index]
    return Detections(
        sample.frame_id,
        torch.from_numpy(sample.boxes),
        torch.full((len(sample.boxes),), score),
        torch.from_numpy(sample.labels),
    )


def test_a_frame_has_the_points_and_the_boxes_of_the_classes(root):
    dataset = KittiDataset(root, "trainval")
    sample = dataset[0]
    assert len(dataset) == 3
    assert sample.frame_id == "000000"
    assert sample.point_features == dataset.point_features == ("x", "y", "z", "intensity")
    assert sample.points.dtype == sample.boxes.dtype == np.float32
    assert sample.labels.tolist() == [0, 1]                # Van and DontCare are left out
    assert dataset[2].boxes.shape == (0, 7)


def test_boxes_contain_the_points_that_were_written_into_them(root):
    sample = KittiDataset(root, "trainval")[0]
    inside = points_in_boxes(torch.from_numpy(sample.points[:, :3]), torch.from_numpy(sample.boxes))
    # The camera's tilt against the scanner tips a few points out at the box's faces.
    assert inside.sum(0).tolist() == pytest.approx([CAR.points, PEDESTRIAN.points], rel=0.05)


def test_labels_index_into_the_classes_as_given(root):
    dataset = KittiDataset(root, "train", classes=("Van", "Car"))
    assert dataset[0].labels.tolist() == [1, 0]


def test_points_outside_the_cameras_view_are_cropped(root):
    whole = KittiDataset(root, "train", crop_to_camera=False)[0].points
    seen = KittiDataset(root, "train")[0].points
    assert 0 < len(seen) < len(whole)
    assert (seen[:, 0] > 0).all()
    angle = np.abs(np.arctan2(seen[:, 1], seen[:, 0]))
    assert angle.max() < np.deg2rad(45)


def test_the_view_keeps_what_projects_into_the_picture(root):
    dataset = KittiDataset(root, "train")
    calibration = dataset.calibration("000000")
    pixels = np.array([[0.5, 0.5], [1241.5, 374.5], [-0.5, 100], [1242.5, 100], [100, 375.5]])
    inverse = np.linalg.inv(calibration.projection[:, :3])
    camera = np.column_stack([pixels, np.ones(5)]) * 10 - calibration.projection[:, 3]
    camera = np.column_stack([camera @ inverse.T, np.ones(5)])
    points = (camera @ calibration.ego_from_camera.T)[:, :3]
    seen = in_camera_view(np.concatenate([points, -points]), calibration, (1242, 375))
    assert seen.tolist() == [True, True] + [False] * 8


def test_image_size_is_the_pictures_own_or_goes_with_the_calibration(tmp_path):
    with_images = KittiDataset(write_kitti(tmp_path / "a"), "train")
    without = KittiDataset(write_kitti(tmp_path / "b", images=False), "train")
    assert with_images.with_image_sizes and not without.with_image_sizes
    assert with_images.image_size("000000") == without.image_size("000000") == (1242, 375)


def test_pictures_come_with_their_calibration_on_request(root):
    dataset = KittiDataset(root, "train", with_images=True)
    (camera,) = dataset[0].cameras
    assert camera.image.shape == (375, 1242, 3) and camera.image.dtype == np.uint8
    ego = np.append(dataset[0].boxes[0, :3], 1)
    u, v, depth = camera.intrinsics @ camera.camera_from_ego @ ego
    left, top, right, bottom = dataset.objects("000000").bbox[0]
    assert left < u / depth < right and top < v / depth < bottom


def test_the_testing_folder_has_no_labels(tmp_path):
    root = write_kitti(tmp_path, {"000003": [CAR]}, folder="testing")
    for path in (root / "testing" / "label_2").iterdir():
        path.unlink()
    (root / "testing" / "label_2").rmdir()
    dataset = KittiDataset(root, "test")
    assert dataset[0].boxes.shape == (0, 7)
    with pytest.raises(InputError, match="no labels to evaluate"):
        dataset.evaluate([as_detections(dataset, 0)])


def test_a_split_may_be_the_path_of_a_file_or_the_frames_themselves(root, tmp_path):
    (tmp_path / "mine.txt").write_text("000007\n")
    assert KittiDataset(root, str(tmp_path / "mine.txt")).frame_ids == ("000007",)
    assert KittiDataset(root, ["000007", "000000"]).frame_ids == ("000007", "000000")


def test_planes_are_turned_into_the_ego_frame(root):
    dataset = KittiDataset(root, "train")
    assert dataset.ground_plane("000000") is None
    (root / "training" / "planes").mkdir()
    (root / "training" / "planes" / "000000.txt").write_text("0 -1 0 1.65\n")
    normal, offset = np.split(dataset.ground_plane("000000"), [3])
    on_road = dataset.calibration("000000").ego_from_camera @ [2.0, 1.65, 12.0, 1]
    assert normal @ on_road[:3] + offset == pytest.approx(0, abs=1e-9)
    assert normal[2] > 0.99


def test_results_are_written_in_the_benchmarks_columns_and_read_back(root, tmp_path):
    dataset = KittiDataset(root, "trainval")
    dataset.write_results([as_detections(dataset, i) for i in range(3)], tmp_path / "results")
    found = read_objects(tmp_path / "results" / "000000.txt", with_scores=True)
    truth = dataset.objects("000000")
    assert found.types == ("Car", "Pedestrian")
    assert np.allclose(found.location, truth.location[:2], atol=1e-4)
    assert np.allclose(found.dimensions, truth.dimensions[:2], atol=1e-4)
    assert np.allclose(found.rotation_y, truth.rotation_y[:2], atol=1e-4)
    assert np.allclose(found.bbox, truth.bbox[:2], atol=0.02)
    assert found.score.tolist() == [0.9, 0.9]
    assert (tmp_path / "results" / "000007.txt").read_text() == ""


def test_results_of_any_detector_become_detections(root, tmp_path):
    dataset = KittiDataset(root, "trainval")
    detections = as_detections(dataset, 0)
    dataset.write_results([detections], tmp_path / "results" / "data")
    with (tmp_path / "results" / "data" / "000000.txt").open("a") as file:
        file.write("Car -1 -1 0 1 2 3 4 -1 -1 -1 -1000 -1000 -1000 -10 0.5\n")      # 2D only
        file.write("Van -1 -1 0 1 2 3 4 2 2 5 1 1.7 20 0 0.5\n")                   # another class
        file.write("Car -1 -1 0 1 2 3 4 1.5 1.6 4 1 1.7 20 0 0.99\n")              # the best
    read = dataset.read_results(tmp_path / "results", "000000")
    assert read.scores.tolist() == pytest.approx([0.99, 0.9, 0.9])
    assert read.labels.tolist() == [0, 0, 1]
    assert torch.allclose(read.boxes[1:], detections.boxes, atol=1e-3)
    with pytest.raises(InputError, match="results/000001.txt: can't read the result file"):
        dataset.read_results(tmp_path / "results", "000001")


def test_boxes_behind_the_camera_are_not_written(root, tmp_path):
    dataset = KittiDataset(root, "train")
    boxes = torch.tensor([[-10.0, 0, 0, 4, 2, 1.5, 0], [10, 0, 0, 4, 2, 1.5, 0]])
    dataset.write_results(
        [Detections("000000", boxes, torch.tensor([0.8, 0.4]), torch.tensor([0, 0]))], tmp_path
    )
    assert read_objects(tmp_path / "000000.txt", with_scores=True).score.tolist() == [0.4]


def test_evaluation_wants_every_frame_once(root):
    dataset = KittiDataset(root, "trainval")
    frames = [as_detections(dataset, i) for i in range(3)]
    for wrong in (frames[:2], [*frames[:2], frames[1]], [*frames, frames[0]]):
        with pytest.raises(ValueError, match="every frame is needed once"):
            dataset.evaluate(wrong)


@pytest.mark.parametrize("kind", ["velodyne", "calib", "label_2", "image_2"])
def test_a_missing_file_is_found_before_the_first_frame(root, kind):
    path = next(p for p in (root / "training" / kind).iterdir() if p.stem == "000001")
    path.unlink()
    with pytest.raises(InputError, match=f"{path}: no such file; 1 of 3 frames"):
        KittiDataset(root, "trainval")
    KittiDataset(root, "train")                            # does not have that frame


@pytest.mark.parametrize("kind", ["velodyne", "calib", "label_2"])
def test_a_missing_folder_is_named(root, kind):
    (root / "training" / kind).rename(root / "elsewhere")
    with pytest.raises(InputError, match=f"training/{kind}: no such folder"):
        KittiDataset(root, "train")


def test_a_wrong_root_split_or_class_is_named(root, tmp_path):
    with pytest.raises(InputError, match="nowhere/training: no such folder; --root"):
        KittiDataset(tmp_path / "nowhere", "train")
    with pytest.raises(InputError, match="no such split; there are train, trainval, val"):
        KittiDataset(root, "vall")
    with pytest.raises(InputError, match="'Cars' is no type of KITTI; the known ones are Car,"):
        KittiDataset(root, "train", classes=("Cars",))


def test_an_object_without_a_size_is_named(tmp_path):
    flat = TinyObject(dimensions=(-1, -1, -1))
    dataset = KittiDataset(write_kitti(tmp_path, {"000000": [CYCLIST, flat]}), "train")
    with pytest.raises(InputError, match="000000.txt: object 2 is a Car .* is no box"):
        dataset[0]


def test_a_scan_without_a_point_in_view_is_named(root):
    path = root / "training" / "velodyne" / "000000.bin"
    np.array([[-5, 0, 0, 0]], "<f4").tofile(path)
    with pytest.raises(InputError, match="000000.bin: none of its 1 points lies in the camera"):
        KittiDataset(root, "train")[0]
    assert len(KittiDataset(root, "train", crop_to_camera=False)[0].points) == 1


def test_points_that_are_not_finite_stop_the_frame_unless_dropped_on_purpose(root):
    path = root / "training" / "velodyne" / "000000.bin"
    points = np.fromfile(path, "<f4").reshape(-1, 4)
    points[3, 1] = np.nan
    points.tofile(path)
    with pytest.raises(InputError, match="1 of .* points are NaN or infinite"):
        KittiDataset(root, "train")[0]
    dataset = KittiDataset(root, "train", crop_to_camera=False, drop_not_finite=True)
    assert len(dataset[0].points) == len(points) - 1


@pytest.mark.parametrize(("name", "frames"), [("kitti", 6), ("kitti_drive", 39)])
def test_real_frames_load_and_their_boxes_hold_points(real_data, name, frames):
    dataset = KittiDataset(real_data / name, "sample")
    assert len(dataset) == frames
    counts = []
    for sample in (dataset[i] for i in range(0, frames, 5 if frames > 10 else 1)):
        assert 10_000 < len(sample.points) < 30_000
        assert sample.points[:, 3].min() >= 0 and sample.points[:, 3].max() <= 1
        inside = points_in_boxes(
            torch.from_numpy(sample.points[:, :3]), torch.from_numpy(sample.boxes)
        )
        counts += inside.sum(0).tolist()
    assert np.mean(np.array(counts) > 0) > 0.95


def test_scans_cropped_already_pass_unchanged(real_data):
    dataset = KittiDataset(real_data / "kitti_drive", "sample")
    whole, _ = read_scan(dataset.path("velodyne", "000000"))
    assert not dataset.with_image_sizes
    assert len(dataset[0].points) == len(whole)


def test_real_truth_projects_onto_the_labelled_2d_boxes(real_data):
    dataset = KittiDataset(real_data / "kitti", "sample")
    for i, frame_id in enumerate(dataset.frame_ids):
        truth = dataset.objects(frame_id)
        kept = np.array([name in dataset.classes for name in truth.types])
        found = dataset.result_objects(as_detections(dataset, i))
        assert isinstance(found, KittiObjects) and len(found) == kept.sum()
        # Labelled by hand in the picture, so only near the projection of the 3D box.
        assert np.median(np.abs(found.bbox - truth.bbox[kept])) < 3


def test_real_truth_as_its_own_result_scores_in_full(real_data, tmp_path):
    # 150 real frames of labels; the scans hold one point, which only has to be in view.
    frames = 150
    for kind in ("label_2", "calib"):
        with tarfile.open(real_data / "kitti" / f"{kind}_all7481.tar.xz") as archive:
            members = (m for m in archive if m.name.endswith(".txt"))
            archive.extractall(tmp_path, itertools.islice(members, frames), filter="data")
    ids = [path.stem for path in sorted((tmp_path / "training" / "label_2").iterdir())]
    (tmp_path / "training" / "velodyne").mkdir()
    for frame_id in ids:
        scan = tmp_path / "training" / "velodyne" / f"{frame_id}.bin"
        np.array([[10, 0, 0, 0]], "<f4").tofile(scan)
    (tmp_path / "all.txt").write_text("\n".join(ids))
    dataset = KittiDataset(tmp_path, str(tmp_path / "all.txt"))
    result = dataset.evaluate([as_detections(dataset, i) for i in range(frames)]).as_dict()
    for measure in ("bev", "3d"):
        assert result["Car"][measure]["R11"] == pytest.approx([100] * 3)


def test_classes_that_the_benchmark_does_not_know_are_left_out_of_the_scores(root):
    dataset = KittiDataset(root, "train", classes=("Van", "Car"))
    assert list(dataset.evaluate([as_detections(dataset, 0)]).as_dict()) == ["Car"]


def test_points_of_types_left_out_are_gone_and_no_others(root):
    whole, without = (
        KittiDataset(root, "trainval", without_types=types)[0].points
        for types in ((), ("Van", "DontCare"))
    )
    dataset = KittiDataset(root, "trainval")
    calibration, objects = dataset.calibration("000000"), dataset.objects("000000")
    assert {"Van", "DontCare"} <= set(objects.types)
    van = KittiDataset(root, "trainval", classes=("Van",))[0].boxes
    van[:, 3:6] += 0.4
    in_van = points_in_boxes(torch.from_numpy(whole), torch.from_numpy(van))[:, 0].numpy()
    # The rectangle, by way of homogeneous coordinates.
    pixels = np.c_[whole[:, :3], np.ones(len(whole))] @ calibration.camera_from_ego.T
    pixels = pixels @ calibration.projection.T
    u, v = pixels[:, 0] / pixels[:, 2], pixels[:, 1] / pixels[:, 2]
    left, top, right, bottom = objects.bbox[objects.types.index("DontCare")]
    hidden = (left <= u) & (u < right) & (top <= v) & (v < bottom)
    assert in_van.sum() > 100 and hidden.sum() > 0
    assert np.array_equal(without, whole[~(in_van | hidden)])


def test_an_unknown_type_to_leave_out_is_named(root):
    with pytest.raises(InputError, match="without_types: 'Bus' is no type of KITTI.*DontCare"):
        KittiDataset(root, "train", without_types=("Bus",))
