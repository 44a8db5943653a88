"""FlexGEMM: functions on features and coordinates, Triton products, maps handed from call to call.

Run as built from commit 6dd94a8 for sm_90: its maps on an H100. Its products try many Triton
configurations on first use, which takes minutes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from detector.benchmarks.peers.modules import Called, Network, Residual, same_norm
from detector.sparse.conv import SparseConv3d, SubMConv3d
from detector.sparse.planned.network import Block, encoder_units


@dataclass
class _Rows:
    """What its users carry along themselves."""

    features: Tensor
    coordinates: Tensor
    shape: tuple[int, int, int]
    batch_size: int
    maps: dict[tuple, Any] = field(default_factory=dict)
    """Of submanifold layers on these voxels, by kernel size."""

    @property
    def size(self) -> torch.Size:
        return torch.Size([self.batch_size, self.features.shape[1], *self.shape])


class FlexGEMM:
    """See `detector.benchmarks.peers`; it multiplies float32 as TF32 by default."""

    name = "flexgemm"
    focal = False
    voxelizer = None

    def __init__(self):
        import flex_gemm.ops.spconv

        self.library = flex_gemm.ops.spconv

    def encoder(self, encoder: nn.Module, shape, batch_size: int) -> Network:
        def sequence(block: Block, relu: bool) -> nn.Module:
            norm = same_norm(block.norm, nn.BatchNorm1d(block.conv.out_channels, eps=1e-3))
            after = nn.Sequential(norm, *[nn.ReLU(True)] * relu)
            return nn.Sequential(_Convolution(self.library, block.conv), _OnFeatures(after))

        layers = [
            sequence(unit[0], True) if len(unit) == 1 else Residual(
                sequence(unit[0], True), sequence(unit[1], False),
                lambda a, b: replace(a, features=a.features + b.features),
                _OnFeatures(nn.ReLU(True)),
            )
            for unit in encoder_units(encoder)
        ]  # fmt: skip
        network = nn.Sequential(*layers).to(next(encoder.parameters()).device)
        return Called(network, self._input(shape, batch_size))

    @staticmethod
    def _input(shape, batch_size: int):
        return lambda c, f: _Rows(f, c, tuple(shape), batch_size)

    def layer(self, ours: SubMConv3d, shape, batch_size: int):
        made = _Convolution(self.library, ours).to(ours.weight.device)
        return made, self._input(shape, batch_size)

    @staticmethod
    def features(x: _Rows) -> Tensor:
        return x.features

    @staticmethod
    def coordinates(x: _Rows) -> Tensor:
        return x.coordinates

    @staticmethod
    def with_features(x: _Rows, features: Tensor) -> _Rows:
        return replace(x, features=features)


class _OnFeatures(nn.Module):
    def __init__(self, module: nn.Module):
        super().__init__()
        self.module = module

    def forward(self, x: _Rows) -> _Rows:
        return replace(x, features=self.module(x.features))


class _Convolution(nn.Module):
    """Weights (out, kz, ky, kx, in). Its backward pass asks a bias whether it wants a gradient, so
    there is one, of zeros."""

    def __init__(self, library, ours: SubMConv3d | SparseConv3d):
        super().__init__()
        self.library, self.kernel_size = library, ours.kernel_size
        self.weight = nn.Parameter(ours.weight.detach().permute(4, 0, 1, 2, 3).contiguous())
        self.register_buffer("bias", torch.zeros(ours.out_channels))
        self.strides = None
        if isinstance(ours, SparseConv3d):
            self.strides = dict(stride=ours.stride, padding=ours.padding)

    def forward(self, x: _Rows) -> _Rows:
        dtype = self.weight.dtype
        if torch.is_autocast_enabled("cuda"):
            dtype = torch.get_autocast_dtype("cuda")
        features, weight, bias = (t.to(dtype) for t in (x.features, self.weight, self.bias))
        features = features.contiguous()
        if self.strides is None:
            out, x.maps[self.kernel_size] = self.library.sparse_submanifold_conv3d(
                features, x.coordinates, x.size, weight, bias, x.maps.get(self.kernel_size)
            )
            return replace(x, features=out)
        out, coordinates, _ = self.library.sparse_conv3d(
            features, x.coordinates, x.size, weight, bias, **self.strides
        )
        shape = tuple(
            math.floor((n + 2 * p - k) / s) + 1
            for n, p, k, s in zip(
                x.shape, self.strides["padding"], self.kernel_size, self.strides["stride"],
                strict=True,
            )
        )  # fmt: skip
        return _Rows(out, coordinates, shape, x.batch_size)
