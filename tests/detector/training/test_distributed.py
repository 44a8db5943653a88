"""Two processes on gloo: training, evaluation and resuming end as they do with one, or say why."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from detector.config import build, build_model, load_config
from detector.errors import InputError
from detector.sparse import SparseBatchNorm, SparseTensor
from detector.training import train
from detector.training.checkpoint import load_checkpoint
from detector.training.distributed import from_first, gathered, join
from detector.training.evaluation import evaluate
from detector.training.runner import TrainLoop
from detector.training.sync_norm import synchronise_norms
from tests.writers.processes import run_processes

REPOSITORY = Path(__file__).parents[3]
TOY = REPOSITORY / "tests" / "writers" / "toy_config.py"
OPTIONS = ["batch_size=1", "ema=0.9", "sync_norm=True"]


def run_two(work_dir, *options, resume=False):
    """What two processes make of the toy config."""
    config = load_config(TOY, [*OPTIONS, *options])
    return run_processes(lambda rank: train(config, work_dir, resume))


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run of two processes that nothing disturbed."""
    work_dir = tmp_path_factory.mktemp("two")
    results = run_two(work_dir)
    assert all(result.finished for result in results)
    assert results[0].best_score == results[1].best_score
    return work_dir


def weights(path):
    content = load_checkpoint(path)
    return {**content["state_dict"], **content["ema_state_dict"]}


def assert_same(first, second):
    first, second = weights(first), weights(second)
    assert first.keys() == second.keys()
    assert all(torch.equal(value, second[name]) for name, value in first.items())


def test_a_run_of_two_leaves_what_a_run_of_one_leaves(finished):
    names = {path.name for path in finished.iterdir()}
    assert {"latest.pth", "best.pth", "metrics.jsonl", "config.txt"} <= names
    assert load_checkpoint(finished / "latest.pth")["batches_per_epoch"] == 3


def stop_at(monkeypatch, steps):
    """SIGTERM for the second process alone, once so many steps are done."""
    must_stop = TrainLoop._must_stop

    def ask(loop):
        if loop.iter == steps and os.environ["RANK"] == "1":
            os.kill(os.getpid(), signal.SIGTERM)
            while not loop.stop_requested:
                time.sleep(0.01)
        return must_stop(loop)

    monkeypatch.setattr("detector.training.runner.STEPS_TO_AGREE", 1)
    monkeypatch.setattr(TrainLoop, "_must_stop", ask)


def test_both_stop_where_one_is_told_to_and_resume_to_the_same_bits(
    finished, tmp_path, monkeypatch
):
    with monkeypatch.context() as patch:
        stop_at(patch, 4)
        stopped = run_two(tmp_path)
    assert [result.finished for result in stopped] == [False, False]
    assert load_checkpoint(tmp_path / "latest.pth")["iteration"] == 4
    run_two(tmp_path, resume=True)
    assert_same(finished / "latest.pth", tmp_path / "latest.pth")


def evaluated(configs):
    """Scores and detections of the configs' validation sets in batches of 2."""
    join()
    results = []
    for config in configs:
        torch.manual_seed(0)
        model = build_model(config)
        result = evaluate(model, build(config.val_dataset), 2, 0, "")
        results.append(result and (result[0].score, [
            (d.frame_id, d.boxes.numpy(), d.scores.numpy(), d.labels.numpy()) for d in result[1]
        ]))  # fmt: skip
    return results


def test_evaluation_is_the_same_to_the_bit_with_uneven_shares():
    configs = [load_config(TOY, [f"val_dataset.frames={n}"]) for n in (1, 3, 6)]
    (alone,) = run_processes(lambda rank: evaluated(configs), 1)
    together, other = run_processes(lambda rank: evaluated(configs), 2)
    assert other == [None] * 3
    for frames, one, two in zip((1, 3, 6), alone, together, strict=True):
        assert one[0] == two[0] and len(two[1]) == frames
        for expected, found in zip(one[1], two[1], strict=True):
            assert expected[0] == found[0]
            assert all(map(np.array_equal, expected[1:], found[1:]))


def test_values_travel_between_processes():
    def travel(rank):
        join()
        return gathered(rank * 10), from_first(f"of {rank}")

    assert run_processes(travel) == [([0, 10], "of 0"), (None, "of 0")]
    assert gathered(3) == [3] and from_first(4) == 4


