"""CUDA C++ kernels from source files, launched by the driver.

The driver's library is called through `ctypes`: that needs no further Python package, and works
with any torch from 2.4 on. `cuda_compiler` makes the machine code.
"""

from __future__ import annotations

import ctypes
import functools
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch

from detector.errors import InputError
from detector.ops.cuda_compiler import Define, cached_code

THREADS = 256
"""Of a block, where nothing speaks for another number."""
Memory = torch.Tensor | int | None
"""What may be given for a pointer: a tensor, an address, or None, a null pointer."""
_MAX_DYNAMIC_SHARED_MEMORY = 8  # CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
_INVALID_CONTEXT = 201
_PARAMETER_BUFFER, _PARAMETER_SIZE, _PARAMETERS_END = 1, 2, 0  # CU_LAUNCH_PARAM_...
_PROGRAMMATIC_SERIALIZATION = 6  # CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION
_OLDEST_DRIVER_TO_OVERLAP = 12030  # captures it into graphs
_OVERLAP = ctypes.create_string_buffer(  # CUlaunchAttribute: id, padding, value
    struct.pack("iii60x", _PROGRAMMATIC_SERIALIZATION, 0, 1)
)
_OVERLAP_ADDRESS = ctypes.addressof(_OVERLAP)
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
        self._configuration = ctypes.create_string_buffer(_CONFIGURATION.size)
        # What does not change from one start to the next, as the driver's function takes it.
        self._first = ctypes.c_void_p(ctypes.addressof(self._configuration))
        self._last = ctypes.c_void_p(ctypes.addressof(self._extra))
        self._functions: dict[int, ctypes.c_void_p] = {}

    def __call__(
        self, grid: Sequence[int], threads: int, *arguments, device: int, overlap: bool = False
    ) -> None:
        """Starts it on the current stream of `device`; `grid` has one to three sizes.

        Args:
            overlap: where the GPU can, as soon as all blocks of the kernel just started have said
                `griddepcontrol.launch_dependents` or ended; in a captured graph, of all kernels
                that the stream waits for, on other streams, too. The source then says
                `griddepcontrol.wait` before it touches what they write.
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
            torch._C._cuda_getCurrentRawStream(device), _OVERLAP_ADDRESS,
            overlap and _can_overlap(device),
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


@functools.cache
def multiprocessors(device: int) -> int:
    return torch.cuda.get_device_properties(device).multi_processor_count


@functools.cache
def _can_overlap(device: int) -> bool:
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
    image = cached_code(path, defines, f"{major}{minor}{'a' if exact else ''}")
    module = ctypes.c_void_p()
    _check(_driver().cuModuleLoadData(ctypes.byref(module), image), path.name)
    return module


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
