import math

import numpy as np
import pytest
from rich.console import Console

from detector.metrics.kitti import evaluate, evaluate_kitti, matching
from detector.metrics.kitti.result import DIFFICULTIES, METRICS
from tests.oracles import kitti_metric as oracle
from tests.writers.kitti_objects import Row, objects

CLASSES = ("Car", "Pedestrian", "Cyclist")
SIZES = {"Car": (1.5, 1.6, 4.0), "Pedestrian": (1.7, 0.6, 0.8), "Cyclist": (1.7, 0.6, 1.8)}


def score(truth, detections, classes=CLASSES):
    """Evaluates frames that are given as lists of rows."""
    return evaluate_kitti(
        [objects(frame) for frame in truth],
        [objects(frame, with_scores=True) for frame in detections],
        classes,
    )


def first_steps(truth, detections, metric="bbox", level="moderate", name="Car"):
    """The precision curve up to its last step that is not 0, of one frame."""
    result = score([truth], [detections], (name,))
    curve = result.precision[0, METRICS.index(metric), DIFFICULTIES.index(level)]
    return curve[: np.flatnonzero(curve)[-1] + 1].tolist() if curve.any() else []


def moved(row, pixels, **changes):
    """The row with its picture box and its place moved along."""
    left, top, right, bottom = row.bbox
    x, y, z = row.location
    place = dict(
        bbox=(left + pixels, top, right + pixels, bottom), location=(x + pixels / 25, y, z)
    )
    return row.but(**{**place, **changes})


CAR = Row()
FAR_AWAY = 5000    # pixels
# In the picture a shift by 10 of the 100 pixels leaves IoU 9/11, by 15 leaves 17/23.


def test_one_found_object_is_precise_up_to_the_first_step_only():
    # A single true box gives a single threshold, at recall step 0: R40, which leaves step 0 out,
    # sees nothing of it, as in the official evaluator.
    result = score([[CAR]], [[CAR.but(score=0.5)]])
    assert result.as_dict()["Car"]["3d"]["R11"] == pytest.approx([100 / 11] * 3)
    assert result.as_dict()["Car"]["3d"]["R40"] == [0, 0, 0]
    assert result.truth_counts.tolist() == [[1, 1, 1], [0, 0, 0], [0, 0, 0]]


def test_case_worked_by_hand():
    """Four true cars and five detections in two frames; c and the stray at z lie apart.

    By score: a .9 right, z .8 wrong, b .7 right, c .6 right, b again .5 (the true box is taken).
    Car d is missed. Scores of the found: .9, .7, .6, of 4 true boxes: recall 1/4, 2/4, 3/4.

    Thresholds: the k-th step wants recall k/40. At .9 (recall .25, wanted 0) the next recall, .5,
    is farther: taken; wanted .025. At .7 (.5 against .75): taken; wanted .05. At .6: last, taken.
    Precision at them: 1/1, 2/3, 3/4. Raised to the best of what follows: 1, 3/4, 3/4, then 0.
    R40 = (3/4 + 3/4) / 40, R11 = step 0 alone (the next is step 4) = 1/11.

    Orientation: a is off by 90 degrees (1/2), b right (1), c reversed (0): 1/2, 1.5/3, 1.5/4,
    raised 1/2, 1/2, 3/8. R40 = (1/2 + 3/8) / 40, R11 = 1/22.
    """
    a, b, c, d = (moved(CAR, shift) for shift in (0, 300, 600, 900))
    truth = [[a, b], [c, d]]
    detections = [
        [
            moved(a, 10, score=0.9, alpha=math.pi / 2),
            moved(a, FAR_AWAY, score=0.8),
            b.but(score=0.7),
            moved(b, 5, score=0.5),
        ],
        [c.but(score=0.6, alpha=math.pi)],
    ]
    car = score(truth, detections).as_dict()["Car"]
    assert car["bbox"]["R40"] == pytest.approx([100 * 1.5 / 40] * 3)
    assert car["bbox"]["R11"] == pytest.approx([100 / 11] * 3)
    assert car["aos"]["R40"] == pytest.approx([100 * (1 / 2 + 3 / 8) / 40] * 3)
    assert car["aos"]["R11"] == pytest.approx([100 / 22] * 3)


