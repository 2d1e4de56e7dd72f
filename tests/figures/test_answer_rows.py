"""The rows of the table of choices, on the made-up study and by the numbers themselves."""

import math
from dataclasses import replace

import pytest

from expander_sae.figures.answer_rows import BUDGETS, Row, answers
from expander_sae.figures.candidates import CE, ERROR, SELECTIVITY, Candidate, candidates
from expander_sae.measurements.estimate import Estimate
from tests.figures import choices
from tests.figures.study import N


@pytest.fixture(scope="module")
def every() -> list[Candidate]:
    return choices.everything()


def row(rows: list[Row], budget: float, purpose: str) -> Row:
    (found,) = [one for one in rows if one.budget == budget and one.purpose.name == purpose]
    return found


def within(one: Candidate, half: float) -> Candidate:
    """The same with another interval of selectivity."""
    values = {0: one.mean(SELECTIVITY)}
    return replace(one, estimates={**one.estimates, SELECTIVITY: Estimate(values, 1, documents=half)})


def test_every_budget_has_every_purpose(every: list[Candidate]) -> None:
    asked = [(one.budget, one.purpose.name) for one in answers(every)]
    assert asked == [(b, p) for b in BUDGETS for p in ("fidelity_encoder", "fidelity_omp", "features")]


def test_no_trained_dictionary_that_fits_is_better_than_the_one_taken(every: list[Candidate]) -> None:
    for one in answers(every):
        rivals = [
            rival
            for rival in every
            if rival.group == "trained"
            and rival.inference in one.purpose.inferences
            and rival.size <= one.budget
        ]
        assert one.taken in rivals
        assert one.taken.mean(one.purpose.metric) == max(r.mean(one.purpose.metric) for r in rivals)


def test_the_best_that_nobody_trained_stands_beside(every: list[Candidate]) -> None:
    rows = answers(every)
    small = row(rows, 40e3, "fidelity_encoder")
    assert (small.untrained.cell.support, small.untrained.by_ids) == ("exemplars", True)
    assert small.verdict == "worse"
    # 240 components take half a megabyte, 56 of them 148 kB.
    assert row(rows, 150e3, "fidelity_encoder").untrained.cell.n == 112
    features = row(rows, 40e3, "features")
    assert features.untrained.mean(SELECTIVITY) == pytest.approx(0.8395)
    assert features.verdict == "better"


def test_a_choice_within_the_interval_of_a_smaller_one_says_so(every: list[Candidate]) -> None:
    found = row(answers(every), math.inf, "features")
    assert (found.taken.cell.support, found.taken.cell.n) == ("dense", N)
    assert found.alike
    for one in found.alike:
        assert one.size < found.taken.size
        apart = found.taken.mean(SELECTIVITY) - one.mean(SELECTIVITY)
        assert 0 <= apart <= math.hypot(found.taken.half(SELECTIVITY), one.half(SELECTIVITY))


def test_a_choice_is_told_apart_only_from_what_is_read_in_the_same_way() -> None:
    """A wide interval by OMP makes nothing as good by the encoder."""
    every = [
        within(one, 0.5 if one.inference == "omp" else 0.001)
        for one in candidates(choices.only_view(choices.frame(untrained=False)))
    ]
    found = row(answers(every), math.inf, "features")
    assert found.taken.inference == "encoder" and found.alike == ()
    by_omp = [within(one, 0.5) for one in every if one.inference == "omp"]
    assert {one.inference for one in row(answers(by_omp), math.inf, "features").alike} == {"omp"}


def test_the_nearest_of_another_kind_is_named_too() -> None:
    every = [
        within(one, 0.15)
        for one in candidates(choices.only_view(choices.frame(untrained=False)))
        if (one.inference == "encoder" and one.cell.n != N) or one.cell.d in (30, 100)
    ]
    found = row(answers(every), math.inf, "features")
    assert (found.taken.cell.support, found.taken.cell.d) == ("expander", 100)
    # Within 0.212 of 0.78 are 0.68 (expander, the smallest), 0.66 (Bernoulli) and 0.73 (dense, the nearest).
    assert [(one.cell.support, one.cell.n) for one in found.alike] == [("expander", N), ("dense", 800)]


def test_where_nothing_trained_fits_the_row_says_so(every: list[Candidate]) -> None:
    found = answers(every, [10e3])
    assert [one.taken for one in found] == [None] * 3
    assert found[1].untrained.by_ids


def test_without_cross_entropy_the_error_decides_and_less_is_better() -> None:
    table = choices.frame()
    every = candidates(choices.only_view(table[table["metric"] != "ce_recovered"]))
    found = row(answers(every), math.inf, "fidelity_encoder")
    assert found.purpose.metric == ERROR
    assert found.taken.mean(ERROR) == min(
        o.mean(ERROR) for o in every if o.inference == "encoder" and o.group == "trained"
    )


def test_without_selectivity_or_omp_their_rows_are_left_out() -> None:
    table = choices.frame(untrained=False)
    kept = table[~table["metric"].str.startswith("selectivity") & (table["inference"] != "omp")]
    rows = answers(candidates(choices.only_view(kept)))
    assert {one.purpose.name for one in rows} == {"fidelity_encoder"}
    assert all(one.untrained is None and one.verdict == "none" for one in rows)


def test_one_seed_tells_nothing_apart() -> None:
    table = choices.frame(untrained=False, seeds=(0,))
    found = row(answers(candidates(choices.only_view(table))), math.inf, "fidelity_encoder")
    assert not found.told and found.alike == ()
    assert row(answers(candidates(choices.only_view(table))), math.inf, "features").told


def test_the_order_of_the_candidates_does_not_matter(every: list[Candidate]) -> None:
    assert answers(every[::-1]) == answers(every)


def test_a_value_that_is_missing_is_never_taken(every: list[Candidate]) -> None:
    best = row(answers(every), math.inf, "fidelity_encoder").taken
    without = {name: estimate for name, estimate in best.estimates.items() if name != CE}
    blind = [replace(one, estimates=without) if one.key == best.key else one for one in every]
    assert row(answers(blind), math.inf, "fidelity_encoder").taken.key != best.key
