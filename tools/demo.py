"""The whole way in minutes, without a download or a GPU: simulate a drive, train a detector on it,
evaluate it on scenes it never saw, and draw what it finds; then what the detector finds that
comes with the project.

python tools/demo.py [--out demo] [--quick]

A step that is complete is not done again; one that was stopped goes on where it was.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from detector.cli import run_tool
from detector.errors import InputError

if TYPE_CHECKING:
    from detector.records import Sample

REPOSITORY = Path(__file__).resolve().parents[1]
CONFIG = REPOSITORY / "configs" / "kitti" / "simulated_focal_centerpoint.py"
FRAMES, VALIDATION_FRAMES, PICTURES = 240, 80, 3
MIN_SCORE = 0.4
"""Of boxes that are drawn."""


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("demo"), help="folder for everything")
    parser.add_argument("--seed", type=int, default=0, help="of the simulated drive")
    parser.add_argument(
        "--quick", action="store_true",
        help="a few frames and steps, to see that everything works; its scores mean nothing",
    )  # fmt: skip
    arguments = parser.parse_args()
    started = time.perf_counter()
    out: Path = arguments.out
    data, run = out / "kitti", out / "run"
    frames, validation = (4, 2) if arguments.quick else (FRAMES, VALIDATION_FRAMES)
    options = [
        f"train_dataset.root={data}", f"val_dataset.root={data}",
        f"train_transforms.0.database={data / 'paste_train.db'}",
    ]  # fmt: skip
    if arguments.quick:
        options += ["epochs=1"]

    step(
        f"1/6 simulating {frames} + {validation} frames", data / "complete", arguments,
        "simulate.py", "kitti", "--out", data, "--frames", frames, "--val-frames", validation,
        "--scene-frames", 1, "--seed", arguments.seed,
    )  # fmt: skip
    step(
        "2/6 collecting objects to paste into other frames", data / "pasted", arguments,
        "prepare.py", "paste", CONFIG, "--cfg-options", *options,
    )  # fmt: skip
    resume = ["--resume"] if (run / "latest.pth").exists() else []
    step(
        "3/6 training", run / "complete", arguments,
        "train.py", CONFIG, "--work-dir", run, *resume, "--cfg-options", *options,
    )  # fmt: skip
    checkpoint = run / "best.pth"
    print("== 4/6 evaluating", flush=True)
    call(
        "evaluate.py", CONFIG, checkpoint, "--json", out / "figures.json",
        "--results", out / "results", "--cfg-options", *options,
    )  # fmt: skip
    print("== 5/6 drawing", flush=True)
    samples = busiest(options, 1 if arguments.quick else PICTURES)
    pictures = draw(checkpoint, options, samples, out / "pictures")
    print("== 6/6 the same frames with the detector that comes with the project", flush=True)
    scans = [data / "training" / "velodyne" / f"{sample.frame_id}.bin" for sample in samples]
    call(
        "detect.py", "--checkpoint", "demo", *scans, "--out", out / "pretrained",
        "--picture", out / "pretrained" / "above.png",
    )  # fmt: skip
    pictures += sorted((out / "pretrained").glob("above*.png"))
    print(f"\nfigures:    {out / 'figures.json'}")
    print(f"checkpoint: {checkpoint}")
    for picture in pictures:
        print(f"picture:    {picture}")
    print(f"done in {(time.perf_counter() - started) / 60:.1f} min")
    return 0


def step(title: str, marker: Path, arguments: argparse.Namespace, *command) -> None:
    """Runs a tool unless its marker says that it ran to its end with the same arguments."""
    about = json.dumps({"quick": arguments.quick, "seed": arguments.seed})
    if marker.exists():
        if marker.read_text() != about:
            raise InputError(
                f"{marker.parent}: was made with other options ({marker.read_text()}); choose "
                f"another --out, or delete {marker.parent.parent}"
            )
        print(f"== {title}: already done", flush=True)
        return
    print(f"== {title}", flush=True)
    started = time.perf_counter()
    call(*command)
    marker.write_text(about)
    print(f"   took {time.perf_counter() - started:.0f} s", flush=True)


def call(tool: str, *arguments) -> None:
    """Runs one of the other tools; stops where it does. On Ctrl-C the tool ends by itself first,
    as training saves before it does."""
    path = os.pathsep.join(filter(None, [str(REPOSITORY), os.environ.get("PYTHONPATH")]))
    command = [sys.executable, str(REPOSITORY / "tools" / tool), *map(str, arguments)]
    process = subprocess.Popen(command, env={**os.environ, "PYTHONPATH": path})
    try:
        status = process.wait()
    except KeyboardInterrupt:
        process.wait()
        status = 130
    if status:
        if status != 2:                     # 2: something to mend first, which the tool has said
            print("stopped; the same command goes on from here", flush=True)
        raise SystemExit(status)


def busiest(options: list[str], count: int) -> list[Sample]:
    """The validation frames with most objects."""
    from detector.config import build, load_config

    samples = build(load_config(CONFIG, options).val_dataset)
    return sorted(samples, key=lambda s: -len(s.boxes))[:count]


def draw(
    checkpoint: Path, options: list[str], samples: list[Sample], folder: Path
) -> list[Path]:
    """Pictures of frames, truth and detections, from above and in 3D."""
    from detector.config import load_config
    from detector.inference import detect, load_model
    from detector.viz.bev import draw_bev
    from detector.viz.offscreen import render_pngs
    from detector.viz.scene import build_scene

    config = load_config(CONFIG, options)
    found = detect(load_model(config, checkpoint), samples)
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for sample, detections in zip(samples, found, strict=True):
        written.append(folder / f"{sample.frame_id}_above.png")
        draw_bev(sample, config.classes, written[-1], detections, min_score=MIN_SCORE)
    scenes = [
        build_scene(sample, config.classes, detections, min_score=MIN_SCORE)
        for sample, detections in zip(samples, found, strict=True)
    ]
    try:
        written += render_pngs(scenes, [folder / f"{s.frame_id}_3d.png" for s in samples])
    except InputError as error:
        print(f"no 3D pictures: {error}", flush=True)
    return written


if __name__ == "__main__":
    run_tool(main)