def test_recall_steps_are_spread_evenly_when_there_are_many_objects():
    # 400 true boxes, all found but for each tenth by score: 360 thresholds to choose 37 from.
    truth = [[moved(CAR, 300 * i) for i in range(400)]]
    found = [
        moved(CAR, 300 * i + (FAR_AWAY * 100 if i % 10 == 9 else 0), score=1 - i / 400)
        for i in range(400)
    ]
    result = score(truth, [found])
    curve = result.precision[0, 0, 1]
    # Recall 0.9 is the last reached: step 36. One more threshold comes of the last score.
    assert np.flatnonzero(curve)[-1] == 36
    assert curve[:37] == pytest.approx(0.9, abs=0.1)
    assert (np.diff(curve) <= 0).all()


@pytest.mark.parametrize(
    "field, value, counted",
    [
        ("occlusion", 1, [0, 1, 1]),
        ("occlusion", 2, [0, 0, 1]),
        ("occlusion", 3, [0, 0, 0]),
        ("truncation", 0.15, [1, 1, 1]),
        ("truncation", 0.16, [0, 1, 1]),
        ("truncation", 0.5, [0, 0, 1]),
        ("truncation", 0.51, [0, 0, 0]),
        ("bbox", (0, 0, 50, 40), [0, 1, 1]),
        ("bbox", (0, 0, 50, 40.01), [1, 1, 1]),
        ("bbox", (0, 0, 50, 25), [0, 0, 0]),
        ("bbox", (0, 0, 50, 25.01), [0, 1, 1]),
        ("bbox", (0, 0, 50, 0), [0, 0, 0]),
        ("bbox", (0, 0, 0, 0), [0, 0, 0]),
        ("type", "cAR", [1, 1, 1]),
        ("type", "Van", [0, 0, 0]),
        ("type", "Tram", [0, 0, 0]),
    ],
)
def test_what_counts_at_each_difficulty(field, value, counted):
    assert score([[CAR.but(**{field: value})]], [[]]).truth_counts[0].tolist() == counted


@pytest.mark.parametrize(
    "name, neighbour", [("Car", "Van"), ("Pedestrian", "Person_sitting"), ("Cyclist", None)]
)
def test_what_is_found_of_a_neighbour_class_is_neither_right_nor_wrong(name, neighbour):
    real, other = CAR.but(type=name), moved(CAR, 300, type=neighbour or "Person_sitting")
    found = [real.but(score=0.5), other.but(type=name, score=0.9)]
    expected = [1.0] if neighbour else [0.5]
    assert first_steps([real, other], found, name=name) == expected
    assert first_steps([real, other], found, "3d", name=name) == expected


def test_a_true_box_too_hard_for_the_level_is_neither_right_nor_wrong():
    hidden = moved(CAR, 300, occlusion=2)
    found = [CAR.but(score=0.5), hidden.but(score=0.9)]
    assert first_steps([CAR, hidden], found, level="moderate") == [1.0]
    assert first_steps([CAR, hidden], found, level="hard") == [1.0, 1.0]


def test_false_positives_in_dont_care_regions_are_excused_in_the_picture():
    region = Row(
        "DontCare", -1, -1, -10, (500, 0, 700, 300), (-1, -1, -1), (-1000, -1000, -1000), -10
    )
    inside, crossing = moved(CAR, 375, score=0.9), moved(CAR, 365, score=0.9)    # 75 %, 65 %
    assert first_steps([CAR, region], [CAR.but(score=0.5), inside]) == [1.0]
    assert first_steps([CAR, region], [CAR.but(score=0.5), crossing]) == [0.5]
    assert first_steps([CAR, region], [CAR.but(score=0.5), inside], "3d") == [0.5]
    tracking = region.but(dimensions=(-1000, -1000, -1000))
    assert first_steps([CAR, tracking], [CAR.but(score=0.5), inside], "bev") == [0.5]


def test_a_dont_care_region_with_a_box_in_space_excuses_there_too():
    region = moved(CAR, 300, type="DontCare", dimensions=(3, 4, 6), location=(12, 2, 20))
    found = [CAR.but(score=0.5), moved(CAR, 300, score=0.9)]
    for metric in ("bbox", "bev", "3d"):
        assert first_steps([CAR, region], found, metric) == [1.0]


