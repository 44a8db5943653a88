"""Writes a checkpoint's weights alone, in half precision, with what is known about them:
python tools/publish.py CONFIG CHECKPOINT OUT.pth [--about NAME=VALUE ...]

The result is a sixth of the size and names its config, so that tools/detect.py and
tools/evaluate.py need nothing else: --checkpoint OUT.pth
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from detector.cli import run_tool
from detector.errors import InputError


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("config", type=Path, help="the config it was trained with")
    parser.add_argument("checkpoint", type=Path, help="such as work_dirs/NAME/best.pth")
    parser.add_argument("out", type=Path, help="file to write")
    parser.add_argument(
        "--about", nargs="+", default=[], metavar="NAME=VALUE",
        help="what else to write into it, such as commit=1a2b3c data='2000 simulated frames'",
    )  # fmt: skip
    parser.add_argument(
        "--figures", type=Path, nargs="+", default=[], help="JSON of tools/evaluate.py to include"
    )
    parser.add_argument(
        "--cfg-options", nargs="+", default=[], metavar="NAME=VALUE",
        help="changes of the model that the weights need",
    )  # fmt: skip
    arguments = parser.parse_args()

    from detector.config import load_config
    from detector.inference import load_model
    from detector.pretrained import REPOSITORY, publish

    load_model(load_config(arguments.config, arguments.cfg_options), arguments.checkpoint, "cpu")
    config = arguments.config.resolve()
    if config.is_relative_to(REPOSITORY):
        config = config.relative_to(REPOSITORY)
    about = {"config": config.as_posix(), "options": list(arguments.cfg_options)}
    for item in arguments.about:
        name, equals, value = item.partition("=")
        if not equals or name in about:
            raise InputError(f"--about {item!r}: write it as name=value, such as commit=1a2b3c")
        about[name] = value
    about["figures"] = {path.stem: _read(path) for path in arguments.figures}
    out = publish(arguments.checkpoint, arguments.out, about)
    print(f"{out}: {out.stat().st_size / 1e6:.1f} MB, and its SHA-256 in {out.name}.sha256")
    return 0


def _read(path: Path):
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise InputError(f"--figures {path}: can't be read as JSON: {error}") from None


if __name__ == "__main__":
    run_tool(main)
