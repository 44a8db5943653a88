"""A chain's way forward and backward over given maps: memory, and the launches in their order."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from detector.ops.cuda_runtime import Memory
from detector.ops.occupancy import KernelMap
from detector.ops.occupancy.tables import fill_transposed, tile_masks
from detector.ops.sparse_conv import tensor_cores
from detector.ops.sparse_conv.weight_gradient import gradient_kernels
from detector.ops.sparse_norm.gpu import MOST_SUMS, norm_kernels
from detector.sparse.planned.chain import Layer, Shape

FLOAT, HALF = 4, 2  # bytes


class ChainPass:
    """Forward and backward, once for each filling of `features`.

    For the backward pass a layer leaves what its convolution gave, which is overwritten by its
    gradient. What its norm makes of that is made again when the next layer's weights want their
    gradient; it is kept only where a residual block adds it to another or ends with it.

    Args:
        maps: of each layer; they may have room for more rows than hold anything.
        counts: (1,) int32 on the GPU: of the voxels before each layer and at the end.
        shape: of the features, and what is computed in.
    """

    def __init__(
        self, layers: Sequence[Layer], maps: Sequence[KernelMap], counts: Sequence[Tensor],
        shape: Shape, device: torch.device,
    ):  # fmt: skip
        self.layers, self.maps, self.counts = layers, maps, counts
        self.dtype, self.place, self.device = shape.dtype, device, shape.device
        self.in_channels, self.of_features = shape.in_channels, shape.wants_gradient
        dtype, in_channels = shape.dtype, shape.in_channels
        wide = tensor_cores.padded_channels(in_channels, tensor_cores.IN_CHANNELS)
        self.features = torch.zeros(maps[0].rows_in, wide, dtype=dtype, device=device)
        """To be filled: (rows, at least `in_channels`), the others zero."""
        self.convolutions: list[tensor_cores.Convolution] = []
        for layer, kernel_map in zip(layers, maps, strict=True):
            channels = layer.conv.out_channels
            self.convolutions.append(tensor_cores.best_convolution(
                dtype, wide, channels, len(kernel_map.table), self.device, kernel_map.rows_out
            ))  # fmt: skip
            wide = channels
        self.norms = [
            norm_kernels(layer.conv.out_channels, dtype, layer.relu, layer.residual)
            for layer in layers
        ]
        sizes = [
            kernel_map.rows_out * layer.conv.out_channels
            for layer, kernel_map in zip(layers, maps, strict=True)
        ]
        self.out = torch.empty(
            maps[-1].rows_out, layers[-1].conv.out_channels, dtype=dtype, device=device
        )
        # Of each layer its convolution's output, and its norm's where that is kept; the last is the
        # result. The others' place, which is one for all, is the gradients', too.
        self._kept = [self._keeps(number) for number in range(len(layers))]
        passing = max(
            [0, *(size for size, kept in zip(sizes, self._kept, strict=True) if not kept)]
        )
        own = [size * (1 + kept) for size, kept in zip(sizes, self._kept, strict=True)]
        own[-1] = sizes[-1]
        self.held = torch.empty(passing + sum(own), dtype=dtype, device=device)
        self._passing = self.held.data_ptr()
        self.convolved, self.inputs = [], [self.features.data_ptr()]
        address = self._passing + passing * HALF
        for size, kept, taken in zip(sizes, self._kept, own, strict=True):
            self.convolved.append(address)
            self.inputs.append(address + size * HALF if kept else self._passing)
            address += taken * HALF
        self.inputs[-1] = self.out.data_ptr()
        self._statistics = torch.empty(
            4 * sum(layer.conv.out_channels for layer in layers), device=device
        )
        self._scratch = torch.empty(
            MOST_SUMS + max(c.packed_words for c in self.convolutions), device=device
        )

    def _keeps(self, number: int) -> bool:
        """Whether the output of a layer's norm is needed for longer than the next layer's turn."""
        layers = self.layers
        summand = number + 2 < len(layers) and layers[number + 2].residual
        return layers[number].residual or summand or number + 1 == len(layers)

    def forward(self) -> None:
        """`features` to `out`."""
        partial = self._scratch.data_ptr()
        packed = partial + FLOAT * MOST_SUMS
        statistics = self._statistics.data_ptr()
        for number, (layer, kernel_map, convolve, norm) in enumerate(
            zip(self.layers, self.maps, self.convolutions, self.norms, strict=True)
        ):
            rows, count = kernel_map.rows_out, self.counts[number + 1]
            x, y = self.convolved[number], self.inputs[number + 1]
            convolve.start_pack(layer.conv.weight, packed)
            convolve(
                self.inputs[number], packed, kernel_map.table, tile_masks(kernel_map.table),
                count, rows, x,
            )  # fmt: skip
            summand = self.inputs[number - 1] if layer.residual else None
            norm.start_forward(
                x, rows, layer.norm, summand, partial, statistics, y, device=self.device,
                count=count,
            )  # fmt: skip
            statistics += 4 * layer.conv.out_channels * FLOAT

    def make_room(self) -> None:
        """Memory for `backward`."""
        layers, maps, device = self.layers, self.maps, self.place
        first = 0 if self.of_features else 1
        self._back: list[tensor_cores.Convolution | None] = [None] * len(layers)
        turned = [(0, 0)]
        made = 0
        for number in range(first, len(layers)):
            layer, kernel_map = layers[number], maps[number]
            offsets = len(kernel_map.table)
            self._back[number] = tensor_cores.best_convolution(
                self.dtype, layer.conv.out_channels, self._wide_in(number), offsets, self.device,
                kernel_map.rows_in,
            )  # fmt: skip
            if not kernel_map.mirrored:
                tiles = max(1, -(-kernel_map.rows_in // 32))
                turned.append((32 * offsets * tiles, tiles * -(-offsets // 32)))
            if number == 0 or layers[number - 1].residual:
                made = max(made, kernel_map.rows_in * self._wide_in(number))
        self._weights = [
            gradient_kernels(
                self.dtype, self._wide_in(number), layer.conv.out_channels,
                len(maps[number].table), self.device,
            )
            for number, layer in enumerate(layers)
        ]  # fmt: skip
        partial = max(
            w.partial_sums(m.table, m.mirrored) for w, m in zip(self._weights, maps, strict=True)
        )
        packed = max(0 if c is None else c.packed_words for c in self._back)
        self._sums = torch.empty(MOST_SUMS, device=device)
        self._partial = torch.empty(max(partial, packed), device=device)
        entries, masks = map(max, zip(*turned, strict=True))
        self._turned = torch.empty(entries, dtype=torch.int32, device=device)
        self._turned_masks = torch.empty(masks, dtype=torch.int32, device=device)
        self._made = torch.empty(made, dtype=self.dtype, device=device)
        wide = self._wide_in(0)
        self._wide_features = self.features
        if wide > self.features.shape[1]:
            self._wide_features = self.features.new_zeros(len(self.features), wide)
        self.flat = torch.empty(
            sum(p.numel() for layer in layers for p in layer.parameters), device=device
        )
        """Gradients of the parameters, in their order."""

    def backward(self, gradient: Tensor) -> None:
        """From the gradient of `out`, which is overwritten, to `flat` and `feature_gradient`."""
        layers = self.layers
        at = self.flat.data_ptr() + self.flat.numel() * FLOAT
        statistics = self._statistics.data_ptr() + self._statistics.numel() * FLOAT
        arriving = gradient.data_ptr()  # of the layer's result
        passing = None                  # past a residual block, to its input
        for number in range(len(layers) - 1, -1, -1):
            layer, kernel_map = layers[number], self.maps[number]
            weight, scale, shift = layer.parameters
            at -= FLOAT * (scale.numel() + shift.numel())
            statistics -= 4 * FLOAT * layer.conv.out_channels
            if layer.residual:
                passing = arriving
            x = self.convolved[number]
            self.norms[number].start_backward(
                arriving, x, self.inputs[number + 1], kernel_map.rows_out, scale, statistics,
                self._sums, at, passing if layer.residual else None, x, device=self.device,
                count=self.counts[number + 1],
            )  # fmt: skip
            at -= FLOAT * weight.numel()
            if number > 0 and not self._kept[number - 1]:
                before = layers[number - 1].conv.out_channels
                self.norms[number - 1].start_again(
                    self.convolved[number - 1], self.maps[number - 1].rows_out,
                    statistics - 4 * FLOAT * before, self.inputs[number], device=self.device,
                    count=self.counts[number],
                )  # fmt: skip
            self._weight_gradient(number, x, at)
            if self._back[number] is None:
                return
            summand = None
            if number + 1 < len(layers) and layers[number + 1].residual:
                target = summand = passing
            elif number == 0 or layers[number - 1].residual:
                # The input itself, or its sign, is still needed.
                target = self._made.data_ptr()
            else:
                target = self.inputs[number]
            self._feature_gradient(number, x, target, summand)
            arriving = target

    @property
    def feature_gradient(self) -> Tensor | None:
        """(rows, in_channels)"""
        if not self.of_features:
            return None
        wide = self._wide_in(0)
        rows = self.maps[0].rows_in
        return self._made[: rows * wide].view(rows, wide)[:, : self.in_channels]

    def _weight_gradient(self, number: int, out_gradient: int, total: int) -> None:
        """Into the memory at `total`."""
        kernel_map, conv = self.maps[number], self.layers[number].conv
        features: Memory = self.inputs[number]
        if number == 0:
            features = self._wide_features
            if features is not self.features:
                features[:, : self.features.shape[1]].copy_(self.features)
        self._weights[number].start(
            features, out_gradient, kernel_map.table, self.counts[number + 1], conv.in_channels,
            kernel_map.mirrored, self._partial, total,
        )  # fmt: skip

    def _feature_gradient(
        self, number: int, out_gradient: int, target: int, summand: int | None
    ) -> None:
        """Into the memory at `target`, which may be the summand's."""
        kernel_map, convolve = self.maps[number], self._back[number]
        # A mirrored table undoes itself when its offsets are counted backwards.
        table = kernel_map.table
        if kernel_map.mirrored:
            masks = tile_masks(table)
        else:
            table, masks = self._transposed(kernel_map, self.counts[number + 1])
        convolve.start_pack(
            self.layers[number].conv.weight, self._partial, turned=True,
            flipped=kernel_map.mirrored,
        )  # fmt: skip
        convolve(
            out_gradient, self._partial, table, masks, self.counts[number], kernel_map.rows_in,
            target, residual=summand,
        )  # fmt: skip

    def _transposed(self, kernel_map: KernelMap, count: Tensor) -> tuple[Tensor, Tensor]:
        """The table from input rows to output rows, and its masks; until the next one."""
        offsets, rows = len(kernel_map.table), kernel_map.rows_in
        tiles, words = max(1, -(-rows // 32)), -(-offsets // 32)
        turned = self._turned[: 32 * offsets * tiles].view(offsets, 32 * tiles)[:, :rows]
        masks = self._turned_masks[: tiles * words].view(tiles, words)
        fill_transposed(kernel_map.table, count, turned, masks)
        return turned, masks

    def _wide_in(self, number: int) -> int:
        """Channels of the gradient of a layer's input."""
        return tensor_cores.padded_channels(
            self.layers[number].conv.in_channels, tensor_cores.OUT_CHANNELS
        )
