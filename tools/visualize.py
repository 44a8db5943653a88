"""Draws frames of a data set: from above, in 3D and on the camera's picture."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from detector.cli import progress, run_tool
from detector.errors import InputError

KINDS = ("bev", "3d", "image")


def main() -> int | None:
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(metavar="DATASET", required=True)
    add_kitti(commands)
    add_nuscenes(commands)
    arguments = parser.parse_args()
    return arguments.visualize(arguments)


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options that every data set has."""
    parser.add_argument("--root", required=True, type=Path, help="folder of the data set")
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--frame", nargs="+", metavar="ID", help="frames to draw")
    which.add_argument("--split", help="draw all frames of this split")
    parser.add_argument("--results", metavar="DIR", type=Path, help="result files to draw as well")
    parser.add_argument(
        "--min-score", type=float, default=0.3, metavar="S",
        help="leave out detections with a lower score (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--kinds", nargs="+", choices=KINDS, help="what to draw (default: all that the data allow)"
    )
    parser.add_argument(
        "--out", type=Path, default=Path("pictures"), metavar="PATH",
        help="folder for ID_KIND.png, or a file .png for one frame (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--color", default="height", metavar="BY", help="colour points by height or intensity"
    )
    parser.add_argument("--view", action="store_true", help="open a window instead")
    parser.add_argument(
        "--augment", action="store_true",
        help="draw each augmentation instead, before and after, into the folder --out",
    )  # fmt: skip
    parser.add_argument(
        "--database", type=Path, metavar="FILE",
        help="objects to paste with --augment, of tools/prepare.py paste (default: those of up to "
        "50 frames beside the ones drawn)",
    )  # fmt: skip
    parser.add_argument("--seed", type=int, default=0, help="of --augment (default: %(default)s)")


def add_kitti(commands) -> None:
    parser = commands.add_parser("kitti", help="frames in KITTI's layout")
    add_options(parser)
    parser.add_argument("--testing", action="store_true", help="frames of testing/, not training/")
    parser.add_argument(
        "--whole-scan", action="store_true", help="all points, not only those the camera sees"
    )
    parser.add_argument(
        "--drop-not-finite", action="store_true", help="leave out points that are NaN or infinite"
    )
    parser.set_defaults(visualize=visualize_kitti)


def visualize_kitti(arguments: argparse.Namespace) -> None:
    from datasets.kitti import KittiDataset

    if arguments.augment:
        augment_kitti(arguments)
        return
    folder = "testing" if arguments.testing else "training"
    options = dict(
        classes=("Car", "Pedestrian", "Cyclist", "Van", "Truck", "Person_sitting", "Tram", "Misc"),
        folder=folder if arguments.testing or arguments.frame else None,
        crop_to_camera=not arguments.whole_scan,
        drop_not_finite=arguments.drop_not_finite,
    )
    split = arguments.frame or arguments.split
    dataset = KittiDataset(arguments.root, split, with_labels=False, **options)
    dataset = KittiDataset(
        arguments.root,
        split,
        with_labels=dataset.path("label_2").is_dir(),
        with_images=dataset.with_image_sizes,
        **options,
    )
    draw(dataset, arguments)


def augment_kitti(arguments: argparse.Namespace) -> None:
    from datasets.kitti import KittiDataset

    options = dict(
        folder="training", with_labels=True, crop_to_camera=not arguments.whole_scan,
        drop_not_finite=arguments.drop_not_finite,
    )  # fmt: skip
    dataset = KittiDataset(arguments.root, arguments.frame or arguments.split, **options)
    beside = sorted(path.stem for path in dataset.path("velodyne").glob("*.bin"))[:50]
    draw_augmented(dataset, KittiDataset(arguments.root, beside, **options), arguments)


def add_nuscenes(commands) -> None:
    parser = commands.add_parser("nuscenes", help="key frames of nuScenes")
    add_options(parser)
    parser.add_argument("--version", required=True, help="version folder, such as v1.0-mini")
    parser.add_argument(
        "--sensors", nargs="+", default=["lidar"], choices=("lidar", "radar"),
        help="whose points to draw (default: lidar)",
    )  # fmt: skip
    parser.add_argument(
        "--sweeps", type=int, default=1, metavar="N", help="of each sensor (default: %(default)s)"
    )
    parser.add_argument("--index", help="index file, if tools/prepare.py wrote it elsewhere")
    parser.set_defaults(visualize=visualize_nuscenes)


