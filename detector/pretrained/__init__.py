"""Detectors that come with the project, `NAME.pth` in this folder, and published ones anywhere.

A published file (`tools/publish.py`) holds weights in half precision and says which config they
belong to, so that its name is all a tool needs: `--checkpoint demo`, `--checkpoint mine.pth`.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from detector.errors import InputError
from detector.training.checkpoint import load_checkpoint, save_checkpoint, save_text

FOLDER = Path(__file__).resolve().parent
REPOSITORY = FOLDER.parents[1]


@dataclass(frozen=True)
class Pretrained:
    """A detector and what it needs."""

    checkpoint: Path
    config: Path
    options: tuple[str, ...]
    """What differs from the config file, as `--cfg-options` says it."""


def choose(
    name: str | None, config: Path | None, checkpoint: Path | None
) -> Pretrained:
    """What a tool's command line names: a pretrained detector, or a config and a checkpoint.

    Raises:
        InputError: neither, both, or something that is not there.
    """
    if name is None:
        if config is None or checkpoint is None:
            raise InputError(
                "no detector is named: give CONFIG and CHECKPOINT, or --checkpoint "
                f"{' or '.join(names()) or 'FILE'}"
            )
        return Pretrained(checkpoint, config, ())
    if config is not None:
        raise InputError(
            f"--checkpoint {name} knows its config; leave CONFIG and CHECKPOINT out"
        )
    return pretrained(name)


def names() -> list[str]:
    """Of the detectors in this folder."""
    return sorted(path.stem for path in FOLDER.glob("*.pth"))


def pretrained(name: str) -> Pretrained:
    """A detector of this folder by its name, or a published file by its path.

    Raises:
        InputError: a file that is missing, damaged or not published; no such name.
    """
    path = Path(name) if name.endswith(".pth") else FOLDER / f"{name}.pth"
    if not path.is_file():
        raise InputError(
            f"--checkpoint {name}: there is no {path}; known are {', '.join(names()) or 'none'} "
            f"and files of tools/publish.py"
        )
    check_digest(path)
    about = load_checkpoint(path).get("about")
    if about is None:
        raise InputError(
            f"{path}: does not say which config it belongs to; give CONFIG and CHECKPOINT, or "
            f"write it with tools/publish.py"
        )
    config = Path(about["config"])
    config = config if config.is_absolute() else REPOSITORY / config
    if not config.is_file():
        raise InputError(
            f"{path}: belongs to the config {about['config']}, which is not in {REPOSITORY}; run "
            f"the tool from a clone of the project, or give CONFIG and CHECKPOINT"
        )
    return Pretrained(path, config, tuple(about["options"]))


def publish(checkpoint: Path, out: Path, about: dict[str, Any]) -> Path:
    """Writes a checkpoint's weights alone, in half precision, and beside them their SHA-256.

    Args:
        about: `config`, the config's path within the project or an absolute one, and `options`,
            which a tool needs; whatever else is worth knowing.

    Raises:
        InputError: a checkpoint that can't be read, weights that half precision can't hold.
    """
    content = load_checkpoint(checkpoint)
    weights = {}
    for key, value in content["state_dict"].items():
        weights[key] = value.half() if value.is_floating_point() else value
        if not torch.isfinite(weights[key]).all():
            raise InputError(f"{checkpoint}: {key} is not finite, or not in half precision")
    save_checkpoint(
        out,
        {
            "classes": content["classes"], "config": content["config"], "state_dict": weights,
            "about": about,
        },
    )  # fmt: skip
    save_text(digest_file(out), f"{digest(out)}  {out.name}\n")
    return out


def check_digest(path: Path) -> None:
    """Compares a file with the SHA-256 beside it, as `sha256sum -c` would; without one there is
    nothing to compare.

    Raises:
        InputError: they differ.
    """
    expected = digest_file(path)
    if expected.is_file() and expected.read_text().split()[:1] != [digest(path)]:
        raise InputError(
            f"{path}: is damaged, its SHA-256 is not the one in {expected.name}; fetch it again "
            f"(a clone without Git LFS or a broken download leaves such files)"
        )


def digest_file(path: Path) -> Path:
    return path.with_name(path.name + ".sha256")


def digest(path: Path) -> str:
    """SHA-256 in hexadecimal."""
    return hashlib.sha256(path.read_bytes()).hexdigest()
