"""From simulated nuScenes files to a loss, for the three choices of sensors."""

import numpy as np
import pytest
import torch

from datasets.augment import RangeFilter
from datasets.simulation.nuscenes_writer import NuScenesSettings, open_folder, simulate
from detector.config import build, build_model, load_config
from detector.models.decode import decode_boxes, rows_at
from detector.models.targets import TrueBoxes, assign_centers
from detector.records import collate
from tests.conftest import REPOSITORY

CONFIGS = (
    "simulated_focal_centerpoint", "simulated_radar_pointpillars",
    "simulated_lidar_radar_centerpoint",
)  # fmt: skip


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("simulated")
    settings = NuScenesSettings(1, 1, samples=2, seed=5, lidar_columns=120, image_size=(32, 18))
    open_folder(folder, settings, overwrite=False)
    list(simulate(folder, settings, workers=1))
    return folder


@pytest.mark.parametrize("name", CONFIGS)
def test_a_config_reads_learns_and_is_scored(root, name):
    torch.manual_seed(0)
    options = [f"{part}_dataset.root={root}" for part in ("train", "val")]
    config = load_config(REPOSITORY / "configs" / "nuscenes" / f"{name}.py", options)
    model = build_model(config)
    data = build(config.train_dataset)
    batch = collate([data[i] for i in range(len(data))])
    assert batch.boxes[0].shape[1] == 9
    terms = model.loss(batch)
    sum(terms.values()).backward()
    assert all(value.isfinite() for value in terms.values())
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())
    val = build(config.val_dataset)
    found = model.eval().predict(collate([val[i] for i in range(len(val))]))
    scalars = val.evaluate(found).scalars()
    assert config.best_metric in scalars


@pytest.mark.parametrize("name", CONFIGS)
def test_velocities_of_a_frame_are_learnt_in_few_steps(root, name):
    torch.manual_seed(0)
    side = 25 if name == "simulated_radar_pointpillars" else 25.6
    near = (-side, -side, -2, side, side, 4)
    options = [f"train_dataset.root={root}", f"grid.point_cloud_range={near}"]
    config = load_config(REPOSITORY / "configs" / "nuscenes" / f"{name}.py", options)
    frame = RangeFilter(near)(build(config.train_dataset)[1], np.random.default_rng(0))
    batch, model = collate([frame]), build_model(config)
    optimizer = dict(config.optimizer)
    optimizer = optimizer.pop("factory")(model.parameters(), **optimizer)
    for _ in range(30):
        optimizer.zero_grad()
        sum(model.loss(batch).values()).backward()
        optimizer.step()
    head, true = model.head, TrueBoxes.of(batch.boxes, batch.labels)
    maps = head(model.bev(model.backbone(model.encoder(batch)).bev))
    for of_task, classes in zip(maps, head.task_classes, strict=True):
        wanted = assign_centers(true, classes, head.bev, **head.target_options)
        found = decode_boxes(rows_at(of_task.regression, wanted.cells), wanted.cells, head.bev)
        velocity = wanted.boxes[:, 7:9]
        moving = wanted.valid & (velocity.norm(dim=1) > 0.5)
        error = (found[:, 7:9] - velocity)[moving].norm(dim=1).mean()
        assert moving.sum() > 9 and error < 0.5 * velocity[moving].norm(dim=1).mean()
