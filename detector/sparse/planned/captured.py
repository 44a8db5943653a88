"""A chain's forward and backward as two CUDA graphs.

A launch costs the host more than most of these kernels take. A graph is one launch, but its
kernels' memory and the room in it are fixed, so each level has room for some more voxels than the
largest batch had; how many there are, kernels read on the GPU. A batch with more is captured anew.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from detector.ops.cuda_runtime import loading
from detector.ops.occupancy import KernelMap, Occupancy
from detector.ops.occupancy.lent import Lender
from detector.ops.occupancy.shapes import ONE, Triple
from detector.ops.occupancy.tables import ConvTable, fill_table
from detector.sparse.planned.chain import Layer, Shape
from detector.sparse.planned.chain_pass import ChainPass

ROOM = 1.05
"""How many times the largest batch's voxels there is room for."""


@dataclass(frozen=True)
class _Map:
    """A map with room, and how it is filled: from a level, at the sites of a level."""

    kernel_map: KernelMap
    finer: int
    coarser: int
    stride: Triple
    padding: Triple
    dilation: Triple

    def fill(self, levels: Sequence[Occupancy]) -> None:
        table = self.kernel_map.table
        fill_table(
            levels[self.finer].bitmap, levels[self.coarser].coordinates,
            levels[self.coarser].count, [ConvTable(table, table.tile_masks)],
            self.kernel_map.kernel_size, self.stride, self.padding, self.dilation,
        )  # fmt: skip


class CapturedChain:
    """Two graphs and their memory.

    Args:
        rows: of each level, in the largest batch.
        lends: between steps, what holds features holds the bitmaps of the indices that come in.
    """

    def __init__(
        self, layers: Sequence[Layer], rows: Sequence[int], shape: Shape, *, lends: bool = False
    ):
        self.layers, self.rows, self.shape = layers, rows, shape
        self._user: weakref.ref | None = None
        self.capacities = [-(-int(ROOM * count) // 32) * 32 for count in rows]
        device = torch.device("cuda", shape.device) if shape.device >= 0 else torch.device("cpu")
        self._counts = torch.zeros(len(rows), dtype=torch.int32, device=device)
        self._host_counts = torch.zeros(
            len(rows), dtype=torch.int32, pin_memory=device.type == "cuda"
        )
        self._maps, maps, counts = self._with_room(device)
        self.chain = ChainPass(layers, maps, counts, shape, device)
        self.chain.make_room()
        # The result is copied out at once; only a residual block asks for it again.
        again = layers[-1].residual
        self._gradient = torch.zeros_like(self.chain.out) if again else self.chain.out
        self._lender = Lender(self.chain.held) if lends else None
        self._forward = capture(self.chain.forward, device)
        self._backward = capture(lambda: self.chain.backward(self._gradient), device)

    def _with_room(
        self, device: torch.device
    ) -> tuple[list[_Map], list[KernelMap], list[Tensor]]:
        """The distinct maps, and of each layer its map; the counts before each layer and after."""
        distinct: dict[tuple, _Map] = {}
        counts, maps, level = [self._counts[:1]], [], 0
        for layer in self.layers:
            conv, finer = layer.conv, level
            if layer.step is not None:
                level += 1
                stride, padding = conv.stride, conv.padding
            else:
                stride = ONE
                padding = tuple(
                    d * (k // 2) for d, k in zip(conv.dilation, conv.kernel_size, strict=True)
                )
            key = finer, level, conv.kernel_size, stride, padding, conv.dilation
            if key not in distinct:
                made = ConvTable.empty(
                    conv.weight.shape[:3].numel(), self.capacities[level], device
                )
                table, table.tile_masks = made.table, made.masks
                mirrored = layer.step is None and all(k % 2 for k in conv.kernel_size)
                kernel_map = KernelMap(
                    table, self.capacities[finer], conv.kernel_size, mirrored=mirrored
                )
                distinct[key] = _Map(kernel_map, finer, level, stride, padding, conv.dilation)
            maps.append(distinct[key].kernel_map)
            counts.append(self._counts[level : level + 1])
        return list(distinct.values()), maps, counts

    def holds(self, rows: Sequence[int]) -> bool:
        """Whether there is room for so many voxels at each level."""
        return all(a <= b for a, b in zip(rows, self.capacities, strict=True))

    @property
    def busy(self) -> bool:
        """Whether a batch has gone forward and may yet go backward."""
        user = None if self._user is None else self._user()
        return user is not None and not user.done

    def step(self, levels: Sequence[Occupancy]) -> CapturedStep:
        """Fills the maps for a batch."""
        rows = [len(level) for level in levels]
        self._host_counts.numpy()[:] = rows
        # The batch's indices were waited for: nobody reads the former counts any more.
        self._counts.copy_(self._host_counts, non_blocking=True)
        for one in self._maps:
            one.fill(levels)
        step = CapturedStep(self, rows)
        self._user = weakref.ref(step)
        return step

    def idle(self) -> None:
        """Nobody needs the features any more."""
        if self._lender is not None:
            self._lender.open = True

    def forward(self, features: Tensor, rows: int) -> Tensor:
        """The last level's `rows`."""
        if self._lender is not None:
            self._lender.reclaim()
        self.chain.features[: len(features), : features.shape[1]].copy_(features)
        self._forward()
        return self.chain.out[:rows].clone()

    def backward(self, gradient: Tensor, rows_in: int) -> tuple[Tensor | None, Tensor]:
        self._gradient[: len(gradient)].copy_(gradient)
        self._backward()
        self.idle()
        feature_gradient = self.chain.feature_gradient
        if feature_gradient is not None:
            feature_gradient = feature_gradient[:rows_in].to(self.shape.given, copy=True)
        return feature_gradient, self.chain.flat.clone()


class CapturedStep:
    """One batch's way through a captured chain."""

    def __init__(self, captured: CapturedChain, rows: Sequence[int]):
        self.captured, self.rows, self.layers = captured, rows, captured.layers
        self.done = False

    def __del__(self):
        if not self.done:
            self.captured.idle()

    def forward(self, features: Tensor) -> Tensor:
        return self.captured.forward(features, self.rows[-1])

    def backward(self, gradient: Tensor) -> tuple[Tensor | None, Tensor]:
        self.done = True
        return self.captured.backward(gradient, self.rows[0])


def capture(work: Callable[[], None], device: torch.device) -> Callable[[], None]:
    """A function that does the work again, as one graph. The work itself is not done."""
    with loading():
        work()
    graph = torch.cuda.CUDAGraph()
    stream = torch.cuda.Stream(device)
    stream.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.stream(stream):
        # Other threads may go on with memory of their own, as those that pin batches do.
        graph.capture_begin(capture_error_mode="thread_local")
        try:
            work()
        finally:
            graph.capture_end()
    torch.cuda.current_stream(device).wait_stream(stream)
    return graph.replay
