"""Who computes sparse convolutions: one switch for the whole process.

`native` is ours and the default everywhere. Others are optional packages that compute the same
function with the same weights, to check ours or to keep what one trusts.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import Protocol

from jaxtyping import Float
from torch import Tensor

from detector.errors import InputError
from detector.ops.occupancy import Occupancy
from detector.sparse.tensor import SparseTensor

Weight = Float[Tensor, "kz ky kx in out"]

ENGINES = {
    "native": "detector.sparse.engines.native",
    "spconv": "detector.sparse.engines.spconv",
    "torchsparse": "detector.sparse.engines.torchsparse",
}
"""Name -> module with a class `Engine`. Importing the module raises ImportError where the package
it needs is not installed."""

_current: Engine | None = None


class Engine(Protocol):
    """What an engine computes. Sizes are triples (z, y, x)."""

    name: str

    def submanifold(
        self, x: SparseTensor, weight: Weight, bias: Tensor | None, dilation: Sequence[int]
    ) -> SparseTensor:
        """On the voxels of x, seen around each of them."""

    def strided(
        self,
        x: SparseTensor,
        weight: Weight,
        bias: Tensor | None,
        stride: Sequence[int],
        padding: Sequence[int],
        dilation: Sequence[int],
    ) -> SparseTensor:
        """On every output cell whose window holds a voxel."""

    def inverse(
        self, x: SparseTensor, like: SparseTensor, weight: Weight, bias: Tensor | None
    ) -> SparseTensor:
        """Back onto the voxels of `like`, from which a strided convolution of this kernel size
        made the voxels of x."""

    def at_sites(
        self, x: SparseTensor, sites: Occupancy, weight: Weight, bias: Tensor | None
    ) -> SparseTensor:
        """Stride 1, on other cells of the same grid than those of x."""


def use_engine(name: str) -> None:
    """Chooses the engine of all sparse layers from now on.

    Raises:
        InputError: an unknown name, or an engine whose package is not installed.
    """
    global _current
    if name not in ENGINES:
        raise InputError(
            f"unknown sparse engine {name!r}; this version has {', '.join(sorted(ENGINES))}"
        )
    try:
        module = importlib.import_module(ENGINES[name])
    except ImportError as error:
        raise InputError(
            f"sparse engine {name!r} can't be loaded ({error}); install its package, or use "
            f"'native'"
        ) from error
    _current = module.Engine()


def current_engine() -> Engine:
    """The engine in use."""
    if _current is None:
        use_engine("native")
    return _current
