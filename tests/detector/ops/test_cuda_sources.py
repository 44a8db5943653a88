"""The CUDA sources compile for Ampere and Hopper; no GPU is needed, only NVRTC."""

from pathlib import Path

import pytest

import detector.ops.boxes
from detector.errors import InputError
from detector.ops import cuda_runtime
from detector.ops.cuda_runtime import compile_source

PACKAGE = Path(detector.ops.boxes.__file__).parents[2]
CONV = dict(COUT=64, OFFSETS=27, NB=4, WARPS=8, RESIDENT=1, DEPTH=2, BF16=0)
FOCAL = dict(KZ=3, KY=3, KX=3, NZ=3, NY=3, NX=3)
SOURCES = [
    ("ops/boxes/boxes.cu", {}),
    ("ops/occupancy/occupancy.cu", {}),
    ("ops/occupancy/occupancy.cu", dict(KZ=3, KY=3, KX=3)),
    ("ops/voxelize/voxelize.cu", {}),
    ("ops/sparse_conv/conv.cu", dict(CONV, CIN=64, TILE=32)),
    ("ops/sparse_conv/conv.cu", dict(CONV, CIN=4, TILE=16, OFFSETS=125, BF16=1)),
    ("ops/sparse_conv/conv.cu", dict(CONV, CIN=128, TILE=16)),
    (
        "ops/sparse_conv/weight_gradient.cu",
        dict(CIN=64, COUT=32, TIN=64, TOUT=32, SHARE=3, TEAM=2, STAGES=2, BF16=1),
    ),
    ("sparse/planned/planned.cu", dict(BF16=0)),
    ("sparse/planned/focal.cu", dict(FOCAL, PITCH=32, TOP_K=1, BF16=0)),
    ("sparse/planned/focal.cu", dict(FOCAL, KX=5, NY=1, PITCH=64, TOP_K=0, BF16=1)),
]


@pytest.fixture(scope="module", autouse=True)
def nvrtc():
    try:
        cuda_runtime._nvrtc()
    except InputError as error:
        pytest.skip(str(error))


@pytest.mark.parametrize("architecture", ["sm_80", "sm_90"])
@pytest.mark.parametrize(("path", "defines"), SOURCES)
def test_sources_compile(path, defines, architecture):
    assert compile_source(PACKAGE / path, defines, architecture)[:4] == b"\x7fELF"


def test_every_source_is_tried():
    assert {path for path, _ in SOURCES} == {
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
    first = cuda_runtime._cached_code(source, (), "90")
    (file,) = (tmp_path / "kernels").iterdir()
    monkeypatch.setattr(cuda_runtime, "_compile", None)
    assert cuda_runtime._cached_code(source, (), "90") == first == file.read_bytes()


def test_a_folder_that_can_not_be_written_only_warns(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("FOCAL3D_CACHE", str(tmp_path / "file"))
    source = tmp_path / "small.cu"
    source.write_text('extern "C" __global__ void kernel() {}')
    with pytest.warns(UserWarning, match="can't be kept in .*set FOCAL3D_CACHE"):
        assert cuda_runtime._cached_code(source, (), "90")
