"""Muon, compared with the one that comes with newer versions of torch, and with AdamW."""

import copy

import pytest
import torch

from detector.training.muon import Muon, orthogonal


def run(optimizer, parameters, gradients):
    for step in gradients:
        for parameter, gradient in zip(parameters, step, strict=True):
            parameter.grad = gradient.clone()
        optimizer.step()


def drawn(*shapes, steps=4):
    torch.manual_seed(0)
    parameters = [torch.nn.Parameter(torch.randn(shape)) for shape in shapes]
    return parameters, [[torch.randn(shape) for shape in shapes] for _ in range(steps)]


@pytest.mark.parametrize("shape", [(12, 40), (40, 12), (16, 16)])
def test_orthogonal_keeps_directions_and_evens_their_sizes_out(shape):
    torch.manual_seed(1)
    matrix = torch.randn(shape, dtype=torch.float64)
    u, _, v = torch.linalg.svd(matrix, full_matrices=False)
    found = orthogonal(matrix).double()
    inner = u.T @ found @ v.T
    sizes = inner.diagonal()
    assert 0.6 < sizes.min() and sizes.max() < 1.3
    assert (inner - sizes.diag()).abs().max() < 1e-4


def test_matrices_of_one_shape_are_made_orthogonal_together():
    torch.manual_seed(2)
    matrices = torch.randn(3, 40, 12) * torch.tensor([1e-3, 1.0, 50.0])[:, None, None]
    for together, alone in zip(orthogonal(matrices), matrices, strict=True):
        torch.testing.assert_close(together, orthogonal(alone))


@pytest.mark.gpu
def test_on_a_gpu_weights_move_as_on_a_cpu():
    """There, those of one shape move together."""
    shapes = [(12, 40), (16, 3, 3, 3), (12, 40), (3, 3, 3, 8, 16), (3, 3, 3, 8, 16), (30,), (3, 5)]
    parameters, gradients = drawn(*shapes)
    others = [torch.nn.Parameter(p.detach().cuda()) for p in parameters]
    run(Muon(parameters), parameters, gradients)
    run(Muon(others), others, [[g.cuda() for g in step] for step in gradients])
    for ours, theirs in zip(parameters, others, strict=True):
        torch.testing.assert_close(theirs.cpu(), ours, rtol=1e-3, atol=1e-4)


@pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="needs torch.optim.Muon")
@pytest.mark.parametrize("shape", [(12, 40), (40, 12)])
def test_matrices_move_as_with_torchs_muon(shape):
    (ours,), gradients = drawn(shape)
    theirs = copy.deepcopy(ours)
    options = dict(lr=0.1, weight_decay=0.2)
    run(Muon([ours], matrix_rate=1.0, betas=(0.9, 0.99), **options), [ours], gradients)
    run(torch.optim.Muon([theirs], momentum=0.9, **options), [theirs], gradients)
    # Torch's iterates in bfloat16.
    torch.testing.assert_close(ours, theirs, rtol=0, atol=0.01)


def test_vectors_and_thin_matrices_move_as_with_adamw():
    parameters, gradients = drawn((30,), (3, 16, 1, 1), (1, 5))
    others = copy.deepcopy(parameters)
    options = dict(lr=0.1, weight_decay=0.2, betas=(0.9, 0.99))
    run(Muon(parameters, **options), parameters, gradients)
    run(torch.optim.AdamW(others, **options), others, gradients)
    for ours, theirs in zip(parameters, others, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_the_layout_of_a_convolution_does_not_matter():
    (sparse,), gradients = drawn((3, 3, 3, 8, 60))
    flat = torch.nn.Parameter(sparse.detach().flatten(0, 3).T.contiguous())
    dense = torch.nn.Parameter(
        flat.detach().view(60, 8, 3, 9).to(memory_format=torch.channels_last)
    )
    turned = [[g.flatten(0, 3).T for g in step] for step in gradients]
    run(Muon([sparse]), [sparse], gradients)
    run(Muon([flat]), [flat], turned)
    run(Muon([dense]), [dense], [[g.reshape(60, 8, 3, 9) for g in step] for step in turned])
    torch.testing.assert_close(sparse.flatten(0, 3).T, flat, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(dense.flatten(1), flat, rtol=1e-4, atol=1e-5)


def test_it_goes_on_exactly_from_its_state():
    parameters, gradients = drawn((10, 30), (7,), steps=6)
    others = copy.deepcopy(parameters)
    run(Muon(parameters), parameters, gradients)
    first = Muon(others)
    run(first, others, gradients[:3])
    second = Muon(others)
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    run(second, others, gradients[3:])
    for ours, theirs in zip(parameters, others, strict=True):
        assert torch.equal(ours, theirs)
