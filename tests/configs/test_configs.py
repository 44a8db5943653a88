"""Every config of the project, found by itself: it builds, learns from and predicts on a tiny
batch, and its focal stages' loss reaches the detector."""

from pathlib import Path

import numpy as np
import pytest
import torch

from detector.config import build, build_model, load_config
from detector.geometry import VoxelGrid
from detector.records import Sample, collate

REPOSITORY = Path(__file__).parents[2]
CONFIGS = sorted(
    path.relative_to(REPOSITORY)
    for path in (REPOSITORY / "configs").rglob("*.py")
    if "_base_" not in path.parts and path.name != "__init__.py"
)


def shrunk(grid: VoxelGrid, cells: int = 64) -> str:
    """The grid's first cells along x and y, as an option."""
    x, y, z = grid.minimum
    upper = (x + cells * grid.voxel_size[0], y + cells * grid.voxel_size[1], grid.maximum[2])
    return f"grid.point_cloud_range={(x, y, z, *upper)}"


def frame(grid: VoxelGrid, columns: int, frame_id: str, seed: int) -> Sample:
    """Points all over the grid, two boxes in it."""
    rng = np.random.default_rng(seed)
    low, high = np.array(grid.minimum), np.array(grid.maximum)
    points = rng.random((500, columns))
    points[:, :3] = low + points[:, :3] * (high - low)
    boxes = np.ones((2, 9), np.float32)
    boxes[:, :3] = low + rng.uniform(0.3, 0.7, (2, 3)) * (high - low)
    names = ("x", "y", "z", *(f"column_{i}" for i in range(3, columns)))
    return Sample(frame_id, points.astype(np.float32), names, boxes, np.array([0, 1]))


def test_there_are_configs():
    assert len(CONFIGS) >= 3


@pytest.mark.parametrize("path", CONFIGS, ids=str)
def test_a_config_builds_learns_and_predicts(path):
    config = load_config(REPOSITORY / path)
    grid = build(config.grid)
    full = build_model(config)
    config = load_config(REPOSITORY / path, [shrunk(grid)])
    model = build_model(config)
    assert model.state_dict().keys() == full.state_dict().keys()
    grid, columns = build(config.grid), model.encoder.point_channels
    batch = collate([frame(grid, columns, "a", 0), frame(grid, columns, "b", 1)])
    terms = model.loss(batch)
    assert all(value.isfinite() for value in terms.values())
    assert ("importance" in terms) == bool(len(model.backbone.focal))
    if "focal" in path.name:
        assert terms["importance"] > 0 and terms["importance"].requires_grad
    sum(terms.values()).backward()
    assert [d.frame_id for d in model.eval().predict(batch)] == ["a", "b"]


@pytest.mark.parametrize("path", CONFIGS, ids=str)
def test_everything_else_a_config_names_exists(path):
    config = load_config(REPOSITORY / path)
    build(config.train_transforms)
    build(config.schedule).at(0.5)
    build(config.optimizer)([torch.nn.Parameter(torch.zeros(1))])
