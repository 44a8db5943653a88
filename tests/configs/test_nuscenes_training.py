"""From simulated nuScenes files to a loss, for the three choices of sensors."""

import pytest
import torch

from datasets.simulation.nuscenes_writer import NuScenesSettings, open_folder, simulate
from detector.config import build, build_model, load_config
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
