"""The CUDA sources compile for Ampere and Hopper; no GPU is needed, only NVRTC."""

import ctypes
import inspect
import struct
from pathlib import Path

import pytest
import torch

import detector.ops.boxes
from detector.errors import InputError
from detector.ops import cuda_compiler, cuda_runtime
from detector.ops.cuda_compiler import compile_source
from detector.ops.cuda_runtime import Kernel
from detector.ops.occupancy import tables
from detector.ops.sparse_norm.gpu import norm_kernels
from tests.oracles.cuda_on_cpu import KERNEL

PACKAGE = Path(detector.ops.boxes.__file__).parents[2]
CONV = dict(
    COUT=64, OFFSETS=27, NB=4, WARPS=8, RESIDENT=1, DEPTH=2, DEALT=0, BF16=0, TF32=0
)
FOCAL = dict(KZ=3, KY=3, KX=3, NZ=3, NY=3, NX=3)
SOURCES = [
    ("ops/boxes/boxes.cu", {}),
    ("ops/occupancy/index.cu", {}),
    ("ops/occupancy/index.cu", dict(KZ=3, KY=3, KX=3, SZ=2, SY=2, SX=2, DZ=1, DY=1, DX=1)),
    ("ops/occupancy/tables.cu", {}),
    ("ops/occupancy/tables.cu", dict(KZ=3, KY=3, KX=3, DX=1, THREADS=128)),
    ("ops/occupancy/tables.cu", dict(KZ=3, KY=3, KX=3, DX=1, THREADS=1024, WINDOW=1024)),
    ("ops/occupancy/order.cu", dict(OFFSETS=27, WINDOW=1024)),
    ("ops/voxelize/voxelize.cu", {}),
    ("ops/sparse_conv/conv.cu", dict(CONV, CIN=64, TILE=32)),
    ("ops/sparse_conv/conv.cu", dict(CONV, CIN=4, TILE=16, OFFSETS=125, BF16=1)),
    ("ops/sparse_conv/conv.cu", dict(CONV, CIN=128, TILE=16, DEALT=1)),
    ("ops/sparse_conv/conv.cu", dict(CONV, CIN=64, TILE=64, NB=2, DEPTH=3)),
    ("ops/sparse_conv/conv.cu", dict(CONV, CIN=256, TILE=16, TF32=1)),
    ("ops/sparse_conv/conv_split.cu", dict(CONV, CIN=64, TILE=64, NB=2, WARPS=12, SPLIT=3)),
    ("ops/sparse_conv/conv_split.cu", dict(CONV, CIN=8, TILE=16, SPLIT=2, BF16=1)),
    ("ops/sparse_conv/conv.cu", dict(CONV, CIN=8, TILE=32, TF32=1)),
    (
        "ops/sparse_conv/weight_gradient.cu",
        dict(CIN=64, COUT=32, TIN=64, TOUT=32, SHARE=3, TEAM=2, STAGES=2, BF16=1),
    ),
    ("ops/sparse_norm/norm.cu", dict(CHANNELS=16, BF16=0, RELU=1, RESIDUAL=1)),
    ("ops/sparse_norm/norm.cu", dict(CHANNELS=256, BF16=1, RELU=0, RESIDUAL=0)),
    ("sparse/planned/planned.cu", dict(BF16=0, FLOAT32=0)),
    ("sparse/planned/planned.cu", dict(BF16=0, FLOAT32=1)),
    ("sparse/planned/foreground.cu", dict(FOCAL, PITCH=32, TOP_K=1, BF16=0)),
    ("sparse/planned/foreground.cu", dict(FOCAL, PITCH=32, TOP_K=0, BF16=1)),
    ("sparse/planned/choice.cu", dict(FOCAL, PITCH=32, ROWS=128, TOP_K=1, BF16=0)),
    ("sparse/planned/choice.cu", dict(FOCAL, KX=5, NY=1, PITCH=64, ROWS=64, TOP_K=0, BF16=1)),
    ("sparse/planned/grown.cu", FOCAL),
    ("sparse/planned/grown.cu", dict(FOCAL, KX=5, NY=1)),
]


HOPPER = dict(
    COUT=64, OFFSETS=27, GROUPS_OF_WARPS=3, DEPTH=2, STAGES=9, BF16=0
)
SOURCES_SM90 = [
    ("ops/sparse_conv/conv_sm90.cu", dict(HOPPER, CIN=128, COUT=128, TILE=128)),
    ("ops/sparse_conv/conv_sm90.cu", dict(HOPPER, CIN=64, TILE=32, BF16=1)),
    ("ops/sparse_conv/conv_sm90.cu", dict(HOPPER, CIN=4, COUT=16, TILE=16, OFFSETS=125)),
]


@pytest.fixture(scope="module", autouse=True)
def nvrtc():
    try:
        cuda_compiler.nvrtc()
    except InputError as error:
        pytest.skip(str(error))


@pytest.mark.parametrize("architecture", ["sm_80", "sm_90"])
@pytest.mark.parametrize(("path", "defines"), SOURCES)
def test_sources_compile(path, defines, architecture):
    assert compile_source(PACKAGE / path, defines, architecture)[:4] == b"\x7fELF"


