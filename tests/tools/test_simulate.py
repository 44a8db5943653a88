"""tools/simulate.py from the outside."""

import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]


def simulate(*options: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "tools/simulate.py", "kitti", *options],
        cwd=REPOSITORY,
        env={"PYTHONPATH": str(REPOSITORY), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_writes_a_data_set_and_refuses_to_do_so_twice(tmp_path):
    options = ("--out", str(tmp_path / "out"), "--frames", "1", "--val-frames", "1")
    first = simulate(*options, "--sensor", "hdl32e", "--workers", "1")
    assert first.returncode == 0, first.stderr
    assert "1 training and 1 validation frames" in first.stdout
    assert sorted(p.name for p in (tmp_path / "out" / "ImageSets").iterdir()) == [
        "train.txt", "trainval.txt", "val.txt",
    ]  # fmt: skip
    second = simulate(*options, "--sensor", "hdl32e")
    assert second.returncode == 2
    assert "--overwrite" in second.stderr and "Traceback" not in second.stderr


def test_bad_options_end_with_status_2_and_a_sentence(tmp_path):
    for options, word in (
        (("--frames", "0"), "--frames"),
        (("--frames", "many"), "whole number"),
        (("--sensor", "sonar"), "hdl64e"),
        (("--workers", "0"), "--workers"),
        (("--seed", "-1"), "--seed"),
    ):
        done = simulate("--out", str(tmp_path / "out"), *options)
        assert done.returncode == 2 and word in done.stderr, options
        assert "Traceback" not in done.stderr and not (tmp_path / "out").exists()
