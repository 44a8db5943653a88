"""Sizes of kernels and grids: three numbers (z, y, x), or one for all three."""

from __future__ import annotations

from collections.abc import Sequence

Triple = tuple[int, int, int]
ONE: Triple = (1, 1, 1)


def as_triple(value: int | Sequence[int], name: str, minimum: int) -> Triple:
    """(z, y, x) of a number or three.

    Raises:
        ValueError: not one or three whole numbers, or one below `minimum`.
    """
    parts = (value,) * 3 if isinstance(value, int) else tuple(int(part) for part in value)
    if len(parts) != 3 or any(part < minimum for part in parts):
        raise ValueError(
            f"{name} must be one or three (z, y, x) whole numbers of at least {minimum}, "
            f"got {value}"
        )
    return parts


def convolved_shape(
    shape: Triple, kernel_size: Triple, stride: Triple, padding: Triple, dilation: Triple
) -> Triple:
    """Cells (Z, Y, X) of a strided convolution's output.

    Raises:
        ValueError: the dilated kernel is larger than the padded grid.
    """
    out = tuple(
        (size + 2 * pad - dil * (kernel - 1) - 1) // step + 1
        for size, kernel, step, pad, dil in zip(
            shape, kernel_size, stride, padding, dilation, strict=True
        )
    )
    if min(out) < 1:
        raise ValueError(
            f"kernel {kernel_size} with dilation {dilation} and padding {padding} is larger than "
            f"the grid {shape}; no output cell is left"
        )
    return out


def shapes_along(
    shape: Triple, steps: Sequence[tuple[Triple, Triple, Triple, Triple]]
) -> list[Triple]:
    """Grid shapes before and after each strided convolution (kernel, stride, padding, dilation)."""
    shapes = [shape]
    for step in steps:
        shapes.append(convolved_shape(shapes[-1], *step))
    return shapes
