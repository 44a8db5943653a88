"""Processes of a simulation: all jobs done, and none left behind when their parent is gone."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from datasets.simulation.processes import in_processes
from detector.errors import InputError

REPOSITORY = Path(__file__).resolve().parents[3]
SLOW_RUN = """
import os, sys, time
from pathlib import Path
from datasets.simulation.processes import in_processes
from tests.datasets.simulation.test_processes import say_and_sleep
if __name__ == "__main__":
    for _ in in_processes(say_and_sleep, [(sys.argv[1],)] * 2, 2, ""):
        pass
"""


def say_and_sleep(folder: str) -> None:
    (Path(folder) / str(os.getpid())).touch()
    time.sleep(120)


def die(_) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize("workers", [1, 2])
def test_every_job_is_done_once_and_its_result_comes_with_its_number(workers):
    jobs = [(base, 2) for base in range(5)]
    assert dict(in_processes(pow, jobs, workers, "")) == {n: n**2 for n in range(5)}


def test_a_killed_worker_is_one_sentence():
    with pytest.raises(InputError, match="--workers 2: a worker was killed.* and --overwrite"):
        list(in_processes(die, [(1,), (2,)], 2, " and --overwrite"))


@pytest.mark.parametrize("by", [signal.SIGTERM, signal.SIGKILL])
def test_workers_end_with_their_parent(tmp_path, by):
    """Also where it had no time to tell them."""
    script = tmp_path / "run.py"
    script.write_text(SLOW_RUN)
    pids = tmp_path / "pids"
    pids.mkdir()
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    parent = subprocess.Popen([sys.executable, str(script), str(pids)], env=environment)
    try:
        assert _until(lambda: len(list(pids.iterdir())) == 2, 60)
        parent.send_signal(by)
        parent.wait(10)
        left = [int(path.name) for path in pids.iterdir()]
        assert _until(lambda: not any(_runs(pid) for pid in left), 20)
    finally:
        parent.kill()


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def _until(condition, seconds: float) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.1)
    return condition()
