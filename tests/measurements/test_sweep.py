"""Which recipe of a sweep is chosen, and what its table and figure say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from expander_sae.figures.sweep import draw_sweep
from expander_sae.measurements import tables
from expander_sae.measurements.sweep import Compared, read_sweep
from expander_sae.report.formats import to_csv, to_markdown
from expander_sae.report.sweep import sweep_table

VALUES: dict[str, dict[str, Any]] = {
    f"tuned-{place}": {"learning_rate": rate, "bias_rate": bias}
    for place, (rate, bias) in enumerate((rate, bias) for bias in (None, 1e-3) for rate in (0.01, 0.1, 1.0))
}
PLACE = {"model": "tiny", "corpus": "text", "layer": 1, "support": "expander", "encoder": "tied"}
PLACE |= {"m": 16, "n": 64, "k": 4, "precision": "float32", "train_tokens": 99, "steps": 7}


def row(
    recipe: str, d: int, seed: int, metric: str, value: float, inference: str = "encoder"
) -> dict[str, Any]:
    where = {"inference": inference, "split": "validation", "metric": metric}
    return PLACE | {"recipe": recipe, "d": d, "seed": seed} | where | {"value": value}


def swept(folder: Path, errors: dict[int, list[float]], **changed: tuple[str, int, float]) -> list[Compared]:
    """errors: d → mean error of each recipe; two seeds lie 0.01 to either side."""
    rows = []
    for d, means in errors.items():
        for recipe, mean in zip(VALUES, means, strict=True):
            for seed, apart in ((0, -0.01), (1, 0.01)):
                measured = {"relative_error": mean + apart, "dead_fraction": 0.01, "diverged": 0.0}
                for metric, (label, at, value) in changed.items():
                    if (label, at) == (recipe, seed):
                        measured[metric] = value
                rows += [row(recipe, d, seed, metric, value) for metric, value in measured.items()]
                rows.append(row(recipe, d, seed, "relative_error", mean / 2, "omp"))
                rows.append(row(recipe, d, seed, "diverged", 0.0, "omp"))
    rows.append(row("another", 3, 0, "relative_error", 0.0))
    tables.write_metrics(rows, folder / "a.parquet")
    return read_sweep([folder / "a.parquet"], VALUES, ["encoder", "omp"])


def test_the_smallest_mean_error_is_chosen(tmp_path: Path) -> None:
    first, second = swept(tmp_path, {3: [0.5, 0.4, 0.6, 0.5, 0.3, 0.4], 5: [0.2, 0.3, 0.4, 0.5, 0.5, 0.5]})
    assert first.place["d"] == 3 and first.chosen is not None and second.chosen is not None
    assert first.chosen.values == {"learning_rate": 0.1, "bias_rate": 1e-3}
    assert first.chosen.error("encoder").mean == pytest.approx(0.3)
    assert first.chosen.error("omp").mean == pytest.approx(0.15)
    assert first.at_an_end == () and second.at_an_end == ("learning_rate",)


@pytest.mark.parametrize(
    "changed", [{"dead_fraction": ("tuned-4", 1, 0.1)}, {"diverged": ("tuned-4", 0, 1.0)}]
)
def test_what_kills_features_or_diverges_is_not_chosen(
    tmp_path: Path, changed: dict[str, tuple[str, int, float]]
) -> None:
    (found,) = swept(tmp_path, {3: [0.5, 0.4, 0.6, 0.5, 0.3, 0.45]}, **changed)
    assert found.chosen is not None and found.chosen.values == {"learning_rate": 0.1, "bias_rate": None}


def test_the_table_has_every_recipe_and_says_where_the_best_may_lie_beyond(tmp_path: Path) -> None:
    found = swept(tmp_path, {3: [0.5, 0.4, 0.6, 0.5, 0.3, 0.4], 5: [0.2, 0.3, 0.4, 0.5, 0.5, 0.5]})
    table = sweep_table(found)
    lines = to_csv(table).splitlines()
    assert len(lines) == 1 + 2 * len(VALUES) and sum(line.endswith(",yes") for line in lines) == 2
    assert [row["chosen"] for row in table.rows].index("yes") == 4
    (note,) = table.notes
    assert "d 5" in note and note.endswith("the chosen learning_rate is at an end of those tried.")
    assert "0.3000 ± " in to_markdown(table)


def test_the_figure_is_drawn_with_equal_bytes(tmp_path: Path) -> None:
    found = swept(tmp_path, {3: [0.5, 0.4, 0.6, 0.5, 0.3, 0.4]})
    for name in ("a", "b"):
        draw_sweep(found, tmp_path / f"{name}.pdf", tmp_path / f"{name}.png")
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    assert (tmp_path / "a.pdf").read_bytes() == (tmp_path / "b.pdf").read_bytes()
