"""Simulates drives through a town and writes them in a data set's own file format."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from detector.cli import progress, run_tool


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(metavar="DATASET", required=True)
    add_kitti(commands)
    arguments = parser.parse_args()
    arguments.simulate(arguments)


def add_kitti(commands) -> None:
    from datasets.simulation.lidar import LIDARS

    parser = commands.add_parser(
        "kitti",
        help="KITTI 3D objects: scans, pictures, calibration, labels, splits",
        description="Validation frames come from worlds that no training frame shows. The same "
        "options give the same files, whatever the number of workers.",
    )
    parser.add_argument("--out", required=True, type=Path, help="folder to write")
    parser.add_argument("--frames", type=_count(1), default=400, help="for training (%(default)s)")
    parser.add_argument(
        "--val-frames", type=_count(0), default=100, help="for validation (%(default)s)"
    )
    parser.add_argument("--seed", type=_count(0), default=0, help="which drives (%(default)s)")
    parser.add_argument(
        "--sensor", choices=list(LIDARS), default="hdl64e", help="laser scanner (%(default)s)"
    )
    parser.add_argument(
        "--workers",
        type=_count(1),
        default=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1,
        help="processes (%(default)s)",
    )
    parser.add_argument(
        "--overwrite", action="store_true", help="replace what a simulation wrote in --out before"
    )
    parser.set_defaults(simulate=simulate_kitti)


def simulate_kitti(arguments: argparse.Namespace) -> None:
    from datasets.simulation.kitti_writer import Settings, finish, open_folder, simulate

    settings = Settings(
        arguments.frames, arguments.val_frames, arguments.seed, arguments.sensor
    )
    total = settings.frames + settings.val_frames
    jobs = open_folder(arguments.out, settings, arguments.overwrite)
    left = sum(job.count for job in jobs)
    if left < total:
        print(f"{total - left} frames are there already; simulating the other {left}")
    finished = simulate(arguments.out, jobs, arguments.workers)
    ready = 0
    for frame in progress(range(left), "simulating"):
        while ready <= frame:
            ready += next(finished).count
    finish(arguments.out, settings)
    print(f"{settings.frames} training and {settings.val_frames} validation frames: "
          f"{arguments.out}")  # fmt: skip


def _count(minimum: int):
    def parse(text: str) -> int:
        value = int(text)
        if value < minimum:
            raise argparse.ArgumentTypeError(f"{value} is less than {minimum}")
        return value

    parse.__name__ = "whole number"
    return parse


if __name__ == "__main__":
    run_tool(main)
