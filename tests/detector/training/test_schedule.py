"""The one-cycle schedule at its corners."""

import pytest

from detector.training.schedule import OneCycle


def test_rate_rises_to_the_peak_and_falls_to_the_end():
    cycle = OneCycle(warmup=0.4, start=0.1, end=0.001, momentum=(0.95, 0.85))
    assert cycle.at(0) == pytest.approx((0.1, 0.95))
    assert cycle.at(0.4) == pytest.approx((1.0, 0.85))
    assert cycle.at(1) == pytest.approx((0.001, 0.95))
    assert cycle.at(0.2) == pytest.approx((0.55, 0.90))
    rates = [cycle.at(i / 100)[0] for i in range(101)]
    assert rates[:41] == sorted(rates[:41]) and rates[40:] == sorted(rates[40:], reverse=True)


def test_warmup_must_be_a_share():
    with pytest.raises(ValueError, match="warmup"):
        OneCycle(warmup=1.5)
