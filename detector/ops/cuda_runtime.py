"""CUDA C++ kernels from source files, compiled when first used by NVRTC and launched by the driver.

Both libraries come with torch's CUDA wheels and the driver; they are called through `ctypes`, so
no compiler, no toolkit and no further Python package is needed, with any torch from 2.4 on.
Machine code is kept on disk for each GPU architecture and source, in `FOCAL3D_CACHE`, or
`focal3d/` in the user's cache folder.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import re
import struct
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import torch

from detector.errors import InputError

Define = int | str
THREADS = 256
"""Of a block, where nothing speaks for another number."""
Memory = torch.Tensor | int | None
"""What may be given for a pointer: a tensor, an address, or None, a null pointer."""
_INCLUDE = re.compile(r'^#include "(.+)"$', re.MULTILINE)
_CUBIN_KEY = "focal3d kernels 1"
_MAX_DYNAMIC_SHARED_MEMORY = 8  # CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
_INVALID_CONTEXT = 201
_PARAMETER_BUFFER, _PARAMETER_SIZE, _PARAMETERS_END = 1, 2, 0  # CU_LAUNCH_PARAM_...
_PROGRAMMATIC_SERIALIZATION = 6  # CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION
_OLDEST_DRIVER_TO_OVERLAP = 12030  # captures it into graphs


_ATTRIBUTE = struct.Struct("iii60x")  # CUlaunchAttribute: id, padding, value
_CONFIGURATION = struct.Struct("7IPPI4x")  # CUlaunchConfig: grid, block, shared bytes, stream, ...


class Kernel:
    """One `extern "C" __global__` function.

    Args:
        path: the source file.
        name: of the function.
        signature: one letter a parameter, as in `struct`: P a pointer, i an int, f a float.
            For P a tensor or an address may be given; None is a null pointer.
        defines: macros.
        shared_bytes: of dynamic shared memory.
        exact: compiled for exactly the GPU's architecture (`sm_90a`), with instructions that
            later ones lack.
    """

    def __init__(
        self,
        path: Path,
        name: str,
        signature: str,
        defines: Mapping[str, Define] | None = None,
        shared_bytes: int = 0,
        *,
        exact: bool = False,
    ):
        self.path = path
        self.exact = exact
        self.name = name
        self.defines = dict(defines or {})
        self.shared_bytes = shared_bytes
        parameters = struct.Struct(signature)
        self._buffer = ctypes.create_string_buffer(parameters.size)
        self._size = ctypes.c_size_t(parameters.size)
        self._pack = _packing(signature, parameters, self._buffer)
        self._extra = (ctypes.c_void_p * 5)(
            _PARAMETER_BUFFER, ctypes.addressof(self._buffer),
            _PARAMETER_SIZE, ctypes.addressof(self._size), _PARAMETERS_END,
        )  # fmt: skip
        self._overlap = ctypes.create_string_buffer(
            _ATTRIBUTE.pack(_PROGRAMMATIC_SERIALIZATION, 0, 1)
        )
        self._configuration = ctypes.create_string_buffer(_CONFIGURATION.size)
        # What does not change from one start to the next, as the driver's function takes it.
        self._attributes = ctypes.addressof(self._overlap)
        self._first = ctypes.c_void_p(ctypes.addressof(self._configuration))
        self._last = ctypes.c_void_p(ctypes.addressof(self._extra))
        self._functions: dict[int, ctypes.c_void_p] = {}

    def __call__(
        self, grid: Sequence[int], threads: int, *arguments, device: int, overlap: bool = False
    ) -> None:
        """Starts it on the current stream of `device`; `grid` has one to three sizes.

        Args:
            overlap: before the kernel ahead of it has ended, where the GPU can. The source then
                waits (`await_earlier`) before it touches what other kernels write or read.
        """
        function = self._functions.get(device)
        if function is None:
            function = self._load(device)
        if _only_loaded:
            return
        # Nobody else runs between filling the buffers and the launch: `PyDLL` holds the GIL.
        self._pack(*arguments)
        status = self._start(function, grid, threads, device, overlap)
        if status == _INVALID_CONTEXT:  # this thread's first work on a GPU, as in autograd's
            _make_current(device)
            self._pack(*arguments)
            status = self._start(function, grid, threads, device, overlap)
        if status:
            _check(status, self.name)

    def _start(
        self, function: ctypes.c_void_p, grid: Sequence[int], threads: int, device: int,
        overlap: bool,
    ) -> int:  # fmt: skip
        x, y, z = (*grid, 1, 1)[:3]
        _CONFIGURATION.pack_into(
            self._configuration, 0, x, y, z, threads, 1, 1, self.shared_bytes,
            torch._C._cuda_getCurrentRawStream(device), self._attributes,
            overlap and can_overlap(device),
        )  # fmt: skip
        # One structure in place of eleven arguments: converting them costs more than the launch.
        return _driver().cuLaunchKernelEx(self._first, function, None, self._last)

    def _load(self, device: int) -> ctypes.c_void_p:
        with torch.cuda.device(device):
            _make_current(device)
            module = _module(
                self.path, tuple(sorted(self.defines.items())), device, self.exact
            )
            function = ctypes.c_void_p()
            _check(
                _driver().cuModuleGetFunction(ctypes.byref(function), module, self.name.encode()),
                self.name,
            )
            if self.shared_bytes > 48 << 10:
                _check(
                    _driver().cuFuncSetAttribute(
                        function, _MAX_DYNAMIC_SHARED_MEMORY, self.shared_bytes
                    ),
                    self.name,
                )
        self._functions[device] = function
        return function

    def attributes(self, device: int) -> dict[str, int]:
        """Registers a thread and bytes of local memory, for tuning."""
        function = self._functions.get(device) or self._load(device)
        found = {}
        for name, number in (("registers", 4), ("local_bytes", 3), ("shared_bytes", 1)):
            value = ctypes.c_int()
            _check(
                _driver().cuFuncGetAttribute(ctypes.byref(value), number, function), self.name
            )
            found[name] = value.value
        return found


def blocks(items: int, threads: int = THREADS) -> int:
    """How many hold so many items, one a thread."""
    return -(-items // threads)


_only_loaded = False


@contextmanager
def loading() -> Iterator[None]:
    """Kernels that are started meanwhile are only loaded, which can't be done during a capture."""
    global _only_loaded
    _only_loaded = True
    try:
        yield
    finally:
        _only_loaded = False


