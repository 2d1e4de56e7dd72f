"""The bootstrap against closed forms, and the coverage of its intervals."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from expander_sae.measurements.bootstrap import bootstrap, crossed


def mean_of(values):
    """The statistic: mean over documents and seeds of values [D, S]."""

    def statistic(documents, seeds):
        per_seed = documents["test"] @ values / documents["test"].sum(axis=1, keepdims=True)
        return (per_seed * seeds).sum(axis=1) / seeds.sum(axis=1)

    return statistic


def simulated(rng, documents, seeds, by_document, by_seed, noise):
    return (
        by_document * rng.standard_normal((documents, 1))
        + by_seed * rng.standard_normal((1, seeds))
        + noise * rng.standard_normal((documents, seeds))
    )


def test_one_seed_gives_the_standard_error_of_the_documents():
    values = np.random.default_rng(0).exponential(size=(80, 1))
    found = bootstrap(mean_of(values), {"test": 80}, 1, draws=20_000)
    assert found.value == pytest.approx(values.mean(), rel=1e-12)
    assert found.standard_error == pytest.approx(values.std(ddof=1) / math.sqrt(80), rel=0.02)
    assert found.freedom == 79


def test_seeds_alone_give_students_interval():
    values = np.array([0.81, 0.84, 0.80, 0.86, 0.83])
    found = bootstrap(lambda documents, seeds: seeds @ values / seeds.sum(axis=1), {}, 5, draws=20_000)
    low, high = found.interval(0.95)
    expected = stats.t.interval(0.95, 4, values.mean(), stats.sem(values))
    assert (low, high) == pytest.approx(expected, rel=2e-3)


def test_the_variance_of_a_crossed_design_is_its_analytic_estimate():
    """Seed effects, document effects and their interaction each count once."""
    values = simulated(np.random.default_rng(1), 60, 8, 0.5, 0.2, 2.0)
    residual = values - values.mean(0) - values.mean(1, keepdims=True) + values.mean()
    interaction = (residual**2).sum() / (59 * 7) / (60 * 8)
    seeds = values.mean(0).var(ddof=1) / 8
    documents = values.mean(1).var(ddof=1) / 60
    found = bootstrap(mean_of(values), {"test": 60}, 8, draws=40_000)
    expected = max(seeds + documents - interaction, seeds, documents)
    assert found.standard_error**2 == pytest.approx(expected, rel=0.1)


@pytest.mark.parametrize(
    ("by_document", "by_seed", "noise"),
    [(1.0, 0.02, 0.2), (0.05, 0.3, 0.3), (0.3, 0.1, 1.0)],
    ids=["documents", "seeds", "both"],
)
@pytest.mark.parametrize("level", [0.95, 0.998])
def test_intervals_cover_the_truth_as_often_as_they_say(by_document, by_seed, noise, level):
    rng = np.random.default_rng(7)
    trials, covered = 400, 0
    for _ in range(trials):
        found = bootstrap(
            mean_of(simulated(rng, 40, 10, by_document, by_seed, noise)), {"test": 40}, 10, draws=300
        )
        low, high = found.interval(level)
        covered += low <= 0 <= high
    error = math.sqrt(level * (1 - level) / trials)
    assert covered / trials > level - 3 * error
    if level == 0.95:
        assert covered / trials < min(1.0, level + 5 * error)


@pytest.mark.parametrize("seeds", [5, 10])
@pytest.mark.parametrize(
    ("by_document", "by_seed", "noise"), [(0.05, 0.3, 1.0), (0.0, 0.0, 1.0), (0.5, 0.2, 2.0)]
)
def test_few_seeds_with_much_interaction_are_covered_at_corrected_levels(seeds, by_document, by_seed, noise):
    """By the analytic variances of the three bootstraps, so that rare misses can be counted."""
    rng, trials, documents = np.random.default_rng(11), 8000, 24
    value, half = np.empty(trials), {level: np.empty(trials) for level in (0.95, 0.9985)}
    for trial in range(trials):
        values = simulated(rng, documents, seeds, by_document, by_seed, noise)
        over_seeds = values.mean(0).var(ddof=1) / seeds
        over_documents = values.mean(1).var(ddof=1) / documents
        residual = values - values.mean(0) - values.mean(1, keepdims=True) + values.mean()
        interaction = (residual**2).sum() / ((documents - 1) * (seeds - 1)) / (documents * seeds)
        both = over_seeds + over_documents + interaction
        variance, freedom = crossed(over_seeds, over_documents, both, seeds, documents)
        value[trial] = values.mean()
        for level, halves in half.items():
            halves[trial] = stats.t.ppf(0.5 + level / 2, freedom) * math.sqrt(variance)
    for level, halves in half.items():
        missed, error = (np.abs(value) > halves).mean(), math.sqrt(level * (1 - level) / trials)
        assert missed < 1 - level + 3 * error


def test_intervals_of_a_ratio_cover_the_ratio_of_means():
    """A retention: two settings of the same documents and seeds, ratios of sums of unequal counts."""
    rng = np.random.default_rng(3)
    trials, covered = 300, 0
    for _ in range(trials):
        counts = rng.integers(20, 120, size=(60, 1)).astype(float)
        shared = simulated(rng, 60, 5, 0.2, 0.0, 0.0)
        lower = (0.8 + shared + simulated(rng, 60, 5, 0.05, 0.02, 0.1)) * counts
        upper = (1.0 + shared + simulated(rng, 60, 5, 0.05, 0.02, 0.1)) * counts

        def statistic(documents, seeds, lower=lower, upper=upper, counts=counts):
            weights = documents["ce"]
            tokens = weights @ counts
            parts = [((weights @ part / tokens) * seeds).sum(1) / seeds.sum(1) for part in (lower, upper)]
            return parts[0] / parts[1]

        low, high = bootstrap(statistic, {"ce": 60}, 5, draws=300).interval(0.95)
        covered += low <= 0.8 <= high
    assert abs(covered / trials - 0.95) < 4 * math.sqrt(0.95 * 0.05 / trials)


def test_what_all_settings_share_cancels():
    """Pairing: a common document effect of any size leaves the error of a difference alone."""
    rng = np.random.default_rng(5)
    first, second = rng.standard_normal((2, 50, 6))
    common = 1000.0 * rng.standard_normal((50, 1))

    def difference(shift):
        one, two = mean_of(first + shift), mean_of(second + shift)
        return lambda documents, seeds: one(documents, seeds) - two(documents, seeds)

    plain = bootstrap(difference(0.0), {"test": 50}, 6)
    shifted = bootstrap(difference(common), {"test": 50}, 6)
    assert shifted.standard_error == pytest.approx(plain.standard_error, rel=1e-9)


def test_identical_settings_differ_by_nothing():
    values = np.random.default_rng(2).standard_normal((30, 5))
    one, two = mean_of(values), mean_of(values.copy())
    found = bootstrap(lambda documents, seeds: one(documents, seeds) - two(documents, seeds), {"test": 30}, 5)
    assert found.interval(0.999) == (0.0, 0.0)


def test_draws_repeat_and_depend_on_the_seed():
    values = np.random.default_rng(4).standard_normal((30, 5))
    again = [bootstrap(mean_of(values), {"test": 30}, 5, seed=seed) for seed in (0, 0, 1)]
    assert again[0] == again[1]
    assert again[0].standard_error != again[2].standard_error


def test_nothing_to_resample_gives_no_interval():
    found = bootstrap(lambda documents, seeds: seeds[:, 0] * 0.5, {}, 1)
    assert found.value == 0.5
    assert found.interval(0.95) is None


def test_a_draw_that_is_not_finite_gives_no_interval():
    values = np.ones((20, 5))
    values[3, 2] = math.nan
    assert bootstrap(mean_of(values), {"test": 20}, 5).interval(0.95) is None
