import numpy as np
from scipy.optimize import linear_sum_assignment

from detector.metrics.waymo.matching import assign
from tests.oracles.kuhn_munkres import maximum_assignment


def assigned(weights: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Columns of `rows` by the compiled search; `weights` (all rows, columns), 0 is no edge."""
    edges = [np.flatnonzero(row) for row in weights]
    offsets = np.cumsum([0, *(len(e) for e in edges)])
    columns = np.concatenate([*edges, np.empty(0, np.int64)]).astype(np.int64)
    values = np.array([w for row in weights for w in row if w], np.int64)
    work = np.full((7, max(len(rows), weights.shape[1]) + 1), 77)
    column_of_row = np.full(len(weights), -9)
    assign(rows, offsets, columns, values, weights.shape[1], work, column_of_row)
    return column_of_row[: len(rows)]


def random_weights(rng: np.random.Generator, steps: int) -> np.ndarray:
    """Sparse weights of few different values, so that there are many ties."""
    shape = rng.integers(1, 9, 2)
    weights = rng.integers(1, steps + 1, shape)
    return np.where(rng.random(shape) < 0.5, weights, 0)


def test_ties_fall_as_on_the_full_matrix():
    rng = np.random.default_rng(0)
    for _ in range(300):
        weights = random_weights(rng, steps=3)
        size = max(weights.shape)
        square = np.zeros((size, size), int)
        square[: weights.shape[0], : weights.shape[1]] = weights
        found = assigned(weights, np.arange(len(weights)))
        assert found.tolist() == maximum_assignment(square.tolist())[: len(weights)]


def test_sum_of_weights_is_the_largest():
    rng = np.random.default_rng(1)
    for _ in range(100):
        weights = random_weights(rng, steps=1_000_000)
        found = assigned(weights, np.arange(len(weights)))
        real = found < weights.shape[1]
        best = weights[linear_sum_assignment(weights, maximize=True)].sum()
        assert weights[real, found[real]].sum() == best


def test_rows_left_out_take_no_column():
    weights = np.array([[9, 0], [8, 0], [0, 5]])
    assert assigned(weights, np.array([1, 2])).tolist() == [0, 1]


def test_a_row_gives_way_when_the_sum_gains():
    # Row 0 likes column 0 best, but row 1 has no other.
    assert assigned(np.array([[9, 8], [7, 0]]), np.arange(2)).tolist() == [1, 0]


def test_without_columns_rows_stay_alone():
    assert (assigned(np.zeros((3, 0), int), np.arange(3)) >= 0).all()
    assert assigned(np.zeros((0, 3), int), np.arange(0)).tolist() == []
