"""The branches of a centre head."""

import pytest
import torch

from detector.models.heads import SeparateHead


@pytest.mark.parametrize("kernel", [1, 3])
def test_every_branch_reads_its_own_hidden_channels(kernel):
    torch.manual_seed(0)
    head = SeparateHead(6, 4, [3, 2, 1], output_kernel=kernel).double()
    for output in head.outputs:
        torch.nn.init.normal_(output.weight)
        torch.nn.init.normal_(output.bias)
    x = torch.randn(2, 6, 5, 7, dtype=torch.float64)
    head.eval()
    hidden = head.hidden(x)
    maps = head(x)
    assert [m.shape[1] for m in maps] == [3, 2, 1]
    for number, (found, output) in enumerate(zip(maps, head.outputs, strict=True)):
        torch.testing.assert_close(found, output(hidden[:, 4 * number : 4 * number + 4]))
