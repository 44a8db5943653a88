"""Finds objects in scans:
python tools/detect.py CONFIG CHECKPOINT scan.bin|FOLDER ... --out DIR [--view | --picture out.png]
python tools/detect.py --checkpoint demo scan.bin|FOLDER ... --out DIR

`demo` comes with the project: cars, pedestrians and cyclists, learnt from simulated KITTI scans.
Scans are KITTI's .bin files. Each gets DIR/ID.json with boxes in the scanner's frame; one that
lies in KITTI's layout, calibration beside it, is cropped to the camera's view and gets a KITTI
result file DIR/ID.txt, too.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from detector.cli import run_tool
from detector.errors import InputError


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter,
        usage="%(prog)s (CONFIG CHECKPOINT | --checkpoint NAME) SCANS ... --out DIR [options]",
    )
    parser.add_argument(
        "paths", nargs="+", type=Path, metavar="PATH",
        help="the config, its checkpoint, such as work_dirs/NAME/best.pth, then scans: .bin files "
        "or folders of them; scans alone after --checkpoint",
    )  # fmt: skip
    parser.add_argument(
        "--checkpoint", metavar="NAME", help="demo, or a file of tools/publish.py"
    )
    parser.add_argument("--out", type=Path, required=True, help="folder for the detections")
    parser.add_argument(
        "--min-score", type=float, default=0.3, metavar="S",
        help="of what is counted and drawn (default: %(default)s); all is written",
    )  # fmt: skip
    parser.add_argument(
        "--drop-not-finite", action="store_true", help="leave out points that are NaN or infinite"
    )
    parser.add_argument("--device", help="such as cpu or cuda:1; default: a GPU where there is one")
    parser.add_argument(
        "--cuda-graph", action=argparse.BooleanOptionalAction,
        help="replay the whole detector as one CUDA graph; default: on a GPU, where it can be",
    )  # fmt: skip
    parser.add_argument(
        "--cfg-options", nargs="+", default=[], metavar="NAME=VALUE",
        help="change settings, such as model.head.nms_iou=0.3",
    )  # fmt: skip
    drawn = parser.add_mutually_exclusive_group()
    drawn.add_argument("--view", action="store_true", help="show each frame in a window")
    drawn.add_argument(
        "--picture", type=Path, metavar="PNG",
        help="draw the frame from above; for several scans, PNG gets each one's name added",
    )  # fmt: skip
    return parser.parse_args()


def main() -> int:
    arguments = parse()
    known = 0 if arguments.checkpoint else 2
    named, scans = arguments.paths[:known], arguments.paths[known:]

    from datasets.kitti_files import write_objects
    from datasets.scans import draw, find_scans, read_frame
    from detector.config import load_config
    from detector.inference import as_dict, detect, load_model, predictor
    from detector.pretrained import choose
    from detector.training.checkpoint import save_text

    if not scans:
        raise InputError("no scan is named; after CONFIG and CHECKPOINT, or --checkpoint demo, "
                         "come .bin files or folders of them")  # fmt: skip
    chosen = choose(arguments.checkpoint, *(named or (None, None)))
    config = load_config(chosen.config, [*chosen.options, *arguments.cfg_options])
    scans = find_scans(scans)
    model = load_model(config, chosen.checkpoint, arguments.device)
    predict = predictor(model, arguments.cuda_graph)
    blank = []
    for path in scans:
        frame = read_frame(path, arguments.drop_not_finite)
        (found,) = detect(model, [frame.sample], predict=predict)
        text = json.dumps(as_dict(found, config.classes), indent=1)
        save_text(arguments.out / f"{path.stem}.json", text + "\n")
        if frame.calibration is not None:
            objects = frame.result_objects(found, config.classes)
            write_objects(arguments.out / f"{path.stem}.txt", objects)
        strong = found.labels[found.scores >= arguments.min_score]
        counts = {name: int((strong == i).sum()) for i, name in enumerate(config.classes)}
        words = ", ".join(f"{count} {name}" for name, count in counts.items() if count)
        if not model.points_in_range(frame.sample.points):
            low, high = model.grid.minimum, model.grid.maximum
            count = len(frame.sample.points)
            words = f"none of its {count} points lies in the detector's range {low} to {high} m"
            blank.append(f"{path}: {words}")
        print(f"{path.stem}: {words or f'nothing scored {arguments.min_score} or more'}")
        if arguments.view or arguments.picture:
            picture = arguments.picture
            if picture and len(scans) > 1:
                picture = picture.with_name(f"{picture.stem}_{path.stem}{picture.suffix}")
            draw(frame, found, config.classes, picture, arguments.min_score)
    print(f"detections: {arguments.out}")
    if blank:
        raise InputError(
            f"{blank[0]}, so that nothing can be found there ({len(blank)} of {len(scans)} scans "
            f"are like that); is it whole, in metres, x forward?"
        )
    return 0


if __name__ == "__main__":
    run_tool(main)
