"""tools/simulate.py from the outside."""

import os
import signal
import subprocess
import sys
import time
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


def test_ctrl_c_ends_quietly_and_leaves_no_splits(tmp_path):
    out = tmp_path / "out"
    process = subprocess.Popen(
        [sys.executable, "tools/simulate.py", "kitti", "--out", str(out), "--frames", "60",
         "--val-frames", "1", "--sensor", "hdl32e", "--workers", "2"],
        cwd=REPOSITORY,
        env={"PYTHONPATH": str(REPOSITORY), "PATH": "/usr/bin:/bin"},
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # A shell's background jobs, and what they start, ignore it otherwise.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    patience = time.monotonic() + 90
    while not (out / "simulation.json").exists() and time.monotonic() < patience:
        time.sleep(0.1)
    time.sleep(1)                                         # the workers are being started
    os.killpg(process.pid, signal.SIGINT)                 # as a terminal does: to all processes
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 130 and errors.strip() == "interrupted"
    assert (out / "simulation.json").exists() and not (out / "ImageSets").exists()
