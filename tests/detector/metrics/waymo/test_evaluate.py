import numpy as np
import pytest

from detector.metrics.waymo import WaymoPredictions, WaymoTruth, evaluate_waymo
from detector.metrics.waymo.counting import heading_accuracy

Frames = list[tuple[WaymoTruth, WaymoPredictions]]


def crowded_frames(seed: int, count: int) -> Frames:
    """Frames with everything that decides: copies, turned copies, near misses, wrong types, equal
    scores, no-label zones, frames without truth or predictions. Values are float32, as the
    official operator takes them."""
    rng = np.random.RandomState(seed)  # its stream never changes
    frames = []
    for frame in range(count):
        truths, guesses = rng.randint(0, 40), rng.randint(1, 80)
        boxes = np.c_[
            rng.uniform(-60, 60, (truths, 2)), rng.normal(0, 0.5, truths),
            rng.uniform((3, 1.5, 1.4), (6, 2.4, 2.2), (truths, 3)),
            rng.uniform(-np.pi, np.pi, truths),
        ]  # fmt: skip
        types, levels = rng.randint(1, 5, truths), rng.randint(1, 3, truths)
        source = rng.randint(0, max(truths, 1), guesses)
        kind = rng.randint(0, 5, guesses)
        scale = np.array([0.4, 0.2, 0.1, 0.2, 0.1, 0.1, 0.2])
        noise = rng.normal(0, 1, (guesses, 7)) * scale * (kind > 1)[:, None]
        turned = np.pi * (kind == 1) * rng.randint(0, 2, guesses)
        if truths:
            found, found_types = boxes[source] + noise, types[source]
        else:
            found, found_types = noise + 1, np.ones(guesses, int)
        found[:, 6] += turned
        wrong = rng.uniform(size=guesses) < 0.1
        found_types = np.where(wrong, rng.randint(1, 5, guesses), found_types)
        scores = np.round(rng.uniform(size=guesses), 2 + frame % 2 * 3).astype(np.float32)
        zone = rng.uniform(size=guesses) < 0.15
        single = [b.astype(np.float32).astype(np.float64) for b in (boxes, found)]
        frames.append(
            (
                WaymoTruth(single[0], types.astype(np.int8), levels.astype(np.int8)),
                WaymoPredictions(single[1], found_types.astype(np.int8), scores, zone),
            )
        )
    return frames


def flat(frames: Frames) -> Frames:
    """The same as seen from above: the official operator sets heights aside there, and with them
    z in the distance."""
    for truth, found in frames:
        truth.boxes[:, 2] = found.boxes[:, 2] = 0
    return frames


