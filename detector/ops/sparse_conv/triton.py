"""Sparse convolution in Triton: any number of channels, 16-bit floats, float32 and TF32.

Implicit matrix products over the neighbour table, accumulated in float32. Tiles of rows that see
nothing through an offset skip it. Block sizes follow from the shape alone, so that results don't
depend on measurements.
"""

from __future__ import annotations

import os

import torch
import triton
import triton.language as tl
from jaxtyping import Float, Int32
from torch import Tensor

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
WEIGHT_GRADIENT_PROGRAMS = 1024
"""About how many programs share a weight gradient's rows."""


@triton.jit
def convolve_kernel(
    features, weight, table, masks, bias, out, rows, pitch, mask_words, in_channels, out_channels,
    OFFSETS: tl.constexpr, ROWS: tl.constexpr, INNER: tl.constexpr, COLUMNS: tl.constexpr,
    BIAS: tl.constexpr, PRECISION: tl.constexpr, UPCAST: tl.constexpr,
):  # fmt: skip
    first = tl.program_id(0) * ROWS
    row = first + tl.arange(0, ROWS)
    column = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    tiles = first // 32 + tl.arange(0, ROWS // 32)
    total = tl.zeros((ROWS, COLUMNS), tl.float32)
    for k in range(OFFSETS):
        mask = tl.load(masks + tiles * mask_words + k // 32, mask=tiles * 32 < rows, other=0)
        if tl.max((mask >> (k % 32)) & 1, 0) > 0:
            source = tl.load(table + k * pitch + row, mask=row < rows, other=-1)
            for start in range(0, in_channels, INNER):
                inner = start + tl.arange(0, INNER)
                a = tl.load(
                    features + source[:, None].to(tl.int64) * in_channels + inner[None, :],
                    mask=(source >= 0)[:, None] & (inner < in_channels)[None, :], other=0.0,
                )  # fmt: skip
                b = tl.load(
                    weight + (k * in_channels + inner)[:, None] * out_channels + column[None, :],
                    mask=(inner < in_channels)[:, None] & (column < out_channels)[None, :],
                    other=0.0,
                )  # fmt: skip
                if UPCAST:
                    a, b = a.to(tl.float32), b.to(tl.float32)
                total = tl.dot(a, b, total, input_precision=PRECISION)
    if BIAS:
        total += tl.load(bias + column, mask=column < out_channels, other=0.0).to(tl.float32)
    tl.store(
        out + row[:, None].to(tl.int64) * out_channels + column[None, :],
        total.to(out.dtype.element_ty),
        mask=(row < rows)[:, None] & (column < out_channels)[None, :],
    )


@triton.jit
def weight_gradient_kernel(
    features, out_gradient, table, masks, partial, rows, pitch, mask_words, in_channels,
    out_channels, slices,
    OFFSETS: tl.constexpr, ROWS: tl.constexpr, INNER: tl.constexpr, COLUMNS: tl.constexpr,
    PRECISION: tl.constexpr, UPCAST: tl.constexpr,
):  # fmt: skip
    k = tl.program_id(0)
    column_blocks = tl.cdiv(out_channels, COLUMNS)
    inner = tl.program_id(1) // column_blocks * INNER + tl.arange(0, INNER)
    column = tl.program_id(1) % column_blocks * COLUMNS + tl.arange(0, COLUMNS)
    total = tl.zeros((INNER, COLUMNS), tl.float32)
    for block in range(tl.program_id(2), tl.cdiv(rows, ROWS), slices):
        tiles = block * (ROWS // 32) + tl.arange(0, ROWS // 32)
        mask = tl.load(masks + tiles * mask_words + k // 32, mask=tiles * 32 < rows, other=0)
        if tl.max((mask >> (k % 32)) & 1, 0) > 0:
            row = block * ROWS + tl.arange(0, ROWS)
            source = tl.load(table + k * pitch + row, mask=row < rows, other=-1)
            a = tl.load(
                features + source[:, None].to(tl.int64) * in_channels + inner[None, :],
                mask=(source >= 0)[:, None] & (inner < in_channels)[None, :], other=0.0,
            )  # fmt: skip
            b = tl.load(
                out_gradient + row[:, None].to(tl.int64) * out_channels + column[None, :],
                mask=(row < rows)[:, None] & (column < out_channels)[None, :], other=0.0,
            )  # fmt: skip
            if UPCAST:
                a, b = a.to(tl.float32), b.to(tl.float32)
            total = tl.dot(tl.trans(a), b, total, input_precision=PRECISION)
    at = (tl.program_id(2) * OFFSETS + k).to(tl.int64) * in_channels
    tl.store(
        partial + (at + inner)[:, None] * out_channels + column[None, :], total,
        mask=(inner < in_channels)[:, None] & (column < out_channels)[None, :],
    )  # fmt: skip


def block_sizes(dtype: torch.dtype, in_channels: int, out_channels: int) -> dict[str, int]:
    """Rows, inner and column block of `convolve_kernel`, and how it is compiled."""
    inner = min(max(16, triton.next_power_of_2(in_channels)), 64 if dtype.itemsize == 2 else 32)
    columns = min(max(16, triton.next_power_of_2(out_channels)), 128)
    return dict(ROWS=64, INNER=inner, COLUMNS=columns, num_warps=4, num_stages=2)


def weight_gradient_sizes(in_channels: int, out_channels: int) -> dict[str, int]:
    """The same of `weight_gradient_kernel`."""
    inner = min(max(16, triton.next_power_of_2(in_channels)), 64)
    columns = min(max(16, triton.next_power_of_2(out_channels)), 64)
    return dict(ROWS=64, INNER=inner, COLUMNS=columns, num_warps=4, num_stages=2)


def convolve(
    features: Float[Tensor, "V_in Cin"],
    weight: Float[Tensor, "K Cin Cout"],
    table: Int32[Tensor, "K V_out"],
    masks: Int32[Tensor, "tiles words"],
    bias: Float[Tensor, " Cout"] | None = None,
) -> Float[Tensor, "V_out Cout"]:
    """out[o] = bias + sum over k of features[table[k, o]] @ weight[k]; contiguous inputs."""
    rows, in_channels, out_channels = table.shape[1], features.shape[1], weight.shape[2]
    out = features.new_empty(rows, out_channels)
    if not rows:
        return out
    sizes = block_sizes(features.dtype, in_channels, out_channels)
    grid = triton.cdiv(rows, sizes["ROWS"]), triton.cdiv(out_channels, sizes["COLUMNS"])
    convolve_kernel[grid](
        features, weight, table, masks, weight if bias is None else bias, out, rows,
        table.stride(0), masks.shape[1], in_channels, out_channels, OFFSETS=len(table),
        BIAS=bias is not None, PRECISION=_precision(features.dtype), UPCAST=INTERPRETED, **sizes,
    )  # fmt: skip
    return out


def weight_gradient(
    features: Float[Tensor, "V_in Cin"],
    out_gradient: Float[Tensor, "V_out Cout"],
    table: Int32[Tensor, "K V_out"],
    masks: Int32[Tensor, "tiles words"],
) -> Float[Tensor, "K Cin Cout"]:
    """gradient[k] = sum over o of features[table[k, o]] (outer) out_gradient[o], in float32."""
    offsets, rows = table.shape
    in_channels, out_channels = features.shape[1], out_gradient.shape[1]
    sizes = weight_gradient_sizes(in_channels, out_channels)
    tiles = triton.cdiv(in_channels, sizes["INNER"]) * triton.cdiv(out_channels, sizes["COLUMNS"])
    slices = max(1, min(triton.cdiv(rows, 4 * sizes["ROWS"]),
                        WEIGHT_GRADIENT_PROGRAMS // (offsets * tiles)))  # fmt: skip
    partial = torch.empty(
        slices, offsets, in_channels, out_channels, device=features.device, dtype=torch.float32
    )
    weight_gradient_kernel[offsets, tiles, slices](
        features, out_gradient, table, masks, partial, rows, table.stride(0), masks.shape[1],
        in_channels, out_channels, slices, OFFSETS=offsets,
        PRECISION=_precision(features.dtype), UPCAST=INTERPRETED, **sizes,
    )  # fmt: skip
    return partial.sum(0)


def _precision(dtype: torch.dtype) -> str:
    if dtype == torch.float32 and torch.backends.cuda.matmul.allow_tf32:
        return "tf32"
    return "ieee"
