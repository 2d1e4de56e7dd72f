"""The mean of a metric over seeds, its interval, and what is said of seeds that are in neither."""

import math

import pytest

from expander_sae.measurements.estimate import Estimate, half_interval


def test_the_interval_is_student_s():
    assert half_interval([1.0, 2.0, 3.0]) == pytest.approx(4.302653 / math.sqrt(3), rel=1e-6)
    assert math.isnan(half_interval([1.0]))
    # t(0.975, 2) = 4.302653, sd = 1.527525
    estimate = Estimate({0: 1.0, 1: 2.0, 2: 4.0}, 3)
    assert estimate.mean == pytest.approx(7 / 3)
    assert estimate.half == pytest.approx(4.302653 * 1.527525 / math.sqrt(3), rel=1e-6)


def test_one_seed_has_no_interval_and_none_no_mean():
    assert math.isnan(Estimate({0: 1.0}, 1).half)
    assert math.isnan(Estimate({}, 1, 1).mean)


def test_a_difference_pairs_seeds_and_uses_shared_ones_only():
    mine, its = Estimate({0: 1.0, 1: 2.0, 2: 9.0}, 3), Estimate({0: 0.5, 1: 1.0, 3: 0.0}, 3)
    assert dict(mine.less(its).values) == {0: 0.5, 1: 1.0}
    assert not mine.less(Estimate())


def test_a_multiple_keeps_what_is_known_of_the_seeds():
    percent = Estimate({0: 0.25, 2: 0.5}, 4, 1).scaled(100)
    assert dict(percent.values) == {0: 25.0, 2: 50.0}
    assert (percent.asked, percent.diverged, percent.missing) == (4, 1, 1)


def test_an_interval_over_documents_adds_to_that_over_seeds():
    assert Estimate({0: 1.0}, 1, documents=0.3).half == pytest.approx(0.3)
    both = Estimate({0: 1.0, 1: 2.0, 2: 4.0}, 3, documents=0.3)
    assert both.half == pytest.approx(math.hypot(0.3, Estimate(both.values, 3).half))
    assert both.scaled(-10).half == pytest.approx(10 * both.half)
