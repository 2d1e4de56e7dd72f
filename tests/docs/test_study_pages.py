"""Numbers in the pages of studies are those of their kept rows, and their verdicts those of claims.json."""

from __future__ import annotations

import json
import re
from collections import Counter, defaultdict
from functools import cache

import numpy as np
import pyarrow.parquet as pq
import pytest

from tests.docs.blocks import ROOT
from tests.docs.test_numbers import assert_cells, assert_rounded, cells, numbers, rows

GRID, ELSEWHERE = "smollm2-tuned-grid", "smollm2-elsewhere"


@cache
def means(study: str) -> dict[tuple[object, ...], float]:
    """(corpus, layer, support, n, d, k, metric, inference) → the mean over seeds."""
    found = defaultdict(list)
    for path in sorted((ROOT / "studies" / study / "rows").glob("*_seed*.metrics.parquet")):
        for row in pq.read_table(path).to_pylist():
            run = (row["corpus"], row["layer"], row["support"], row["n"], row["d"], row["k"])
            found[*run, row["metric"], row["inference"]].append(row["value"])
    assert {len(values) for values in found.values()} == {5}, study
    return {key: float(np.mean(values)) for key, values in found.items()}


SUPPORTS = {
    "expander": ("expander", None),
    "shared supports,": ("clustered_cover", None),
    "`bernoulli`,": ("bernoulli", None),
    "small dense n′ = 240": ("dense", 240),
    "small dense n′ = 800": ("dense", 800),
    "dense": ("dense", 4608),
}
CELLS = [(name, n, 576) for name, (_, n) in SUPPORTS.items() if n]
CELLS += [("expander", None, d) for d in (7, 30, 50, 100, 200)]
CELLS += [(name, None, d) for name in ("shared supports,", "`bernoulli`,") for d in (7, 100)]


@pytest.mark.parametrize(("name", "n", "d"), CELLS)
def test_the_grid_is_means_of_rows(name: str, n: int | None, d: int) -> None:
    known = means(GRID)
    label = name if n else f"{name} d = {d}"
    for k, cell in zip((16, 32, 64, 128), cells(f"studies/{GRID}/README.md", [label]), strict=True):
        run = ("docstrings", 22, SUPPORTS[name][0], n or 4608, d, k)
        read = [("ce_recovered", "encoder"), ("relative_error", "encoder"), ("relative_error", "omp")]
        values = [known[*run, *each] for each in read if (*run, *each) in known]
        assert len(numbers(cell)) == len(values), (label, k)
        for printed, value in zip(numbers(cell), values, strict=True):
            assert_rounded(printed, value)


HERE = [("**hybrid, d = 30 on average**", 4608), ("small dense n′ = 480 in int4", 480)]
HERE += [("small dense n′ = 240", 240)]


@pytest.mark.parametrize("place", ["layer 22", "code"])
@pytest.mark.parametrize(("label", "n"), HERE)
def test_what_is_elsewhere_is_means_of_rows(place: str, label: str, n: int) -> None:
    known = means(ELSEWHERE)
    run = ("code", 15) if place == "code" else ("docstrings", 22)
    run += ("hybrid80", n, 30, 64) if n == 4608 else ("dense", n, 576, 64)
    found = cells(f"studies/{ELSEWHERE}/README.md", [f"{place}: {label}"])
    metrics = ("relative_error", "ce_recovered", "ce_recovered_mean", "selectivity")
    for cell, metric in zip(found[1:], metrics, strict=True):
        assert_rounded(numbers(cell)[0], known[*run, metric, "omp"])
    assert_rounded(numbers(found[0])[0], known[*run, "storage_total_bytes", "none"] / 1000)


def verdicts(study: str) -> list[dict[str, object]]:
    judged = json.loads((ROOT / "studies" / study / "claims.json").read_text(encoding="utf-8"))
    return [claim for claim in judged if claim["verdict"] != "not run"]


def test_verdicts_of_the_grid_are_counted() -> None:
    page = (ROOT / "studies" / GRID / "README.md").read_text(encoding="utf-8")
    count = Counter(str(claim["verdict"]) for claim in verdicts(GRID))
    held, failed, opened = (count[word] for word in ("holds", "fails", "inconclusive"))
    assert f"{held + failed + opened} claims are judged" in page
    assert f"{held} hold, {failed} fail, {opened} are inconclusive" in page
    for claim in verdicts(GRID):
        name = str(claim["id"])
        named = [one for one in re.findall(r"`([a-z-]+)(?:…)?`", page) if name.startswith(one)]
        assert named, name


@pytest.mark.parametrize("claim", verdicts(ELSEWHERE), ids=lambda claim: f"{claim['setting']} {claim['id']}")
def test_verdicts_elsewhere_are_those_of_the_claims(claim: dict[str, object]) -> None:
    page = (ROOT / "studies" / ELSEWHERE / "README.md").read_text(encoding="utf-8")
    (line,) = (line for line in page.splitlines() if line.startswith(f"| `{claim['id']}`"))
    cell = line.strip(" |").split(" | ")[2 if claim["setting"] == "smollm2-tuned-layer22" else 3]
    assert cell.endswith(str(claim["verdict"]))
    interval = claim["interval"]
    assert isinstance(interval, list)
    ends = sorted(abs(float(end)) for end in interval)
    shown = numbers(cell)
    assert_rounded(shown[0], abs(float(str(claim["estimate"]))))
    for printed, value in zip(sorted(shown[1:], key=float), ends, strict=True):
        assert_rounded(printed, value)


@pytest.mark.parametrize(
    ("label", "stage", "what"),
    [
        (["weights of the language model, from its package", "1"], "model", None),
        (
            ["extraction of 206,456 tokens up to layer 22", "2, beside 2 for test documents"],
            "extraction",
            None,
        ),
        (["training pool", "1"], "pool", None),
        (["the language model's own cross-entropy", "1"], "baseline", None),
        (["training, 65 runs a job", "3 at once"], "training", "5,000 steps of 256 tokens"),
        (["rounding to int8, 65 runs a job", "3 at once"], "training", "rounding to int8"),
    ],
)
def test_seconds_of_the_workflow_on_a_gpu(label: list[str], stage: str, what: str | None) -> None:
    found = [
        row for row in rows("gpu_h200_workflow") if row["stage"] == stage and what in (None, row["what"])
    ]
    assert_cells("docs/scaling.md", label, sorted(row["seconds"] for row in found))
    if stage == "extraction":
        assert sum(row["tokens"] for row in found) == 206_456
