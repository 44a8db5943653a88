"""TorchSparse++ 2.1.

Run as built from commit 385f5ce for sm_90, `rootpath` replaced by an empty module.
"""

from __future__ import annotations

from torch import Tensor, nn

from detector.benchmarks.peers.modules import Called, Network, Residual, same_norm
from detector.sparse.conv import SparseConv3d, SubMConv3d
from detector.sparse.planned.network import Block, encoder_units


class TorchSparse:
    """See `detector.benchmarks.peers`; it multiplies float32 as TF32 by default."""

    name = "torchsparse"
    focal = False
    voxelizer = None

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
            norm = same_norm(block.norm, library.nn.BatchNorm(block.conv.out_channels, eps=1e-3))
            parts = [self.convolution(block.conv), norm]
            return nn.Sequential(*parts, *[library.nn.ReLU(True)] * relu)

        layers = [
            sequence(unit[0], True) if len(unit) == 1 else Residual(
                sequence(unit[0], True), sequence(unit[1], False), lambda a, b: a + b,
                library.nn.ReLU(True),
            )
            for unit in encoder_units(encoder)
        ]  # fmt: skip
        network = nn.Sequential(*layers).to(next(encoder.parameters()).device)
        return Called(network, self._input(shape, batch_size))

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