@pytest.mark.parametrize(("path", "defines"), SOURCES_SM90)
def test_sources_of_one_architecture_compile(path, defines):
    assert compile_source(PACKAGE / path, defines, "sm_90a")[:4] == b"\x7fELF"


def test_every_source_is_tried():
    assert {path for path, _ in SOURCES + SOURCES_SM90} == {
        str(file.relative_to(PACKAGE)) for file in PACKAGE.rglob("*.cu")
    }


def test_a_mistake_is_told_with_the_compilers_words(tmp_path):
    source = tmp_path / "wrong.cu"
    source.write_text("__global__ void kernel() { missing(); }")
    with pytest.raises(RuntimeError, match=r"wrong\.cu does not compile for sm_90:[^$]*missing"):
        compile_source(source, {}, "sm_90")


def test_compiled_code_is_kept_and_used_again(tmp_path, monkeypatch):
    monkeypatch.setenv("FOCAL3D_CACHE", str(tmp_path / "kernels"))
    source = tmp_path / "small.cu"
    source.write_text('extern "C" __global__ void kernel() {}')
    first = cuda_compiler.cached_code(source, (), "90")
    (file,) = (tmp_path / "kernels").iterdir()
    monkeypatch.setattr(cuda_compiler, "_compile", None)
    assert cuda_compiler.cached_code(source, (), "90") == first == file.read_bytes()


def test_a_folder_that_can_not_be_written_only_warns(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("FOCAL3D_CACHE", str(tmp_path / "file"))
    source = tmp_path / "small.cu"
    source.write_text('extern "C" __global__ void kernel() {}')
    with pytest.warns(UserWarning, match="can't be kept in .*set FOCAL3D_CACHE"):
        assert cuda_compiler.cached_code(source, (), "90")


def test_an_included_file_is_part_of_the_source(tmp_path, monkeypatch):
    monkeypatch.setenv("FOCAL3D_CACHE", str(tmp_path / "kernels"))
    header, source = tmp_path / "size.cuh", tmp_path / "sized.cu"
    kernel = 'extern "C" __global__ void kernel(int* x) { *x = SIZE; }'
    source.write_text(f'#include "size.cuh"\n{kernel}')
    header.write_text("#define SIZE 1\n")
    first = cuda_compiler.cached_code(source, (), "90")
    header.write_text("#define SIZE 12345\n")
    assert cuda_compiler.cached_code(source, (), "90") != first
    assert len(list((tmp_path / "kernels").iterdir())) == 2


class Configuration(ctypes.Structure):
    """CUlaunchConfig of cuda.h."""

    _fields_ = (
        *((name, ctypes.c_uint) for name in ("x", "y", "z", "bx", "by", "bz", "shared")),
        ("stream", ctypes.c_void_p), ("attributes", ctypes.c_void_p), ("count", ctypes.c_uint),
    )  # fmt: skip


def test_a_launch_as_the_driver_reads_it(monkeypatch):
    seen = {}

    class Driver:
        def cuLaunchKernelEx(self, first, function, parameters, last):
            seen["config"] = Configuration.from_buffer_copy(
                ctypes.string_at(first.value, ctypes.sizeof(Configuration))
            )
            extra = (ctypes.c_void_p * 5).from_address(last.value)
            size = ctypes.c_size_t.from_address(extra[3]).value
            seen["values"] = struct.unpack("PPiPf", ctypes.string_at(extra[1], size))
            seen["marks"] = extra[0], extra[2], extra[4]
            return 0

    monkeypatch.setattr(cuda_runtime, "_driver", Driver)
    monkeypatch.setattr(torch._C, "_cuda_getCurrentRawStream", lambda device: 77, raising=False)
    kernel = cuda_runtime.Kernel(Path("any.cu"), "kernel", "PPiPf", shared_bytes=4096)
    kernel._functions[3] = ctypes.c_void_p(5)
    a, b = torch.zeros(4), torch.zeros(2)
    kernel((6, 2), 128, a, None, -9, b, 0.5, device=3)
    config = seen["config"]
    assert (config.x, config.y, config.z) == (6, 2, 1)
    assert (config.bx, config.by, config.bz, config.shared, config.stream) == (128, 1, 1, 4096, 77)
    assert seen["values"] == (a.data_ptr(), 0, -9, b.data_ptr(), 0.5)
    assert seen["marks"] == (1, 2, None)  # CU_LAUNCH_PARAM_BUFFER_POINTER, _SIZE, _END
    assert config.count == 0  # attributes


def test_kernels_that_train_take_what_they_are_given():
    """Numbers and kinds of arguments, as the sources declare them."""
    norm = norm_kernels(16, torch.float16, True, False)
    kernels = [one for one in vars(norm).values() if isinstance(one, Kernel)]
    for kernel in [*kernels, tables._transpose_table, tables._mask_table]:
        declared = dict(KERNEL.findall(kernel.path.read_text()))[kernel.name].split(",")
        kinds = "".join("P" if "*" in p else "f" if "float" in p else "i" for p in declared)
        assert len(inspect.signature(kernel._pack).parameters) == len(kinds), kernel.name
        assert kernel._size.value == struct.calcsize(kinds), kernel.name
