"""What can be taken at a place: trained and untrained dictionaries, their bytes and intervals."""

import math
from dataclasses import replace

import pandas as pd
import pytest

from expander_sae.figures.candidate_costs import microseconds, training_seconds
from expander_sae.figures.candidate_words import Names, seconds_text, size_text
from expander_sae.figures.candidates import CE, ERROR, SELECTIVITY, Candidate, candidates
from expander_sae.measurements.estimate import half_interval
from expander_sae.measurements.results import Results
from expander_sae.measurements.tables import completed
from tests.figures import choices, study
from tests.figures.study import M, N


@pytest.fixture(scope="module")
def every() -> list[Candidate]:
    return candidates(choices.only_view(choices.frame()))


def find(
    every: list[Candidate], support: str, n: int, d: int, inference: str, by_ids: bool = False
) -> Candidate:
    (found,) = [one for one in every if one.inference == inference and one.by_ids is by_ids
                and (one.cell.support, one.cell.n, one.cell.d) == (support, n, d)]  # fmt: skip
    return found


def test_each_dictionary_is_there_once_for_each_inference(every: list[Candidate]) -> None:
    rows = len(choices.TRAINED) + len(choices.UNTRAINED) + len(choices.FROZEN)
    assert len(every) == 2 * (rows + 1), "exemplars stand there twice: as columns and as token ids"
    assert len({one.key for one in every}) == len(every)


def test_its_numbers_are_those_of_the_table(every: list[Candidate]) -> None:
    one = find(every, "expander", N, 30, "encoder")
    assert one.size == 4.0 * (N * 30 + N + M)
    assert one.mean(CE) == pytest.approx(0.948)
    assert one.mean(ERROR) == pytest.approx(0.338)
    assert one.group == "trained"
    assert one.option(ERROR).value == pytest.approx(-0.338), "of an error less is more"
    assert one.half(CE) == pytest.approx(one.estimates[CE].half)
    documents, seeds = 0.02, half_interval(one.estimates[SELECTIVITY].values.values())
    assert one.half(SELECTIVITY) == pytest.approx(math.hypot(documents, seeds))


def test_what_nobody_trained_stands_beside_whatever_its_steps_n_and_k(every: list[Candidate]) -> None:
    small = find(every, "pca", 112, M, "encoder")
    assert small.group == "untrained" and small.cell.k == 56 and small.cell.steps == 0
    assert math.isnan(small.half(CE)), "one seed"
    assert small.half(SELECTIVITY) == pytest.approx(0.02), "its documents have an interval all the same"
    assert find(every, "frozen_decoder", N, 7, "encoder").group == "frozen"
    ids = find(every, "exemplars", N, M, "omp", by_ids=True)
    columns = find(every, "exemplars", N, M, "omp")
    assert ids.size == 9400 < columns.size
    assert ids.estimates == columns.estimates


def test_what_nobody_trained_makes_no_place_and_no_budget() -> None:
    results = Results(choices.frame())
    assert len(results.views) == len(results.every_view) == 1
    assert results.views[0].steps == choices.STEPS


def test_without_bytes_or_of_another_layer_nothing_is_there() -> None:
    table = choices.frame()
    assert candidates(choices.only_view(table[~table["metric"].str.startswith("storage")])) == []
    moved = table.assign(layer=table["layer"].where(table["steps"] > 0, 20))
    assert not any(one.group == "untrained" for one in candidates(choices.only_view(moved)))


def test_a_diverged_seed_is_in_no_mean() -> None:
    table = choices.frame()
    run = (table["support"] == "expander") & (table["d"] == 7) & (table["inference"] == "encoder")
    lost = run & (table["seed"] == 2)
    table.loc[lost & (table["metric"] == "ce_recovered"), "value"] = -9.0
    table.loc[lost & (table["metric"] == "diverged"), "value"] = 1.0
    one = find(candidates(choices.only_view(table)), "expander", N, 7, "encoder")
    assert one.mean(CE) == pytest.approx(0.921 - 0.0005 / 2)


