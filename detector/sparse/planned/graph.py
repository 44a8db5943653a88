"""A planned encoder captured into one CUDA graph."""

from __future__ import annotations

import torch
from torch import Tensor

from detector.ops.cuda_runtime import THREADS, Kernel, blocks
from detector.sparse.planned.encoder import SOURCE, PlannedEncoder, numbers_of

MOST_BLOCKS = 1056


class GraphedEncoder:
    """Replays a plan: `encoder(coordinates, features)` -> rows of the last level.

    Args:
        plan: a `PlannedEncoder`.
        columns: of the features.
    """

    def __init__(self, plan: PlannedEncoder, columns: int):
        self.plan = plan
        capacity = plan.levels[0].capacity
        self.coordinates = torch.full(
            (capacity, 4), -1, dtype=torch.int32, device=plan.device
        )
        self.features = torch.zeros(capacity, columns, device=plan.device)
        self.count = torch.zeros(1, dtype=torch.int32, device=plan.device)
        # Three copies by torch would take longer to start than a small batch to copy.
        self._take = Kernel(SOURCE, "take_voxels", "PPiiPPP", numbers_of(plan.dtype))
        self.graph = torch.cuda.CUDAGraph()
        stream = torch.cuda.Stream(plan.device)
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(2):  # compiles what is needed
                plan.from_voxels(self.coordinates, self.features, self.count)
        stream.synchronize()
        with torch.cuda.graph(self.graph, stream=stream):
            self.out = plan.from_voxels(self.coordinates, self.features, self.count)

    def __call__(self, coordinates: Tensor, features: Tensor) -> Tensor:
        """Rows (capacity, C) whose number is `plan.out_level.count`; overwritten by the next call.

        Raises:
            ValueError: shapes other than (N, 4) and (N, columns).
            OverflowError: more voxels than there is room for.
        """
        voxels, columns = len(coordinates), self.features.shape[1]
        if coordinates.shape != (voxels, 4) or features.shape != (voxels, columns):
            raise ValueError(
                f"coordinates and features are {tuple(coordinates.shape)} and "
                f"{tuple(features.shape)}, the graph takes (N, 4) and (N, {columns})"
            )
        if voxels > len(self.coordinates):
            raise OverflowError(
                f"{voxels} voxels came in, the plan has room for {len(self.coordinates)}"
            )
        self._take(
            (min(MOST_BLOCKS, blocks(max(voxels, 1))),), THREADS,
            coordinates.to(self.coordinates).contiguous(), features.to(self.features).contiguous(),
            voxels, columns, self.coordinates, self.features, self.count,
            device=self.plan.device.index,
        )  # fmt: skip
        self.graph.replay()
        return self.out
