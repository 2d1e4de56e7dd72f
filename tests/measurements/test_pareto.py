"""The front: no member is dominated, everything else is, and the order of the rows does not matter."""

import math
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from expander_sae.measurements.pareto import Option, front

# Few distinct numbers, so that ties and equal options are common.
sizes = st.sampled_from([1.0, 2.0, 3.0, 5.0, 8.0, math.nan])
values = st.sampled_from([-1.0, 0.0, 0.5, 0.9, 1.0, math.nan, math.inf])
options = st.lists(st.tuples(sizes, values)).map(
    lambda pairs: [Option(size, value, name=place) for place, (size, value) in enumerate(pairs)]
)


@given(options)
def test_no_member_is_dominated_and_every_other_option_is(rows: list[Option]) -> None:
    members = {one.name for one in front(rows)}
    measured = [one for one in rows if math.isfinite(one.size) and math.isfinite(one.value)]
    assert members <= {one.name for one in measured}
    for one in measured:
        beaten = any(
            other.size <= one.size
            and other.value >= one.value
            and (other.size, other.value) != (one.size, one.value)
            for other in measured
        )
        assert (one.name in members) is not beaten


@given(options, st.randoms(use_true_random=False))
def test_the_order_of_the_rows_does_not_matter(rows: list[Option], random) -> None:
    shuffled = random.sample(rows, len(rows))
    assert front(shuffled) == front(rows)


@given(options)
def test_along_the_front_more_bytes_give_more(rows: list[Option]) -> None:
    members = front(rows)
    for smaller, larger in pairwise(members):
        same = (smaller.size, smaller.value) == (larger.size, larger.value)
        assert same or (smaller.size < larger.size and smaller.value < larger.value)


def test_equal_options_do_not_dominate_each_other() -> None:
    twins = [Option(1.0, 2.0, name="a"), Option(1.0, 2.0, name="b")]
    assert not twins[0].dominates(twins[1])
    assert front(twins) == twins
    assert front([]) == []
