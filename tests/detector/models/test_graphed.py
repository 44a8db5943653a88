"""A detector as one CUDA graph against the same detector run module by module."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from detector.config import build_model, load_config
from detector.records import collate
from tests.writers.toy import ToyDataset

pytestmark = pytest.mark.gpu

TOY = Path(__file__).parents[2] / "writers" / "toy_config.py"
VARIANTS = {
    "plain": {},
    "focal": dict(backbone=dict(focal_stages=(1, 2))),
    "focal by threshold": dict(
        backbone=dict(focal_stages=(1,), focal=dict(top_k=False, foreground_prior=0.4))
    ),
    "two tasks": dict(head=dict(tasks=(("Car",), ("Cyclist",)))),
    "by distance": dict(head=dict(nms_radius_m=(2.0, 1.0))),
    "flipped": dict(double_flip=True),
}


def model_of(double_flip=False, backbone=None, head=None):
    """With statistics of its frames and heads that say different things at different places, as
    trained ones do."""
    torch.manual_seed(0)
    config = load_config(TOY, [])
    config.model["backbone"].update(dict(focal_stages=()), **(backbone or {}))
    config.model["head"].update(head or {})
    if double_flip:
        config.model["double_flip"] = True
        config.grid["point_cloud_range"] = (-8, -8, -2, 8, 8, 2)
    model = build_model(config)
    for task in model.head.tasks:
        for output in task.outputs:
            nn.init.normal_(output.weight, std=0.05)
    for module in model.modules():
        if isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)):
            module.momentum = None  # the mean of all
    model.cuda().train()
    with torch.no_grad():
        model.loss(collate([ToyDataset()[index] for index in range(4)]).to(device_of(model)))
    return model.eval()


def device_of(model):
    return next(model.parameters()).device


def share_found(some, others, best=50):
    """Of the best of some detections: how many have their like among others."""
    near = torch.cdist(some.boxes[:best, :3], others.boxes[:, :3]) < 0.1
    near &= some.labels[:best, None] == others.labels
    near &= (some.scores[:best, None] - others.scores).abs() < 0.05
    return float(near.any(1).float().mean())


@pytest.mark.parametrize("variant", VARIANTS)
def test_boxes_equal_the_eager_ones(variant):
    from detector.models.graphed import GraphedDetector

    model = model_of(**VARIANTS[variant])
    graphed = GraphedDetector(model, 1, 20_000, 20_000)
    for index in (1, 2, 3, 1):
        batch = collate([ToyDataset()[index]]).to("cuda")
        (found,), (true,) = graphed.predict(batch), model.predict(batch)
        assert found.frame_id == true.frame_id
        assert len(true) > 20
        # What rounding makes appear or vanish is little, and below the best.
        assert share_found(found, true) > 0.9
        assert share_found(true, found) > 0.9


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


def test_prediction_takes_the_graph_where_it_can():
    from detector.inference import predictor

    model = model_of(**VARIANTS["focal"])
    sample = ToyDataset()[3]
    batch = collate([sample]).to("cuda")
    predict = predictor(model)
    assert predict != model.predict
    (found,), (true,) = predict(batch), model.predict(batch)
    assert share_found(true, found) > 0.9
    assert predictor(model, cuda_graph=False) == model.predict
    many = sample.replace(points=np.tile(sample.points, (2000, 1)))
    batch = collate([many]).to("cuda")
    with pytest.warns(UserWarning, match="ran without the CUDA graph: .* points came in"):
        (found,) = predictor(model, cuda_graph=True)(batch)
    (true,) = model.predict(batch)
    assert torch.equal(found.boxes, true.boxes)


def test_pillars_are_refused():
    from detector.models.graphed import GraphedDetector

    model = model_of()
    model.backbone = nn.Identity()
    with pytest.raises(ValueError, match="needs a sparse encoder of voxels, not a Identity"):
        GraphedDetector(model)
