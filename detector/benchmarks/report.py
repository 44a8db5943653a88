"""Runs the sparse benchmark, prints its rows as they come, and then a table of ours beside the best
peer's."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import asdict

import torch

from detector.benchmarks.backbones import KINDS, PRECISIONS, backbone_rows
from detector.benchmarks.detectors import detector_rows
from detector.benchmarks.focal import focal_rows
from detector.benchmarks.frames import WORKLOADS
from detector.benchmarks.layers import layer_rows, map_rows
from detector.benchmarks.peers import PEERS, installed_peers
from detector.benchmarks.rows import Row
from detector.benchmarks.timing import Ceilings
from detector.benchmarks.voxels import voxelization_rows
from detector.cli import write_json
from detector.errors import InputError

OURS = "native"


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
    rates = {name: ceilings.operations_per_ms[dtype] for name, dtype in PRECISIONS.items()}
    print(
        f"{torch.cuda.get_device_name()}, torch {torch.__version__}; copies "
        f"{ceilings.bytes_per_ms / 1e9:.2f} TB/s, products "
        + ", ".join(f"{name} {rate / 1e9:.0f} TFLOP/s" for name, rate in rates.items())
    )
    for name, reason in missing.items():
        print(f"{name} is not measured: {reason}")
    print("milliseconds: median (quartiles)")
    rows: list[Row] = []
    for row in _rows(arguments, peers, ceilings):
        rows.append(row)
        print(_line(row), flush=True)
        if arguments.json:  # after each, so that a run that is cut short leaves what it has
            write_json(arguments.json, [asdict(row) for row in rows])
    print("\nmilliseconds: ours, the best peer's, how many times ours, ours in floors")
    print(comparison(rows))
    return 0


def _line(row: Row) -> str:
    floor = ""
    if row.floor_ms and row.milliseconds:
        floor = f" {row.milliseconds.median / row.floor_ms:.1f} x floor"
    memory = f" {row.mebibytes:.0f} MiB" if row.mebibytes else ""
    time = row.milliseconds or "failed"
    return f"{row.workload:9s} {row.what:56s} {row.engine:18s} {time}{floor}{memory} {row.note}"


def comparison(rows: Sequence[Row]) -> str:
    """A line for each figure: our best engine beside the best peer. Memory is in MiB."""
    lines = []
    for workload, what in dict.fromkeys((row.workload, row.what) for row in rows):
        group = [
            r for r in rows if (r.workload, r.what) == (workload, what) and r.milliseconds
        ]
        ours = [r for r in group if r.engine.startswith(OURS)]
        if not ours:
            continue
        best = min(ours, key=lambda r: r.milliseconds.median)
        peers = [r for r in group if not r.engine.startswith(OURS)]
        line = f"{workload:9s} {what:56s} {best.milliseconds.median:8.3f}"
        if peers:
            peer = min(peers, key=lambda r: r.milliseconds.median)
            ratio = peer.milliseconds.median / best.milliseconds.median
            line += f" {peer.milliseconds.median:8.3f} {ratio:5.2f} x  {peer.engine:12s}"
        if best.floor_ms:
            line += f" {best.milliseconds.median / best.floor_ms:7.1f} floors"
        if best.mebibytes:
            line += f" {best.mebibytes:6.0f} MiB"
            others = [r.mebibytes for r in peers if r.mebibytes]
            line += f" (least peer {min(others):.0f})" if others else ""
        lines.append(line)
    return "\n".join(lines)


def _rows(arguments, peers: list, ceilings: Ceilings) -> Iterator[Row]:
    counts = dict(frames=arguments.frames, repeats=arguments.repeats)
    trained = dict(counts, training=not arguments.no_training)
    for workload in (WORKLOADS[name] for name in arguments.workloads):
        if "voxels" in arguments.parts:
            yield from voxelization_rows(workload, peers, ceilings, **counts)
        if "maps" in arguments.parts:
            yield from map_rows(workload, peers, ceilings)
        if "layers" in arguments.parts:
            for precision in arguments.precisions:
                yield from layer_rows(workload, peers, ceilings, precision=precision)
        if "detectors" in arguments.parts:
            yield from detector_rows(workload, peers, ceilings, **counts)
        for kind in KINDS:
            for batch_size in arguments.batches:
                if "backbones" in arguments.parts:
                    for precision in arguments.precisions:
                        yield from backbone_rows(
                            workload, kind, batch_size, peers, ceilings, precision=precision,
                            **trained,
                        )  # fmt: skip
                if "focal" in arguments.parts:
                    yield from focal_rows(workload, kind, batch_size, peers, ceilings, **trained)