def test_detections_below_the_minimum_height_are_ignored():
    low = moved(CAR, 300, bbox=(0, 0, 50, 39.9), score=0.9)
    assert first_steps([CAR], [CAR.but(score=0.5), low], level="easy") == [1.0]
    assert first_steps([CAR], [CAR.but(score=0.5), low], level="moderate") == [0.5]
    upside_down = low.but(bbox=(0, 39.9, 50, 0))
    assert first_steps([CAR], [CAR.but(score=0.5), upside_down], level="easy") == [1.0]
    exactly = low.but(bbox=(0, 0, 50, 40))
    assert first_steps([CAR], [CAR.but(score=0.5), exactly], level="easy") == [0.5]


def test_a_detection_with_an_empty_picture_box_is_ignored_in_space_too():
    # Results without a picture box, often written as 0 0 0 0, never score.
    found = CAR.but(bbox=(0, 0, 0, 0), score=0.5)
    assert first_steps([CAR], [found], "3d") == []


def test_a_low_detection_of_another_class_can_take_a_true_box():
    # So does the official evaluator, in 3D, where the boxes overlap although one is low.
    low = CAR.but(type="Pedestrian", bbox=(0, 0, 9, 9), score=0.9)
    assert first_steps([CAR], [low, CAR.but(score=0.5)], "3d") == []
    # That is how thresholds are chosen; at a threshold, a detection that counts goes first.
    other = moved(CAR, 300)
    found = [low, CAR.but(score=0.5), other.but(score=0.4)]
    assert first_steps([CAR, other], found, "3d") == [1.0]


def test_detections_of_other_classes_take_no_part():
    assert first_steps([CAR], [CAR.but(score=0.5), CAR.but(type="Tram", score=0.9)]) == [1.0]


def test_overlap_must_exceed_the_minimum():
    square = CAR.but(type="Cyclist", bbox=(0, 0, 100, 100))
    half = square.but(bbox=(0, 0, 100, 50), score=1)
    more = square.but(bbox=(0, 0, 100, 50.01), score=1)
    assert first_steps([square], [half], name="Cyclist") == []
    assert first_steps([square], [more], name="Cyclist") == [1.0]


def test_thresholds_come_of_the_best_score_and_counts_of_the_best_overlap():
    turned = CAR.but(alpha=math.pi)
    near, nearer = moved(CAR, 10, score=0.9, alpha=math.pi), moved(CAR, 5, score=0.2)
    # The only threshold is .9, where `nearer` takes no part.
    assert first_steps([turned], [near, nearer], "aos") == [1.0]
    # With a second object at .1 both take part in its threshold, and the nearer, turned, wins.
    second = moved(CAR, 600)
    found = [near, nearer, second.but(score=0.1)]
    assert first_steps([turned, second], found, "bbox") == pytest.approx([1, 2 / 3])
    assert first_steps([turned, second], found, "aos") == pytest.approx([1, 1 / 3])


def test_of_equal_detections_the_first_in_the_file_is_taken():
    right, wrong = CAR.but(score=0.5), CAR.but(score=0.5, alpha=math.pi)
    assert first_steps([CAR], [right, wrong], "aos") == [0.5]
    assert first_steps([CAR], [wrong, right], "aos") == []


def test_a_detection_serves_once():
    assert first_steps([CAR, moved(CAR, 1)], [CAR.but(score=0.5)]) == [1.0]


def test_orientation_is_not_scored_if_any_alpha_is_unknown():
    found = [CAR.but(score=0.5), Row("Cyclist", alpha=-10, score=0.1)]
    result = score([[CAR]], [found])
    assert result.as_dict()["Car"]["aos"] == {"R40": [None] * 3, "R11": [None] * 3}
    assert result.as_dict()["Car"]["bbox"]["R11"] == pytest.approx([100 / 11] * 3)
    assert "Car/aos/R40/easy" not in result.scalars()
    assert score([[CAR.but(alpha=-10)]], [[CAR.but(score=1)]]).as_dict()["Car"]["aos"]["R11"][0] > 0


@pytest.mark.parametrize(
    "truth, detections", [([], []), ([[]], [[]]), ([[CAR]], [[]]), ([[]], [[CAR.but(score=1)]])]
)
def test_nothing_to_find_or_nothing_found_scores_zero(truth, detections):
    scalars = score(truth, detections).scalars()
    assert len(scalars) == 3 * 4 * 2 * 3
    assert set(scalars.values()) == {0.0}


