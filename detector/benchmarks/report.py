"""Runs the sparse benchmark and prints its rows as they come."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import asdict

import torch

from detector.benchmarks import sparse
from detector.benchmarks.detectors import detector_rows
from detector.benchmarks.frames import WORKLOADS
from detector.benchmarks.peers import PEERS, installed_peers
from detector.benchmarks.timing import Ceilings
from detector.cli import write_json
from detector.errors import InputError


def run_sparse(arguments: argparse.Namespace) -> int:
    """Prints figures; writes them where `arguments.json` says."""
    unknown = set(arguments.workloads) - set(WORKLOADS) or set(arguments.peers or ()) - set(PEERS)
    if unknown:
        raise InputError(
            f"unknown: {', '.join(sorted(unknown))}; workloads are {', '.join(WORKLOADS)}, peers "
            f"{', '.join(PEERS)}"
        )
    peers, missing = installed_peers(arguments.peers)
    ceilings = Ceilings.measured()
    print(
        f"{torch.cuda.get_device_name()}, torch {torch.__version__}; copies "
        f"{ceilings.bytes_per_ms / 1e9:.2f} TB/s, float16 products "
        f"{ceilings.operations_per_ms[torch.float16] / 1e9:.0f} TFLOP/s"
    )
    for name, reason in missing.items():
        print(f"{name} is not measured: {reason}")
    print("milliseconds: median (quartiles)")
    rows = []
    for row in _rows(arguments, peers, ceilings):
        rows.append(row)
        floor = ""
        if row.floor_ms and row.milliseconds:
            floor = f" {row.milliseconds.median / row.floor_ms:.1f} x floor"
        memory = f" {row.mebibytes:.0f} MiB" if row.mebibytes else ""
        print(
            f"{row.workload:9s} {row.what:62s} {row.engine:24s} {row.milliseconds}{floor}{memory} "
            f"{row.note}", flush=True,
        )  # fmt: skip
    if arguments.json:
        write_json(arguments.json, [asdict(row) for row in rows])
    return 0


def _rows(arguments, peers: list, ceilings: Ceilings) -> Iterator[sparse.Row]:
    counts = dict(frames=arguments.frames, repeats=arguments.repeats)
    for workload in (WORKLOADS[name] for name in arguments.workloads):
        if "voxels" in arguments.parts:
            yield from sparse.voxelization_rows(workload, peers, **counts)
        if "layers" in arguments.parts:
            yield from sparse.layer_rows(workload, peers, ceilings)
        if "detectors" in arguments.parts:
            yield from detector_rows(workload, **counts)
        if "backbones" in arguments.parts:
            for kind in sparse.KINDS:
                for batch_size in arguments.batches:
                    yield from sparse.backbone_rows(
                        workload, kind, batch_size, peers, ceilings, **counts,
                        training=not arguments.no_training,
                    )  # fmt: skip
