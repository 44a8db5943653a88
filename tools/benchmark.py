"""Measures how fast things are on this machine."""

from __future__ import annotations

import argparse
from pathlib import Path

from detector.cli import run_tool


def main() -> int | None:
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(metavar="WHAT", required=True)
    add_data(commands)
    arguments = parser.parse_args()
    return arguments.measure(arguments)


def add_data(commands) -> None:
    parser = commands.add_parser(
        "data",
        help="training frames a second, stage by stage and through the loader",
        description="Reads and augments a config's training frames: in one thread, with the time "
        "of each stage, and through the loader with its processes.",
    )
    parser.add_argument("config", type=Path, help="a file of configs/")
    parser.add_argument(
        "--every-augmentation", action="store_true", help="all there are, not only the config's"
    )
    parser.add_argument("--frames", type=int, default=100, help="to time by stage (%(default)s)")
    parser.add_argument(
        "--workers", type=int, nargs="+", default=[0, 2], help="processes to try (%(default)s)"
    )
    parser.add_argument("--seconds", type=float, default=10, help="a trial (%(default)s)")
    parser.add_argument("--cfg-options", nargs="+", default=[], metavar="NAME=VALUE")
    parser.set_defaults(measure=measure_data)


def measure_data(arguments: argparse.Namespace) -> None:
    from rich.console import Console

    from datasets.augment.every import every_transform
    from datasets.augment.prepare_paste import pastes
    from detector.benchmarks.data import data_table, measure_loader, measure_stages
    from detector.config import build, load_config
    from detector.training.data import TrainingFrames

    config = load_config(arguments.config, arguments.cfg_options)
    transforms = build(config.train_transforms)
    if arguments.every_augmentation:
        paste = next(pastes(config), dict(database=None, counts={}))
        transforms = every_transform(
            config.grid["point_cloud_range"], config.classes, paste["database"], paste["counts"]
        )
    frames = TrainingFrames(
        build(config.train_dataset), transforms, config.seed, epochs=config.epochs
    )
    console = Console()
    times = measure_stages(frames, arguments.frames, config.batch_size)
    console.print(data_table(times, arguments.config.stem))
    for workers in arguments.workers:
        speed, cpu_ms = measure_loader(frames, config.batch_size, workers, arguments.seconds)
        console.print(f"loader with {workers} processes: {speed:.0f} frames/s, {cpu_ms:.1f} ms of "
                      f"processor time a frame", highlight=False)  # fmt: skip


if __name__ == "__main__":
    run_tool(main)
