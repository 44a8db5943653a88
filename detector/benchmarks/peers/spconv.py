"""spconv 2, and spconv-triton, which has the same interface.

Run with the wheel spconv-cu126 2.3.8 on an H100; spconv-triton 1.0.0 tunes for minutes at first.
"""

from __future__ import annotations

import importlib
import math

import torch
from torch import Tensor, nn

from detector.benchmarks.peers.modules import Called, Network, Residual, same_norm
from detector.sparse.conv import SparseConv3d, SubMConv3d
from detector.sparse.focal import FocalConv3d
from detector.sparse.planned.network import Block, encoder_units


class Spconv:
    """See `detector.benchmarks.peers`; float32 is multiplied as TF32."""

    focal = True
    """Whether it builds focal backbones."""

    def __init__(self, package: str = "spconv"):
        self.library = importlib.import_module(f"{package}.pytorch")
        self.name = package.replace("_", "-")
        importlib.import_module(f"{package}.constants").SPCONV_ALLOW_TF32 = True

    def convolution(self, ours, key: str) -> nn.Module:
        arguments = dict(
            in_channels=ours.in_channels, out_channels=ours.out_channels,
            kernel_size=ours.kernel_size, bias=ours.bias is not None, indice_key=key,
        )  # fmt: skip
        if isinstance(ours, SparseConv3d):
            made = self.library.SparseConv3d(
                **arguments, stride=ours.stride, padding=ours.padding
            )
        else:
            made = self.library.SubMConv3d(**arguments)
        weight = ours.weight.detach().permute(4, 0, 1, 2, 3).contiguous()
        made.weight = nn.Parameter(weight.view_as(made.weight).clone())
        if ours.bias is not None:
            made.bias.data.copy_(ours.bias.detach())
        return made

    def encoder(self, encoder: nn.Module, shape, batch_size: int) -> Network:
        library, level = self.library, 0

        def following(block: Block, relu: bool) -> list[nn.Module]:
            norm = same_norm(block.norm, nn.BatchNorm1d(block.conv.out_channels, eps=1e-3))
            return [norm] + [nn.ReLU()] * relu

        def sequence(block: Block, key: str, relu: bool) -> nn.Module:
            convolution = self.convolution(block.conv, key)
            return library.SparseSequential(convolution, *following(block, relu))

        layers = []
        for number, unit in enumerate(encoder_units(encoder)):
            conv = unit[0].conv
            if isinstance(conv, FocalConv3d):
                focal = _Focal(self, conv, f"same{level}", f"grown{level}")
                layers += [focal, library.SparseSequential(*following(unit[0], True))]
                continue
            strided = isinstance(conv, SparseConv3d)
            level += strided
            key = f"down{number}" if strided else f"same{level}"
            if len(unit) == 1:
                layers.append(sequence(unit[0], key, True))
            else:
                layers.append(Residual(
                    sequence(unit[0], key, True), sequence(unit[1], key, False),
                    lambda a, b: a.replace_feature(a.features + b.features),
                    library.SparseSequential(nn.ReLU()),
                ))  # fmt: skip
        network = nn.Sequential(*layers).to(next(encoder.parameters()).device)
        return Called(
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
        module = importlib.import_module(f"{self.library.__name__}.utils")
        made = module.PointToVoxel(
            vsize_xyz=list(grid.voxel_size), coors_range_xyz=list(grid.point_cloud_range),
            num_point_features=columns, max_num_voxels=max_voxels,
            max_num_points_per_voxel=max_points, device=torch.device(device),
        )  # fmt: skip

        def run(points: Tensor):
            voxels, coordinates, counts = made(points)
            return voxels.sum(1) / counts.view(-1, 1), coordinates

        return run


class _Focal(nn.Module):
    """A focal convolution of spconv's layers and torch's sorting: the foreground by threshold, its
    neighbours' gates, and a submanifold convolution on the union of old and new voxels."""

    def __init__(self, peer: Spconv, ours: FocalConv3d, key: str, grown_key: str):
        super().__init__()
        if ours.top_k or ours.enlarge is not None or ours.gate_by_own_importance:
            raise ValueError("the peer's focal convolution knows the foreground by threshold alone")
        self.library, self.threshold = peer.library, ours.threshold
        self.importance = peer.convolution(ours.importance, key)
        self.convolution = peer.convolution(ours, grown_key)
        ranges = [torch.arange(size) - size // 2 for size in ours.kernel_size]
        offsets = torch.cartesian_prod(torch.zeros(1, dtype=torch.long), *ranges)
        middle = math.prod(ours.kernel_size) // 2
        self.register_buffer("offsets", torch.cat([offsets[:middle], offsets[middle + 1 :]]).int())

    def forward(self, x):
        probability = self.importance(x).features.sigmoid()                    # (V, K)
        foreground = probability[:, -1] > self.threshold
        neighbours = probability[foreground, :-1]
        cells = x.indices[foreground][:, None] + self.offsets                  # (F, K - 1, 4)
        size = torch.tensor(x.spatial_shape, device=cells.device)
        inside = ((cells[..., 1:] >= 0) & (cells[..., 1:] < size)).all(-1)
        chosen = inside & (neighbours >= self.threshold)
        old, new = self._key(x.indices, size), self._key(cells[chosen], size)
        keys, place = torch.unique(torch.cat([old, new]), return_inverse=True)
        rows, added = place[: len(old)], place[len(old) :]
        gate = torch.ones(len(keys), device=keys.device)
        gate = gate.index_add(0, added, neighbours[chosen].float())
        times = torch.ones_like(gate).index_add(0, added, torch.ones_like(gate[added]))
        gate = torch.where(foreground, (gate / times)[rows], 1.0)
        features = x.features.new_zeros(len(keys), x.features.shape[1])
        features = features.index_copy(0, rows, x.features * gate[:, None].to(x.features))
        grown = self.library.SparseConvTensor(
            features, self._cells(keys, size), x.spatial_shape, x.batch_size
        )
        return self.convolution(grown)

    @staticmethod
    def _key(cells: Tensor, size: Tensor) -> Tensor:
        b, z, y, x = cells.long().unbind(1)
        return ((b * size[0] + z) * size[1] + y) * size[2] + x

    @staticmethod
    def _cells(keys: Tensor, size: Tensor) -> Tensor:
        line, plane = keys // size[2], keys // size[2] // size[1]
        parts = [plane // size[0], plane % size[0], line % size[1], keys % size[2]]
        return torch.stack(parts, 1).int()
