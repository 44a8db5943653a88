"""Scores result files of any detector with a data set's official metric."""

from __future__ import annotations

import argparse

from rich.console import Console

from detector.cli import progress, run_tool, write_json


def main() -> int | None:
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(metavar="DATASET", required=True)
    add_kitti(commands)
    add_waymo(commands)
    add_nuscenes(commands)
    arguments = parser.parse_args()
    return arguments.score(arguments)


def add_kitti(commands) -> None:
    parser = commands.add_parser(
        "kitti",
        help="KITTI 3D objects: AP of 2D, BEV and 3D boxes, orientation",
        description="Prints average precision (R40 and R11) of Car, Pedestrian and Cyclist, as "
        "KITTI's own evaluator computes it.",
    )
    parser.add_argument("--labels", required=True, help="folder of label files (label_2)")
    parser.add_argument(
        "--results",
        required=True,
        help="folder of result files: one a frame, empty where nothing was found",
    )
    parser.add_argument("--split", help="file with the ids of the frames to score, one a line")
    parser.add_argument(
        "--json",
        metavar="OUT",
        help="file for the figures: {class: {bbox, bev, 3d, aos: {R40, R11: [easy, moderate, "
        "hard]}}}; aos is null where detections lack alpha (-10)",
    )
    parser.set_defaults(score=score_kitti)


def score_kitti(arguments: argparse.Namespace) -> None:
    from datasets.kitti_files import read_objects
    from datasets.kitti_results import pair_results
    from detector.metrics.kitti import evaluate_kitti

    files = pair_results(arguments.labels, arguments.results, arguments.split)
    result = evaluate_kitti(
        (read_objects(label) for label, _ in progress(files, "reading frames")),
        (read_objects(found, with_scores=True) for _, found in files),
    )
    Console().print(result.table())
    print(f"frames scored: {len(files)}")
    if arguments.json:
        write_json(arguments.json, result.as_dict())
        print(f"figures written to {arguments.json}")


def add_waymo(commands) -> None:
    parser = commands.add_parser(
        "waymo",
        help="Waymo Open Dataset: AP and APH by type, range and difficulty",
        description="Prints AP and APH of LEVEL_1 and LEVEL_2 by object type and range, as "
        "Waymo's own compute_detection_metrics_main computes them.",
    )
    parser.add_argument(
        "--ground-truth", required=True, metavar="GT.bin",
        help="file of a serialized waymo.open_dataset.Objects with the labels",
    )  # fmt: skip
    parser.add_argument(
        "--predictions", required=True, metavar="P.bin", help="such a file with the detections"
    )
    parser.add_argument(
        "--bev", action="store_true", help="compare boxes as seen from above, not in 3D"
    )
    parser.add_argument(
        "--json", metavar="OUT",
        help='file for the figures: {"OBJECT_TYPE_TYPE_VEHICLE_LEVEL_1": {"mAP", "mAPH"}, ...}, '
        "names as the official tool prints them",
    )  # fmt: skip
    parser.set_defaults(score=score_waymo)


def score_waymo(arguments: argparse.Namespace) -> None:
    from datasets.waymo.score import score_files

    result = score_files(
        arguments.ground_truth, arguments.predictions, bev=arguments.bev,
        progress=lambda frames, count: progress(frames, "scoring frames", count),
    )  # fmt: skip
    Console().print(result.table())
    print(f"frames scored: {result.frame_count}")
    if arguments.json:
        write_json(arguments.json, result.as_dict())


def add_nuscenes(commands) -> None:
    parser = commands.add_parser(
        "nuscenes",
        help="nuScenes detection: mAP, true-positive errors, NDS",
        description="Prints the nuScenes detection metric (detection_cvpr_2019) of a result file "
        "in the official format, as the official evaluator computes it.",
    )
    parser.add_argument("--root", required=True, help="folder that holds the version folder")
    parser.add_argument("--version", required=True, help="version folder, such as v1.0-trainval")
    parser.add_argument("--results", required=True, help="result file (JSON) in official format")
    parser.add_argument(
        "--split",
        help="official split, or one of splits.json in the version folder; by default the one "
        "that the version is evaluated on (val, mini_val, test), or all samples",
    )
    parser.add_argument("--index", help="index file, if tools/prepare.py wrote it elsewhere")
    parser.add_argument(
        "--json",
        metavar="OUT",
        help="file for the figures, in the keys of the official metrics_summary.json; undefined "
        "errors are NaN there, as in the official file",
    )
    parser.set_defaults(score=score_nuscenes)


def score_nuscenes(arguments: argparse.Namespace) -> None:
    from datasets.nuscenes.score import score_results

    result, meta = score_results(
        arguments.root, arguments.version, arguments.results, arguments.split, arguments.index
    )
    Console().print(result.table())
    if arguments.json:
        write_json(arguments.json, result.as_dict(meta), allow_nan=True)
        print(f"figures written to {arguments.json}")


if __name__ == "__main__":
    run_tool(main)
