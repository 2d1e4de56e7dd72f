"""The answer in sentences, from a table whose numbers are known."""

from __future__ import annotations

import re

from expander_sae.figures.answer_rows import answers
from expander_sae.figures.candidate_words import Names, size_text
from expander_sae.figures.candidates import candidates
from expander_sae.measurements.results import Results
from expander_sae.report.answer_sentences import sentences


def test_each_purpose_names_what_the_table_of_choices_takes(results: Results) -> None:
    every = candidates(results.views[0])
    names, told = Names.of(every, results.views[0].place.n), [one.text for one in sentences(results)]
    rows = answers(every)
    assert {row.purpose.name for row in rows} == {"fidelity_encoder", "fidelity_omp"}
    for row in rows:
        text = next(
            text for text in told if ("by OMP, a round" in text) == (row.purpose.name == "fidelity_omp")
        )
        if row.taken is not None:
            value = row.taken.estimates[row.purpose.metric].mean
            assert f"{names(row.taken)}" in text
            assert f"({size_text(row.taken.size)}: {value:.3f})" in text


def test_verdicts_stand_beside_what_they_bear_on_and_are_counted(results: Results) -> None:
    told = sentences(results)
    last = told[-1]
    first = {record["id"]: record for record in results.claims if record["setting"] == "smollm2"}
    found = re.fullmatch(r"Of (\d+) claims asked in this run's setting, smollm2, (.*)\.", last.text)
    assert found is not None and int(found[1]) == len(first)
    counted = sum(int(number) for number in re.findall(r"\d+", found[2]))
    assert counted == len(first)
    for sentence in told:
        for record in sentence.claims:
            assert record == first[record["id"]] and record["verdict"] != "not run"
    assert {record["id"] for record in last.claims} == {"frontier-ends", "retention"} & {
        name for name, record in first.items() if record["verdict"] != "not run"
    }


def test_without_claims_and_without_rows_nothing_is_said(results: Results) -> None:
    bare = Results(results.metrics)
    assert not any("claims asked" in one.text or one.claims for one in sentences(bare))
