"""The composed detector on toy frames: sizes that follow, losses that reach every part, empty
frames, and what is refused."""

from pathlib import Path

import numpy as np
import pytest
import torch

from detector.config import build_model, load_config
from detector.errors import InputError
from detector.models.backbones import ResidualSparseEncoder8x, SparseEncoder8x
from detector.records import Sample, collate
from tests.writers.toy import ToyDataset

TOY = Path(__file__).parents[2] / "writers" / "toy_config.py"
EMPTY = Sample("empty", np.zeros((0, 4), np.float32), ToyDataset.point_features)
FAR = EMPTY.replace(frame_id="far", points=np.full((5, 4), 500, np.float32))


def toy_model(*options):
    torch.manual_seed(0)
    return build_model(load_config(TOY, options))


def test_every_parameter_gets_a_gradient():
    model = toy_model()
    terms = model.loss(collate([ToyDataset()[i] for i in (2, 3)]))
    assert set(terms) == {"heatmap", "box", "diou", "quality", "importance"}
    sum(terms.values()).backward()
    without = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    assert without == []


def test_the_importance_loss_alone_reaches_the_focal_branch():
    model = toy_model()
    model.loss(collate([ToyDataset()[3]]))["importance"].backward()
    assert model.backbone.focal["1"].conv.importance.weight.grad.any()
    assert model.head.shared[0].weight.grad is None


def test_without_focal_stages_the_same_network_is_plain():
    plain = toy_model("model.backbone.focal_stages=()")
    assert "importance" not in plain.loss(collate([ToyDataset()[3]]))
    focal = toy_model().state_dict()
    assert {k for k in focal if ".focal." not in k} == set(plain.state_dict())


@pytest.mark.parametrize("order", [(0, 1, 2), (1, 0, 2), (1, 2, 0)])
def test_empty_frames_are_legal_anywhere_in_a_batch(order):
    samples = [EMPTY, ToyDataset()[3], FAR]
    batch = collate([samples[i] for i in order])
    model = toy_model()
    assert all(v.isfinite() for v in model.loss(batch).values())
    found = model.eval().predict(batch)
    assert [d.frame_id for d in found] == [samples[i].frame_id for i in order]
    assert [len(d) > 0 for d in found] == [i == 1 for i in order]


@pytest.mark.parametrize("samples", [[EMPTY], [EMPTY, FAR]])
def test_a_batch_without_any_voxel_trains_and_predicts(samples):
    model = toy_model()
    terms = model.loss(collate(samples))
    sum(terms.values()).backward()
    assert all(v.isfinite() for v in terms.values())
    assert all(p.grad is None or p.grad.isfinite().all() for p in model.parameters())
    assert len(model.eval().predict(collate(samples))) == len(samples)
    assert all(b.isfinite().all() for b in model.buffers())


def test_a_frame_alone_and_in_a_batch_is_seen_the_same():
    model = toy_model().eval()
    frames = [ToyDataset()[i] for i in (1, 2)]
    together = model.predict(collate(frames))
    for frame, expected in zip(frames, together, strict=True):
        (alone,) = model.predict(collate([frame]))
        torch.testing.assert_close(alone.boxes, expected.boxes, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(alone.scores, expected.scores, rtol=1e-4, atol=1e-5)


def test_an_overfitted_model_finds_the_boxes():
    model = toy_model("model.backbone.channels=(8, 16)", "model.head.shared_channels=16")
    frame = ToyDataset()[3]
    batch = collate([frame])
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(120):
        optimizer.zero_grad()
        sum(model.loss(batch).values()).backward()
        optimizer.step()
    model.train()  # batch statistics: one frame is all there is
    (found,) = model.predict(batch)
    strong = found.scores > 0.3
    assert strong.sum() == len(frame.boxes)
    for box, label in zip(frame.boxes, frame.labels, strict=True):
        distance = (found.boxes[strong, :2] - torch.from_numpy(box[:2])).norm(dim=1)
        assert distance.min() < 0.3
        assert found.labels[strong][distance.argmin()] == label


def test_velocities_and_tasks():
    model = toy_model("model.head.with_velocity=True", "model.head.tasks=[['Cyclist'],['Car']]")
    frame = ToyDataset()[3]
    boxes = np.concatenate([frame.boxes, np.full((3, 2), np.nan, np.float32)], 1)
    boxes[0, 7:] = 1.0
    batch = collate([frame.replace(boxes=boxes)])
    terms = model.loss(batch)
    sum(terms.values()).backward()
    assert all(v.isfinite() for v in terms.values())
    (found,) = model.eval().predict(batch)
    assert found.boxes.shape[1] == 9


def test_points_with_other_columns_are_refused():
    with pytest.raises(ValueError, match="4"):
        toy_model().loss(
            collate([Sample("a", np.zeros((3, 5), np.float32), ("x", "y", "z", "a", "b"))])
        )


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("model.head.tasks=[['Car']]", "each of the classes"),
        ("model.backbone.focal_stages=(3,)", "among the 2 stages"),
        ("grid.voxel_size=(0.25,0.25,2)", "use fewer stages"),
        ("model.bev.upsample_strides=(2,2)", "one entry"),
    ],
)
def test_parts_that_do_not_fit_together_are_explained(option, message):
    with pytest.raises(InputError, match=message):
        toy_model(option)


@pytest.mark.parametrize("encoder", [SparseEncoder8x, ResidualSparseEncoder8x])
def test_the_published_encoders_halve_41_layers_to_two(encoder):
    backbone = encoder(4, (41, 1600, 1408))
    assert backbone.stride == 8
    assert backbone.bev_shape == (200, 176) and backbone.out_channels == 256
