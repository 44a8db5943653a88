"""Memory that is lent to bitmaps and taken back."""

import pytest
import torch

from detector.ops.occupancy import lent

CPU = torch.device("cpu")


class Index:
    released = False

    def release(self):
        self.released = True


@pytest.fixture
def lender(monkeypatch):
    monkeypatch.setattr(lent, "LEAST", 10)
    memory = torch.full((500,), 7, dtype=torch.float16)
    return lent.Lender(memory)


def address_in(tensor, lender):
    first = lender._memory.data_ptr()
    return first <= tensor.data_ptr() < first + 4 * len(lender._memory)


def test_one_borrower_at_a_time(lender):
    index = Index()
    with lent.borrowing() as loan:
        words, rank = lent.zeros(100, CPU), lent.empty(100, CPU)
    loan.to(index)
    assert address_in(words, lender) and address_in(rank, lender)
    assert not words.any()
    assert rank.data_ptr() >= words.data_ptr() + 400
    with lent.borrowing() as loan:
        assert not address_in(lent.empty(100, CPU), lender)
    lender.reclaim()
    assert index.released


def test_what_is_small_too_large_or_not_asked_for_is_new(lender):
    assert not address_in(lent.zeros(100, CPU), lender)
    with lent.borrowing():
        assert not address_in(lent.zeros(9, CPU), lender)
        assert not address_in(lent.zeros(251, CPU), lender)
        first = lent.zeros(200, CPU)
        rest = lent.zeros(100, CPU)
    assert address_in(first, lender)
    assert not address_in(rest, lender)


def test_a_dead_borrower_has_given_back(lender):
    index = Index()
    with lent.borrowing() as loan:
        lent.empty(100, CPU)
    loan.to(index)
    assert lender.lends
    del index
    assert not lender.lends


def test_nothing_is_lent_while_the_owner_needs_it(lender):
    lender.reclaim()
    with lent.borrowing():
        assert not address_in(lent.empty(100, CPU), lender)
    lender.open = True
    with lent.borrowing():
        assert address_in(lent.empty(100, CPU), lender)


def test_a_lender_that_is_gone_lends_nothing(monkeypatch):
    monkeypatch.setattr(lent, "LEAST", 10)
    lender = lent.Lender(torch.zeros(500, dtype=torch.int32))
    del lender
    with lent.borrowing() as loan:
        lent.empty(100, CPU)
    assert loan._lender is None