def visualize_nuscenes(arguments: argparse.Namespace) -> None:
    from datasets.nuscenes import NuScenesDataset

    dataset = NuScenesDataset(
        arguments.root, arguments.version, arguments.split or "all",
        sensors=arguments.sensors, lidar_sweeps=arguments.sweeps, radar_sweeps=arguments.sweeps,
        with_images=not arguments.augment, index=arguments.index,
    )  # fmt: skip
    chosen = dataset.only(arguments.frame) if arguments.frame else dataset
    if arguments.augment:
        draw_augmented(chosen, dataset.only(dataset.frame_ids[:50]), arguments)
    else:
        draw(chosen, arguments)


def draw_augmented(dataset, beside, arguments: argparse.Namespace) -> None:
    """Pictures of each augmentation; objects to paste come from the frames `beside`, if from no
    file."""
    from tempfile import TemporaryDirectory

    from datasets.augment.paste_database import ObjectsOfFrames, write_paste_database
    from datasets.augment.pictures import draw_augmentations, shown_transforms

    if arguments.out.suffix.lower() == ".png":
        raise InputError(
            f"--out {arguments.out} is one file, but --augment draws several; give a folder"
        )
    with TemporaryDirectory() as folder:
        database = arguments.database
        if database is None:
            database = Path(folder) / "objects.db"
            objects = ObjectsOfFrames(beside)
            frames = progress((objects[i] for i in range(len(beside))), "cutting", len(beside))
            write_paste_database(database, frames, dataset.classes, "frames beside")
        transforms = shown_transforms(database, dataset.classes)
        for index in range(len(dataset)):
            for path in draw_augmentations(
                dataset[index], transforms, dataset.classes, arguments.out, arguments.seed,
                arguments.color,
            ):  # fmt: skip
                print(path)


def draw(dataset, arguments: argparse.Namespace) -> None:
    """Frames of `dataset` (which has `frame_ids`, `classes` and `read_results`) as asked for."""
    one_file = arguments.out.suffix.lower() == ".png"
    if one_file and len(dataset) > 1:
        raise InputError(
            f"--out {arguments.out} is one file, but {len(dataset)} frames were asked for; "
            f"give a folder"
        )
    for index in progress(range(len(dataset)), "drawing"):
        sample = dataset[index]
        detections = None
        if arguments.results is not None:
            detections = dataset.read_results(arguments.results, sample.frame_id)
        if arguments.view:
            from detector.viz.viewer import show

            print(f"{sample.frame_id}: close the window to go on", flush=True)
            show(scene_of(sample, dataset.classes, detections, arguments))
            continue
        kinds = arguments.kinds or [k for k in KINDS if k != "image" or sample.cameras]
        for kind in kinds:
            if not one_file:
                path = arguments.out / f"{sample.frame_id}_{kind}.png"
            elif len(kinds) == 1:
                path = arguments.out
            else:
                path = arguments.out.with_name(f"{arguments.out.stem}_{kind}.png")
            draw_kind(kind, path, sample, dataset.classes, detections, arguments)


def draw_kind(kind, path, sample, classes, detections, arguments) -> None:
    from detector.viz.bev import draw_bev
    from detector.viz.image import draw_images
    from detector.viz.offscreen import render_png

    marks = dict(detections=detections, min_score=arguments.min_score)
    try:
        if kind == "bev":
            draw_bev(sample, classes, path, color_by=arguments.color, **marks)
        elif kind == "image":
            draw_images(sample, classes, path, **marks)
        else:
            render_png(scene_of(sample, classes, detections, arguments), path)
    except InputError as error:
        # Without Open3D the other pictures are still worth having, unless this one was asked for.
        if kind != "3d" or arguments.kinds:
            raise
        print(f"no 3D picture: {error}", file=sys.stderr)
        return
    print(path)


def scene_of(sample, classes, detections, arguments):
    from detector.viz.scene import build_scene

    return build_scene(
        sample, classes, detections, color_by=arguments.color, min_score=arguments.min_score
    )


if __name__ == "__main__":
    run_tool(main)
