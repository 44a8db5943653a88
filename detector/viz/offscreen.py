"""Scenes -> PNG through Open3D, without a display or a GPU."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw

from detector.errors import InputError
from detector.geometry import box_corners
from detector.viz.scene import Scene
from detector.viz.style import class_color, draw_caption, draw_legend, save_png

SYSTEM_PACKAGES = ("libegl1", "libgl1", "libusb-1.0-0", "libgomp1")
"""What Open3D needs on Debian and Ubuntu."""

_SUPERSAMPLING = 2
_TIMEOUT_S = 120


def render_png(scene: Scene, path: str | Path, *, size: tuple[int, int] = (1600, 900)) -> Path:
    """Renders one scene; see `render_pngs`."""
    return render_pngs([scene], [path], size=size)[0]


def render_pngs(
    scenes: Sequence[Scene],
    paths: Sequence[str | Path],
    *,
    size: tuple[int, int] = (1600, 900),
) -> list[Path]:
    """Renders scenes to PNG files of (width, height), with legends.

    Open3D runs in another process: if it can't be loaded or its driver aborts, this one goes on.

    Raises:
        InputError: Open3D can't be loaded or can't draw (the message names the system packages to
            install), or a path can't be written.
    """
    if not scenes:
        return []
    with tempfile.TemporaryDirectory(prefix="focal3d-") as folder:
        width, height = (side * _SUPERSAMPLING for side in size)
        for index, scene in enumerate(scenes):
            write_scene(Path(folder) / f"{index}.npz", scene, (width, height), point_size=4.0)
        run_worker("render", Path(folder), _TIMEOUT_S + 5 * len(scenes))
        written = []
        for index, (scene, path) in enumerate(zip(scenes, paths, strict=True)):
            image = Image.fromarray(np.load(Path(folder) / f"{index}.npy"))
            image = image.resize(size, Image.Resampling.LANCZOS)
            _draw_scores(image, scene)
            draw_legend(image, scene.classes, scene.marks, scene.title)
            written.append(save_png(image, path))
        return written


def _draw_scores(image: Image.Image, scene: Scene) -> None:
    """The score of each detection above its box."""
    draw = ImageDraw.Draw(image, "RGBA")
    for kind in scene.marks:
        if kind.scores is None or not len(kind):
            continue
        corners = box_corners(torch.from_numpy(kind.boxes[:, :7])).numpy()
        pixels, depth = scene.view.pixels(corners.reshape(-1, 3), image.size)
        pixels, depth = pixels.reshape(-1, 8, 2), depth.reshape(-1, 8)
        for i in np.flatnonzero((depth > 1).all(1)):
            spot = (float(pixels[i, :, 0].mean()), float(pixels[i, :, 1].min()) - 4)
            words = f"{kind.scores[i]:.2f}"
            draw_caption(draw, spot, words, class_color(kind.labels[i]), anchor="mb", size=14)


def check() -> None:
    """Opens an off-screen window in another process, as `tools/doctor.py` does.

    Raises:
        InputError: Open3D can't be loaded or can't draw.
    """
    run_worker("check", Path("."), _TIMEOUT_S)


def write_scene(path: Path, scene: Scene, size: tuple[int, int], point_size: float) -> None:
    """Puts a scene where `detector/viz/worker.py` reads it."""
    np.savez(
        path,
        points=scene.points,
        point_colors=scene.point_colors,
        vertices=scene.vertices,
        triangles=scene.triangles,
        vertex_colors=scene.vertex_colors,
        background=np.array(scene.background),
        eye=np.array(scene.view.eye),
        target=np.array(scene.view.target),
        field_of_view=scene.view.field_of_view,
        point_size=point_size,
        size=np.array(size),
    )


def run_worker(mode: str, folder: Path, timeout_s: float | None) -> None:
    """Runs `detector/viz/worker.py`; raises InputError in a sentence for the user if it fails."""
    worker = Path(__file__).with_name("worker.py")
    try:
        done = subprocess.run(
            [sys.executable, str(worker), mode, str(folder)],
            capture_output=True, text=True, errors="replace", timeout=timeout_s,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise InputError(
            f"Open3D did not finish within {timeout_s:g} s; draw without it "
            f"(the view from above needs no Open3D)"
        ) from None
    if done.returncode == 0:
        return
    last = (done.stdout.strip() or done.stderr.strip() or "no output").splitlines()[-1]
    kind, _, reason = last.partition(": ")
    if done.returncode == 3 and kind == "import" and "No module named 'open3d'" in reason:
        raise InputError("Open3D is not installed; run: pip install open3d-cpu")
    if done.returncode == 3 and kind == "display":
        raise InputError(f"the display {reason}; write a picture instead, which needs none")
    if done.returncode == 3:
        what = "can't be loaded" if kind == "import" else "can't draw"
    else:
        what, reason = f"stopped with exit status {done.returncode}", last
    raise InputError(
        f"Open3D {what} ({reason}); on Debian or Ubuntu run: "
        f"apt-get install {' '.join(SYSTEM_PACKAGES)}"
    )