def synchronised(rank, count, rows, size):
    """Output, gradient and running mean of norms that see part of `rows`."""
    torch.manual_seed(0)
    norms = nn.ModuleList([nn.BatchNorm2d(3), SparseBatchNorm(3, eps=1e-3, momentum=0.01)])
    if count > 1:
        join()
        synchronise_norms(norms)
    x = rows[rank::count].clone().requires_grad_()
    dense = norms[0](x[:, :, None, None]).flatten(1)
    coordinates = torch.zeros(len(x), 4, dtype=torch.int32)
    coordinates[:, 3] = torch.arange(len(x))
    sparse = norms[1](SparseTensor(x * 2, coordinates, (1, 1, size), 1)).features
    ((dense + sparse) * torch.arange(3) * rows[rank::count].square()).sum().backward()
    return [t.detach().numpy() for t in (
        dense, sparse, x.grad, norms[0].running_var, norms[1].running_mean
    )]  # fmt: skip


def test_synchronised_norms_are_those_of_one_process():
    rows = torch.randn(7, 3, generator=torch.Generator().manual_seed(1)) * 3 + 5
    alone = synchronised(0, 1, rows, 7)
    parts = run_processes(lambda rank: synchronised(rank, 2, rows, 7))
    for index, whole in enumerate(alone):
        for rank, part in enumerate(parts):
            expected = whole[rank::2] if index < 3 else whole
            assert np.allclose(part[index], expected, rtol=1e-4, atol=1e-5)


def test_one_value_in_all_leaves_the_running_statistics(monkeypatch):
    rows = torch.tensor([[1.0, 2, 3]])
    parts = run_processes(lambda rank: synchronised(rank, 2, rows, 1))
    assert np.isfinite(parts[0][0]).all() and parts[1][0].shape == (0, 3)
    assert np.array_equal(parts[0][3], np.ones(3)) and np.array_equal(parts[1][4], np.zeros(3))


def test_a_loss_that_is_not_finite_in_one_process_is_saved_by_none(tmp_path):
    config = load_config(TOY, [*OPTIONS, "train_dataset.nan_frame=3", "epochs=1"])

    def failing(rank):
        try:
            train(config, tmp_path)
        except (InputError, RuntimeError) as error:
            return str(error)

    said = " ".join(map(str, run_processes(failing)))
    assert "frames 000003" in said
    assert not list(tmp_path.glob("*.pth"))


@pytest.mark.slow
def test_the_death_of_one_process_ends_the_others_in_a_sentence(tmp_path):
    code = (
        "import os, signal, sys; from detector.cli import run_tool;"
        "from detector.config import load_config; from detector.training import train;"
        "from detector.training.runner import TrainLoop; stop = TrainLoop._must_stop\n"
        "def die(loop):\n"
        "    if os.environ['RANK'] == '1' and loop.iter == 2:\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "    return stop(loop)\n"
        "TrainLoop._must_stop = die\n"
        f"run_tool(lambda: train(load_config({str(TOY)!r}, ['batch_size=1']), sys.argv[1]) and 0)"
    )
    script = tmp_path / "run.py"
    script.write_text(code)
    started = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2", "--standalone",
         str(script), str(tmp_path / "run")],
        cwd=REPOSITORY, capture_output=True, text=True, timeout=300,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
    )  # fmt: skip
    assert done.returncode != 0 and time.monotonic() - started < 200
    assert "process 0 of 2 waits for another one that has ended" in done.stderr
    assert "SIGKILL" in done.stderr or "exitcode: -9" in done.stderr.replace("  ", " ")


def test_sruns_variables_are_understood(monkeypatch):
    slurm = dict(
        SLURM_STEP_NUM_TASKS="4", SLURM_PROCID="2", SLURM_LOCALID="1", SLURM_JOB_ID="77",
        MASTER_ADDR="node1", OMP_NUM_THREADS="1", MKL_NUM_THREADS="1",
    )  # fmt: skip
    for name, value in slurm.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(torch.distributed, "init_process_group", lambda *a, **k: None)
    monkeypatch.setattr("detector.training.distributed.position", lambda: (2, 4))
    assert join() == (2, 4)
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_PORT")
    assert [os.environ.pop(name) for name in names] == ["2", "4", "1", "20077"]
    monkeypatch.delenv("MASTER_ADDR")
    monkeypatch.setenv("PATH", "")
    with pytest.raises(InputError, match="set MASTER_ADDR"):
        join()


def test_more_processes_than_gpus_are_refused(monkeypatch):
    for name, value in dict(RANK="2", WORLD_SIZE="3", LOCAL_RANK="2").items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(InputError, match="process 3 .*has no GPU, there are 2; lower"):
        join()
