"""The focal sparse convolution: it learns where features matter, and dilates there.

Chen, Li, Zhang, Sun, Jia, "Focal Sparse Convolutional Networks for 3D Object Detection",
CVPR 2022, https://arxiv.org/abs/2204.12463.

Compatibility with the published code (github.com/dvlab-research/FocalsConv)
---------------------------------------------------------------------------
The same: the importance branch (kernel 3, optional enlarging branch, k**3 channels, the last the
voxel's own), which voxels are foreground, which neighbours they add, the gates, and the
parameters. Switches and parameters by their names there:

    TOPK                    top_k
    THRESHOLD               threshold
    KERNEL_SIZE             kernel_size
    MASK_MULTI              gate_by_own_importance
    SKIP_MASK_KERNEL        not mask_kernel
    ENLARGE_VOXEL_CHANNELS  importance_channels (-1 is None)
    conv.weight             weight           (layouts: see `detector.sparse.weights`)
    conv_imp.weight         importance.weight
    conv_enlarge.0, .1      enlarge.0, .1
    bn1, relu               not here: the network that uses the layer has them

Added: `foreground_prior`, off by default, and any kernel of three odd sizes.

It departs, on purpose, in these:

  * A neighbour in a cell of index 0 is added; there it was lost (bounds tested with `> 0`).
  * Cells are merged by their exact place; there the key was made with the largest index where
    its successor belongs, so that distinct cells merged at the far edge.
  * The loss takes the grid it is given, cell centres with the half cell and the map's stride, and
    turned boxes. There the range and size of KITTI's grid were defaults that no backbone changed,
    positions were lower corners, and the CenterPoint variant doubled the boxes and ignored yaw.
  * The loss is the focal loss of the sigmoid, averaged over voxels. There a sigmoid went through
    a softmax again, which kept the loss from reaching zero, and the mean ran over both classes,
    which halved it.
  * The batch size is the tensor's. Nothing is bound to a device. The layer has no loop over frames.
  * Voxels of equal importance are ranked by their row, so that the choice is deterministic;
    ranking is by logit, which also tells voxels apart whose sigmoid rounds to 1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int32
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional

from detector.ops.occupancy import KernelMap, Occupancy
from detector.sparse.conv import Size, SubMConv3d, _Convolution
from detector.sparse.engines import current_engine
from detector.sparse.modules import SparseBatchNorm, SparseSequential
from detector.sparse.tensor import SparseTensor


@dataclass(frozen=True)
class FocalImportance:
    """A focal convolution's opinion of its input voxels."""

    logits: Float[Tensor, " V"]
    """How important each voxel itself is, before the sigmoid."""
    coordinates: Int32[Tensor, "V 4"]
    """(batch, z, y, x) of the voxels, sorted."""
    stride: int
    """How many cells of the input grid one cell of this map spans along each axis."""
    batch_size: int
    """Number of frames, empty ones included."""


