"""Ops, each a triple: `reference.py`, its kernels (`cpu.py`, `cuda.cu` or `triton.py`), `op.py`."""