def test_boxes_without_extent_and_nan_overlap_nothing():
    for broken in (
        CAR.but(dimensions=(-1, -1, -1), location=(-1000, -1000, -1000), rotation_y=-10),
        CAR.but(dimensions=(1.5, 0, 4)),
        CAR.but(location=(math.nan, 1.7, 20)),
        CAR.but(rotation_y=math.inf),
    ):
        for truth, found in ((CAR, broken), (broken, CAR), (broken, broken)):
            assert first_steps([truth], [found.but(score=0.5)], "bev") == []
            assert first_steps([truth], [found.but(score=0.5)], "3d") == []
    broken = CAR.but(bbox=(math.nan, 100, 200, 160), score=0.5)
    assert first_steps([CAR], [broken]) == []
    assert first_steps([CAR], [broken, CAR.but(score=0.4)]) == [0.5]


def random_frames(seed, frames):
    """Labels and detections with every special case in them, often."""
    rng = np.random.default_rng(seed)
    types = ["Car", "Car", "Pedestrian", "Cyclist", "Van", "Person_sitting", "Truck", "DontCare"]

    def random_row():
        name = str(rng.choice(types))
        x, z = rng.uniform(-9, 9), rng.uniform(5, 25)
        corner = rng.uniform(0, 400, 2)
        height = rng.choice([20.0, 25.0, 30.0, 39.5, 40.0, 60.0, 60.0, 90.0])
        size = np.array([rng.uniform(30, 120), height])
        unknown = name == "DontCare"
        return Row(
            type=name,
            truncation=float(rng.choice([0, 0, 0, 0, 0.15, 0.2, 0.3, 0.5, 0.7])),
            occlusion=int(rng.choice([0, 0, 0, 0, 1, 2, 3])),
            alpha=float(rng.uniform(-3, 3)),
            bbox=(*corner, *(corner + size)),
            dimensions=(-1.0,) * 3 if unknown else SIZES.get(name, (2.0, 1.9, 5.0)),
            location=(-1000.0,) * 3 if unknown else (x, 1.7, z),
            rotation_y=float(rng.uniform(-3, 3)),
        )

    truth, detections = [], []
    for _ in range(frames):
        labels = [random_row() for _ in range(rng.integers(0, 7))]
        found = []
        for row in labels:
            for _ in range(rng.choice([0, 1, 1, 2, 3])):
                spread = rng.choice([0.0, 0.02, 0.05, 0.2])
                size = np.tile(np.subtract(row.bbox[2:], row.bbox[:2]), 2)
                growth = rng.uniform(1, 1 + spread, 3)
                tied = rng.random() < 0.5
                found.append(
                    row.but(
                        type=str(rng.choice([row.type] * 15 + types)),
                        alpha=row.alpha + float(rng.normal(0, spread)),
                        bbox=tuple(row.bbox + rng.normal(0, spread, 4) * size),
                        dimensions=tuple(np.multiply(row.dimensions, growth)),
                        location=tuple(row.location + rng.normal(0, spread, 3)),
                        rotation_y=row.rotation_y + float(rng.normal(0, spread)),
                        score=float(rng.integers(-3, 4) / 2 if tied else rng.normal()),
                    )
                )
        found += [
            random_row().but(score=float(rng.normal())) for _ in range(rng.integers(0, 3))
        ]
        truth.append(labels)
        detections.append([found[i] for i in rng.permutation(len(found))])
    return truth, detections


@pytest.mark.parametrize("seed, frames", [(0, 1), (1, 2), (2, 5), (3, 12), (4, 40)])
def test_figures_are_those_of_the_definition(seed, frames):
    truth, detections = random_frames(seed, frames)
    result = score(truth, detections)
    for c, name in enumerate(CLASSES):
        for m, metric in enumerate(METRICS):
            for l, level in enumerate(DIFFICULTIES):
                expected = oracle.precision_curve(name, metric, level, truth, detections)
                assert result.precision[c, m, l] == pytest.approx(expected, abs=1e-12), (
                    name, metric, level,
                )  # fmt: skip


def test_work_in_pieces_gives_the_same_figures(monkeypatch):
    def one_by_one(kernel, count, *arguments, work_per_item):
        for item in reversed(range(count)):
            kernel(item, item + 1, *arguments)

    truth, detections = random_frames(5, 30)
    whole = score(truth, detections).precision
    monkeypatch.setattr(evaluate, "PAIRS_AT_ONCE", 7)
    monkeypatch.setattr(matching, "in_threads", one_by_one)
    assert np.array_equal(score(truth, detections).precision, whole)


