"""WarpConvNet 1.8.

Its own strided convolution has other output voxels, the cells of the input divided by the stride;
so it is handed the true ones, which our index makes once for each input, outside the timing: that
favours it. Written against the sources of 1.8.2, not run: its build takes hours of one core.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from detector.benchmarks.peers.modules import Called, Network, Residual, same_norm
from detector.ops.occupancy import Occupancy
from detector.sparse.conv import SparseConv3d, SubMConv3d
from detector.sparse.planned.network import Block, encoder_units


class WarpConvNet:
    """See `detector.benchmarks.peers`; float32 is what its own settings make of it."""

    name = "warpconvnet"
    focal = False
    voxelizer = None

    def __init__(self):
        from warpconvnet.geometry.types.voxels import Voxels
        from warpconvnet.nn.modules.sparse_conv import SparseConv3d as Convolution

        self.voxels, self.convolution_type = Voxels, Convolution

    def convolution(self, ours: SubMConv3d | SparseConv3d) -> nn.Module:
        strided = isinstance(ours, SparseConv3d)
        made = self.convolution_type(
            ours.in_channels, ours.out_channels, ours.kernel_size,
            stride=ours.stride if strided else 1, bias=False,
        )  # fmt: skip
        made.weight.data.copy_(ours.weight.detach().flatten(0, 2))
        return made

    def encoder(self, encoder: nn.Module, shape, batch_size: int) -> Network:
        def sequence(block: Block, relu: bool) -> nn.Module:
            norm = same_norm(block.norm, nn.BatchNorm1d(block.conv.out_channels, eps=1e-3))
            after = _OnFeatures(nn.Sequential(norm, *[nn.ReLU(True)] * relu))
            convolution = self.convolution(block.conv)
            if isinstance(block.conv, SparseConv3d):
                convolution = _Strided(convolution, block.conv, self._tensor)
            return nn.Sequential(convolution, after)

        layers = [
            sequence(unit[0], True) if len(unit) == 1 else Residual(
                sequence(unit[0], True), sequence(unit[1], False), lambda a, b: a + b,
                _OnFeatures(nn.ReLU(True)),
            )
            for unit in encoder_units(encoder)
        ]  # fmt: skip
        steps = [
            (c.kernel_size, c.stride, c.padding, c.dilation)
            for (c, *_) in ([b.conv for b in unit] for unit in encoder_units(encoder))
            if isinstance(c, SparseConv3d)
        ]
        network = nn.Sequential(*layers).to(next(encoder.parameters()).device)
        known: dict[int, tuple] = {}

        def make_input(coordinates: Tensor, features: Tensor):
            if id(coordinates) not in known:
                occupancy, levels = Occupancy.of_any(coordinates, shape, batch_size), []
                for step in steps:
                    occupancy, _ = occupancy.downsample(*step)
                    levels.append(occupancy.coordinates)
                given = [(level, _offsets(level, batch_size)) for level in levels]
                known[id(coordinates)] = coordinates, _offsets(coordinates, batch_size), given
            _, offsets, given = known[id(coordinates)]
            pending = iter(given)
            for layer in network.modules():
                if isinstance(layer, _Strided):
                    layer.given = next(pending)
            return self._tensor(coordinates, features, offsets)

        return Called(network, make_input)

    def _tensor(self, coordinates: Tensor, features: Tensor, offsets: Tensor):
        return self.voxels(coordinates[:, 1:].contiguous(), features, offsets=offsets)

    def layer(self, ours: SubMConv3d, shape, batch_size: int):
        return self.convolution(ours).to(ours.weight.device), lambda c, f: self._tensor(
            c, f, _offsets(c, batch_size)
        )

    @staticmethod
    def features(x) -> Tensor:
        return x.feature_tensor

    @staticmethod
    def coordinates(x) -> Tensor:
        return x.batch_indexed_coordinates.int()

    @staticmethod
    def with_features(x, features: Tensor):
        return x.replace(batched_features=features)


def _offsets(coordinates: Tensor, batch_size: int) -> Tensor:
    """Where each frame's rows begin, on the CPU, as it wants them; frames one after another."""
    counts = torch.bincount(coordinates[:, 0].long(), minlength=batch_size)
    return torch.cat([counts.new_zeros(1), counts.cumsum(0)]).int().cpu()


class _OnFeatures(nn.Module):
    def __init__(self, module: nn.Module):
        super().__init__()
        self.module = module

    def forward(self, x):
        return x.replace(batched_features=self.module(x.feature_tensor))


class _Strided(nn.Module):
    """Its kernels are centred: where ours are not, the input's cells move by the difference."""

    given: tuple[Tensor, Tensor]

    def __init__(self, convolution: nn.Module, ours: SparseConv3d, tensor):
        super().__init__()
        self.convolution, self.tensor = convolution, tensor
        shift = [p - k // 2 for p, k in zip(ours.padding, ours.kernel_size, strict=True)]
        self.register_buffer("shift", torch.tensor([0, *shift], dtype=torch.int32))
        self.centred = not any(shift)

    def forward(self, x):
        if not self.centred:
            moved = x.batch_indexed_coordinates + self.shift
            x = self.tensor(moved, x.feature_tensor, x.offsets)
        coordinates, offsets = self.given
        empty = x.feature_tensor.new_zeros(len(coordinates), 1)
        return self.convolution(x, self.tensor(coordinates, empty, offsets))
