"""Batch norm of a sparse tensor's rows with what follows it, in one go on a GPU."""

from detector.ops.sparse_norm.reference import batch_norm_rows

__all__ = ["batch_norm_rows"]
