"""What a plan reads from a sparse backbone's modules: its convolutions with what follows them.

The network has a `stem`, `stages` of convolution blocks and residual blocks, `focal` stages by the
number of the stage they end, and `out`. Nothing here imports the models.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from torch import nn

from detector.sparse.conv import SparseConv3d, SubMConv3d
from detector.sparse.focal import FocalConv3d
from detector.sparse.modules import SparseBatchNorm, SparseSequential

CONVOLUTIONS = (SubMConv3d, SparseConv3d, FocalConv3d)


@dataclass
class Block:
    """A convolution with what follows it."""

    conv: SubMConv3d | SparseConv3d | FocalConv3d
    norm: SparseBatchNorm | None
    relu: bool


def encoder_units(encoder: nn.Module) -> Iterator[list[Block]]:
    """Blocks in order; a residual block's two come together.

    Raises:
        ValueError: modules that can't be planned.
    """
    focal = getattr(encoder, "focal", {})
    yield from chain_units([encoder.stem])
    for number, stage in enumerate(encoder.stages, 1):
        yield from chain_units([stage])
        if str(number) in focal:
            yield from _blocks([focal[str(number)].conv, *focal[str(number)].after])
    yield from chain_units([encoder.out])


def chain_units(modules: Iterable[nn.Module]) -> Iterator[list[Block]]:
    """The same of modules one after another, which may be sequences of such.

    Raises:
        ValueError: modules that can't be planned.
    """
    for module in modules:
        if hasattr(module, "first") and hasattr(module, "second"):
            first, second = next(_blocks(module.first)), next(_blocks(module.second))
            second[0].relu = True  # after the sum
            yield [first[0], second[0]]
        elif isinstance(module, SparseSequential) and not any(
            isinstance(part, CONVOLUTIONS) for part in module
        ):
            yield from chain_units(module)
        else:
            yield from _blocks(module)


def blocks_of(sequence: nn.Module) -> list[Block]:
    """The blocks of a sequence.

    Raises:
        ValueError: modules that can't be planned.
    """
    return [block for (block,) in _blocks(sequence)]


def _blocks(sequence) -> Iterator[list[Block]]:
    if not isinstance(sequence, (SparseSequential, list)):
        raise ValueError(f"a {type(sequence).__name__} can't be planned")
    block = None
    for module in sequence:
        if isinstance(module, CONVOLUTIONS):
            if block:
                yield [block]
            block = Block(module, None, False)
        elif isinstance(module, SparseBatchNorm) and block and not block.norm and not block.relu:
            block.norm = module
        elif isinstance(module, nn.ReLU) and block:
            block.relu = True
        else:
            raise ValueError(f"a {type(module).__name__} at this place can't be planned")
    if block:
        yield [block]
