"""What the kernels of `norm.cu` compute, in plain torch."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor
from torch.nn import functional


def batch_norm_rows(
    features: Float[Tensor, "V C"],
    weight: Float[Tensor, " C"],
    bias: Float[Tensor, " C"],
    eps: float,
    residual: Float[Tensor, "V C"] | None = None,
    *,
    relu: bool = False,
) -> Float[Tensor, "V C"]:
    """act((features - mean) / sqrt(variance + eps) * weight + bias + residual), the statistics
    taken over the rows."""
    mean = features.mean(0)
    variance = features.var(0, unbiased=False)
    out = (features - mean) * (variance + eps).rsqrt() * weight + bias
    if residual is not None:
        out = out + residual
    return functional.relu(out) if relu else out