def _packing(signature: str, parameters: struct.Struct, buffer: ctypes.Array) -> Callable:
    """A function that writes a kernel's arguments into `buffer`: of tensors their addresses, None
    as a null pointer. It is made for the signature, since a loop over it would take as long as the
    rest of a launch."""
    names = [f"a{position}" for position in range(len(signature))]
    values = [
        f"{name} if {name}.__class__ is int else 0 if {name} is None else {name}.data_ptr()"
        if kind == "P" else name
        for name, kind in zip(names, signature, strict=True)
    ]
    return eval(
        f"lambda {', '.join(names)}: pack_into(buffer, 0, {', '.join(values)})",
        dict(pack_into=parameters.pack_into, buffer=buffer),
    )


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


@functools.cache
def multiprocessors(device: int) -> int:
    return torch.cuda.get_device_properties(device).multi_processor_count


@functools.cache
def can_overlap(device: int) -> bool:
    """Whether a kernel may start before the one ahead of it has ended (Hopper and later)."""
    version = ctypes.c_int()
    _check(_driver().cuDriverGetVersion(ctypes.byref(version)), "version")
    return (
        torch.cuda.get_device_capability(device) >= (9, 0)
        and version.value >= _OLDEST_DRIVER_TO_OVERLAP
    )


@functools.cache
def shared_memory_limit(device: int) -> int:
    """Bytes of shared memory that one block may have."""
    major, minor = torch.cuda.get_device_capability(device)
    known = {(8, 0): 163, (8, 7): 163, (9, 0): 227, (10, 0): 227, (10, 3): 227}
    return known.get((major, minor), 99) << 10


@functools.cache
def _module(path: Path, defines: tuple, device: int, exact: bool) -> ctypes.c_void_p:
    major, minor = torch.cuda.get_device_capability(device)
    if major < 8:
        raise InputError(
            f"GPU {device} has compute capability {major}.{minor}; the GPU kernels need 8.0 or "
            f"later (Ampere); use device 'cpu'"
        )
    image = _cached_code(path, defines, f"{major}{minor}{'a' if exact else ''}")
    module = ctypes.c_void_p()
    _check(_driver().cuModuleLoadData(ctypes.byref(module), image), path.name)
    return module


