"""A planned backbone with focal stages, its kernels run on a CPU, against its modules."""

import torch
from torch import nn

from detector.models.backbones import SparseEncoder8x
from detector.sparse import SparseTensor
from detector.sparse.planned import PlannedEncoder
from tests.oracles import plans_on_cpu

SHAPE, BATCH = (41, 16, 40), 2
SEED = 0
"""With which 16-bit floats choose no voxel otherwise."""


def seeded_encoder():
    torch.manual_seed(SEED)
    focal = dict(top_k=False, foreground_prior=0.5)
    encoder = SparseEncoder8x(5, SHAPE, focal_stages=(1, 2, 3), focal=focal).eval()
    for module in encoder.modules():
        if isinstance(module, nn.BatchNorm1d):
            nn.init.uniform_(module.weight, 1.0, 1.6)
            nn.init.uniform_(module.bias, -0.1, 0.3)
            nn.init.uniform_(module.running_var, 0.1, 0.3)
    with torch.no_grad():
        for stage in encoder.focal.values():
            nn.init.normal_(stage.conv.importance.weight, std=0.3)
            stage.conv.importance.bias -= 0.5
            stage.conv.importance.bias[-1] -= 0.5
    return encoder


def test_levels_and_features_are_those_of_the_modules(monkeypatch, tmp_path):
    encoder = seeded_encoder()
    cells = torch.nonzero(torch.rand(BATCH, *SHAPE) < 0.012).int()
    cells = cells[torch.randperm(len(cells))].contiguous()
    features = torch.randn(len(cells), 5).half().float()
    grown = []
    with torch.no_grad():
        x = encoder.stem(SparseTensor(features, cells, SHAPE, BATCH))
        for number, stage in enumerate(encoder.stages, 1):
            x = stage(x)
            if str(number) in encoder.focal:
                before = len(x)
                x, _ = encoder.focal[str(number)](x)
                grown.append((len(x) - before, x.coordinates))
        true = encoder.out(x)
    assert grown[0][0] > 0
    assert grown[1][0] > 0

    plans_on_cpu.stand_in(monkeypatch, tmp_path)
    room = (1.0, 4.0, 5.0, 4.0, 4.0, 3.0, 2.0, 2.0)
    plan = PlannedEncoder(encoder, SHAPE, BATCH, len(cells) + 40, torch.float16, room)
    count = torch.tensor([len(cells)], dtype=torch.int32)
    for _ in range(2):  # the second finds what the first left
        out = plan.from_voxels(cells, features, count)
        plan.check_capacity()
        for focal, (added, coordinates) in zip(plan.focal, grown, strict=True):
            assert int(focal.added.count) == added
            found = sorted(map(tuple, focal.coordinates.tolist()))
            assert found == list(map(tuple, coordinates.tolist()))
        rows = len(true)
        assert torch.equal(plan.out_level.coordinates[:rows], true.coordinates)
        found = out[:rows, : plan.out_channels].float()
        error = (found - true.features).norm() / true.features.norm()
        assert error < 5e-3
