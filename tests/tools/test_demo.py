"""The demo's whole way, with a few frames and steps."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]


def demo(out):
    return subprocess.run(
        [sys.executable, str(REPOSITORY / "tools" / "demo.py"), "--quick", "--out", str(out)],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)}, capture_output=True, text=True,
    )  # fmt: skip


@pytest.mark.slow
def test_the_demo_goes_the_whole_way(tmp_path):
    done = demo(tmp_path / "demo")
    assert done.returncode == 0, done.stdout + done.stderr
    figures = json.loads((tmp_path / "demo" / "figures.json").read_text())
    assert len(figures["Car"]["3d"]["R40"]) == 3
    assert (tmp_path / "demo" / "run" / "best.pth").exists()
    pictures = [line.split(maxsplit=1)[1] for line in done.stdout.splitlines()
                if line.startswith("picture:")]  # fmt: skip
    assert pictures and all(Path(p).stat().st_size > 1000 for p in pictures)
    for part in ("kitti/complete", "kitti/pasted", "run/complete"):
        assert (tmp_path / "demo" / part).exists()