def test_each_stored_precision_is_a_dictionary_of_its_own(every: list[Candidate]) -> None:
    results = Results(choices.with_int8(choices.frame()))
    assert len(results.every_view) == 1
    found = candidates(results.views[0])
    mine = [one for one in found if one.cell.support == "expander" and one.cell.d == 30]
    assert sorted((one.precision, one.inference) for one in mine) == [
        ("float32", "encoder"), ("float32", "omp"), ("int8", "encoder"), ("int8", "omp"),
    ]  # fmt: skip
    whole, small = (next(o for o in mine if o.precision == name) for name in ("float32", "int8"))
    assert small.size == whole.size / 4
    assert small.mean(CE) == pytest.approx(whole.mean(CE) - 0.001)
    assert Names.of(found, N)(small) == "expander d=30 int8"
    assert Names.of(every, N)(whole) == "expander d=30"


def test_codes_of_training_make_a_dictionary_of_its_own() -> None:
    table = choices.frame()
    mine = table[(table["support"] == "expander") & (table["d"] == 30) & (table["inference"] != "encoder")]
    pursued = mine.assign(codes="omp")
    found = candidates(choices.only_view(pd.concat([completed(table), pursued], ignore_index=True)))
    new = [one for one in found if one.cell.codes == "omp"]
    assert [one.inference for one in new] == ["omp"], "nobody reads it by its encoder"
    assert len(found) == len(candidates(choices.only_view(table))) + 1
    assert Names.of(found, N)(new[0]) == "expander d=30 omp codes"
    assert training_seconds(new[0]) is None, "tables do not say how long the pursuit was trained with"


def test_names_tell_all_apart_and_say_a_precision_only_where_there_are_several(
    every: list[Candidate],
) -> None:
    named = {Names.of(every, N)(one) for one in every}
    assert {"expander d=7", "dense n=240", "dense n=4,608", "PCA 56", "random columns d=30"} <= named
    assert {"exemplars", "exemplars as ids"} <= named
    whole = choices.everything()
    names = Names.of(whole, N)
    assert len({(names(one), one.inference) for one in whole}) == len(whole)
    assert "expander d=30 int4 trained" in map(names, whole)


def test_sizes_and_times_in_words() -> None:
    assert [size_text(size) for size in (9400, 32_256, 999_600, 2_654_208, 10_617_000, math.inf)] == [
        "9.4 kB", "32 kB", "1 MB", "2.7 MB", "11 MB", "any size",
    ]  # fmt: skip
    assert [seconds_text(time) for time in (5.8e-6, 1.55e-4, 2.2e-3, 97, 600)] == [
        "5.8 μs", "155 μs", "2.2 ms", "97 s", "10 min",
    ]  # fmt: skip


def test_a_pursuit_and_more_values_cost_more_time(every: list[Candidate]) -> None:
    small, large = (find(every, "expander", N, d, "encoder") for d in (7, 100))
    pursued = find(every, "expander", N, 7, "omp")
    times = [microseconds(one) for one in (small, large, pursued)]
    assert times == sorted(times) and times[0] > 0
    assert 0 < training_seconds(small) < training_seconds(large)
    pruned = replace(small, cell=replace(small.cell, support="pruned_retuned"))
    whole = find(every, "dense", N, M, "encoder")
    assert training_seconds(pruned) == pytest.approx(training_seconds(small) + training_seconds(whole))
    assert training_seconds(find(every, "pca", 112, M, "encoder")) == 0


def test_a_hybrid_takes_the_time_of_its_dense_columns_too(every: list[Candidate]) -> None:
    sparse = find(every, "expander", N, 30, "omp")
    hybrid = replace(sparse, cell=replace(sparse.cell, support="hybrid80"))
    assert microseconds(hybrid) > 0 and training_seconds(hybrid) > 0
    read = [microseconds(replace(hybrid, inference=name)) for name in ("encoder", "omp")]
    own = [microseconds(replace(sparse, inference=name)) for name in ("encoder", "omp")]
    assert read[0] > own[0], "a product with dense columns costs more than the values that it saves"
    assert read[1] > 32 * read[0], "all rounds of a pursuit go through them"


def test_what_nobody_trained_takes_the_time_of_a_dense_dictionary(every: list[Candidate]) -> None:
    for inference in ("encoder", "omp"):
        whole = microseconds(find(every, "dense", N, M, inference))
        assert microseconds(find(every, "exemplars", N, M, inference)) == pytest.approx(whole)
        assert microseconds(find(every, "random", N, 30, inference)) == pytest.approx(whole)


def test_shipped_tables_without_bytes_of_floors_still_have_candidates() -> None:
    (first, *_) = Results(study.study(later=False)).views
    assert {one.precision for one in candidates(first)} == {"float32"}
