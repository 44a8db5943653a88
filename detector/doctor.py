"""What is installed, what would be used, and what is missing: a sentence each."""

from __future__ import annotations

import importlib
import os
import platform
import sys
from dataclasses import dataclass
from enum import Enum
from importlib import metadata

from packaging.version import Version

from detector.errors import InputError


class State(Enum):
    """How much a finding matters."""

    OK = "ok"
    OPTIONAL = "--"
    """Not there, and only needed by those who ask for it."""
    LIMITED = "!"
    """Something does not work; the rest does."""
    BROKEN = "x"
    """Focal3D can't be used."""


@dataclass(frozen=True)
class Finding:
    state: State
    sentence: str


# Module, distribution, oldest version that works (see setup.cfg), what it is for.
REQUIRED = (
    ("torch", "torch", "2.4", "models and training"),
    ("numpy", "numpy", "1.26", "arrays"),
    ("numba", "numba", "0.60", "the kernels for CPUs"),
    ("scipy", "scipy", "1.11", "metrics"),
    ("mmengine", "mmengine-lite", "0.10.7", "configs and the training loop"),
    ("cv2", "opencv-python-headless", "4.5", "pictures of cameras"),
    ("matplotlib", "matplotlib", "3.8", "fonts of pictures"),
    ("PIL", "pillow", "9.2", "pictures"),
    ("rich", "rich", "13", "tables and progress"),
    ("jaxtyping", "jaxtyping", "0.2.30", "annotated shapes"),
    ("tensorboard", "tensorboard", "2", "training curves"),
)
# Other distributions that bring the same module.
ALTERNATIVES = {
    "mmengine-lite": ("mmengine",),
    "opencv-python-headless": ("opencv-python", "opencv-contrib-python"),
    "open3d-cpu": ("open3d",),
}
OPTIONAL = (
    ("nuscenes", "nuscenes-devkit", "to check nuScenes figures against the official code",
     "pip install 'focal3d[nuscenes]'"),
    ("pyarrow", "pyarrow", "to read Waymo's Parquet files", "pip install 'focal3d[waymo]'"),
    ("google.protobuf", "protobuf", "to read Waymo's TFRecord files",
     "pip install 'focal3d[waymo]'"),
    ("spconv", "spconv", "to check our sparse convolutions against another implementation",
     "pip install 'focal3d[spconv]'"),
    ("torchsparse", "torchsparse", "as another sparse engine",
     "build it from its sources"),
)  # fmt: skip


def examine() -> list[Finding]:
    """Everything worth knowing, in the order in which it is worth reading."""
    findings = [_python()]
    findings += [_required(*entry) for entry in REQUIRED]
    if usable(findings):
        findings += [_open3d(), _device(), _engine()]
    findings += [_optional(*entry) for entry in OPTIONAL]
    return findings


def usable(findings: list[Finding]) -> bool:
    """Whether frames can be read, trained on and detected in; pictures in 3D may be missing."""
    return all(finding.state is not State.BROKEN for finding in findings)


def installed_version(distribution: str) -> str | None:
    """Version of a distribution, or of another that brings the same module."""
    for name in (distribution, *ALTERNATIVES.get(distribution, ())):
        try:
            return metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return None


def _python() -> Finding:
    where = f"Python {platform.python_version()} on {platform.system()} {platform.machine()}"
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    if sys.version_info >= (3, 13):
        return Finding(State.LIMITED, f"{where} is newer than what is tested (3.10 to 3.12).")
    return Finding(State.OK, f"{where}, {cores} CPU cores for this process.")


def _required(module: str, distribution: str, oldest: str, purpose: str) -> Finding:
    found = installed_version(distribution)
    if found is None:
        return Finding(
            State.BROKEN,
            f"{distribution} ({purpose}) is not installed; run `make install`, or pip install "
            f"'{distribution}>={oldest}'.",
        )
    if Version(found).release < Version(oldest).release:
        return Finding(
            State.BROKEN,
            f"{distribution} {found} is too old; run pip install '{distribution}>={oldest}'.",
        )
    if reason := _import_failure(module):
        return Finding(
            State.BROKEN,
            f"{distribution} {found} is installed but can't be imported ({reason}); "
            f"install it again.",
        )
    return Finding(State.OK, f"{distribution} {found} ({purpose}).")


