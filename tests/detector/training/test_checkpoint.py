"""Checkpoints: all or nothing, checked on reading, clear about what does not fit."""

import errno
import os

import pytest
import torch
from torch import nn

from detector.errors import InputError
from detector.training.checkpoint import (
    check_weights,
    link_checkpoint,
    load_checkpoint,
    save_checkpoint,
)

MODEL = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 1))
CONTENT = {"state_dict": MODEL.state_dict(), "classes": ("Car",), "epoch": 3}


def test_content_comes_back(tmp_path):
    save_checkpoint(tmp_path / "a.pth", CONTENT)
    content = load_checkpoint(tmp_path / "a.pth")
    assert content["epoch"] == 3 and content["classes"] == ("Car",)
    assert torch.equal(content["state_dict"]["0.weight"], MODEL[0].weight)
    assert os.listdir(tmp_path) == ["a.pth"]


def test_failed_writing_leaves_the_old_file_and_no_other(tmp_path, monkeypatch):
    path = tmp_path / "a.pth"
    save_checkpoint(path, CONTENT)

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(InputError, match="No space left.*intact.*--work-dir"):
        save_checkpoint(path, {**CONTENT, "epoch": 4})
    assert load_checkpoint(path)["epoch"] == 3
    assert os.listdir(tmp_path) == ["a.pth"]


def test_unwritable_folder_is_named(tmp_path):
    with pytest.raises(InputError, match="No such file or directory"):
        save_checkpoint(tmp_path / "none" / "a.pth", CONTENT)


@pytest.mark.parametrize("damage", ["cut", "flipped byte", "text", "empty"])
def test_a_damaged_file_is_recognised(tmp_path, damage):
    path = tmp_path / "a.pth"
    save_checkpoint(path, CONTENT)
    data = bytearray(path.read_bytes())
    if damage == "cut":
        data = data[: len(data) // 2]
    elif damage == "flipped byte":
        # A byte of the first weight's own storage.
        start = data.find(MODEL[0].weight.detach().numpy().tobytes())
        data[start + 5] ^= 0xFF
    else:
        data = b"no checkpoint" if damage == "text" else b""
    path.write_bytes(data)
    with pytest.raises(InputError, match="corrupt or was cut short"):
        load_checkpoint(path)


def test_files_that_are_no_checkpoints_are_refused(tmp_path):
    path = tmp_path / "a.pth"
    with pytest.raises(InputError, match="no such checkpoint"):
        load_checkpoint(path)
    torch.save({"state_dict": {}}, path)
    with pytest.raises(InputError, match="another program"):
        load_checkpoint(path)
    torch.save(MODEL, path)
    with pytest.raises(InputError, match="not loaded"):
        load_checkpoint(path)


def test_weights_of_another_model_are_described():
    with pytest.raises(InputError) as error:
        check_weights(nn.Sequential(nn.Linear(3, 4)), CONTENT, "a.pth", ("Car",))
    text = str(error.value)
    assert "0.weight is (2, 3) and not (4, 3)" in text and "has besides 1.weight, 1.bias" in text
    with pytest.raises(InputError, match="lacks 2.weight"):
        check_weights(nn.Sequential(*MODEL, nn.Linear(1, 1)), CONTENT, "a.pth", ("Car",))


def test_other_classes_are_named():
    with pytest.raises(InputError, match="for the classes Car; the config has Car, Van"):
        check_weights(MODEL, CONTENT, "a.pth", ("Car", "Van"))


def test_a_link_replaces_in_one_step(tmp_path):
    save_checkpoint(tmp_path / "a.pth", CONTENT)
    save_checkpoint(tmp_path / "latest.pth", {**CONTENT, "epoch": 1})
    link_checkpoint(tmp_path / "a.pth", tmp_path / "latest.pth")
    (tmp_path / "a.pth").unlink()
    assert load_checkpoint(tmp_path / "latest.pth")["epoch"] == 3
