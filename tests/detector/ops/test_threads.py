import os
import threading

import pytest
import torch

from detector.ops import threads
from detector.ops.threads import in_threads


@pytest.fixture(autouse=True)
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def pieces_of(count, **options):
    pieces = []
    in_threads(lambda start, stop: pieces.append((start, stop)), count, **options)
    return sorted(pieces)


@pytest.mark.parametrize("count", [1, 2, 7, 1000, 1001])
@pytest.mark.parametrize("grain", [1, 3, 64])
def test_pieces_cover_everything_once_and_begin_at_the_grain(count, grain):
    pieces = pieces_of(count, work_per_item=10**6, grain=grain)
    assert pieces[0][0] == 0
    assert pieces[-1][1] == count
    assert all(stop == start for (_, stop), (start, _) in zip(pieces, pieces[1:], strict=False))
    assert all(start % grain == 0 and start < stop for start, stop in pieces)


def test_little_work_is_not_split():
    assert pieces_of(100) == [(0, 100)]


def test_one_thread_splits_nothing():
    torch.set_num_threads(1)
    assert pieces_of(10**9) == [(0, 10**9)]


def test_both_threads_work():
    meeting = threading.Barrier(2, timeout=30)

    def kernel(start, stop):
        if start in (0, 1):
            meeting.wait()  # passes only if another thread arrives

    in_threads(kernel, 2, work_per_item=threads.LEAST_WORK)


def test_the_first_failure_is_raised():
    def fails(start, stop):
        raise RuntimeError("this piece")

    with pytest.raises(RuntimeError, match="this piece"):
        in_threads(fails, 10**6)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_forked_process_has_threads_of_its_own():
    assert len(pieces_of(10**6)) > 1  # the parent's threads exist
    child = os.fork()
    if child == 0:
        os._exit(0 if len(pieces_of(10**6)) > 1 else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
