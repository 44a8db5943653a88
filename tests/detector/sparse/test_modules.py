import copy

import torch
from torch import nn

from detector.sparse import SparseBatchNorm, SparseSequential, SparseTensor, SubMConv3d


def tensor_of(rows, channels=4):
    cells = torch.zeros(rows, 4, dtype=torch.int32)
    cells[:, 3] = torch.arange(rows)
    return SparseTensor(torch.randn(rows, channels), cells, (1, 1, 8), 1)


def test_plain_modules_act_on_the_features():
    x = tensor_of(5)
    layers = SparseSequential(nn.Linear(4, 3), nn.ReLU(), SubMConv3d(3, 2, 1))
    y = layers(x)
    expected = layers[0](x.features).relu() @ layers[2].weight[0, 0, 0]
    assert torch.allclose(y.features, expected)
    assert y.occupancy is x.occupancy


def test_batch_norm_is_torchs():
    x = tensor_of(6)
    ours, theirs = SparseBatchNorm(4), nn.BatchNorm1d(4)
    assert torch.equal(ours(x).features, theirs(x.features))
    assert all(torch.equal(a, b) for a, b in zip(
        ours.state_dict().values(), theirs.state_dict().values(), strict=True))  # fmt: skip
    assert torch.equal(ours.eval()(x).features, theirs.eval()(x.features))


def test_batch_norm_of_no_or_one_voxel_keeps_its_statistics():
    for rows in (0, 1):
        norm = SparseBatchNorm(4)
        before = copy.deepcopy(norm.state_dict())
        x = tensor_of(rows)
        x = x.replace(x.features.requires_grad_())
        y = norm(x)
        y.features.sum().backward()
        assert torch.allclose(y.features, x.features, atol=1e-4)
        for name, value in norm.state_dict().items():
            assert torch.equal(value, before[name])