def _cached_code(path: Path, defines: tuple, capability: str) -> bytes:
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
    nvrtc = _nvrtc()
    program = ctypes.c_void_p()
    options = [
        f"--gpu-architecture={architecture}", "-std=c++17", "--fmad=true", "-default-device",
        *(f"-D{key}={value}" for key, value in defines),
    ]  # fmt: skip
    encoded = (ctypes.c_char_p * len(options))(*(option.encode() for option in options))
    created = nvrtc.nvrtcCreateProgram(
        ctypes.byref(program), source.encode(), name.encode(), 0, None, None
    )
    try:
        if created or nvrtc.nvrtcCompileProgram(program, len(options), encoded):
            raise RuntimeError(f"{name} does not compile for {architecture}:\n{_log(program)}")
        kind = "CUBIN" if architecture.startswith("sm_") else "PTX"
        size = ctypes.c_size_t()
        getattr(nvrtc, f"nvrtcGet{kind}Size")(program, ctypes.byref(size))
        image = ctypes.create_string_buffer(size.value)
        getattr(nvrtc, f"nvrtcGet{kind}")(program, image)
        return image.raw
    finally:
        nvrtc.nvrtcDestroyProgram(ctypes.byref(program))


def _log(program: ctypes.c_void_p) -> str:
    size = ctypes.c_size_t()
    _nvrtc().nvrtcGetProgramLogSize(program, ctypes.byref(size))
    text = ctypes.create_string_buffer(max(size.value, 1))
    _nvrtc().nvrtcGetProgramLog(program, text)
    return text.value.decode(errors="replace")


@functools.cache
def _architectures() -> tuple[int, ...]:
    nvrtc, count = _nvrtc(), ctypes.c_int()
    nvrtc.nvrtcGetNumSupportedArchs(ctypes.byref(count))
    found = (ctypes.c_int * count.value)()
    nvrtc.nvrtcGetSupportedArchs(found)
    return tuple(found)


@functools.cache
def _nvrtc() -> ctypes.CDLL:
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


@functools.cache
def _driver() -> ctypes.PyDLL:
    try:
        driver = ctypes.PyDLL("libcuda.so.1")
    except OSError as error:
        raise InputError(
            f"the NVIDIA driver (libcuda.so.1) can't be loaded ({error}); install it, or use "
            f"device 'cpu'"
        ) from None
    pointer = ctypes.c_void_p
    driver.cuLaunchKernelEx.argtypes = [pointer] * 4
    driver.cuModuleGetFunction.argtypes = [pointer, pointer, ctypes.c_char_p]
    driver.cuModuleLoadData.argtypes = [pointer, ctypes.c_char_p]
    driver.cuFuncSetAttribute.argtypes = [pointer, ctypes.c_int, ctypes.c_int]
    driver.cuFuncGetAttribute.argtypes = [pointer, ctypes.c_int, pointer]
    driver.cuCtxSetCurrent.argtypes = [pointer]
    driver.cuDevicePrimaryCtxRetain.argtypes = [pointer, ctypes.c_int]
    driver.cuGetErrorString.argtypes = [ctypes.c_int, pointer]
    return driver


def _make_current(device: int) -> None:
    """The device's primary context, which torch uses, becomes this thread's."""
    torch.cuda.init()
    _check(_driver().cuCtxSetCurrent(_primary_context(device)), "context")


@functools.cache
def _primary_context(device: int) -> ctypes.c_void_p:
    handle, context = ctypes.c_int(), ctypes.c_void_p()
    _check(_driver().cuDeviceGet(ctypes.byref(handle), device), "device")
    _check(_driver().cuDevicePrimaryCtxRetain(ctypes.byref(context), handle), "context")
    return context


def _check(status: int, what: str) -> None:
    if status:
        text = ctypes.c_char_p()
        _driver().cuGetErrorString(status, ctypes.byref(text))
        raise RuntimeError(f"CUDA: {what}: {(text.value or b'unknown error').decode()}")
