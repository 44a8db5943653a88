"""Data sets put together, and partly labelled ones, from file to loss."""

import numpy as np
import pytest
import torch

from datasets.augment.paste_database import PasteDatabase
from datasets.augment.prepare_paste import prepare_paste
from datasets.balance import ClassBalancedDataset
from datasets.combined import ConcatDataset, PartlyLabelledDataset
from detector.config import build, build_model, load_config, with_options
from detector.errors import InputError
from detector.models.targets import TrueBoxes
from detector.records import collate
from tests.writers.toy import ToyDataset

TOY = "tests/writers/toy_config.py"


def test_frames_follow_one_another_as_often_as_asked():
    both = ConcatDataset([ToyDataset(frames=2), ToyDataset(frames=3)], repeats=(2, 1))
    ids = [both[i].frame_id for i in range(len(both))]
    assert ids == [
        "0:000000", "0:000001", "0:000000", "0:000001", "1:000000", "1:000001", "1:000002",
    ]  # fmt: skip
    assert np.array_equal(both[6].points, ToyDataset()[2].points)
    assert both.classes == ("Car", "Cyclist") and both.labels(6).tolist() == [0, 1]
    with pytest.raises(IndexError):
        both[7]


@pytest.mark.parametrize(
    "datasets, repeats, sentence",
    [
        ([], None, "datasets is empty"),
        ([ToyDataset()], (1, 2), "repeats is .1, 2.; it needs a number of 1 or more for each of 1"),
        ([ToyDataset()], (0,), "1 or more"),
        ([ToyDataset(), ToyDataset(classes=("Car",))], None, "data set 1 has classes .'Car',."),
    ],
)
def test_what_does_not_go_together_is_refused(datasets, repeats, sentence):
    with pytest.raises(InputError, match=sentence):
        ConcatDataset(datasets, repeats)


def test_a_config_reaches_into_the_parts():
    part = dict(type=ToyDataset, frames=2)
    node = dict(type=ConcatDataset, datasets=[part, dict(type=PartlyLabelledDataset, dataset=part,
                                                         labelled_classes=("Car",))])  # fmt: skip
    samples = build(node)
    assert samples[1].labelled is None and samples[3].labelled.tolist() == [True, False]
    balanced = ClassBalancedDataset(samples)
    assert len(balanced) and balanced.classes == ("Car", "Cyclist")


def test_an_unknown_labelled_class_is_named():
    with pytest.raises(InputError, match="labelled_classes: 'Van' is none of .* Car, Cyclist"):
        PartlyLabelledDataset(ToyDataset(), ("Car", "Van"))


def test_objects_to_paste_come_from_each_frame_once(tmp_path):
    config = load_config(TOY)
    node = dict(type=ConcatDataset, datasets=[config.train_dataset] * 2, repeats=(3, 1))
    node = dict(type=ClassBalancedDataset, dataset=node)
    once, both = tmp_path / "once.db", tmp_path / "both.db"
    prepare_paste(config, once)
    prepare_paste(with_options(config, train_dataset=node), both)
    assert len(PasteDatabase(both)) == 2 * len(PasteDatabase(once)) > 0


def test_an_unlabelled_class_is_no_background():
    """Frame 1 has a car; where cars are not labelled, heatmap logits of cars get no gradient but
    at the car itself, those of cyclists do."""
    torch.manual_seed(0)
    model = build_model(load_config(TOY))
    frames = ToyDataset()
    partly = PartlyLabelledDataset(frames, ("Cyclist",))
    batch = collate([frames[1], partly[1]])
    assert batch.labelled.tolist() == [[True, True], [False, True]]
    shape = model.head.bev.shape
    maps = model.head(torch.zeros(2, model.bev.out_channels, *shape))
    maps[0].heatmap.retain_grad()
    true = TrueBoxes.of(batch.boxes, batch.labels)
    model.head.loss(maps, true, batch.labelled)["heatmap"].backward()
    gradient = maps[0].heatmap.grad
    assert (gradient[0] != 0).all() and (gradient[1, 1] != 0).all()
    assert (gradient[1, 0] != 0).sum() == 1 and gradient[1, 0].min() < 0


def test_frames_with_an_unlabelled_class_do_not_say_which_voxels_matter():
    torch.manual_seed(0)
    model = build_model(load_config(TOY))
    frames = ToyDataset()
    partly = PartlyLabelledDataset(frames, ("Cyclist",))

    def importance(*samples):
        model.eval()                        # so that norms do not mix the frames
        return model.loss(collate(samples))["importance"]

    alone = importance(frames[1])
    assert torch.allclose(importance(frames[1], partly[3]), alone) and alone > 0
    assert importance(partly[3]) == 0
    assert not torch.allclose(importance(frames[1], frames[3]), alone)
