"""What the peers' networks share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

Network = Callable[[Tensor, Tensor], Any]
"""(coordinates (V, 4), features (V, C)) -> the library's own sparse tensor."""


class Residual(nn.Module):
    """Two blocks beside the identity, for a library whose tensors need `add`."""

    def __init__(self, first: nn.Module, second: nn.Module, add: Callable, relu: nn.Module):
        super().__init__()
        self.first, self.second, self.add, self.relu = first, second, add, relu

    def forward(self, x):
        return self.relu(self.add(self.second(self.first(x)), x))


class Called(nn.Module):
    """A network with what makes its input."""

    def __init__(self, network: nn.Module, make_input: Callable):
        super().__init__()
        self.network, self.make_input = network, make_input

    def forward(self, coordinates: Tensor, features: Tensor):
        return self.network(self.make_input(coordinates, features))


def same_norm(norm: nn.BatchNorm1d, made: nn.BatchNorm1d) -> nn.BatchNorm1d:
    """`made`, with the other's parameters and statistics."""
    made.load_state_dict(norm.state_dict())
    return made
