"""Writes the small index files that make opening a large data set quick."""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from detector.cli import run_tool


def main() -> int | None:
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(metavar="DATASET", required=True)
    add_nuscenes(commands)
    arguments = parser.parse_args()
    return arguments.prepare(arguments)


def add_nuscenes(commands) -> None:
    parser = commands.add_parser(
        "nuscenes",
        help="join the 13 tables of a version folder into one index file",
        description="Joins the 13 tables of a nuScenes version folder into one index file, which "
        "every tool then finds by itself. Without it the tables are joined at each start.",
    )
    parser.add_argument("--root", required=True, help="folder that holds the version folder")
    parser.add_argument("--version", required=True, help="version folder, such as v1.0-trainval")
    parser.add_argument(
        "--out", help="index file; by default focal3d_index.npz in the version folder"
    )
    parser.set_defaults(prepare=prepare_nuscenes)


def prepare_nuscenes(arguments: argparse.Namespace) -> None:
    from datasets.nuscenes.build_index import build_index
    from datasets.nuscenes.index import INDEX_NAME

    start = time.perf_counter()
    index = build_index(arguments.root, arguments.version)
    path = Path(arguments.out or Path(arguments.root) / arguments.version / INDEX_NAME)
    index.save(path)
    print(
        f"{path}: {len(index.scene_names)} scenes, {len(index.sample_tokens)} samples, "
        f"{len(index.frame_time_us)} sensor files, {len(index.annotation_category)} boxes; "
        f"{path.stat().st_size / 1e6:.1f} MB in {time.perf_counter() - start:.1f} s"
    )


if __name__ == "__main__":
    run_tool(main)
