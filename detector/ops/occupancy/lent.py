"""Memory that its owner does not need for now, for the bitmaps of indices.

A large grid's bitmap is needed only until kernel maps are made, a captured network's features only
after that: one stretch of memory serves both. Its owner takes it back by having the bitmap dropped;
an index makes another when it needs one.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

import torch
from torch import Tensor

LEAST = 1 << 22
"""Numbers; less is not worth borrowing."""


class Borrower(Protocol):
    def release(self) -> None:
        """Uses the memory no more."""


class Lender:
    """Lends a stretch of memory to one borrower at a time, on the stream it was made on."""

    def __init__(self, memory: Tensor):
        words = memory.numel() * memory.element_size() // 4
        self._memory = memory.view(torch.uint8)[: 4 * words].view(torch.int32)
        self._stream = _stream(memory.device)
        self._borrower: weakref.ref[Borrower] | None = None
        self.open = True
        _LENDERS.add(self)

    def take(self, start: int, count: int, device: torch.device) -> Tensor | None:
        """`count` numbers from `start` on; None where it can't lend so many."""
        if not self.open or self._memory.device != device:
            return None
        if start + count > len(self._memory) or _stream(device) != self._stream:
            return None
        return self._memory[start : start + count]

    @property
    def lends(self) -> bool:
        return self._borrower is not None and self._borrower() is not None

    def reclaim(self) -> None:
        """Takes the memory back, until it is `open` again."""
        self.open = False
        borrower = None if self._borrower is None else self._borrower()
        self._borrower = None
        if borrower is not None:
            borrower.release()


class Loan:
    """What was borrowed together."""

    def __init__(self):
        self._lender: Lender | None = None
        self._taken = 0

    def take(self, count: int, device: torch.device) -> Tensor | None:
        if count < LEAST:
            return None
        lenders = [self._lender] if self._lender else [one for one in _LENDERS if not one.lends]
        for lender in lenders:
            memory = lender.take(self._taken, count, device)
            if memory is not None:
                self._lender = lender
                self._taken += -(-count // 64) * 64
                return memory
        return None

    def to(self, borrower: Borrower) -> None:
        """Who has to give it back."""
        if self._lender is not None:
            self._lender._borrower = weakref.ref(borrower)


_LENDERS: weakref.WeakSet[Lender] = weakref.WeakSet()
_loan: Loan | None = None


@contextmanager
def borrowing() -> Iterator[Loan]:
    """`empty` and `zeros` meanwhile take what somebody lends."""
    global _loan
    _loan = Loan()
    try:
        yield _loan
    finally:
        _loan = None


def empty(count: int, device: torch.device) -> Tensor:
    """(count,) int32 that hold anything."""
    memory = None if _loan is None else _loan.take(count, device)
    return torch.empty(count, dtype=torch.int32, device=device) if memory is None else memory


def zeros(count: int, device: torch.device) -> Tensor:
    """(count,) int32 zeros."""
    memory = None if _loan is None else _loan.take(count, device)
    if memory is None:
        return torch.zeros(count, dtype=torch.int32, device=device)
    return memory.zero_()


def _stream(device: torch.device) -> int:
    return torch._C._cuda_getCurrentRawStream(device.index) if device.type == "cuda" else 0
