"""A planned encoder captured into one CUDA graph."""

from __future__ import annotations

import torch
from torch import Tensor

from detector.sparse.planned.encoder import PlannedEncoder


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
            OverflowError: more voxels than there is room for.
        """
        voxels = len(coordinates)
        if voxels > len(self.coordinates):
            raise OverflowError(
                f"{voxels} voxels came in, the plan has room for {len(self.coordinates)}"
            )
        self.coordinates[:voxels].copy_(coordinates)
        self.features[:voxels].copy_(features)
        self.count.fill_(voxels)
        self.graph.replay()
        return self.out