# (AP, APH) of the official operator py_metrics_ops.detection_metrics in the wheel
# waymo-open-dataset-tf-2-12-0 1.6.7 with TensorFlow 2.13.1, run on `crowded_frames` 2026-11-24.
OFFICIAL = {
    ("3d", 1): {
        "OBJECT_TYPE_TYPE_VEHICLE_LEVEL_1": (0.40790325, 0.30602077),
        "OBJECT_TYPE_TYPE_VEHICLE_LEVEL_2": (0.28680757, 0.21516982),
        "OBJECT_TYPE_TYPE_PEDESTRIAN_LEVEL_1": (0.4945784, 0.4334648),
        "OBJECT_TYPE_TYPE_PEDESTRIAN_LEVEL_2": (0.38521373, 0.33150864),
        "OBJECT_TYPE_TYPE_SIGN_LEVEL_1": (0.5268982, 0.4420135),
        "OBJECT_TYPE_TYPE_SIGN_LEVEL_2": (0.38604343, 0.3213168),
        "OBJECT_TYPE_TYPE_CYCLIST_LEVEL_1": (0.56922644, 0.48823825),
        "OBJECT_TYPE_TYPE_CYCLIST_LEVEL_2": (0.44495273, 0.38366967),
        "RANGE_TYPE_VEHICLE_[0, 30)_LEVEL_1": (0.61645365, 0.33173597),
        "RANGE_TYPE_VEHICLE_[0, 30)_LEVEL_2": (0.44219804, 0.2469651),
        "RANGE_TYPE_VEHICLE_[30, 50)_LEVEL_1": (0.45681196, 0.29335395),
        "RANGE_TYPE_VEHICLE_[30, 50)_LEVEL_2": (0.27012473, 0.1732729),
        "RANGE_TYPE_VEHICLE_[50, +inf)_LEVEL_1": (0.30381075, 0.28202853),
        "RANGE_TYPE_VEHICLE_[50, +inf)_LEVEL_2": (0.24987605, 0.23146765),
    },
    ("3d", 2): {
        "OBJECT_TYPE_TYPE_VEHICLE_LEVEL_1": (0.34945583, 0.27937078),
        "OBJECT_TYPE_TYPE_VEHICLE_LEVEL_2": (0.21781896, 0.16760148),
        "OBJECT_TYPE_TYPE_PEDESTRIAN_LEVEL_1": (0.42091694, 0.35248694),
        "OBJECT_TYPE_TYPE_PEDESTRIAN_LEVEL_2": (0.29388303, 0.24458162),
        "OBJECT_TYPE_TYPE_SIGN_LEVEL_1": (0.4385164, 0.39764678),
        "OBJECT_TYPE_TYPE_SIGN_LEVEL_2": (0.31609052, 0.28416303),
        "OBJECT_TYPE_TYPE_CYCLIST_LEVEL_1": (0.46450835, 0.3624263),
        "OBJECT_TYPE_TYPE_CYCLIST_LEVEL_2": (0.3740552, 0.29050678),
        "RANGE_TYPE_VEHICLE_[0, 30)_LEVEL_1": (0.09873645, 0.0655085),
        "RANGE_TYPE_VEHICLE_[0, 30)_LEVEL_2": (0.06481549, 0.04208101),
        "RANGE_TYPE_VEHICLE_[30, 50)_LEVEL_1": (0.46566176, 0.36779892),
        "RANGE_TYPE_VEHICLE_[30, 50)_LEVEL_2": (0.32357347, 0.25415456),
        "RANGE_TYPE_VEHICLE_[50, +inf)_LEVEL_1": (0.43121183, 0.361131),
        "RANGE_TYPE_VEHICLE_[50, +inf)_LEVEL_2": (0.24952963, 0.19741727),
    },
    ("bev", 1): {
        "OBJECT_TYPE_TYPE_VEHICLE_LEVEL_1": (0.42144784, 0.31624508),
        "OBJECT_TYPE_TYPE_VEHICLE_LEVEL_2": (0.29672086, 0.22281499),
        "OBJECT_TYPE_TYPE_PEDESTRIAN_LEVEL_1": (0.5701179, 0.5071535),
        "OBJECT_TYPE_TYPE_PEDESTRIAN_LEVEL_2": (0.4561968, 0.3992568),
        "OBJECT_TYPE_TYPE_SIGN_LEVEL_1": (0.5375543, 0.4595006),
        "OBJECT_TYPE_TYPE_SIGN_LEVEL_2": (0.39871016, 0.33629066),
        "OBJECT_TYPE_TYPE_CYCLIST_LEVEL_1": (0.59174246, 0.51728094),
        "OBJECT_TYPE_TYPE_CYCLIST_LEVEL_2": (0.456602, 0.39869064),
        "RANGE_TYPE_VEHICLE_[0, 30)_LEVEL_1": (0.61645365, 0.33173597),
        "RANGE_TYPE_VEHICLE_[0, 30)_LEVEL_2": (0.44219804, 0.2469651),
        "RANGE_TYPE_VEHICLE_[30, 50)_LEVEL_1": (0.4640414, 0.303234),
        "RANGE_TYPE_VEHICLE_[30, 50)_LEVEL_2": (0.2745087, 0.17885523),
        "RANGE_TYPE_VEHICLE_[50, +inf)_LEVEL_1": (0.33533788, 0.30761385),
        "RANGE_TYPE_VEHICLE_[50, +inf)_LEVEL_2": (0.27614862, 0.25278875),
    },
}


@pytest.mark.parametrize(("view", "seed"), OFFICIAL)
def test_random_frames_score_as_with_the_official_operator(view, seed):
    frames = crowded_frames(seed, 20)
    result = evaluate_waymo(flat(frames) if view == "bev" else frames, bev=view == "bev")
    measured = {name: (c.ap, c.aph) for name, c in result.curves.items()}
    expected = OFFICIAL[view, seed]
    assert {name: measured[name] for name in expected} == {
        name: tuple(float(np.float32(x)) for x in pair) for name, pair in expected.items()
    }


def one_frame(scores=(0.9,), *, levels=(1,), truth=((10, 0, 0, 4, 2, 2, 0),), found=None,
              zone=None):  # fmt: skip
    truth = np.array(truth, float).reshape(-1, 7)
    found = truth if found is None else np.array(found, float).reshape(-1, 7)
    zone = np.zeros(len(found), bool) if zone is None else np.array(zone)
    return (
        WaymoTruth(truth, np.ones(len(truth), np.int8), np.array(levels, np.int8)),
        WaymoPredictions(
            found, np.ones(len(found), np.int8), np.array(scores, np.float32), zone
        ),
    )


def vehicle(*frames, **options) -> dict[str, float]:
    scalars = evaluate_waymo(frames, **options).scalars()
    return {k.removeprefix("vehicle/"): v for k, v in scalars.items() if k.startswith("vehicle")}


def test_a_perfect_detector_has_one():
    # 1.0000001 as in the original, whose area is a sum in single precision.
    assert vehicle(one_frame()) == pytest.approx(
        {"L1/AP": 1, "L1/APH": 1, "L2/AP": 1, "L2/APH": 1}, abs=1e-6
    )


def test_a_missed_hard_object_counts_in_level_2_alone():
    near, far = (10, 0, 0, 4, 2, 2, 0), (20, 0, 0, 4, 2, 2, 0)
    scores = vehicle(one_frame(truth=(near, far), levels=(1, 2), found=(near,)))
    assert scores["L1/AP"] == pytest.approx(1)
    assert scores["L2/AP"] == pytest.approx(0.5)


