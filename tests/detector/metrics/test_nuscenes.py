"""The nuScenes metric on cases worked by hand; against the official code: tests/datasets."""

import io

import numpy as np
import pytest
from rich.console import Console

from detector.metrics.nuscenes import CLASSES, BikeRacks, NuScenesBoxes, evaluate_nuscenes

EGO = np.zeros((2, 3))


def boxes(rows, **changes) -> NuScenesBoxes:
    """Boxes from (sample, x, y, class name, score)."""
    count = len(rows)
    columns = {
        "sample": np.array([row[0] for row in rows], np.int64),
        "translation": np.array([[row[1], row[2], 0.5] for row in rows], float).reshape(-1, 3),
        "size": np.tile([2.0, 4.0, 1.5], (count, 1)),
        "rotation": np.tile([1.0, 0.0, 0.0, 0.0], (count, 1)),
        "velocity": np.zeros((count, 2)),
        "label": np.array([CLASSES.index(row[3]) for row in rows], np.int64),
        "attribute": np.full(count, 5, np.int64),
        "score": np.array([row[4] for row in rows], float),
        "point_count": np.full(count, 5, np.int64),
    }
    return NuScenesBoxes(**{**columns, **changes})


TWO_CARS = [(0, 10, 0, "car", 0), (1, 20, 0, "car", 0)]


def test_perfect_detections_of_a_class_have_ap_one_and_no_errors():
    found = boxes([(0, 10, 0, "car", 0.9), (1, 20, 0, "car", 0.8)])
    result = evaluate_nuscenes(boxes(TWO_CARS), found, EGO)
    assert result.label_aps["car"] == pytest.approx({0.5: 1, 1.0: 1, 2.0: 1, 4.0: 1})
    assert result.label_tp_errors["car"] == pytest.approx(
        {"trans_err": 0, "scale_err": 0, "orient_err": 0, "vel_err": 0, "attr_err": 0}
    )
    # The other classes have no true box: AP 0, errors 1.
    assert result.mean_ap == pytest.approx(0.1)
    assert result.tp_errors["trans_err"] == pytest.approx(0.9)
    assert result.nd_score == pytest.approx((5 / 10 + 2 / 10 + 1 / 9 + 2 / 8) / 10)


def test_a_centre_exactly_at_the_threshold_is_no_hit():
    found = boxes([(0, 11, 0, "car", 0.9), (1, 21, 0, "car", 0.8)])
    aps = evaluate_nuscenes(boxes(TWO_CARS), found, EGO).label_aps["car"]
    assert aps[1.0] == 0 and aps[2.0] == pytest.approx(1)


def test_half_recall_gives_half_of_the_recalls_above_the_minimum():
    found = boxes([(0, 10, 0, "car", 0.9)])
    ap = evaluate_nuscenes(boxes(TWO_CARS), found, EGO).label_aps["car"][2.0]
    assert ap == pytest.approx(40 / 90)     # recalls 0.11 to 0.50 of 0.11 to 1.00


def test_a_taken_box_is_not_found_twice():
    found = boxes([(0, 10, 0, "car", 0.9), (0, 10, 0, "car", 0.8), (1, 20, 0, "car", 0.7)])
    result = evaluate_nuscenes(boxes(TWO_CARS), found, EGO)
    # Precision 1, 1/2, 2/3 at recall 1/2, 1/2, 1.
    precision = result.curves["car", 2.0].precision
    assert precision[49] == pytest.approx(1) and precision[100] == pytest.approx(2 / 3)


def test_among_equal_scores_the_last_row_chooses_first():
    found = boxes([(0, 12, 0, "car", 0.5), (0, 10, 0, "car", 0.5)])
    result = evaluate_nuscenes(boxes(TWO_CARS[:1]), found, EGO)
    assert result.label_tp_errors["car"]["trans_err"] == pytest.approx(0)


def test_boxes_far_away_or_without_points_do_not_count():
    truth = boxes(
        [(0, 49.9, 0, "car", 0), (0, 50, 0, "car", 0), (0, 5, 0, "car", 0)],
        point_count=np.array([1, 1, 0]),
    )
    found = boxes([(0, 49.9, 0, "car", 0.9)])
    assert evaluate_nuscenes(truth, found, EGO).label_aps["car"][0.5] == pytest.approx(1)


def test_cycles_in_a_rack_do_not_count():
    truth = boxes([(0, 10, 0, "bicycle", 0), (0, 20, 0, "bicycle", 0), (1, 10, 0, "bicycle", 0)])
    rack = BikeRacks(  # Turned by a quarter: its length of 6 m lies along y.
        np.array([0]), np.array([[10.0, 2.9, 0.5]]), np.array([[1.0, 6.0, 1.0]]),
        np.array([[np.sqrt(0.5), 0, 0, np.sqrt(0.5)]]),
    )  # fmt: skip
    found = boxes([(0, 20, 0, "bicycle", 0.9), (1, 10, 0, "bicycle", 0.8)])
    assert evaluate_nuscenes(truth, found, EGO, rack).label_aps["bicycle"][0.5] == pytest.approx(1)
    with_rack_bike = evaluate_nuscenes(truth, found, EGO).label_aps["bicycle"][0.5]
    assert with_rack_bike == pytest.approx(0.6222222222)


def test_a_barrier_may_face_either_way_and_a_car_may_not():
    turned = np.array([[0.0, 0.0, 0.0, 1.0]])
    for name, error in (("barrier", 0), ("car", np.pi)):
        truth = boxes([(0, 10, 0, name, 0)])
        found = boxes([(0, 10, 0, name, 0.9)], rotation=turned)
        result = evaluate_nuscenes(truth, found, EGO)
        assert result.label_tp_errors[name]["orient_err"] == pytest.approx(error, abs=1e-12)


def test_unknown_velocity_and_attribute_are_left_out_of_the_mean():
    velocity = np.array([[np.nan, np.nan], [3.0, 4.0]])
    truth = boxes(TWO_CARS, velocity=velocity, attribute=np.array([-1, 6]))
    found = boxes([(0, 10, 0, "car", 0.9), (1, 20, 0, "car", 0.8)])
    errors = evaluate_nuscenes(truth, found, EGO).label_tp_errors["car"]
    # Recalls 0.11 to 0.5 know nothing yet (0); to 1.0 the score falls from 0.9 to 0.8.
    scores = np.interp(np.linspace(0, 1, 101)[11:], [0.5, 1], [0.9, 0.8])
    steps = np.interp(scores, [0.8, 0.9], [1, 0])
    assert errors["vel_err"] == pytest.approx(5 * steps.mean())
    assert errors["attr_err"] == pytest.approx(steps.mean())


def test_nothing_true_and_nothing_found_scores_zero():
    result = evaluate_nuscenes(NuScenesBoxes.empty(), NuScenesBoxes.empty(), EGO)
    assert result.nd_score == 0 and result.scalars()["mATE"] == 1


def test_scores_that_are_not_numbers_are_refused():
    with pytest.raises(ValueError, match="finite"):
        evaluate_nuscenes(boxes(TWO_CARS), boxes([(0, 1, 0, "car", np.nan)]), EGO)


def test_the_table_fits_a_narrow_terminal():
    found = boxes([(0, 10, 0, "car", 0.9)])
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(evaluate_nuscenes(boxes(TWO_CARS), found, EGO).table())
    text = console.export_text()
    assert "…" not in text and text.count("1.000") > 10
