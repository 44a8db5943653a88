"""Other engines compute what ours does, with the same weights; each where it is installed."""

import pytest
import torch

from detector.errors import InputError
from detector.sparse import SparseConv3d, SparseTensor, SubMConv3d, use_engine
from tests.oracles.sparse_scenes import random_coordinates

pytestmark = pytest.mark.gpu

SHAPE = (9, 40, 48)


@pytest.fixture(params=["spconv", "torchsparse"])
def engine(request):
    try:
        use_engine(request.param)
    except InputError as error:
        pytest.skip(str(error))
    yield request.param
    use_engine("native")


def run(layers, coordinates, features):
    features = features.clone().requires_grad_()
    x = SparseTensor(features, coordinates, SHAPE, 2)
    for layer in layers:
        layer.weight.grad = None
        x = layer(x)
    weights = torch.randn(x.features.shape, generator=torch.Generator().manual_seed(1)).cuda()
    (x.features.float() * weights).sum().backward()
    return x, features.grad, [layer.weight.grad for layer in layers]


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_outputs_and_gradients_agree(engine, dtype):
    torch.manual_seed(0)
    coordinates = random_coordinates(SHAPE, 2, 0.05, 0).cuda()
    features = torch.randn(len(coordinates), 16, device="cuda").to(dtype)
    layers = [
        SubMConv3d(16, 32, 3), SparseConv3d(32, 32, 3, 2, 1), SubMConv3d(32, 64, 3),
        SparseConv3d(64, 64, (3, 1, 1), (2, 1, 1)),
    ]  # fmt: skip
    layers = [layer.cuda().to(dtype) for layer in layers]
    theirs = run(layers, coordinates, features)
    use_engine("native")
    ours = run(layers, coordinates, features)
    assert torch.equal(ours[0].coordinates, theirs[0].coordinates)
    limit = 2e-2  # theirs sum in float16, or use TF32 where ours is told not to
    pairs = [(ours[0].features, theirs[0].features), (ours[1], theirs[1])]
    for a, b in [*pairs, *zip(ours[2], theirs[2], strict=True)]:
        assert (a.double() - b.double()).norm() <= limit * a.double().norm()


def test_limits_name_the_layer(engine):
    if engine != "torchsparse":
        pytest.skip("spconv has these")
    x = SparseTensor(
        torch.randn(2, 4, device="cuda"),
        torch.tensor([[0, 0, 0, 0], [0, 1, 1, 1]], dtype=torch.int32, device="cuda"), (5, 5, 5), 1,
    )
    with pytest.raises(ValueError, match=r"of 4 to 8 channels, kernel \(3, 3, 3\).*no dilation"):
        SubMConv3d(4, 8, 3, dilation=2).cuda()(x)
    with pytest.raises(ValueError, match="stride 1 as submanifold"):
        SparseConv3d(4, 8, 3, 1, 1).cuda()(x)