def _open3d() -> Finding:
    from detector.viz import offscreen

    found = installed_version("open3d-cpu")
    try:
        offscreen.check()
    except InputError as error:
        return Finding(State.LIMITED, f"No pictures in 3D and no simulation: {error}.")
    window = "a window with --view would open on this display"
    if sys.platform.startswith("linux"):
        from detector.viz.viewer import has_display

        if not has_display(os.environ):
            window = "there is no display for --view"
    return Finding(State.OK, f"open3d {found} drew off-screen in a process of its own; {window}.")


def _device() -> Finding:
    import torch

    if torch.cuda.is_available():
        try:
            # A GPU that this torch has no code for is only noticed at the first use.
            torch.ones(8, device="cuda").sum().item()
        except RuntimeError as error:
            return Finding(
                State.LIMITED,
                f"The GPU can't be used ({str(error).splitlines()[0]}); --device cpu works. "
                f"Install a torch build for this GPU and driver.",
            )
        names = [
            f"{torch.cuda.get_device_name(i)} "
            f"({torch.cuda.get_device_properties(i).total_memory / 2**30:.0f} GiB)"
            for i in range(torch.cuda.device_count())
        ]
        return Finding(
            State.OK,
            f"Device: cuda would be used: {', '.join(names)}; torch is built for CUDA "
            f"{torch.version.cuda}.",
        )
    threads = torch.get_num_threads()
    if torch.version.cuda is None:
        return Finding(
            State.OK,
            f"Device: the CPU would be used, with {threads} threads; this torch is built without "
            f"CUDA.",
        )
    return Finding(
        State.LIMITED,
        f"Device: the CPU would be used, with {threads} threads; torch is built for CUDA "
        f"{torch.version.cuda} but sees no GPU: check `nvidia-smi`; a container needs --gpus all.",
    )


def _engine() -> Finding:
    """Runs a small sparse convolution as the models do, and says on what."""
    import torch

    from detector.sparse import SparseTensor, SubMConv3d, current_engine

    device = "cuda" if torch.cuda.is_available() else "cpu"
    name = current_engine().name
    try:
        coordinates = torch.tensor([[0, 1, 1, 1], [0, 1, 1, 2]], dtype=torch.int32, device=device)
        features = torch.ones(2, 4, device=device)
        x = SparseTensor(features, coordinates, (4, 4, 4), 1)
        result = SubMConv3d(4, 8, 3).to(device)(x).features
        if result.shape != (2, 8) or not torch.isfinite(result).all():
            raise RuntimeError("the result is not what it should be")
    except Exception as error:  # whatever stops the kernels is the finding
        return Finding(
            State.BROKEN,
            f"Engine: a sparse convolution by '{name}' on {device} failed ({_first_line(error)}).",
        )
    return Finding(
        State.OK, f"Engine: '{name}' would be used; it computed a sparse convolution on {device}."
    )


def _optional(module: str, distribution: str, purpose: str, remedy: str) -> Finding:
    found = installed_version(distribution)
    if found is None:
        return Finding(
            State.OPTIONAL,
            f"{distribution} is not installed; it is optional, {purpose}: {remedy}.",
        )
    if reason := _import_failure(module):
        return Finding(
            State.OPTIONAL,
            f"{distribution} {found} is installed but can't be imported ({reason}); it is "
            f"optional, {purpose}: install it again.",
        )
    return Finding(State.OK, f"{distribution} {found} ({purpose}).")


def _import_failure(module: str) -> str | None:
    """Why a module can't be imported; None where it can."""
    try:
        importlib.import_module(module)
    except Exception as error:  # whatever a broken package raises is the finding
        return _first_line(error)
    return None


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0]
