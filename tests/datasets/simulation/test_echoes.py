"""What pulses go through, what swallows them, and how their intensity fades."""

import numpy as np
import pytest

from datasets.simulation.echoes import measure
from datasets.simulation.lidar import LIDARS
from datasets.simulation.materials import Material
from datasets.simulation.meshes import box, join, quads
from datasets.simulation.raycast import RayScene, owners
from datasets.simulation.world import Snapshot

GREY = (0.5, 0.5, 0.5)
WALL = box(0.2, 60, 40, GREY, Material.PLASTER, 15.1, 0, -20)          # its face at x = 15


def upright(x, edges, material, color=GREY):
    """Faces across the x axis from edge to edge along y, 20 m high."""
    return quads(
        np.array([
            [(x, a, -10), (x, b, -10), (x, b, 10), (x, a, 10)]
            for a, b in zip(edges[:-1], edges[1:], strict=True)
        ]), color, material,
    )  # fmt: skip


def send(*meshes, count=4000, towards=(1.0, 0.0, 0.0), seed=0):
    """Pulses spread over y from -5 to 5."""
    mesh = join(meshes)
    owner = np.repeat(np.arange(len(meshes)), [len(m) for m in meshes]).astype(np.int32)
    snapshot = Snapshot(mesh, owner, ())
    rays = np.zeros((count, 6), np.float32)
    rays[:, 1] = np.linspace(-4.99, 4.99, count)
    rays[:, 3:] = np.array(towards) / np.linalg.norm(towards)
    rng = np.random.default_rng(seed)
    echoes = measure(LIDARS["hdl64e"](), RayScene(mesh), snapshot, rays, rng)
    return echoes, owners(echoes.hits, snapshot)


def test_behind_a_pane_is_what_stands_there():
    panes = upright(10, np.linspace(-5, 5, 41), Material.GLASS)
    echoes, owner = send(panes, WALL)
    behind = echoes.seen & (owner == 1)
    assert 0.1 < behind.mean() < 0.5
    assert np.abs(echoes.distance_m[behind] - 15).max() < 0.15
    assert np.abs(echoes.distance_m[echoes.seen & (owner == 0)] - 10).max() < 0.15
    alone, _ = send(WALL)
    # Light passes the pane twice.
    assert echoes.intensity[behind].mean() < 0.8 * alone.intensity.mean()


def test_a_pane_is_alike_all_over():
    """Whole panes are dark, or clear; holes are not strewn over all of them."""
    edges = np.linspace(-5, 5, 41)
    echoes, owner = send(upright(10, edges, Material.GLASS), WALL)
    pane = np.digitize(np.linspace(-4.99, 4.99, 4000), edges)
    passed = np.bincount(pane, owner == 1) / np.bincount(pane, minlength=1).clip(1)
    lost = np.bincount(pane, ~echoes.seen) / np.bincount(pane).clip(1)
    for share in (passed[1:], lost[1:]):
        assert ((share < 0.2) | (share > 0.8)).all()
        assert (share < 0.2).any() and (share > 0.8).any()


def test_leaves_are_passed_one_by_one():
    edges = np.linspace(-5, 5, 11)
    layers = [upright(10 + 0.2 * k, edges, Material.FOLIAGE) for k in range(3)]
    echoes, owner = send(*layers, WALL)
    reached = np.bincount(owner, minlength=4) / len(owner)
    assert (np.diff(reached) < 0).all() and reached[3] > 0.005
    assert len(np.unique(owner[:400])) == 4                   # within the first leaf's breadth


def test_pulses_that_meet_nothing_behind_a_pane_are_gone():
    echoes, owner = send(upright(10, np.linspace(-5, 5, 41), Material.GLASS))
    assert (owner[owner < 0] == -2).all() and (owner < 0).any()
    assert not echoes.seen[owner < 0].any() and np.isfinite(echoes.intensity).all()


def test_dark_paint_swallows_what_meets_it_slantwise():
    edges = np.linspace(-40, 40, 161)

    def seen(color, towards):
        return send(upright(10, edges, Material.PAINT, color), towards=towards)[0].seen.mean()

    dark, bright = (0.04,) * 3, (0.9,) * 3
    assert seen(dark, (1, 0, 0)) > 0.8 and seen(bright, (1, 0, 0)) > 0.8
    assert seen(dark, (1, 2, 0)) < seen(bright, (1, 2, 0)) - 0.2


@pytest.mark.parametrize("distance, low, high", [(10, 0.2, 0.45), (37, 0.08, 0.3), (55, 0, 0.18)])
def test_intensity_fades_as_measured(distance, low, high):
    """Real KITTI surfaces other than the ground, by range: 0.3 within 20 m, 0.2 at 37 m, 0.08 at
    55 m on average, most of it 0 from 45 m on. A wall met squarely is among the brighter ones."""
    echoes, _ = send(upright(distance, np.linspace(-5, 5, 11), Material.PLASTER))
    shown = echoes.intensity[echoes.seen]
    assert low < shown.mean() < high
    if distance > 50:
        assert (shown < 0.005).mean() > 0.1
