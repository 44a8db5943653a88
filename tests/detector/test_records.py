"""Batches: together, to a device, to another process."""

import io
from multiprocessing.reduction import ForkingPickler

import torch

from datasets.combined import PartlyLabelledDataset
from detector.records import collate
from tests.writers.toy import ToyDataset


def frames(partly=False):
    toys = ToyDataset()
    if partly:
        toys = PartlyLabelledDataset(toys, ("Car",))
    return [toys[i] for i in range(4)]


def same(a, b):
    assert a.frame_ids == b.frame_ids
    for one, other in zip((a.points, a.point_counts, *a.boxes, *a.labels),
                          (b.points, b.point_counts, *b.boxes, *b.labels), strict=True):
        assert torch.equal(one, other)
    assert (a.labelled is None) == (b.labelled is None)
    assert a.labelled is None or torch.equal(a.labelled, b.labelled)


def test_a_batch_is_the_same_in_another_process():
    for partly in (False, True):
        batch = collate(frames(partly))
        same(batch, torch.utils.data.default_convert(ForkingPickler.loads(dumped(batch))))


def dumped(batch):
    buffer = io.BytesIO()
    ForkingPickler(buffer).dump(batch)
    return buffer.getvalue()


def test_it_travels_as_few_tensors_however_many_frames_it_has(monkeypatch):
    import torch.multiprocessing.reductions as reductions

    seen = []
    reduce = reductions.reduce_tensor
    monkeypatch.setitem(ForkingPickler._extra_reducers, torch.Tensor,
                        lambda t: seen.append(t) or reduce(t))  # fmt: skip
    dumped(collate(frames()))
    assert len(seen) == 4


def test_a_moved_batch_keeps_its_frames_apart():
    batch = collate(frames(partly=True))
    same(batch.to("cpu"), batch)
    meta = batch.to("meta")
    assert [b.shape for b in meta.boxes] == [b.shape for b in batch.boxes]
    assert meta.points.is_meta and meta.labelled.is_meta and meta.labels[1].is_meta


def test_only_where_a_frame_says_so_is_a_class_unlabelled():
    partly, whole = frames(partly=True)[:1], frames()[:1]
    assert collate(whole).labelled is None
    assert collate(partly + whole).labelled.tolist() == [[True, False], [True, True]]
