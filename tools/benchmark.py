"""Measures how fast things are on this machine."""

from __future__ import annotations

import argparse
from pathlib import Path

from detector.cli import run_tool
from detector.errors import InputError


def main() -> int | None:
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(metavar="WHAT", required=True)
    add_data(commands)
    add_train(commands)
    add_sparse(commands)
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


def add_train(commands) -> None:
    parser = commands.add_parser(
        "train",
        help="a training step: time, share of waiting for data, how busy the GPU is",
        description="Trains a config's detector for some steps, with frames in memory and with "
        "frames from the loader, on the GPU where there is one.",
    )
    parser.add_argument("config", type=Path, help="a file of configs/")
    parser.add_argument("--batches", type=int, nargs="+", help="sizes; default: the config's")
    parser.add_argument("--steps", type=int, default=40, help="to time (%(default)s)")
    parser.add_argument("--json", type=Path, help="write the figures to this file, too")
    parser.add_argument("--cfg-options", nargs="+", default=[], metavar="NAME=VALUE")
    parser.set_defaults(measure=measure_train)


def measure_train(arguments: argparse.Namespace) -> None:
    from rich.console import Console

    from detector.benchmarks.training import measure_training, training_table
    from detector.cli import write_json
    from detector.config import load_config, with_options

    config = load_config(arguments.config, arguments.cfg_options)
    results = [
        measure_training(with_options(config, batch_size=size), arguments.steps)
        for size in arguments.batches or [config.batch_size]
    ]
    Console().print(training_table(results))
    if arguments.json:
        write_json(arguments.json, [result.as_dict() for result in results])


def add_sparse(commands) -> None:
    parser = commands.add_parser(
        "sparse",
        help="the sparse engine on the GPU beside the installed peers",
        description="Voxelization, maps, layers, plain and focal backbones and whole detectors on "
        "simulated scans: ours and every installed peer with the same frames and weights, median "
        "and quartiles, peak memory, and the physical floor: bytes moved once at the measured "
        "copy rate or operations at the measured matrix rate.",
    )
    parser.add_argument("--workloads", nargs="+", default=["kitti", "nuscenes", "waymo"])
    parser.add_argument("--peers", nargs="*", help="default: all that are installed")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 4])
    parser.add_argument("--precisions", nargs="+", default=["fp16", "tf32"],
                        choices=["fp16", "tf32"])
    parts = ["voxels", "maps", "layers", "detectors", "backbones", "focal"]
    parser.add_argument("--parts", nargs="+", default=parts, choices=parts)
    parser.add_argument("--no-training", action="store_true", help="leave out backward passes")
    parser.add_argument("--frames", type=int, default=8, help="that take turns (%(default)s)")
    parser.add_argument("--repeats", type=int, default=24, help="of each call (%(default)s)")
    parser.add_argument("--json", type=Path, help="write the figures to this file, too")
    parser.set_defaults(measure=measure_sparse)


def measure_sparse(arguments: argparse.Namespace) -> int:
    import torch

    if not torch.cuda.is_available():
        raise InputError("this benchmark needs an NVIDIA GPU, and torch sees none")
    from detector.benchmarks.report import run_sparse

    return run_sparse(arguments)


if __name__ == "__main__":
    run_tool(main)
