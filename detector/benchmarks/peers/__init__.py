"""Other libraries' sparse convolutions behind one face, each as its own users write it.

A peer builds SECOND-like encoders from ours - same layers, same weights - and calls them on voxel
coordinates and features. Each is imported only when asked for.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from detector.benchmarks.peers.flexgemm import FlexGEMM
from detector.benchmarks.peers.spconv import Spconv
from detector.benchmarks.peers.torchsparse import TorchSparse
from detector.benchmarks.peers.warpconvnet import WarpConvNet

PEERS: dict[str, Callable[[], Any]] = {
    "spconv": Spconv,
    "torchsparse": TorchSparse,
    "flexgemm": FlexGEMM,
    "warpconvnet": WarpConvNet,
    "spconv-triton": lambda: Spconv("spconv_triton"),
}


def installed_peers(names: list[str] | None = None) -> tuple[list[Any], dict[str, str]]:
    """The peers that load, and why the others don't."""
    found, missing = [], {}
    for name in names or PEERS:
        try:
            found.append(PEERS[name]())
        except Exception as error:  # whatever a broken installation raises
            missing[name] = f"{type(error).__name__}: {error}"
    return found, missing
