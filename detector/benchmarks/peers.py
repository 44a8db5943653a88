"""Other libraries' sparse convolutions behind one face, each as its own users write it.

A peer builds SECOND-like encoders from ours - same layers, same weights - and calls them on voxel
coordinates and features. Each is imported only when asked for.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from detector.sparse.conv import SparseConv3d, SubMConv3d
from detector.sparse.planned.network import Block, encoder_units

Network = Callable[[Tensor, Tensor], Any]
"""(coordinates (V, 4), features (V, C)) -> the library's own sparse tensor."""


class _Residual(nn.Module):
    """Two blocks beside the identity, for a library whose tensors need `add`."""

    def __init__(self, first: nn.Module, second: nn.Module, add: Callable, relu: nn.Module):
        super().__init__()
        self.first, self.second, self.add, self.relu = first, second, add, relu

    def forward(self, x):
        return self.relu(self.add(self.second(self.first(x)), x))


def _same_norm(norm: nn.BatchNorm1d, made: nn.BatchNorm1d) -> nn.BatchNorm1d:
    made.load_state_dict(norm.state_dict())
    return made


class Spconv:
    """spconv 2, and packages of the same interface."""

    def __init__(self, module: str = "spconv.pytorch"):
        self.library = importlib.import_module(module)
        self.name = module.split(".")[0].replace("_", "-")

    def convolution(self, ours: SubMConv3d | SparseConv3d, key: str) -> nn.Module:
        arguments = dict(
            in_channels=ours.in_channels, out_channels=ours.out_channels,
            kernel_size=ours.kernel_size, bias=False, indice_key=key,
        )  # fmt: skip
        if isinstance(ours, SubMConv3d):
            made = self.library.SubMConv3d(**arguments)
        else:
            made = self.library.SparseConv3d(
                **arguments, stride=ours.stride, padding=ours.padding
            )
        weight = ours.weight.detach().permute(4, 0, 1, 2, 3).contiguous()
        made.weight = nn.Parameter(weight.view_as(made.weight).clone())
        return made

    def encoder(self, encoder: nn.Module, shape, batch_size: int) -> Network:
        library, level = self.library, 0

        def sequence(block: Block, key: str, relu: bool) -> nn.Module:
            norm = _same_norm(block.norm, nn.BatchNorm1d(block.conv.out_channels, eps=1e-3))
            parts = [self.convolution(block.conv, key), norm] + [nn.ReLU()] * relu
            return library.SparseSequential(*parts)

        layers = []
        for number, unit in enumerate(encoder_units(encoder)):
            strided = isinstance(unit[0].conv, SparseConv3d)
            level += strided
            key = f"down{number}" if strided else f"same{level}"
            if len(unit) == 1:
                layers.append(sequence(unit[0], key, True))
            else:
                layers.append(_Residual(
                    sequence(unit[0], key, True), sequence(unit[1], key, False),
                    lambda a, b: a.replace_feature(a.features + b.features),
                    library.SparseSequential(nn.ReLU()),
                ))  # fmt: skip
        network = nn.Sequential(*layers).to(next(encoder.parameters()).device)
        return _Called(
            network, lambda c, f: library.SparseConvTensor(f, c, list(shape), batch_size)
        )

    def layer(self, ours: SubMConv3d, shape, batch_size: int):
        """A single layer, and what makes its input; the map is kept in the input."""
        made = self.convolution(ours, "same").to(ours.weight.device)
        return made, lambda c, f: self.library.SparseConvTensor(f, c, list(shape), batch_size)

    @staticmethod
    def features(x) -> Tensor:
        return x.features

    @staticmethod
    def coordinates(x) -> Tensor:
        return x.indices

    @staticmethod
    def with_features(x, features: Tensor):
        return x.replace_feature(features)

    def voxelizer(self, grid, columns: int, max_points: int, max_voxels: int, device):
        """points -> anything; hard voxelization."""
        from spconv.pytorch.utils import PointToVoxel

        made = PointToVoxel(
            vsize_xyz=list(grid.voxel_size), coors_range_xyz=list(grid.point_cloud_range),
            num_point_features=columns, max_num_voxels=max_voxels,
            max_num_points_per_voxel=max_points, device=torch.device(device),
        )  # fmt: skip

        def run(points: Tensor):
            voxels, coordinates, counts = made(points)
            return voxels.sum(1) / counts.view(-1, 1), coordinates

        return run


