"""Runs the CUDA sources on a CPU, with the host's compiler, where there is no GPU."""

from __future__ import annotations

import ctypes
import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
import torch

import detector.ops

OPS = Path(detector.ops.__file__).parent
HERE = Path(__file__).parent
KERNEL = re.compile(
    r'extern "C" __global__ void (?:__launch_bounds__\([^)]*\) )?(\w+)\(([^{]*)\) \{'
)


class CpuKernels:
    """`kernels.name(grid, threads, *arguments)`: tensors, None, ints and floats as the kernel's
    parameters say.

    Args:
        source: from `detector/ops` on.
        names: of the kernels to be called.
        folder: for what is compiled.
        defines: macros.
    """

    def __init__(
        self, source: str, names: Sequence[str], folder: Path,
        defines: Mapping[str, int] | None = None,
    ):  # fmt: skip
        compiler = shutil.which("g++") or shutil.which("clang++")
        if compiler is None:
            pytest.skip("needs a C++ compiler")
        text = (OPS / source).read_text()
        place = folder / "ops" / source
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copytree(
            OPS, folder / "ops", dirs_exist_ok=True,
            ignore=lambda _, names: [n for n in names if "." in n and not n.endswith(".cuh")],
        )  # fmt: skip
        for header in (OPS / source).parent.glob("*.cuh"):
            shutil.copy(header, place.parent)
        shutil.copytree(HERE / "ops", folder / "ops", dirs_exist_ok=True)
        starters = []
        all_parameters = dict(KERNEL.findall(text))
        for name in names:
            types = [_type(parameter) for parameter in all_parameters[name].split(",")]
            values = [f"a{number}" for number in range(len(types))]
            typed = ", ".join(f"{t} {n}" for t, n in zip(types, values, strict=True))
            starters.append(
                f'extern "C" void start_{name}(int grid, int threads, {typed}) '
                f"{{ run(grid, threads, {name}, {', '.join(values)}); }}"
            )
        place.with_suffix(".cpp").write_text("\n".join([text, *starters]))
        library = folder / f"{place.stem}.so"
        done = subprocess.run(
            [
                compiler, "-std=c++20", "-O1", "-shared", "-fPIC", "-pthread", "-w",
                *(f"-D{key}={value}" for key, value in (defines or {}).items()),
                str(place.with_suffix(".cpp")), "-o", str(library),
            ],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        if done.returncode and "barrier" in done.stderr.split("\n", 2)[-1][:300]:
            pytest.skip("needs a compiler of C++20 with std::barrier")
        assert done.returncode == 0, done.stderr[:3000]
        self._library = ctypes.CDLL(str(library))

    def __getattr__(self, name: str):
        start = getattr(self._library, f"start_{name}")
        return lambda grid, threads, *arguments: start(grid, threads, *map(_argument, arguments))


def _type(parameter: str) -> str:
    """A parameter's type, without its name."""
    words = parameter.replace("*", "* ").split()
    return " ".join(words if len(words) == 1 or words[-1].endswith("*") else words[:-1])


def _argument(value):
    if value is None:
        return ctypes.c_void_p()
    if isinstance(value, torch.Tensor):
        return ctypes.c_void_p(value.data_ptr())
    return ctypes.c_float(value) if isinstance(value, float) else value