def test_a_found_hard_object_counts_in_both_levels():
    assert vehicle(one_frame(levels=(2,)))["L1/AP"] == pytest.approx(1)


def test_false_positives_in_a_no_label_zone_are_forgiven():
    box, stray = (10, 0, 0, 4, 2, 2, 0), (-10, 0, 0, 4, 2, 2, 0)
    case = dict(scores=(0.5, 0.9), found=(box, stray))
    assert vehicle(one_frame(**case))["L1/AP"] == pytest.approx(0.5)
    assert vehicle(one_frame(**case, zone=(False, True)))["L1/AP"] == pytest.approx(1)


def test_opposite_heading_has_no_aph():
    # Slightly smaller, so that the outlines don't coincide.
    scores = vehicle(one_frame(found=((10, 0, 0, 3.9, 1.9, 1.9, np.pi),)))
    assert scores["L1/AP"] == pytest.approx(1)
    assert scores["L1/APH"] == pytest.approx(0, abs=1e-6)


def test_heading_accuracy_of_the_official_test():
    # metrics_utils_test.cc, read 2026-11.
    assert heading_accuracy(0.1, -0.1) == pytest.approx(1 - 0.2 / np.pi)
    assert heading_accuracy(np.pi - 0.1, -np.pi + 0.1) == pytest.approx(1 - 0.2 / np.pi)
    assert heading_accuracy(4 * np.pi + 0.1, -0.1) == pytest.approx(1 - 0.2 / np.pi)


def test_height_matters_in_3d_alone():
    frame = one_frame(found=((10, 0, 1, 4, 2, 2, 0),))
    assert vehicle(frame)["L1/AP"] == 0
    assert vehicle(frame, bev=True)["L1/AP"] == pytest.approx(1)


def test_each_range_counts_its_own():
    boxes = [(distance, 0, 0, 4, 2, 2, 0) for distance in (29, 31, 51)]
    result = evaluate_waymo([one_frame((0.9, 0.9), truth=boxes, found=boxes[:2], levels=(1,) * 3)])
    ranges = ["[0, 30)", "[30, 50)", "[50, +inf)"]
    found = [result.curves[f"RANGE_TYPE_VEHICLE_{r}_LEVEL_1"].ap for r in ranges]
    assert found == pytest.approx([1, 1, 0])
    assert result.curves["RANGE_TYPE_PEDESTRIAN_[0, 30)_LEVEL_1"].ap == 0


def test_nothing_at_all_scores_nothing():
    empty = one_frame(scores=(), truth=(), levels=(), found=())
    for frames in ([], [empty], [empty] * 100):
        result = evaluate_waymo(iter(frames))
        assert result.frame_count == len(frames)
        assert set(result.scalars().values()) == {0.0}


def test_pieces_and_threads_do_not_change_the_sums(monkeypatch):
    whole = evaluate_waymo(crowded_frames(3, 8)).as_dict()
    monkeypatch.setattr("detector.metrics.waymo.evaluate.FRAMES_AT_ONCE", 3)
    assert evaluate_waymo(crowded_frames(3, 8)).as_dict() == whole


def test_a_box_that_is_not_finite_is_a_false_positive():
    good = (10, 0, 0, 4, 2, 2, 0)
    bad = (np.nan, 0, 0, 4, 2, 2, 0)
    scores = vehicle(one_frame((0.5, 0.9), found=(good, bad)))
    assert scores["L1/AP"] == pytest.approx(0.5)


def test_labels_without_points_or_difficulty_follow_the_official_rule():
    truth = WaymoTruth.from_labels(
        np.arange(28).reshape(4, 7), np.ones(4, int), np.array([0, 0, 1, 2]),
        np.array([5, 6, 1, 0]),
    )  # fmt: skip
    assert truth.levels.tolist() == [2, 1, 1]
    assert truth.boxes[:, 0].tolist() == [0, 7, 14]


def test_thresholds_and_lengths_are_checked():
    with pytest.raises(ValueError, match="iou_thresholds"):
        evaluate_waymo([], iou_thresholds=(0, 0.7, 0.5))
    truth, found = one_frame()
    short = WaymoPredictions(found.boxes, found.types, np.zeros(0, np.float32), np.zeros(1, bool))
    with pytest.raises(ValueError, match="1 boxes but 0 scores"):
        evaluate_waymo([(truth, short)])


def test_names_and_table_are_the_official_ones():
    result = evaluate_waymo([one_frame()])
    names = list(result.as_dict())
    assert names[0] == "OBJECT_TYPE_TYPE_VEHICLE_LEVEL_1"
    assert names[8] == "RANGE_TYPE_VEHICLE_[0, 30)_LEVEL_1"
    assert names[-1] == "RANGE_TYPE_CYCLIST_[50, +inf)_LEVEL_2"
    assert len(names) == 32
    assert result.table().row_count == 1 + 4 * 4