class TorchSparse:
    """TorchSparse++ 2.1."""

    name = "torchsparse"

    def __init__(self):
        import torchsparse
        import torchsparse.nn

        self.library = torchsparse
        # The default reserves twice the input's voxels, too few below isolated points.
        torchsparse.backends.hash_rsv_ratio = 8

    def convolution(self, ours: SubMConv3d | SparseConv3d) -> nn.Module:
        strided = isinstance(ours, SparseConv3d)
        made = self.library.nn.Conv3d(
            ours.in_channels, ours.out_channels, ours.kernel_size,
            stride=ours.stride if strided else 1,
            padding=ours.padding if strided else tuple(k // 2 for k in ours.kernel_size),
        )  # fmt: skip
        weight = ours.weight.detach()
        if made.kernel_volume == 27:
            weight = weight.permute(2, 1, 0, 3, 4)  # it numbers offsets with x outermost
        made.kernel.data.copy_(weight.flatten(0, 2).view_as(made.kernel))
        return made

    def encoder(self, encoder: nn.Module, shape, batch_size: int) -> Network:
        library = self.library

        def sequence(block: Block, relu: bool) -> nn.Module:
            norm = _same_norm(block.norm, library.nn.BatchNorm(block.conv.out_channels, eps=1e-3))
            parts = [self.convolution(block.conv), norm]
            return nn.Sequential(*parts, *[library.nn.ReLU(True)] * relu)

        layers = [
            sequence(unit[0], True) if len(unit) == 1 else _Residual(
                sequence(unit[0], True), sequence(unit[1], False), lambda a, b: a + b,
                library.nn.ReLU(True),
            )
            for unit in encoder_units(encoder)
        ]  # fmt: skip
        network = nn.Sequential(*layers).to(next(encoder.parameters()).device)
        return _Called(network, self._input(shape, batch_size))

    def _input(self, shape, batch_size: int):
        return lambda c, f: self.library.SparseTensor(
            f, c, spatial_range=(batch_size, *shape)
        )

    def layer(self, ours: SubMConv3d, shape, batch_size: int):
        return self.convolution(ours).to(ours.weight.device), self._input(shape, batch_size)

    @staticmethod
    def features(x) -> Tensor:
        return x.feats

    @staticmethod
    def coordinates(x) -> Tensor:
        return x.coords

    def with_features(self, x, features: Tensor):
        made = self.library.SparseTensor(
            features, x.coords, stride=x.stride, spatial_range=x.spatial_range
        )
        made._caches = x._caches
        return made

    voxelizer = None


class _Called(nn.Module):
    """A network with what makes its input."""

    def __init__(self, network: nn.Module, make_input: Callable):
        super().__init__()
        self.network, self.make_input = network, make_input

    def forward(self, coordinates: Tensor, features: Tensor):
        return self.network(self.make_input(coordinates, features))


PEERS: dict[str, Callable[[], Any]] = {
    "spconv": Spconv,
    "torchsparse": TorchSparse,
    "spconv-triton": lambda: Spconv("spconv_triton.pytorch"),
}


def installed_peers(names: list[str] | None = None) -> tuple[list[Any], dict[str, str]]:
    """The peers that load, and why the others don't."""
    found, missing = [], {}
    for name in names or PEERS:
        try:
            found.append(PEERS[name]())
        except Exception as error:  # whatever a broken installation raises
            missing[name] = f"{type(error).__name__}: {error}"
    return found, missing
