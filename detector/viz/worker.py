"""Open3D in a process of its own, so that a driver that aborts takes nothing else along.

    python worker.py {check,render,view} FOLDER

FOLDER holds scenes `0.npz`, `1.npz`, ... as `detector.viz.offscreen` writes them; `render` puts
`0.npy`, ... beside them, and `check` draws nothing but a window. Ends with 0, or with 3 and one
line on stdout about what failed.
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# Run by path: the neighbours in this folder must not hide modules that Open3D imports.
sys.path[:] = [entry for entry in sys.path if Path(entry or ".").resolve() != Path(__file__).parent]

import numpy as np  # noqa: E402


def main() -> int:
    mode, folder = sys.argv[1], Path(sys.argv[2])
    try:
        import open3d as o3d
    except (ImportError, OSError) as error:
        return _failed(f"import: {error}")
    if mode == "check":
        window = _Window(o3d, 64, 48, visible=False)
        return 0 if window.open else _failed("window: no OpenGL context could be made")
    scenes = [np.load(path) for path in sorted(folder.glob("*.npz"), key=lambda p: int(p.stem))]
    width, height = scenes[0]["size"].tolist()
    with _said() as lines:
        window = _Window(o3d, width, height, visible=mode == "view")
    if not window.open:
        return _failed("window: no OpenGL context could be made")
    if mode == "view" and any("offscreen" in line.lower() for line in lines):
        # Open3D goes on without a display, where nobody could ever close the window.
        return _failed(f"display: {os.environ.get('DISPLAY', '')} can't be opened")
    for index, scene in enumerate(scenes):
        window.draw(scene)
        if mode == "view":
            window.visualizer.run()
        else:
            np.save(folder / f"{index}.npy", window.picture())
    window.visualizer.destroy_window()
    return 0


@contextmanager
def _said() -> Iterator[list[str]]:
    """Gathers the lines that Open3D prints meanwhile, from C++ too."""
    lines: list[str] = []
    sys.stdout.flush()
    kept = os.dup(1)
    with tempfile.TemporaryFile("w+", errors="replace") as file:
        os.dup2(file.fileno(), 1)
        try:
            yield lines
        finally:
            os.dup2(kept, 1)
            os.close(kept)
            file.seek(0)
            lines += file.read().splitlines()


class _Window:
    def __init__(self, o3d, width: int, height: int, visible: bool):
        self.o3d, self.size = o3d, (width, height)
        self.visualizer = o3d.visualization.Visualizer()
        self.open = self.visualizer.create_window(
            "Focal3D", width, height, left=60, top=60, visible=visible
        )

    def draw(self, scene) -> None:
        o3d, visualizer = self.o3d, self.visualizer
        visualizer.clear_geometries()
        cloud = o3d.geometry.PointCloud(o3d.utility.Vector3dVector(scene["points"].astype(float)))
        cloud.colors = o3d.utility.Vector3dVector(scene["point_colors"].astype(float))
        mesh = o3d.geometry.TriangleMesh(
            o3d.utility.Vector3dVector(scene["vertices"].astype(float)),
            o3d.utility.Vector3iVector(scene["triangles"]),
        )
        mesh.vertex_colors = o3d.utility.Vector3dVector(scene["vertex_colors"].astype(float))
        for geometry in (cloud, mesh):
            if not geometry.is_empty():
                visualizer.add_geometry(geometry)
        options = visualizer.get_render_option()
        options.background_color = scene["background"] / 255.0
        options.point_size = float(scene["point_size"])
        options.light_on = False
        self._look(scene)

    def _look(self, scene) -> None:
        """Places the camera at `eye`, looking at `target`."""
        width, height = self.size
        eye, target = scene["eye"].astype(float), scene["target"].astype(float)
        forward = (target - eye) / np.linalg.norm(target - eye)
        right = np.cross(forward, [0.0, 0, 1])
        right /= np.linalg.norm(right)
        camera_from_ego = np.eye(4)
        camera_from_ego[:3, :3] = [right, np.cross(forward, right), forward]
        camera_from_ego[:3, 3] = -camera_from_ego[:3, :3] @ eye
        focal_length = height / 2 / np.tan(np.deg2rad(float(scene["field_of_view"])) / 2)
        camera = self.o3d.camera.PinholeCameraParameters()
        camera.intrinsic = self.o3d.camera.PinholeCameraIntrinsic(
            width, height, focal_length, focal_length, width / 2 - 0.5, height / 2 - 0.5
        )
        camera.extrinsic = camera_from_ego
        control = self.visualizer.get_view_control()
        control.set_constant_z_near(0.5)
        control.set_constant_z_far(500)
        control.convert_from_pinhole_camera_parameters(camera, allow_arbitrary=True)

    def picture(self) -> np.ndarray:
        """(H, W, 3) uint8."""
        self.visualizer.poll_events()
        self.visualizer.update_renderer()
        picture = np.asarray(self.visualizer.capture_screen_float_buffer(do_render=True))
        return (np.clip(picture, 0, 1) * 255).round().astype(np.uint8)


def _failed(sentence: str) -> int:
    print("\n" + sentence)
    return 3


if __name__ == "__main__":
    sys.exit(main())