class FocalConv3d(_Convolution):
    """A submanifold convolution whose sites grow around the voxels it finds important.

    From each voxel the importance branch predicts k**3 probabilities: one for the voxel itself,
    and one for each neighbour in its kernel. The important voxels are the foreground; each adds
    those empty neighbour cells whose probability reaches `threshold`. The output lives on the old
    and the new voxels, and is what a submanifold convolution gives there with zeros in the new.

    Choosing has no gradient. The branch learns from `detector.models.losses.importance` and
    through gates: `mask_kernel` multiplies a foreground voxel's features by the mean of 1 and the
    probabilities with which other foreground voxels chose it; background voxels stay as they are.

    `forward(x)` returns the output and a `FocalImportance` for the loss.

    Args:
        kernel_size: an odd number, or three (z, y, x).
        top_k: the foreground is the fraction `threshold` of each frame's voxels with the highest
            importance; else, the voxels whose probability is above `threshold`.
        threshold: in [0, 1]; for the foreground and for neighbours.
        gate_by_own_importance: multiply all features by their voxel's own probability.
        mask_kernel: see above.
        importance_channels: widen the importance branch by a convolution, batch norm and ReLU
            of so many channels first.
        foreground_prior: probability of importance that a new layer gives every voxel, by way of a
            bias of the importance branch, as Lin et al. ("Focal Loss for Dense Object Detection",
            2017) start a detector. With `top_k=False` the layer then begins as a submanifold
            convolution and grows where the loss tells it to; without, it begins with every other
            voxel in the foreground and half of their neighbours added. None: no bias, as published.
        stride: how many cells of the input grid one cell of this map spans; for the loss alone.

    Raises:
        ValueError: an even kernel size, or a threshold or prior outside its range.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Size = 3,
        *,
        top_k: bool = True,
        threshold: float = 0.5,
        gate_by_own_importance: bool = False,
        mask_kernel: bool = True,
        importance_channels: int | None = None,
        foreground_prior: float | None = None,
        stride: int = 1,
        bias: bool = False,
    ):
        super().__init__(in_channels, out_channels, kernel_size, bias)
        if any(size % 2 == 0 for size in self.kernel_size):
            raise ValueError(
                f"a focal convolution's kernel needs a centre: odd sizes, got {self.kernel_size}"
            )
        if not 0 <= threshold <= 1:
            raise ValueError(f"threshold must lie in [0, 1], got {threshold}")
        if foreground_prior is not None and not 0 < foreground_prior < 1:
            raise ValueError(f"foreground_prior must lie in (0, 1), got {foreground_prior}")
        self.top_k = top_k
        self.threshold = threshold
        self.gate_by_own_importance = gate_by_own_importance
        self.mask_kernel = mask_kernel
        self.stride = stride
        self.enlarge = None
        if importance_channels is not None:
            self.enlarge = SparseSequential(
                SubMConv3d(in_channels, importance_channels, 3),
                SparseBatchNorm(importance_channels, eps=1e-3, momentum=0.01),
                nn.ReLU(),
            )
        self.importance = SubMConv3d(
            importance_channels or in_channels, math.prod(self.kernel_size), 3,
            bias=foreground_prior is not None,
        )  # fmt: skip
        if foreground_prior is not None:
            with torch.no_grad():
                self.importance.bias.zero_()
                self.importance.bias[-1] = math.log(foreground_prior / (1 - foreground_prior))

    def forward(self, x: SparseTensor) -> tuple[SparseTensor, FocalImportance]:
        widened = x if self.enlarge is None else self.enlarge(x)
        logits = self.importance(widened).features                             # (V, K)
        own, neighbours = logits[:, -1], logits[:, :-1].sigmoid()
        foreground = self._foreground(own.detach(), x.occupancy)               # (V,)
        chosen = foreground[:, None] & (neighbours.detach() >= self.threshold)  # (V, K - 1)

        features = x.features
        if self.gate_by_own_importance:
            features = features * own.sigmoid()[:, None].to(features)
        if self.mask_kernel:
            kernel_map = x.occupancy.neighbours(self.kernel_size)
            gate = _kernel_gate(neighbours, chosen, foreground, kernel_map)
            features = features * gate[:, None].to(features)
        sites = x.occupancy.dilate(_with_centre(chosen), self.kernel_size)
        out = current_engine().at_sites(x.replace(features), sites, self.weight, self.bias)
        return out, FocalImportance(own, x.coordinates, self.stride, x.batch_size)

    def _foreground(self, own: Float[Tensor, " V"], occupancy: Occupancy) -> Bool[Tensor, " V"]:
        if not self.top_k:
            return own.sigmoid() > self.threshold
        frames = occupancy.coordinates[:, 0].contiguous()                      # sorted
        edges = torch.searchsorted(
            frames, torch.arange(occupancy.batch_size + 1, device=frames.device, dtype=torch.int32)
        )                                                                      # (B + 1,)
        wanted = (edges.diff().double() * self.threshold).long()               # (B,)
        # Rows by frame and, within it, falling importance; equals by row.
        order = torch.argsort(own, descending=True, stable=True)
        order = order[torch.argsort(frames[order], stable=True)]
        place = torch.arange(len(own), device=own.device) - edges[frames.long()]
        foreground = torch.empty_like(own, dtype=torch.bool)
        foreground[order] = place < wanted[frames.long()]
        return foreground

    def extra_repr(self) -> str:
        which = "top" if self.top_k else "above"
        return f"{super().extra_repr()}, foreground={which} {self.threshold}"


def _with_centre(values: Tensor) -> Tensor:
    """(V, K - 1) of a kernel without its centre -> (V, K) with 0 there."""
    half = values.shape[1] // 2
    centre = values.new_zeros(len(values), 1)
    return torch.cat([values[:, :half], centre, values[:, half:]], 1)


def _kernel_gate(
    neighbours: Float[Tensor, "V K-1"],
    chosen: Bool[Tensor, "V K-1"],
    foreground: Bool[Tensor, " V"],
    kernel_map: KernelMap,
) -> Float[Tensor, " V"]:
    """Mean of 1 and the probabilities with which a foreground voxel was chosen by others; 1 in
    the background."""
    total, count = _Received.apply(
        _with_centre(neighbours * chosen), _with_centre(chosen), kernel_map.table
    )
    return torch.where(foreground, (1 + total) / (1 + count), 1.0)


class _Received(torch.autograd.Function):
    """What each voxel v was sent: the sum of sent[u, k], and the number of chosen[u, k], over the
    voxels u that have v at their offset k.

    The table of odd kernels undoes itself with its offsets reversed, so that both directions
    gather: no order of additions is left to chance.
    """

    @staticmethod
    def forward(ctx, sent: Float[Tensor, "V K"], chosen: Bool[Tensor, "V K"], table: Tensor):
        ctx.save_for_backward(table)
        rows = table.flip(0).long() + 1  # 0, no voxel, reads zero
        total, count = (
            functional.pad(of_sender.T, (1, 0)).gather(1, rows).sum(0)
            for of_sender in (sent, chosen.to(sent))
        )
        ctx.mark_non_differentiable(count)
        return total, count

    @staticmethod
    @once_differentiable
    def backward(ctx, total_gradient: Float[Tensor, " V"], _):
        (table,) = ctx.saved_tensors
        return functional.pad(total_gradient, (0, 1))[table.long()].T, None, None
