"""Clocks for GPU work, and the ceilings that floors are reckoned from."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Time:
    """Of one call, in milliseconds: the median, and half of them lie between low and high."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, samples: Sequence[float]) -> Time:
        low, median, high = statistics.quantiles(samples, n=4)
        return cls(median, low, high)

    def __str__(self) -> str:
        return f"{self.median:.3f} ({self.low:.3f}-{self.high:.3f})"


def latency(calls: Sequence[Callable[[], object]], repeats: int) -> Time:
    """Time until the GPU is done, each call in turn, after all ran twice."""
    for call in [*calls, *calls]:
        call()
    samples = []
    for repeat in range(repeats):
        call = calls[repeat % len(calls)]
        torch.cuda.synchronize()
        start = time.perf_counter()
        call()
        torch.cuda.synchronize()
        samples.append((time.perf_counter() - start) * 1e3)
    return Time.of(samples)


def gpu_time(calls: Sequence[Callable[[], object]], repeats: int = 5, inner: int = 16) -> Time:
    """Time on the GPU by events, the calls one behind the other so that the host doesn't count."""
    for call in calls:
        call()
    graph = torch.cuda.CUDAGraph()
    torch.cuda.synchronize()
    with torch.cuda.graph(graph):
        for number in range(inner):
            calls[number % len(calls)]()
    return Time.of([_elapsed(graph.replay) / inner for _ in range(repeats + 1)][1:])


def busy_time(calls: Sequence[Callable[[], object]], inner: int = 12) -> Time:
    """Sum of the times of all kernels of a call, as torch's profiler reports them: fair to what
    keeps the GPU waiting for the host."""
    from torch.profiler import ProfilerActivity, profile

    for call in [*calls, *calls]:
        call()
    samples = []
    for number in range(inner):
        torch.cuda.synchronize()
        with profile(activities=[ProfilerActivity.CUDA], acc_events=True) as record:
            calls[number % len(calls)]()
            torch.cuda.synchronize()
        samples.append(sum(event.self_device_time_total for event in record.key_averages()) / 1e3)
    return Time.of(samples)


def _elapsed(work: Callable[[], object]) -> float:
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    work()
    end.record()
    torch.cuda.synchronize()
    return start.elapsed_time(end)


def peak_mebibytes(call: Callable[[], object]) -> float:
    """Most memory that tensors took during a call beyond what they had before."""
    call()
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    call()
    torch.cuda.synchronize()
    return (torch.cuda.max_memory_allocated() - before) / 2**20


@contextmanager
def tf32_products():
    """float32 is multiplied as TF32, by torch and by what follows its switch."""
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = True
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before


@dataclass(frozen=True)
class Ceilings:
    """What the GPU at hand reaches on large, simple work."""

    bytes_per_ms: float
    operations_per_ms: dict[torch.dtype, float]
    """Of float32, multiplied as TF32."""

    @classmethod
    def measured(cls) -> Ceilings:
        source = torch.randn(1 << 29, device="cuda")
        target = torch.empty_like(source)
        # A kernel: in a graph, `copy_` is the copy engine's, which is slower.
        copy = gpu_time([lambda: torch.mul(source, 1.0, out=target)], inner=4).median
        rates = {}
        with tf32_products():
            for dtype in (torch.float16, torch.float32):
                a, b = (torch.randn(8192, 8192, device="cuda", dtype=dtype) for _ in range(2))
                rates[dtype] = 2 * 8192**3 / gpu_time([lambda a=a, b=b: a @ b], inner=4).median
        return cls(2 * 4 * source.numel() / copy, rates)
