"""Sparse convolution: features x kernel map -> features, forward and backward."""

from detector.ops.sparse_conv.op import sparse_conv

__all__ = ["sparse_conv"]
