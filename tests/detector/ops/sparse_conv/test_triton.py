"""The Triton kernels without a GPU: compiled ahead of time, and run by Triton's interpreter."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton")

REPOSITORY = Path(__file__).parents[4]
INTERPRETED = """
import torch
from detector.ops.sparse_conv import gathered, triton as kernels
assert kernels.INTERPRETED

def masks_of(table):
    tiles = -(-table.shape[1] // 32)
    seen = torch.nn.functional.pad(table >= 0, (0, tiles * 32 - table.shape[1]))
    seen = seen.view(len(table), tiles, 32).any(2).T.long()                  # (tiles, K)
    return (seen << torch.arange(len(table))).sum(1, keepdim=True).to(torch.int32)

torch.manual_seed(0)
for dtype, tolerance in ((torch.float32, 1e-5), (torch.float16, 2e-3), (torch.bfloat16, 1e-2)):
    for rows, c_in, c_out in ((1, 3, 5), (65, 17, 33)):
        features = torch.randn(40, c_in).to(dtype)
        weight = torch.randn(8, c_in, c_out).to(dtype)
        bias = torch.randn(c_out).to(dtype)
        table = torch.randint(-30, 40, (8, rows)).clamp(min=-1).to(torch.int32)
        out = kernels.convolve(features, weight, table, masks_of(table), bias)
        true = gathered.convolve(features.double(), weight.double(), table) + bias.double()
        assert (out.double() - true).norm() <= tolerance * true.norm(), (dtype, rows)
        gradient = torch.randn(rows, c_out).to(dtype)
        out = kernels.weight_gradient(features, gradient, table, masks_of(table))
        true = gathered.weight_gradient(features.double(), gradient.double(), table)
        assert (out.double() - true).norm() <= tolerance * max(true.norm(), 1e-9), (dtype, rows)
"""


def test_the_interpreter_agrees_with_float64():
    """The interpreter's bfloat16 is wrong; the kernels work in float32 under it."""
    environment = dict(os.environ, TRITON_INTERPRET="1")
    result = subprocess.run(
        [sys.executable, "-c", INTERPRETED], env=environment, cwd=REPOSITORY, check=False,
        capture_output=True, text=True,
    )  # fmt: skip
    if "numpy" in result.stderr and "interpreter" in result.stderr:
        pytest.skip("this Triton's interpreter does not run with this NumPy")
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("capability", [80, 90])
@pytest.mark.parametrize("number", ["fp16", "bf16", "fp32"])
def test_kernels_compile_ahead_of_time(capability, number, tmp_path, monkeypatch):
    triton = pytest.importorskip("triton", minversion="3.2")
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from detector.ops.sparse_conv import triton as kernels

    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    sizes = dict(OFFSETS=27, ROWS=64, INNER=32, COLUMNS=64, UPCAST=False, PRECISION="ieee")
    if number == "fp32":
        sizes["PRECISION"] = "tf32"
    pointer = f"*{number}"
    convolve = dict(
        features=pointer, weight=pointer, table="*i32", masks="*i32", bias=pointer, out=pointer,
    )  # fmt: skip
    gradient = dict(
        features=pointer, out_gradient=pointer, table="*i32", masks="*i32", partial="*fp32"
    )
    for kernel, pointers, constants in (
        (kernels.convolve_kernel, convolve, dict(sizes, BIAS=True)),
        (kernels.weight_gradient_kernel, gradient, sizes),
    ):
        signature = {
            name: "constexpr" if name in constants else pointers.get(name, "i32")
            for name in kernel.arg_names
        }
        source = ASTSource(kernel, signature, constexprs=constants)
        made = triton.compile(source, target=GPUTarget("cuda", capability, 32))
        assert made.asm["cubin"]
