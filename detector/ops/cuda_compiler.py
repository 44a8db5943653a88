"""CUDA C++ compiled by NVRTC, when first used, for the GPU at hand.

NVRTC comes with torch's CUDA wheels and is called through `ctypes`, so no compiler, no toolkit and
no further Python package is needed. Machine code is kept on disk for each GPU architecture and
source, in `FOCAL3D_CACHE`, or `focal3d/` in the user's cache folder.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import re
import sys
import tempfile
import warnings
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import torch

from detector.errors import InputError

Define = int | str
_INCLUDE = re.compile(r'^#include "(.+)"$', re.MULTILINE)
_CUBIN_KEY = "focal3d kernels 1"


def compile_source(path: Path, defines: Mapping[str, Define], architecture: str) -> bytes:
    """Machine code (`sm_90`) or PTX (`compute_90`) of a source file. Needs no GPU.

    Raises:
        InputError: NVRTC is not installed.
        RuntimeError: the source does not compile; the message is the compiler's.
    """
    return _compile(source_text(path), path.name, tuple(sorted(defines.items())), architecture)


def source_text(path: Path) -> str:
    """A source file with what it includes (`#include "..."`, beside it) in its place."""
    return _INCLUDE.sub(lambda found: source_text(path.parent / found[1]), path.read_text())


def cache_folder() -> Path:
    """Where compiled kernels are kept."""
    if "FOCAL3D_CACHE" in os.environ:
        return Path(os.environ["FOCAL3D_CACHE"])
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "focal3d"


def cached_code(path: Path, defines: tuple, capability: str) -> bytes:
    """Machine code for a GPU of this compute capability (`90`, or `90a` for exactly that)."""
    source = source_text(path)
    key = hashlib.sha256(
        repr((_CUBIN_KEY, source, defines, capability, torch.version.cuda)).encode()
    ).hexdigest()[:32]
    file = cache_folder() / f"{path.stem}_sm{capability}_{key}.cubin"
    with suppress(OSError):
        return file.read_bytes()
    newest = max(_architectures())
    known = capability.endswith("a") or int(capability) <= newest
    target = f"sm_{capability}" if known else f"compute_{newest}"
    image = _compile(source, path.name, defines, target)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=file.parent, delete=False) as partial:
            partial.write(image)
        os.replace(partial.name, file)
    except OSError as error:
        warnings.warn(
            f"compiled kernels can't be kept in {file.parent} ({error.strerror}) and will be "
            f"compiled again by every process; set FOCAL3D_CACHE to a folder you may write to",
            stacklevel=2,
        )
    return image


def _compile(source: str, name: str, defines: tuple, architecture: str) -> bytes:
    library = nvrtc()
    program = ctypes.c_void_p()
    options = [
        f"--gpu-architecture={architecture}", "-std=c++17", "--fmad=true", "-default-device",
        *(f"-D{key}={value}" for key, value in defines),
    ]  # fmt: skip
    encoded = (ctypes.c_char_p * len(options))(*(option.encode() for option in options))
    created = library.nvrtcCreateProgram(
        ctypes.byref(program), source.encode(), name.encode(), 0, None, None
    )
    try:
        if created or library.nvrtcCompileProgram(program, len(options), encoded):
            raise RuntimeError(f"{name} does not compile for {architecture}:\n{_log(program)}")
        kind = "CUBIN" if architecture.startswith("sm_") else "PTX"
        size = ctypes.c_size_t()
        getattr(library, f"nvrtcGet{kind}Size")(program, ctypes.byref(size))
        image = ctypes.create_string_buffer(size.value)
        getattr(library, f"nvrtcGet{kind}")(program, image)
        return image.raw
    finally:
        library.nvrtcDestroyProgram(ctypes.byref(program))


def _log(program: ctypes.c_void_p) -> str:
    size = ctypes.c_size_t()
    nvrtc().nvrtcGetProgramLogSize(program, ctypes.byref(size))
    text = ctypes.create_string_buffer(max(size.value, 1))
    nvrtc().nvrtcGetProgramLog(program, text)
    return text.value.decode(errors="replace")


@functools.cache
def _architectures() -> tuple[int, ...]:
    library, count = nvrtc(), ctypes.c_int()
    library.nvrtcGetNumSupportedArchs(ctypes.byref(count))
    found = (ctypes.c_int * count.value)()
    library.nvrtcGetSupportedArchs(found)
    return tuple(found)


@functools.cache
def nvrtc() -> ctypes.CDLL:
    major = (torch.version.cuda or "").split(".")[0]
    names = [f"libnvrtc.so.{major}"] if major else ["libnvrtc.so.13", "libnvrtc.so.12"]
    folders = [Path(entry) / "nvidia" for entry in sys.path if entry]
    files = [
        file
        for folder in folders
        for pattern in ("*/lib/libnvrtc.so.*", "*/*/lib/libnvrtc.so.*")
        for file in sorted(folder.glob(pattern))
        if re.fullmatch(rf"libnvrtc\.so\.{major or '[0-9]+'}(\.[0-9.]+)?", file.name)
    ]
    for candidate in [*names, *map(str, files), "libnvrtc.so"]:
        with suppress(OSError):
            return ctypes.CDLL(candidate)
    raise InputError(
        f"the CUDA kernels can't be compiled: NVRTC (libnvrtc.so.{major or '*'}) was not found; "
        f"install it with `pip install nvidia-cuda-nvrtc{'-cu12' if major == '12' else ''}`, or "
        f"use device 'cpu'"
    )
