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
    add_nuscenes(commands)
    add_waymo(commands)
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
    parser.add_argument(
        "--scene-frames", type=_count(1), default=5,
        help="frames of one world, a second apart (%(default)s); fewer show more worlds",
    )  # fmt: skip
    parser.add_argument(
        "--sensor", choices=list(LIDARS), default="hdl64e", help="laser scanner (%(default)s)"
    )
    _add_common(parser)
    parser.set_defaults(simulate=simulate_kitti)


def simulate_kitti(arguments: argparse.Namespace) -> None:
    from datasets.simulation.kitti_writer import Settings, finish, open_folder, simulate

    settings = Settings(
        arguments.frames, arguments.val_frames, arguments.seed, arguments.sensor,
        arguments.scene_frames,
    )  # fmt: skip
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


def add_nuscenes(commands) -> None:
    parser = commands.add_parser(
        "nuscenes",
        help="nuScenes: 13 tables, LiDAR and radar sweeps, six cameras, splits",
        description="Writes version v1.0-simulated with the splits simulated_train and "
        "simulated_val. Validation scenes come from towns that no training scene shows. The same "
        "options give the same files, whatever the number of workers.",
    )
    parser.add_argument("--out", required=True, type=Path, help="folder to write")
    parser.add_argument("--scenes", type=_count(1), default=12, help="for training (%(default)s)")
    parser.add_argument(
        "--val-scenes", type=_count(0), default=4, help="for validation (%(default)s)"
    )
    parser.add_argument(
        "--samples", type=_count(1), default=16, help="key frames a scene, at 2 Hz (%(default)s)"
    )
    parser.add_argument(
        "--lidar-columns", type=_count(8), default=1084, help="firings a turn (%(default)s)"
    )
    parser.add_argument(
        "--image-width", type=_count(16), default=400, help="pixels, 16:9 (%(default)s)"
    )
    _add_common(parser)
    parser.set_defaults(simulate=simulate_nuscenes)


def simulate_nuscenes(arguments: argparse.Namespace) -> None:
    from datasets.simulation.nuscenes_writer import (
        TRAIN,
        VAL,
        VERSION,
        NuScenesSettings,
        open_folder,
        simulate,
    )

    width = arguments.image_width
    settings = NuScenesSettings(
        arguments.scenes, arguments.val_scenes, arguments.samples, arguments.seed,
        arguments.lidar_columns, (width, round(width * 9 / 16)),
    )  # fmt: skip
    total = settings.scenes + settings.val_scenes
    there = open_folder(arguments.out, settings, arguments.overwrite)
    if there:
        print(f"{there} scenes are there already; simulating the other {total - there}")
    finished = simulate(arguments.out, settings, arguments.workers)
    for _ in progress(range(total - there), "simulating"):
        next(finished)
    for _ in finished:      # The tables come after the last scene.
        pass
    print(
        f"{arguments.out}: version {VERSION}, {settings.scenes} scenes in {TRAIN}, "
        f"{settings.val_scenes} in {VAL}, {settings.samples} samples each"
    )


def add_waymo(commands) -> None:
    parser = commands.add_parser(
        "waymo",
        help="Waymo Open Dataset: range images of five lasers, labels, in both formats",
        description="Writes OUT/v1/{training,validation}/*.tfrecord (format 1) and "
        "OUT/v2/{training,validation}/COMPONENT/*.parquet (format 2). Validation segments come "
        "from worlds that no training segment shows. The same options give the same files, "
        "whatever the number of workers.",
    )
    parser.add_argument("--out", required=True, type=Path, help="folder to write")
    parser.add_argument("--frames", type=_count(1), default=120, help="for training (%(default)s)")
    parser.add_argument(
        "--val-frames", type=_count(0), default=40, help="for validation (%(default)s)"
    )
    parser.add_argument(
        "--segment-frames", type=_count(1), default=4, help="frames a segment (%(default)s)"
    )
    parser.add_argument(
        "--gap", type=_seconds, default=1.0, metavar="SECONDS",
        help="between a segment's frames (%(default)s); 0.1 is the data set's own",
    )  # fmt: skip
    parser.add_argument(
        "--format", choices=("v1", "v2", "both"), default="both", help="(%(default)s)"
    )
    parser.add_argument(
        "--columns", type=_count(8), metavar="N",
        help="of the top laser's image, for less than the data set's 2650; the others shrink along",
    )  # fmt: skip
    parser.add_argument(
        "--pictures", action="store_true", help="also render the five cameras, at a quarter's size"
    )
    _add_common(parser)
    parser.set_defaults(simulate=simulate_waymo)


def simulate_waymo(arguments: argparse.Namespace) -> None:
    from datasets.simulation.waymo_writer import FORMATS, Settings, open_folder, simulate

    settings = Settings(
        arguments.frames, arguments.val_frames, arguments.seed, arguments.segment_frames,
        arguments.gap, FORMATS if arguments.format == "both" else (arguments.format,),
        arguments.pictures, arguments.columns,
    )  # fmt: skip
    jobs = open_folder(arguments.out, settings, arguments.overwrite)
    for _ in progress(simulate(arguments.out, jobs, arguments.workers), "simulating", len(jobs)):
        pass
    print(f"{settings.frames} training and {settings.val_frames} validation frames: "
          f"{arguments.out}/{{{','.join(settings.formats)}}}")  # fmt: skip


def _add_common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--seed", type=_count(0), default=0, help="which drives (%(default)s)")
    parser.add_argument(
        "--workers",
        type=_count(1),
        default=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1,
        help="processes (%(default)s)",
    )
    parser.add_argument(
        "--overwrite", action="store_true", help="replace what a simulation wrote in --out before"
    )


def _seconds(text: str) -> float:
    value = float(text)
    if not 0.1 <= value <= 60:
        raise argparse.ArgumentTypeError(f"{value} is not between 0.1 and 60 seconds")
    return value


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
