"""Evaluates a checkpoint with the data set's own metric:
python tools/evaluate.py CONFIG CHECKPOINT [--json FILE] [--results DIR]
python tools/evaluate.py --checkpoint demo --cfg-options val_dataset.root=data/kitti

On several GPUs: torchrun --nproc_per_node=8 tools/evaluate.py CONFIG CHECKPOINT"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from detector.cli import run_tool


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("config", type=Path, nargs="?", help="the config it was trained with")
    parser.add_argument("file", type=Path, nargs="?", metavar="checkpoint",
                        help="such as work_dirs/NAME/best.pth")  # fmt: skip
    parser.add_argument(
        "--checkpoint", metavar="NAME", help="instead: demo, or a file of tools/publish.py"
    )
    parser.add_argument("--json", type=Path, help="write the figures there")
    parser.add_argument("--results", type=Path, help="write a result file a frame into this folder")
    parser.add_argument(
        "--cfg-options", nargs="+", default=[], metavar="NAME=VALUE",
        help="change settings, such as val_dataset.split=test model.head.nms_iou=0.3",
    )  # fmt: skip
    arguments = parser.parse_args()

    from rich.console import Console

    from detector.config import build, load_config
    from detector.inference import load_model
    from detector.pretrained import choose
    from detector.training.checkpoint import save_text
    from detector.training.distributed import (
        device_of_process,
        join,
        leave,
        lost_process_named,
    )
    from detector.training.evaluation import evaluate

    rank, processes = join()
    chosen = choose(arguments.checkpoint, arguments.config, arguments.file)
    config = load_config(chosen.config, [*chosen.options, *arguments.cfg_options])
    model = load_model(config, chosen.checkpoint, device_of_process())
    dataset = build(config.val_dataset)
    with lost_process_named(rank, processes):
        evaluated = evaluate(model, dataset, config.batch_size, config.workers, "evaluating")
    leave()
    if evaluated is None:                   # the first process has the result
        return 0
    result, detections = evaluated
    Console().print(result.table())
    if arguments.json:
        save_text(arguments.json, json.dumps(result.as_dict(), indent=2) + "\n")
        print(f"figures: {arguments.json}")
    if arguments.results:
        dataset.write_results(detections, arguments.results)
        print(f"result files: {arguments.results}")
    return 0


if __name__ == "__main__":
    run_tool(main)
