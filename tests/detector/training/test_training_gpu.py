"""Whole runs on a GPU, and on two with NCCL: what a run on a CPU does, these do as well."""

import json
import math
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

from detector.config import build_model, load_config
from detector.errors import InputError
from detector.sparse import SparseBatchNorm, SparseTensor
from detector.training import train
from detector.training.checkpoint import load_checkpoint
from detector.training.data import EpochBatches, TrainingFrames, training_batches
from detector.training.runner import TrainLoop
from tests.writers.toy import Shift, ToyDataset

pytestmark = pytest.mark.gpu
needs_two = pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")

REPOSITORY = Path(__file__).parents[3]
TOY = REPOSITORY / "tests" / "writers" / "toy_config.py"
FP16 = ["precision='float16'", "ema=0.9", "accumulate=2"]


def records(work_dir):
    lines = (work_dir / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def losses(work_dir):
    return [r["losses"] for r in records(work_dir) if "losses" in r]


@pytest.fixture(scope="module")
def fp16(tmp_path_factory):
    """A run in float16 that nothing disturbed."""
    work_dir = tmp_path_factory.mktemp("fp16")
    assert train(load_config(TOY, FP16), work_dir).finished
    return work_dir


# ---------------------------------------------------------------------------- one GPU


def test_a_gpu_has_the_losses_of_a_cpu(tmp_path):
    code = (
        "import sys; from detector.config import load_config; from detector.training import train;"
        f"train(load_config({str(TOY)!r}, ['epochs=1', 'batch_size=6']), sys.argv[1])"
    )
    for name, devices in (("cpu", ""), ("gpu", "0")):
        subprocess.run(
            [sys.executable, "-c", code, str(tmp_path / name)], cwd=REPOSITORY, check=True,
            env={**environment(), "CUDA_VISIBLE_DEVICES": devices},
        )  # fmt: skip
    (cpu,), (gpu,) = losses(tmp_path / "cpu"), losses(tmp_path / "gpu")
    assert cpu.keys() == gpu.keys()
    for name, value in cpu.items():
        assert gpu[name] == pytest.approx(value, rel=2e-3), name


def test_float16_scales_its_loss_and_keeps_the_scale_in_checkpoints(fp16):
    content = load_checkpoint(fp16 / "latest.pth")
    scaler = content["optimizer"]["scaler"]
    assert scaler["scale"] >= 1 and "_growth_tracker" in scaler
    assert {p.dtype for p in content["state_dict"].values()} == {torch.float32, torch.int64}
    assert all(v.isfinite().all() for v in content["state_dict"].values())
    terms = losses(fp16)
    assert terms[-1]["total"] < terms[0]["total"]


def test_lines_hold_what_a_gpu_run_is_watched_by(fp16):
    for record in (r for r in records(fp16) if "losses" in r):
        assert {
            "lr", "grad_norm", "loss_scale", "frames_per_s", "step_ms", "data_ms", "data_share",
            "points_per_frame", "voxels_per_frame", "gpu_memory_gib",
        } <= record.keys()  # fmt: skip
        assert record["gpu_memory_gib"] > 0 and record["voxels_per_frame"] > 0


def stop_after(monkeypatch, steps):
    must_stop = TrainLoop._must_stop

    def ask(loop):
        loop.stop_requested |= loop.iter == steps
        return must_stop(loop)

    monkeypatch.setattr(TrainLoop, "_must_stop", ask)


def test_float16_resumes_as_if_nothing_had_been(fp16, tmp_path, monkeypatch):
    config = load_config(TOY, FP16)
    with monkeypatch.context() as patch:
        stop_after(patch, 5)
        assert not train(config, tmp_path).finished
    stopped = load_checkpoint(tmp_path / "latest.pth")
    assert 5 <= stopped["iteration"] <= 6 and stopped["cuda_rng"].numel()
    assert train(config, tmp_path, resume=True).finished
    expected, found = (load_checkpoint(d / "latest.pth") for d in (fp16, tmp_path))
    assert found["optimizer"]["scaler"] == expected["optimizer"]["scaler"]
    torch.manual_seed(config.seed)
    start = build_model(config).state_dict()
    for part in ("state_dict", "ema_state_dict"):
        moved = apart = 0.0
        for name, value in expected[part].items():
            key = name.removeprefix("module.")
            if key in start and value.is_floating_point():
                moved += float((value - start[key]).abs().sum())
                apart += float((value - found[part][name]).abs().sum())
        # Sums on a GPU have no fixed order, and so no fixed last bit.
        assert apart < 0.1 * moved
        print(f"{part}: apart by {apart / moved:.2e} of what training moved")


def test_bfloat16_needs_no_scale(tmp_path):
    assert train(load_config(TOY, ["precision='bfloat16'", "epochs=1"]), tmp_path).finished
    content = load_checkpoint(tmp_path / "latest.pth")
    assert content["optimizer"]["scaler"] == {}
    assert train(
        load_config(TOY, ["precision='float16'", "epochs=2"]), tmp_path, resume=True
    ).finished


def test_a_loss_that_is_not_finite_stops_on_a_gpu_too(tmp_path):
    config = load_config(TOY, ["train_dataset.nan_frame=3", "batch_size=1"])
    with pytest.raises(InputError, match=r"not finite.*frames 000003 .*--resume"):
        train(config, tmp_path)
    assert json.loads((tmp_path / "not_finite.json").read_text())["frames"] == ["000003"]


class Deadly(ToyDataset):
    """Kills the process that reads a frame, once."""

    def __init__(self, mark, frame):
        super().__init__(8)
        self.mark, self.frame, self.owner = mark, frame, os.getpid()

    def __getitem__(self, index):
        if index == self.frame and os.getpid() != self.owner and not self.mark.exists():
            self.mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return super().__getitem__(index)


@pytest.mark.parametrize("frame", [0, 3, 5])
def test_a_killed_data_process_is_started_again_with_pinned_memory_too(tmp_path, frame):
    def read(dataset, workers):
        frames = TrainingFrames(dataset, [Shift()], seed=3)
        batches = EpochBatches(8, 2, seed=3)
        return training_batches(frames, batches, workers, torch.device("cuda"))

    expected = list(read(ToyDataset(8), 0))
    found = list(read(Deadly(tmp_path / "mark", frame), 2))
    assert (tmp_path / "mark").exists() and found[0].points.is_pinned()
    for one, two in zip(expected, found, strict=True):
        assert one.frame_ids == two.frame_ids and torch.equal(one.points, two.points)


def environment():
    return {**os.environ, "PYTHONPATH": os.pathsep.join(
        [str(REPOSITORY), os.environ.get("PYTHONPATH", "")]
    )}  # fmt: skip


def start(tool, *arguments, processes=1, options=()):
    """A tool on the toy config, started as a user would on so many GPUs."""
    launcher = [sys.executable]
    if processes > 1:
        launcher += ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"]
    return subprocess.Popen(
        [*launcher, f"tools/{tool}.py", str(TOY), *map(str, arguments), "--cfg-options", *options],
        cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        env=environment(),
    )  # fmt: skip


def end(process, status=0):
    out, _ = process.communicate(timeout=240)
    assert process.returncode == status, out
    return out


def wait_for(path, process):
    while process.poll() is None and not path.exists():
        time.sleep(0.02)
    assert path.exists(), process.communicate()[0]


def test_a_killed_run_goes_on(tmp_path):
    options = [*FP16, "workers=2", "epochs=40", "evaluate_every=0"]
    process = start("train", "--work-dir", tmp_path, options=options)
    wait_for(tmp_path / "epoch_2.pth", process)
    process.kill()
    process.communicate()
    out = end(start("train", "--work-dir", tmp_path, "--resume", options=options))
    assert "going on from" in out and "best.pth (score" in out
    assert load_checkpoint(tmp_path / "latest.pth")["iteration"] == 120


# ---------------------------------------------------------------------------- two GPUs


@needs_two
def test_two_gpus_train_stop_resume_and_evaluate_as_one(tmp_path):
    options = [*FP16, "sync_norm=True", "batch_size=1", "evaluate_every=0", "keep_checkpoints=1",
               "val_dataset.frames=5", "epochs=400"]  # fmt: skip
    process = start("train", "--work-dir", tmp_path, processes=2, options=options)
    wait_for(tmp_path / "latest.pth", process)
    process.send_signal(signal.SIGTERM)
    out = process.communicate(timeout=120)[0]
    assert "everything is saved" in out and "on 2 x cuda" in out, out
    done = load_checkpoint(tmp_path / "latest.pth")["iteration"]
    options[-1] = f"epochs={math.ceil(done / 3) + 5}"
    out = end(
        start("train", "--work-dir", tmp_path, "--resume", processes=2, options=options)
    )
    assert f"going on from {tmp_path / 'latest.pth'}: {done} of" in out and "best.pth" in out
    assert "destroy_process_group" not in out
    found = []
    for count in (1, 2):
        file = tmp_path / f"{count}.json"
        end(start(
            "evaluate", tmp_path / "best.pth", "--json", file, processes=count,
            options=[*options, "batch_size=2"],
        ))  # fmt: skip
        found.append(json.loads(file.read_text()))
    assert found[0] == found[1] and found[0]["score"] > 0


NORMS = """
import sys, numpy as np, torch
sys.path.insert(0, {repository!r})
from detector.training.distributed import join, leave
from tests.detector.training.test_training_gpu import norms_of
rank, count = join()
np.savez(sys.argv[1] + str(rank), *norms_of(rank, count))
leave()
"""


def norms_of(rank, count, size=7):
    """Output, gradient and running statistics of norms that see part of some rows."""
    from detector.training.sync_norm import synchronise_norms

    rows = torch.randn(size, 3, generator=torch.Generator().manual_seed(1)).cuda() * 3 + 5
    norms = nn.ModuleList([nn.BatchNorm2d(3), SparseBatchNorm(3, eps=1e-3, momentum=0.01)]).cuda()
    if count > 1:
        synchronise_norms(norms)
    x = rows[rank::count].clone().requires_grad_()
    dense = norms[0](x[:, :, None, None]).flatten(1)
    coordinates = torch.zeros(len(x), 4, dtype=torch.int32, device="cuda")
    coordinates[:, 3] = torch.arange(len(x))
    sparse = norms[1](SparseTensor(x * 2, coordinates, (1, 1, size), 1)).features
    weight = torch.arange(3, device="cuda")
    ((dense + sparse) * weight * rows[rank::count].square()).sum().backward()
    results = (dense, sparse, x.grad, norms[0].running_var, norms[1].running_mean)
    return [t.detach().cpu().numpy() for t in results]


@needs_two
def test_synchronised_norms_on_two_gpus_are_those_of_one(tmp_path):
    script = tmp_path / "norms.py"
    script.write_text(NORMS.format(repository=str(REPOSITORY)))
    subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2",
         str(script), str(tmp_path / "part")],
        cwd=REPOSITORY, env=environment(), check=True, timeout=240,
    )  # fmt: skip
    alone = norms_of(0, 1)
    for rank in range(2):
        with np.load(tmp_path / f"part{rank}.npz") as part:
            for index, whole in enumerate(alone):
                expected = whole[rank::2] if index < 3 else whole
                assert np.allclose(part[f"arr_{index}"], expected, rtol=1e-4, atol=1e-5)


@needs_two
def test_the_death_of_one_of_two_ends_the_other(tmp_path):
    options = ["batch_size=1", "epochs=4000", "evaluate_every=0", "keep_checkpoints=1"]
    process = start("train", "--work-dir", tmp_path, processes=2, options=options)
    wait_for(tmp_path / "latest.pth", process)
    os.kill(process_of_rank(process.pid, 1), signal.SIGKILL)
    started = time.monotonic()
    out = process.communicate(timeout=240)[0]
    assert process.returncode != 0 and time.monotonic() - started < 120
    assert "SIGKILL" in out or "exitcode: -9" in " ".join(out.split())
    assert load_checkpoint(tmp_path / "latest.pth")["iteration"] >= 3


def process_of_rank(launcher, rank):
    children = Path(f"/proc/{launcher}/task/{launcher}/children").read_text().split()
    for child in children:
        variables = Path(f"/proc/{child}/environ").read_bytes().split(b"\0")
        if f"RANK={rank}".encode() in variables:
            return int(child)
    raise AssertionError(f"no process of rank {rank} among {children}")
