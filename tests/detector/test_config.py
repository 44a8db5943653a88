"""Configs: reading, changing from the command line, and every sentence on what is wrong."""

from pathlib import Path

import pytest

from detector.config import build, build_model, load_config
from detector.errors import InputError

TOY = Path(__file__).parents[1] / "writers" / "toy_config.py"


def changed(tmp_path, extra):
    """The toy config with lines added, in a file of its own."""
    path = tmp_path / "changed.py"
    settings = (TOY.parents[2] / "configs/_base_/training.py").read_text()
    imports, rest = TOY.read_text().split("with read_base():")
    path.write_text(settings + imports + rest.split("\n", 2)[2] + "\n" + extra)
    return path


def test_options_change_values_at_any_depth():
    config = load_config(
        TOY,
        ["epochs=7", "model.head.nms_iou=0.5", "model.backbone.focal_stages=()",
         "train_dataset.frames=4", "grid.voxel_size=[0.5,0.5,0.25]", "optimizer.lr=1"],
    )  # fmt: skip
    assert config.epochs == 7 and config.optimizer["lr"] == 1
    assert len(build(config.train_dataset)) == 4
    model = build_model(config)
    assert model.head.keep_options["nms_iou"] == 0.5
    assert len(model.backbone.focal) == 0
    assert model.grid.voxel_size == (0.5, 0.5, 0.25)
    assert model.head.bev.cell == (1.0, 1.0)


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ("epoch=3", ["'epoch'", "epochs", "batch_size"]),
        ("model.head.nms=0.3", ["'nms'", "nms_iou"]),
        ("model.neck.x=1", ["'neck'", "backbone"]),
        ("train_transforms.3.x=1", ["'3'", "1 entries"]),
        ("epochs", ["name=value"]),
        ("epochs=many", ["'many'", "int"]),
        ("cache_frames=1", ["bool"]),
        ("epochs.x=1", ["'x'"]),
        ("epochs=0", ["epochs is 0", "1 or more"]),
        ("precision=half", ["'half'", "bfloat16"]),
        ("model.encoder.grid.x=1", ["'grid'", "not set"]),
    ],
)
def test_an_option_that_does_not_fit_is_named_with_what_would(option, words):
    with pytest.raises(InputError) as error:
        load_config(TOY, [option])
    for word in words:
        assert word in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("extra", "words"),
    [
        ("batchsize = 3", ["'batchsize'", "batch_size"]),
        ("model['head']['radius'] = 3", ["model.head", "'radius'", "min_radius"]),
        ("model['heads'] = {}", ["'heads'", "head"]),
        ("del epochs", ["'epochs'", "missing"]),
        ("x = = 3", ["cannot be read"]),
        ("epochs = undefined + 1", ["undefined"]),
        ("from detector.models.heads import NoHead\nmodel['head']['factory'] = NoHead",
         ["NoHead"]),
        ("grid['type'] = 3", ["grid", "not a class"]),
    ],
)
def test_a_broken_config_file_is_explained(tmp_path, extra, words):
    path = changed(tmp_path, extra)
    with pytest.raises(InputError) as error:
        load_config(path)
    for word in [*words, str(path)]:
        assert word in str(error.value)


def test_missing_and_foreign_files_are_refused(tmp_path):
    with pytest.raises(InputError, match="no such config"):
        load_config(tmp_path / "none.py")
    other = tmp_path / "config.yaml"
    other.write_text("a: 1")
    with pytest.raises(InputError, match=r"\.py"):
        load_config(other)


def test_what_a_class_rejects_is_the_users_to_mend():
    config = load_config(TOY, ["grid.voxel_size=(0.3,0.3,0.3)"])
    with pytest.raises(InputError, match="VoxelGrid.*whole number"):
        build_model(config)


def test_helper_names_with_an_underscore_are_allowed(tmp_path):
    assert load_config(changed(tmp_path, "_width = 3")).epochs == 3


def test_text_names_classes_and_is_stable():
    text = load_config(TOY).text()
    assert "detector.models.heads.CenterHead" in text and "epochs = 3" in text
    assert text == load_config(TOY).text()
