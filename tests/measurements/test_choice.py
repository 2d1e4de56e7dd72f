"""The rule of choice: the best that fits, ties, missing values, and what is not told apart from it."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from expander_sae.measurements.choice import UNKNOWN, apart, choose, compared
from expander_sae.measurements.pareto import Option, front

sizes = st.sampled_from([1.0, 2.0, 3.0, 5.0, 8.0, math.nan])
values = st.sampled_from([0.0, 0.5, 0.9, 1.0, math.nan])
halves = st.sampled_from([math.nan, 0.0, 0.05, 0.45])
options = st.lists(st.tuples(sizes, values, halves)).map(
    lambda rows: [Option(*row, name=place) for place, row in enumerate(rows)]
)
budgets = st.sampled_from([0.5, 1.0, 2.5, 5.0, math.inf])


@given(options, budgets)
def test_the_best_that_fits_is_taken_and_is_on_the_front(rows: list[Option], budget: float) -> None:
    fitting = [one for one in rows if one.measured and one.size <= budget]
    choice = choose(rows, budget)
    assert (choice is None) is (not fitting)
    if choice:
        assert choice.taken in fitting
        assert choice.taken.value == max(one.value for one in fitting)
        assert choice.taken in front(rows)


@given(options, budgets, st.randoms(use_true_random=False))
def test_the_order_of_the_rows_does_not_matter(rows: list[Option], budget: float, random) -> None:
    assert choose(random.sample(rows, len(rows)), budget) == choose(rows, budget)


@given(options)
def test_a_larger_budget_never_buys_less(rows: list[Option]) -> None:
    found = [choose(rows, budget) for budget in (1.0, 2.0, 3.0, 5.0, math.inf)]
    bought = [choice.taken.value for choice in found if choice]
    assert bought == sorted(bought)
    assert [bool(choice) for choice in found] == sorted(bool(choice) for choice in found)


@given(options, budgets)
def test_what_is_named_beside_the_choice_is_smaller_and_not_told_apart(
    rows: list[Option], budget: float
) -> None:
    choice = choose(rows, budget)
    if choice is None:
        return
    taken = choice.taken
    within = [
        one
        for one in rows
        if one.measured
        and one.size < taken.size
        and any(map(math.isfinite, (one.half, taken.half)))
        and taken.value - one.value <= math.hypot(*(h for h in (one.half, taken.half) if math.isfinite(h)))
    ]
    # Of equal value and no interval: also alike, but then the smaller one is taken.
    assert sorted(one.name for one in choice.alike) == sorted(one.name for one in within)
    assert [one.size for one in choice.alike] == sorted(one.size for one in within)


def test_of_equal_values_the_smallest_then_the_first_name_is_taken() -> None:
    rows = [Option(2.0, 1.0, name="c"), Option(1.0, 1.0, name="b"), Option(1.0, 1.0, name="a")]
    choice = choose(rows)
    assert choice and choice.taken.name == "a"
    assert choice.alike == ()
    assert not choice.told


def test_a_choice_within_the_interval_of_a_smaller_one_names_it() -> None:
    small, middle, large = Option(1.0, 0.90, 0.03), Option(2.0, 0.91), Option(3.0, 0.93, 0.04)
    choice = choose([large, middle, small])
    assert choice and (choice.taken, choice.alike, choice.told) == (large, (small, middle), True)
    sharp = choose([Option(3.0, 0.93, 0.001), Option(1.0, 0.90, 0.001)])
    assert sharp and sharp.alike == () and sharp.told


def test_only_what_is_comparable_stands_beside_a_choice() -> None:
    small, large = Option(1.0, 0.90, 0.4, name="omp"), Option(3.0, 0.93, 0.04, name="encoder")
    choice = choose([large, small], comparable=lambda taken, one: one.name == taken.name)
    assert choice and (choice.taken, choice.alike, choice.told) == (large, (), True)


def test_a_value_that_was_not_measured_is_never_taken() -> None:
    choice = choose([Option(1.0, math.nan), Option(2.0, 0.1), Option(math.nan, 0.9)])
    assert choice and choice.taken.value == 0.1
    assert choose([Option(1.0, math.nan)]) is None
    assert choose([Option(2.0, 0.1)], 1.0) is None


def test_told_apart() -> None:
    assert apart(Option(1, 0.5, 0.3), Option(1, 0.99, 0.4)) is False
    assert apart(Option(1, 0.5, 0.3), Option(1, 1.01, 0.4)) is True
    assert apart(Option(1, 0.5), Option(1, 0.6, 0.05)) is True
    assert apart(Option(1, 0.5), Option(1, 0.6)) is None
    assert apart(Option(1, 0.5), Option(1, 0.5)) is False


@pytest.mark.parametrize(
    ("trained", "untrained", "said"),
    [
        (Option(1, 0.9, 0.01), None, "none"),
        (Option(1, 0.9, 0.01), Option(1, 0.8), "worse"),
        (Option(1, 0.9, 0.01), Option(1, 0.905), "as good"),
        (Option(1, 0.9, 0.01), Option(1, 0.95), "better"),
        (Option(1, 0.9), Option(1, 0.901), UNKNOWN),
        (Option(1, 0.9), Option(1, 0.899), UNKNOWN),
        (Option(1, 0.9), Option(1, 0.9), "as good"),
    ],
)
def test_what_an_untrained_option_is_beside_a_trained_one(
    trained: Option, untrained: Option | None, said: str
) -> None:
    assert compared(trained, untrained) == said
