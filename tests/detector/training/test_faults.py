"""What goes wrong in long runs, and what is left of them then."""

import errno
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from detector.config import load_config
from detector.errors import InputError
from detector.training import checkpoint as checkpoint_module
from detector.training import train
from detector.training.checkpoint import load_checkpoint
from detector.training.data import EpochBatches, TrainingFrames, training_batches
from detector.training.runner import TrainLoop
from tests.writers.processes import run_processes
from tests.writers.toy import Shift, ToyDataset

REPOSITORY = Path(__file__).parents[3]
TOY = REPOSITORY / "tests" / "writers" / "toy_config.py"
CPU = torch.device("cpu")


# ------------------------------------------------------------------------------ killed


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run that nothing disturbed."""
    return trained(load_config(TOY, OPTIONS), tmp_path_factory.mktemp("finished"))


OPTIONS = ["ema=0.9", "accumulate=2", "epochs=2"]


def trained(config, work_dir, resume=False):
    """The folder of a run in a process of its own, in one thread: the order of sums, and so the
    last bit, depends on the number of threads."""
    return run_processes(lambda rank: train(config, work_dir, resume).work_dir, 1)[0]


def die(*_, **__):
    os.kill(os.getpid(), signal.SIGKILL)


def within_an_epoch(monkeypatch):
    must_stop = TrainLoop._must_stop
    monkeypatch.setattr(
        TrainLoop, "_must_stop", lambda loop: die() if loop.iter == 5 else must_stop(loop)
    )


def before_a_checkpoint_is_whole(monkeypatch):
    fsync, calls = os.fsync, []

    def dying(number):
        calls.append(number)
        return die() if len(calls) == 3 else fsync(number)

    monkeypatch.setattr(os, "fsync", dying)


def before_the_newest_gets_its_name(monkeypatch):
    link, calls = checkpoint_module.os.link, []

    def dying(*paths):
        calls.append(paths)
        return die() if len(calls) == 3 else link(*paths)

    monkeypatch.setattr(checkpoint_module.os, "link", dying)


@pytest.mark.parametrize(
    "moment",
    [within_an_epoch, before_a_checkpoint_is_whole, before_the_newest_gets_its_name],
    ids=lambda moment: moment.__name__,
)
def test_killed_at_any_moment_a_run_resumes_to_the_same_bits(
    moment, finished, tmp_path, monkeypatch
):
    config = load_config(TOY, OPTIONS)
    with monkeypatch.context() as patch:
        moment(patch)
        with pytest.raises(AssertionError, match="a process ended"):
            trained(config, tmp_path)
    trained(config, tmp_path, resume=True)
    expected, found = (load_checkpoint(d / "latest.pth") for d in (finished, tmp_path))
    for part in ("state_dict", "ema_state_dict"):
        for name, value in expected[part].items():
            assert torch.equal(value, found[part][name]), name
    assert expected["best_score"] == found["best_score"]
    assert {p.name for p in tmp_path.iterdir()} == {p.name for p in finished.iterdir()}


# ---------------------------------------------------------------------------- SIGTERM


@pytest.mark.slow
def test_a_scheduler_s_sigterm_saves_and_ends_well(tmp_path):
    process = subprocess.Popen(
        [sys.executable, "tools/train.py", str(TOY), "--work-dir", str(tmp_path / "run"),
         "--cfg-options", "epochs=2000", "evaluate_every=0", "workers=1"],
        cwd=REPOSITORY, stdout=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
    )  # fmt: skip
    while process.poll() is None and not (tmp_path / "run" / "epoch_1.pth").exists():
        time.sleep(0.02)
    process.send_signal(signal.SIGTERM)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    assert "everything is saved" in out and "--resume" in out
    iteration = load_checkpoint(tmp_path / "run" / "latest.pth")["iteration"]
    assert f"stopped at step {iteration} of 6000" in out


# ------------------------------------------------------------------------- data processes


class Deadly(ToyDataset):
    """Kills the process that reads a frame, if it is not the one that made the data set."""

    def __init__(self, folder, frame, times):
        super().__init__(8)
        self.folder, self.frame, self.times, self.owner = folder, frame, times, os.getpid()

    def __getitem__(self, index):
        if index == self.frame and os.getpid() != self.owner:
            marks = len(list(self.folder.iterdir()))
            if marks < self.times:
                (self.folder / str(marks)).touch()
                die()
        return super().__getitem__(index)


def read(dataset, workers):
    frames = TrainingFrames(dataset, [Shift()], seed=3)
    return training_batches(frames, EpochBatches(8, 2, seed=3), workers, CPU)


def test_a_killed_data_process_is_started_again_and_no_batch_is_lost(tmp_path, capsys):
    expected = list(read(ToyDataset(8), 0))
    found = list(read(Deadly(tmp_path, 5, times=1), 2))
    assert capsys.readouterr().out.count("starting it anew") == 1
    for one, two in zip(expected, found, strict=True):
        assert one.frame_ids == two.frame_ids and torch.equal(one.points, two.points)


def test_a_data_process_that_always_dies_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr("detector.training.data.MOST_DEATHS", 1)
    with pytest.raises(InputError, match="died 2 times in a row.*lower workers.*--resume"):
        list(read(Deadly(tmp_path, 5, times=99), 1))


def test_a_data_process_killed_during_a_step_does_not_disturb_the_step(tmp_path):
    batches = iter(read(Deadly(tmp_path, 5, times=1), 2))
    done = 0
    for _ in batches:
        # Long enough for the reading of what comes next to fail.
        time.sleep(0.2)
        done += 1
    assert done == 4 and len(list(tmp_path.iterdir())) == 1


# --------------------------------------------------------------------------- bad frames


@pytest.mark.parametrize("workers", [0, 1])
def test_bad_frames_are_skipped_on_request_and_counted(tmp_path, capsys, workers):
    config = load_config(TOY, [
        "train_dataset.bad_frame=2", "skip_bad_frames=True", "epochs=2", f"workers={workers}",
    ])  # fmt: skip
    assert train(config, tmp_path).finished
    out = capsys.readouterr().out
    assert out.count("skipped a bad frame: 000002.bin: is broken; copy it again") == 1
    assert "skipped 1 bad frames in this run" in out


def test_the_next_good_frame_takes_the_place_of_a_bad_one():
    frames = TrainingFrames(ToyDataset(4, bad_frame=3), [], seed=0)
    batches = training_batches(frames, [[(0, 2), (0, 3)]], 0, CPU, skip_bad_frames=True)
    assert [batch.frame_ids for batch in batches] == [("000002", "000000")]


def test_without_a_good_frame_the_last_error_stands():
    frames = TrainingFrames(ToyDataset(1, bad_frame=0), [], seed=0)
    with pytest.raises(InputError, match="is broken"):
        list(training_batches(frames, [[(0, 0)]], 0, CPU, skip_bad_frames=True))


# ---------------------------------------------------------------------------- full disks


def test_a_disk_that_is_full_while_saving_leaves_the_old_checkpoint(tmp_path):
    train(load_config(TOY, ["epochs=1"]), tmp_path)
    before = load_checkpoint(tmp_path / "latest.pth")

    def without_room(rank):
        # Files may grow to 20 kB: enough for the records, too little for a checkpoint.
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, resource.RLIM_INFINITY))
        with pytest.raises(InputError) as error:
            train(load_config(TOY, ["epochs=3"]), tmp_path, resume=True)
        return str(error.value)

    (said,) = run_processes(without_room, 1)
    assert f"cannot be written ({os.strerror(errno.EFBIG)})" in said and "make room" in said
    assert load_checkpoint(tmp_path / "latest.pth")["iteration"] == before["iteration"] == 3
    assert not list(tmp_path.glob(".*"))
    assert train(load_config(TOY, ["epochs=2"]), tmp_path, resume=True).finished
