"""Pasting objects of other frames."""

import pickle

import numpy as np
import pytest

from datasets.augment import FadeOut, GroundTruthPaste
from datasets.augment.paste_database import ObjectsOfFrames, write_paste_database
from detector.errors import InputError
from detector.records import Sample
from tests.oracles.boxes import intersection_bev
from tests.writers.street import CLASSES, FEATURES, Street, street


@pytest.fixture(scope="module")
def database(tmp_path_factory):
    path = tmp_path_factory.mktemp("paste") / "objects.db"
    objects = ObjectsOfFrames(Street(12))
    write_paste_database(path, (objects[i] for i in range(12)), CLASSES, "streets")
    return path


def paste(database, counts=None, **options):
    return GroundTruthPaste(database, CLASSES, counts or {"Car": 6, "Cyclist": 4}, **options)


def rng(seed=0):
    return np.random.default_rng(seed)


SCENE = street("000099", seed=99, ground=-1.2)


def test_a_frame_is_filled_up_without_collisions(database):
    result = paste(database)(SCENE, rng())
    counts = np.bincount(result.labels, minlength=3)
    assert 2 < counts[0] <= 6 and counts[1] == 2 and 1 < counts[2] <= 4
    assert np.array_equal(result.boxes[:5], SCENE.boxes)
    boxes = result.boxes.astype(np.float64)
    for i in range(len(boxes)):
        for j in range(i):
            assert intersection_bev(boxes[i], boxes[j]) < 1e-9
    assert result.points.dtype == result.boxes.dtype == np.float32
    assert result.labels.dtype == np.int64


def test_counts_can_say_how_many_are_added(database):
    result = paste(database, {"Pedestrian": 3}, fill_up=False)(SCENE, rng())
    assert 2 < (result.labels == 1).sum() <= 5
    full = street(cars=6)
    assert paste(database, {"Car": 6})(full, rng()) is full


def test_points_come_along_and_the_scenes_own_make_room(database):
    bushes = rng(5).uniform((2, -25, -1, 0), (60, 25, 0, 0), (4000, 4)).astype(np.float32)
    scene = SCENE.replace(points=np.concatenate([SCENE.points, bushes]))
    result = paste(database)(scene, rng())
    pasted = result.boxes[5:]
    kept = len(scene.points)
    local = scene.points[:, None, :3] - pasted[:, :3]
    cos, sin = np.cos(pasted[:, 6]), np.sin(pasted[:, 6])
    along = np.abs(local[..., 0] * cos + local[..., 1] * sin) <= pasted[:, 3] / 2
    across = np.abs(local[..., 1] * cos - local[..., 0] * sin) <= pasted[:, 4] / 2
    upright = np.abs(local[..., 2]) <= pasted[:, 5] / 2
    covered = (along & across & upright).any(1)
    assert covered.any()
    kept -= covered.sum()
    assert np.array_equal(result.points[:kept], scene.points[~covered])
    for box in pasted:
        near = np.hypot(*(result.points[kept:, :2] - box[:2]).T) < np.hypot(*box[3:5]) / 2
        assert near.sum() >= 40


def test_objects_stand_on_the_ground_of_their_new_frame(database):
    # The database's ground lies at -1.7, the frame's at -1.2.
    pasted = paste(database)(SCENE, rng()).boxes[5:]
    assert np.abs(pasted[:, 2] - pasted[:, 5] / 2 + 1.2).max() < 0.05


def test_without_ground_points_objects_keep_their_height(database):
    empty = Sample("1", np.zeros((0, 4), np.float32), FEATURES)
    pasted = paste(database)(empty, rng())
    assert len(pasted.boxes) and len(pasted.points)
    assert np.abs(pasted.boxes[:, 2] - pasted.boxes[:, 5] / 2 + 1.7).max() < 0.05


def test_objects_of_few_points_are_not_used(database):
    assert paste(database, min_points=10_000)(SCENE, rng()) is SCENE


def test_the_same_generator_pastes_the_same_in_another_process_too(database):
    transform = paste(database)
    first = transform(SCENE, rng())
    second = pickle.loads(pickle.dumps(transform))(SCENE, rng())
    assert np.array_equal(first.points, second.points)
    assert np.array_equal(first.boxes, second.boxes)
    assert not np.array_equal(first.boxes[5:8], transform(SCENE, rng(1)).boxes[5:8])
    assert np.array_equal(SCENE.points, street("000099", seed=99, ground=-1.2).points)


def test_labels_are_those_of_the_frames_classes(database):
    transform = GroundTruthPaste(database, ("Cyclist", "Car"), {"Car": 8})
    result = transform(SCENE.replace(boxes=SCENE.boxes[:0], labels=SCENE.labels[:0]), rng())
    assert set(result.labels) == {1} and np.allclose(result.boxes[:, 3], 4)


def test_a_database_that_does_not_fit_is_named(database, tmp_path):
    other = SCENE.replace(point_features=("x", "y", "z", "age_s"))
    with pytest.raises(InputError, match="point columns.*frame 000099.*prepare.py paste"):
        paste(database)(other, rng())
    with pytest.raises(InputError, match="no velocity"):
        paste(database)(street(velocities=True), rng())
    with pytest.raises(InputError, match="no Tram to paste"):
        GroundTruthPaste(database, ("Car", "Tram"), {"Tram": 3})(SCENE, rng())
    with pytest.raises(InputError, match="absent.db: can't be read"):
        paste(tmp_path / "absent.db")(SCENE, rng())


@pytest.mark.parametrize("counts", [{"Car": -1}, {"Tram": 1}])
def test_wrong_counts_are_refused(database, counts):
    with pytest.raises(ValueError, match="counts has"):
        paste(database, counts)


def test_boxes_with_velocities_give_boxes_without_where_frames_have_none(tmp_path):
    objects = ObjectsOfFrames(Street(4, velocities=True))
    write_paste_database(tmp_path / "a.db", (objects[i] for i in range(4)), CLASSES, "streets")
    moving = paste(tmp_path / "a.db")(street("000099", seed=99, velocities=True), rng())
    assert moving.boxes.shape[1] == 9 and (moving.boxes[5:, 7:] != 0).all()
    assert paste(tmp_path / "a.db")(SCENE, rng()).boxes.shape[1] == 7


def test_pasting_fades_out_in_the_last_epochs(database):
    fading = FadeOut(paste(database), last_epochs=2)
    assert [fading.at_epoch(e, 5) is not None for e in range(5)] == [True] * 3 + [False] * 2
    assert len(fading(SCENE, rng()).boxes) > 5
    with pytest.raises(ValueError, match="last_epochs"):
        FadeOut(paste(database), last_epochs=-1)
