"""A detector as one CUDA graph against the same detector run module by module."""

from pathlib import Path

import numpy as np
import pytest
import torch

from detector.config import build_model, load_config
from detector.records import collate
from tests.writers.toy import ToyDataset

pytestmark = pytest.mark.gpu

TOY = Path(__file__).parents[2] / "writers" / "toy_config.py"


def model_of(*options):
    torch.manual_seed(0)
    model = build_model(load_config(TOY, ["model.backbone.focal_stages=()", *options]))
    return model.cuda().eval()


@pytest.mark.parametrize("focal_stages", ["()", "(1,2)"])
def test_boxes_equal_the_eager_ones(focal_stages):
    from detector.models.graphed import GraphedDetector

    model = model_of(f"model.backbone.focal_stages={focal_stages}")
    graphed = GraphedDetector(model, 1, 20_000, 20_000)
    for index in range(4):
        batch = collate([ToyDataset()[index]]).to("cuda")
        (found,), (true,) = graphed.predict(batch), model.predict(batch)
        assert found.frame_id == true.frame_id
        count = min(len(found), len(true), 5)
        assert abs(len(found) - len(true)) <= 0.1 * len(true) + 1
        torch.testing.assert_close(found.scores[:count], true.scores[:count], rtol=0, atol=0.02)


def test_an_empty_frame_finds_nothing_and_too_many_points_are_refused():
    from detector.models.graphed import GraphedDetector

    graphed = GraphedDetector(model_of(), 1, 1000, 1000)
    sample = ToyDataset()[0]
    empty = sample.replace(points=np.zeros((0, sample.points.shape[1]), np.float32))
    (found,) = graphed.predict(collate([empty]).to("cuda"))
    assert len(found) == 0
    many = sample.replace(points=np.zeros((1001, sample.points.shape[1]), np.float32))
    with pytest.raises(OverflowError, match="1001 points came in"):
        graphed.predict(collate([many]).to("cuda"))
