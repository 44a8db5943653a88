"""Readies a data set for training: checks it, and writes the small files that it lacks."""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from detector.cli import progress, run_tool, write_json
from detector.errors import InputError


def main() -> int | None:
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(metavar="DATASET", required=True)
    add_kitti(commands)
    add_nuscenes(commands)
    add_waymo(commands)
    add_paste(commands)
    arguments = parser.parse_args()
    return arguments.prepare(arguments)


def add_kitti(commands) -> None:
    parser = commands.add_parser(
        "kitti",
        help="KITTI 3D objects, or anything in its layout",
        description="Reads every file of training/ and testing/ and says what is wrong with it; "
        "writes ImageSets/{train,val,trainval,test}.txt where they are absent. Ends with status 2 "
        "if something has to be mended.",
    )
    parser.add_argument("--root", required=True, type=Path, help="folder with training/")
    parser.add_argument(
        "--splits", metavar="DIR", type=Path,
        help="folder with train.txt, val.txt, ... to take the splits from; KITTI ships none",
    )  # fmt: skip
    parser.add_argument(
        "--check-only", action="store_true", help="write nothing, as for a read-only folder"
    )
    parser.add_argument("--report", metavar="OUT", help="JSON file for every finding")
    parser.add_argument(
        "--show", type=int, default=20, metavar="N", help="findings to print (default: %(default)s)"
    )
    parser.set_defaults(prepare=prepare_kitti)


def prepare_kitti(arguments: argparse.Namespace) -> None:
    from rich.console import Console

    from datasets.kitti_check import check_frame, check_split, frames_present, missing_files
    from datasets.kitti_report import frames_table, objects_tables
    from datasets.kitti_splits import write_splits

    console = Console()
    root = arguments.root
    present = {"training": frames_present(root / "training"), "testing": []}
    if (root / "testing" / "velodyne").is_dir():
        present["testing"] = frames_present(root / "testing")
    errors, remarks = [], []
    for name, ids in present.items():
        labelled = name == "training"
        errors += missing_files(root / name, ids, labelled)
        checks = [
            check_frame(root / name, i, labelled) for i in progress(ids, f"reading {name}")
        ]
        errors += [sentence for check in checks for sentence in check.errors]
        remarks += [sentence for check in checks for sentence in check.remarks]
        if checks:
            console.print(frames_table(name, checks))
        if labelled:
            console.print(*objects_tables(checks))
    if not arguments.check_only:
        for sentence in write_splits(root, present["training"], present["testing"],
                                     arguments.splits):  # fmt: skip
            console.print(sentence, style="bold yellow" if "ATTENTION" in sentence else "",
                          highlight=False, soft_wrap=True)  # fmt: skip
    for path in sorted((root / "ImageSets").glob("*.txt")):
        folder = "testing" if path.stem in ("test", "testing") else "training"
        errors += check_split(path, set(present[folder]))
    for mark, style, sentences in (("error", "red", errors), ("look", "yellow", remarks)):
        for sentence in sentences[: arguments.show]:
            console.print(f"{mark}: {sentence}", style=style, highlight=False, soft_wrap=True)
        if len(sentences) > arguments.show:
            console.print(f"... and {len(sentences) - arguments.show} more; see --report or --show")
    if arguments.report:
        write_json(arguments.report, {"errors": errors, "remarks": remarks})
    if errors:
        raise InputError(
            f"{root}: mend what is marked 'error' above ({len(errors)}) before training; look at "
            f"what is marked 'look' ({len(remarks)})"
        )
    look = f"look at what is marked 'look' above ({len(remarks)})" if remarks else "all is well"
    console.print(f"{root}: ready; {look}.", highlight=False, soft_wrap=True)


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


def add_waymo(commands) -> None:
    parser = commands.add_parser(
        "waymo",
        help="Waymo Open Dataset, in either format: an index of the frames",
        description="Looks once into every file of a split and writes an index of its frames, "
        "which every tool then finds by itself. Without it the files are opened at each start.",
    )
    parser.add_argument("--root", required=True, type=Path, help="folder that holds the splits")
    parser.add_argument("--split", required=True, help="one of them, such as training")
    parser.add_argument(
        "--out", type=Path, help="index file; by default focal3d_index.npz in the split's folder"
    )
    parser.add_argument(
        "--ground-truth", type=Path, metavar="GT.bin",
        help="also write the labels as one file for tools/score.py waymo",
    )  # fmt: skip
    parser.set_defaults(prepare=prepare_waymo)


def prepare_waymo(arguments: argparse.Namespace) -> None:
    from datasets.waymo import WaymoDataset
    from datasets.waymo.segments import INDEX_NAME, open_segments, save_index

    start = time.perf_counter()
    folder = arguments.root / arguments.split
    segments = open_segments(
        folder, anew=True, progress=lambda files: progress(files, "opening files")
    )
    path = arguments.out or folder / INDEX_NAME
    save_index(path, segments)
    print(
        f"{path}: {len(segments)} segments, {sum(len(s.table.times_us) for s in segments)} frames; "
        f"{path.stat().st_size / 1e6:.1f} MB in {time.perf_counter() - start:.1f} s"
    )
    if arguments.ground_truth:
        dataset = WaymoDataset(arguments.root, arguments.split, index=path)
        print(f"labels: {dataset.write_ground_truth(arguments.ground_truth)}")


def add_paste(commands) -> None:
    parser = commands.add_parser(
        "paste",
        help="the database of objects for ground-truth paste, for any data set",
        description="Cuts the true objects, with their points, out of a config's training frames "
        "and writes them to the one file that the config's GroundTruthPaste reads.",
    )
    parser.add_argument("config", type=Path, help="a file of configs/")
    parser.add_argument("--out", type=Path, help="default: the file that the config names")
    parser.add_argument(
        "--workers", type=int, default=2, metavar="N",
        help="processes that read frames (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument("--check", action="store_true", help="read an existing file instead")
    parser.add_argument(
        "--cfg-options", nargs="+", default=[], metavar="NAME=VALUE",
        help="change settings, such as train_dataset.root=data/other",
    )  # fmt: skip
    parser.set_defaults(prepare=prepare_paste)


def prepare_paste(arguments: argparse.Namespace) -> None:
    from datasets.augment.paste_database import PasteDatabase
    from datasets.augment.prepare_paste import database_path, prepare_paste
    from detector.config import load_config

    config = load_config(arguments.config, arguments.cfg_options)
    path = arguments.out or database_path(config)
    start = time.perf_counter()
    if arguments.check:
        database = PasteDatabase(path)
        for _ in progress(database.check(), "checking", len(database)):
            pass
    else:
        database = prepare_paste(
            config, path, arguments.workers, lambda frames, n: progress(frames, "reading", n)
        )
    names = ", ".join(f"{(database.labels == i).sum()} {name}"
                      for i, name in enumerate(database.classes))  # fmt: skip
    print(
        f"{path}: {names} of {len(database.frame_ids)} frames ({database.source}); "
        f"{path.stat().st_size / 1e6:.1f} MB, {time.perf_counter() - start:.1f} s"
    )


if __name__ == "__main__":
    run_tool(main)
