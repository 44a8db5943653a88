"""The reference against torch's batch norm."""

import pytest
import torch
from torch.nn import functional

from detector.ops.sparse_norm import batch_norm_rows


@pytest.mark.parametrize("relu", [False, True])
def test_the_reference_is_batch_norm(relu):
    x = torch.randn(50, 7, dtype=torch.float64) * 3 + 5
    weight, bias = torch.randn(2, 7, dtype=torch.float64)
    residual = torch.randn_like(x)
    true = functional.batch_norm(x, None, None, weight, bias, training=True, eps=1e-3) + residual
    found = batch_norm_rows(x, weight, bias, 1e-3, residual, relu=relu)
    torch.testing.assert_close(found, true.relu() if relu else true)
