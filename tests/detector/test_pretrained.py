"""Published detectors: what is written, what a name leads to, what is said where that fails."""

import hashlib
from pathlib import Path

import pytest
import torch

from detector import pretrained as module
from detector.config import build_model, load_config
from detector.errors import InputError
from detector.inference import load_model
from detector.pretrained import choose, pretrained, publish
from detector.training.checkpoint import load_checkpoint, save_checkpoint

REPOSITORY = Path(__file__).parents[2]
TOY = REPOSITORY / "tests" / "writers" / "toy_config.py"
ABOUT = {"config": "tests/writers/toy_config.py", "options": [], "commit": "1a2b3c"}


@pytest.fixture
def checkpoint(tmp_path):
    """As training writes it, with a state beside the weights."""
    config = load_config(TOY)
    torch.manual_seed(0)
    save_checkpoint(tmp_path / "run.pth", {
        "classes": config.classes, "config": config.text(), "optimizer": torch.zeros(100_000),
        "state_dict": build_model(config).state_dict(),
    })  # fmt: skip
    return tmp_path / "run.pth"


@pytest.fixture
def published(checkpoint, tmp_path):
    return publish(checkpoint, tmp_path / "mine.pth", ABOUT)


def test_a_published_file_holds_half_the_weights_bits_and_says_what_it_is(checkpoint, published):
    content, original = load_checkpoint(published), load_checkpoint(checkpoint)
    assert content["about"]["commit"] == "1a2b3c" and content["classes"] == ("Car", "Cyclist")
    assert "optimizer" not in content
    assert published.stat().st_size < 0.4 * checkpoint.stat().st_size
    for name, value in original["state_dict"].items():
        expected = value.half() if value.is_floating_point() else value
        assert torch.equal(content["state_dict"][name], expected)
    line = published.with_name("mine.pth.sha256").read_text()
    assert line == f"{hashlib.sha256(published.read_bytes()).hexdigest()}  mine.pth\n"


def test_a_name_leads_to_a_model_in_single_precision(published):
    chosen = choose(str(published), None, None)
    assert chosen.config == TOY and chosen.checkpoint == published
    model = load_model(load_config(chosen.config), chosen.checkpoint, "cpu")
    assert {p.dtype for p in model.parameters()} == {torch.float32}


def test_a_damaged_file_is_recognised_by_its_digest(published):
    damaged = bytearray(published.read_bytes())
    damaged[-1] ^= 1                        # in the archive's comment: its own checksums still fit
    published.write_bytes(damaged)
    with pytest.raises(InputError, match=r"mine\.pth: is damaged, its SHA-256.*fetch it again"):
        pretrained(str(published))


def test_a_missing_file_and_an_unknown_name_are_said(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "FOLDER", tmp_path)
    with pytest.raises(InputError, match=r"--checkpoint demo: there is no .*demo\.pth; known are"):
        pretrained("demo")
    with pytest.raises(InputError, match="no detector is named: give CONFIG and CHECKPOINT"):
        choose(None, None, None)
    with pytest.raises(InputError, match="leave CONFIG and CHECKPOINT out"):
        choose("demo", TOY, tmp_path / "a.pth")


def test_a_checkpoint_that_was_not_published_is_said(checkpoint):
    with pytest.raises(InputError, match="does not say which config"):
        pretrained(str(checkpoint))


def test_a_config_that_is_not_there_is_said(checkpoint, tmp_path):
    path = publish(checkpoint, tmp_path / "lost.pth", {**ABOUT, "config": "configs/none.py"})
    with pytest.raises(InputError, match=r"configs/none\.py, which is not in"):
        pretrained(str(path))


def test_weights_that_half_precision_cannot_hold_are_refused(checkpoint, tmp_path):
    content = load_checkpoint(checkpoint)
    name = next(iter(content["state_dict"]))
    content["state_dict"][name].view(-1)[0] = 1e6
    save_checkpoint(checkpoint, content)
    with pytest.raises(InputError, match=f"{name} is not finite, or not in half precision"):
        publish(checkpoint, tmp_path / "out.pth", ABOUT)
    assert not (tmp_path / "out.pth").exists()


def test_demo_comes_with_the_project():
    chosen = pretrained("demo")
    content = load_checkpoint(chosen.checkpoint)
    config = load_config(chosen.config, chosen.options)
    assert load_model(config, chosen.checkpoint, "cpu").classes == ("Car", "Pedestrian", "Cyclist")
    assert chosen.checkpoint.stat().st_size < 40e6
    assert {"commit", "trained_with", "data", "figures"} <= content["about"].keys()
