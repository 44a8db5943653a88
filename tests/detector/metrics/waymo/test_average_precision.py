import numpy as np
import pytest

from detector.metrics.waymo.average_precision import average_precision, precision_and_recall


# The cases of the official metrics_utils_test.cc that use its recall step, read 2026-11.
@pytest.mark.parametrize(
    ("precision", "recall", "expected"),
    [
        ([], [], 0.0),
        ([0.1], [0.2], 0.2 * 0.1),
        ([0.1, 0.05], [0.2, 1.0], 0.05 * 0.8 + 0.1 * 0.2 + (0.1 - 0.05) * 0.5 * 0.05),
        ([0.1, 0.0, 0.05], [0.2, 0.4, 1.0], 0.05 * 0.8 + 0.1 * 0.2 + (0.1 - 0.05) * 0.5 * 0.05),
    ],
)
def test_official_cases(precision, recall, expected):
    found = average_precision(np.array(precision, np.float32), np.array(recall, np.float32))
    assert found == pytest.approx(expected, abs=1e-6)


def test_a_perfect_detector_has_one():
    area = average_precision(np.ones(3, np.float32), np.array([1, 0.5, 0], np.float32))
    assert area == pytest.approx(1)


def test_nothing_found_counts_as_precision_one_at_recall_zero():
    found, false = np.array([2, 0, 0]), np.array([2, 3, 0])
    precision, recall = precision_and_recall(
        found, false, np.array([2, 4, 0]), found.astype(np.float32)
    )
    assert precision.tolist() == [0.5, 1, 1]
    assert recall.tolist() == [0.5, 0, 0]


def test_heading_lowers_precision_and_not_recall():
    precision, recall = precision_and_recall(
        np.array([4]), np.array([0]), np.array([4]), np.array([3.0], np.float32)
    )
    assert (precision[0], recall[0]) == (0.75, 0.5)
