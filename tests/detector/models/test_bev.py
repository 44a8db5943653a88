import pytest
import torch

from detector.models.bev import SecondBEV


@pytest.mark.parametrize("size", [(16, 24), (13, 9), (1, 1)])
@pytest.mark.parametrize(
    ("strides", "up", "out_stride"),
    [((1, 2), (1, 2), 1), ((2, 2, 2), (0.5, 1, 2), 4), ((2, 2, 2), (1, 2, 4), 2)],
)
def test_blocks_of_all_strides_meet_at_one_size(size, strides, up, out_stride):
    blocks = len(strides)
    bev = SecondBEV(3, [4] * blocks, [1] * blocks, strides, [5] * blocks, up).eval()
    assert bev.out_stride == out_stride and bev.out_channels == 5 * blocks
    seen = bev(torch.randn(2, 3, *size))
    assert seen.shape == (2, 5 * blocks, *(-(-s // out_stride) for s in size))


def test_strides_that_lead_to_different_sizes_are_refused():
    with pytest.raises(ValueError, match="different sizes"):
        SecondBEV(3, (4, 4), (1, 1), (2, 2), (4, 4), (1, 1))
