"""Fewer beams and fewer points."""

import numpy as np
import pytest

from datasets.augment import BeamDrop, PointDrop
from detector.records import Sample


def scan(beams=40):
    """Beams 0.5 degrees apart, of 200 points each; intensity is the beam's number."""
    elevation = np.deg2rad(np.arange(beams) * 0.5 - 15)[:, None]
    azimuth = np.linspace(-1, 1, 200)
    distance = 20 + 5 * np.sin(7 * azimuth)
    x = distance * np.cos(elevation) * np.cos(azimuth)
    y = distance * np.cos(elevation) * np.sin(azimuth)
    z = distance * np.sin(elevation) + 0 * x
    beam = np.repeat(np.arange(beams), 200)
    points = np.column_stack([x.ravel(), y.ravel(), z.ravel(), beam]).astype(np.float32)
    return Sample("0", points, ("x", "y", "z", "intensity"))


def test_whole_beams_are_dropped():
    shares = []
    for seed in range(20):
        dropped = BeamDrop(1, 0.5, spacing_deg=0.45)(scan(), np.random.default_rng(seed))
        left = np.bincount(dropped.points[:, 3].astype(int), minlength=40)
        assert set(left) <= {0, 200}
        shares.append((left == 0).mean())
    assert min(shares) < 0.1 and 0.3 < max(shares) < 0.8


def test_the_scanners_place_matters():
    moved = scan().replace(points=scan().points + np.float32([2, 0, 1.8, 0]))
    dropped = BeamDrop(1, 0.5, scanner=(2, 0, 1.8))(moved, np.random.default_rng(3))
    assert set(np.bincount(dropped.points[:, 3].astype(int))) <= {0, 200}


def test_frames_lose_beams_as_often_as_asked_for():
    changed = [
        len(BeamDrop(0.25, 1.0)(scan(), np.random.default_rng(s)).points) < 8000 for s in range(200)
    ]
    assert 30 < sum(changed) < 70


def test_points_are_dropped_up_to_a_share():
    left = [
        len(PointDrop(0.2)(scan(), np.random.default_rng(s)).points) / 8000 for s in range(50)
    ]
    assert 0.78 < min(left) < 0.85 and 0.97 < max(left) <= 1


@pytest.mark.parametrize("transform", [BeamDrop(1), PointDrop()])
def test_an_empty_frame_stays_empty_and_draws_repeat(transform):
    empty = Sample("0", np.zeros((0, 4), np.float32), ("x", "y", "z", "intensity"))
    assert len(transform(empty, np.random.default_rng(0)).points) == 0
    one, two = (transform(scan(), np.random.default_rng(5)).points for _ in range(2))
    assert np.array_equal(one, two) and one.dtype == np.float32


def test_wrong_arguments_are_refused():
    for make in (lambda: BeamDrop(1.5), lambda: PointDrop(-0.1), lambda: BeamDrop(spacing_deg=0)):
        with pytest.raises(ValueError):
            make()
