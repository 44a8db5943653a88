"""Trains a detector: python tools/train.py CONFIG [--work-dir DIR] [--resume]

Ctrl-C finishes the step and saves; the same command with --resume goes on from there. On several
GPUs: torchrun --nproc_per_node=8 tools/train.py CONFIG
"""

from __future__ import annotations

import argparse
from pathlib import Path

from detector.cli import run_tool


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("config", type=Path, help="a file of configs/")
    parser.add_argument("--work-dir", type=Path, help="default: work_dirs/NAME_OF_CONFIG")
    parser.add_argument("--resume", action="store_true", help="go on from the last checkpoint")
    parser.add_argument(
        "--weights", type=Path, metavar="CHECKPOINT",
        help="start from these weights, of the same model, to fine-tune them",
    )  # fmt: skip
    parser.add_argument(
        "--skip-bad-frames", action="store_true",
        help="go on without training frames that can't be read; they are counted at the end",
    )  # fmt: skip
    parser.add_argument(
        "--cfg-options", nargs="+", default=[], metavar="NAME=VALUE",
        help="change settings, such as epochs=20 model.head.nms_iou=0.3",
    )  # fmt: skip
    arguments = parser.parse_args()

    from detector.config import load_config
    from detector.training import train
    from detector.training.distributed import leave, position

    skip = ["skip_bad_frames=True"] if arguments.skip_bad_frames else []
    config = load_config(arguments.config, [*arguments.cfg_options, *skip])
    work_dir = arguments.work_dir or Path("work_dirs") / arguments.config.stem
    result = train(config, work_dir, arguments.resume, arguments.weights)
    if result.finished and position()[0] == 0:
        print(f"checkpoints: {work_dir}/best.pth ({config.best_metric} {result.best_score:.2f}), "
              f"{work_dir}/latest.pth", flush=True)  # fmt: skip
    leave()
    return 130 if result.interrupted else 0


if __name__ == "__main__":
    run_tool(main)