def test_frames_may_come_from_generators():
    truth, detections = random_frames(6, 3)
    streamed = evaluate_kitti(
        (objects(frame) for frame in truth),
        (objects(frame, with_scores=True) for frame in detections),
    )
    assert np.array_equal(streamed.precision, score(truth, detections).precision)


def test_figures_of_another_port_on_one_frame():
    """Values of the 2D metric from mmdetection3d v1.4.0, tests/test_evaluation/test_functional/
    test_kitti_eval.py, read 2026-11. Its boxes in space overlap nowhere."""
    boxes = [
        (674.9179, 165.48549, 693.23694, 193.42134),
        (676.21954, 165.70988, 691.63745, 193.83748),
        (389.4093, 182.48041, 421.49072, 202.13422),
        (232.0577, 186.16724, 301.94623, 217.4024),
        (758.6537, 172.98509, 816.32434, 212.76743),
    ]
    names = ("Pedestrian", "Cyclist", "Car", "Car", "Car")
    truth = [
        Row(name, truncation, occlusion, alpha, bbox, (-1, -1, -1), (-1000, -1000, -1000), -10)
        for name, truncation, occlusion, alpha, bbox in zip(
            (*names, "DontCare", "DontCare"),
            (0, 0, 0, -1, -1, -1, -1),
            (0, 0, 3, -1, -1, -1, -1),
            (-1.57, 1.85, -1.65, -10, -10, -10, -10),
            (*boxes, (532.37, 176.35, 542.68, 185.27), (559.62, 175.83, 575.4, 183.15)),
            strict=True,
        )
    ]
    detections = [
        Row(name, alpha=alpha, bbox=bbox, score=score)
        for name, alpha, bbox, score in zip(
            names,
            (1.0744612, 1.2775835, 1.82563, 2.1145396, -1.7676563),
            boxes,
            (0.18151495, 0.57920843, 0.27795696, 0.23100418, 0.21541929),
            strict=True,
        )
    ]
    found = score([truth], [detections]).as_dict()
    for name in CLASSES:
        assert found[name]["bbox"]["R11"] == pytest.approx([0, 100 / 11, 100 / 11])
        assert found[name]["3d"]["R11"] == [0, 0, 0]
    assert found["Pedestrian"]["aos"]["R11"] == pytest.approx([0, 0.55020816, 0.55020816])
    assert found["Cyclist"]["aos"]["R11"] == pytest.approx([0, 8.36633862, 8.36633862])
    assert found["Car"]["aos"]["R11"] == pytest.approx([0, 8.63476893, 8.63476893])
    assert found["Car"]["bbox"]["R40"] == pytest.approx([0, 2.5, 2.5])
    assert found["Car"]["aos"]["R40"] == pytest.approx([0, 1.58140643, 1.58140643])


def test_the_three_forms_of_a_result_agree():
    truth, detections = random_frames(7, 20)
    result = score(truth, detections, ("Cyclist", "Car"))
    assert list(result.as_dict()) == ["Cyclist", "Car"]
    assert list(result.as_dict()["Car"]) == ["bbox", "bev", "3d", "aos"]
    moderate = result.average_precision("R40")[1, 2, 1]
    assert result.as_dict()["Car"]["3d"]["R40"][1] == moderate
    assert result.scalars()["Car/3d/R40/moderate"] == moderate
    console = Console(width=80)
    with console.capture() as capture:
        console.print(result.table())
    assert f"{moderate:.2f}" in capture.get()
    assert "…" not in capture.get()


@pytest.mark.parametrize(
    "truth, detections, message",
    [
        ([[CAR], []], [[]], "labels for more than 1 frames"),
        ([[CAR]], [[], []], "detections for more than 1 frames"),
        ([[]], [[CAR.but(score=math.nan)]], "detection 0 of frame 0 has score nan"),
        ([[], []], [[], [CAR.but(score=1), CAR.but(score=math.inf)]], "detection 1 of frame 1"),
    ],
)
def test_frames_and_scores_that_do_not_fit_are_named(truth, detections, message):
    with pytest.raises(ValueError, match=message):
        score(truth, detections)


def test_detections_without_scores_are_refused():
    with pytest.raises(ValueError, match="frame 0 have no scores"):
        evaluate_kitti([objects([CAR])], [objects([CAR])])


def test_classes_that_kitti_does_not_evaluate_are_refused():
    with pytest.raises(ValueError, match="'Truck'; it evaluates Car, Pedestrian, Cyclist"):
        score([], [], ("Car", "Truck"))
