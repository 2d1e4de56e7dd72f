"""Draws fidelity against the number of features, at equal n·d and at 2²⁰ (docs/howto/many_features.md).

    python -m benchmarks.draw_many_features docs/howto/many_features.png

Reads the kept rows of configs/flagship.yaml.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from pathlib import Path

import pyarrow.parquet as pq

from expander_sae.figures.style import BLUE, PAGE_WIDTH, VERMILLION, house_style, new_figure

ROWS = Path("studies/flagship/rows")
VALUES = 516_096  # n·d of those that hold equally many
SERIES = (
    ("encoder", "relative_error", "relative error (lower is better)", BLUE, "o", "encoder"),
    ("omp", "relative_error", "relative error (lower is better)", VERMILLION, "^", "OMP"),
    ("encoder", "ce_recovered", "CE recovered (higher is better)", BLUE, "o", "encoder"),
)
PANELS = (0, 0, 1)


def cells(rows: Path) -> dict[tuple[int, int], list[dict[tuple[str, str], float]]]:
    """(n, d) → of each seed {(inference, metric): value}."""
    found = defaultdict(list)
    for path in sorted(rows.glob("*_int8_*.metrics.parquet")):
        kept = pq.read_table(path).to_pylist()
        found[kept[0]["n"], kept[0]["d"]].append(
            {(row["inference"], row["metric"]): row["value"] for row in kept}
        )
    return dict(sorted(found.items()))


def draw(rows: Path, out: Path) -> None:
    found = cells(rows)
    equal = [(n, d) for n, d in found if n * d == VALUES]
    with house_style():
        figure = new_figure(PAGE_WIDTH, 2.9)
        panels = figure.subplots(1, 2)
        for place, (inference, metric, label, colour, marker, name) in zip(PANELS, SERIES, strict=True):
            means = {
                cell: sum(seed[inference, metric] for seed in seeds) / len(seeds)
                for cell, seeds in found.items()
            }
            axes = panels[place]
            axes.plot(
                [n for n, _ in equal],
                [means[cell] for cell in equal],
                color=colour,
                marker=marker,
                label=name,
            )
            others = [cell for cell in found if cell not in equal]
            axes.plot(
                [n for n, _ in others],
                [means[cell] for cell in others],
                color=colour,
                marker=marker,
                mfc="white",
                ls="",
            )
            axes.set(xscale="log", xlabel="features n", ylabel=label)
            axes.set_xticks(
                [n for n, _ in found if n != 58_368], [f"{n:,}\nd = {d}" for n, d in found if n != 58_368]
            )
            axes.minorticks_off()
            axes.grid(True, axis="y")
        panels[0].legend()
        panels[1].text(0.03, 0.05, "filled: equal n·d\nopen: other bytes", transform=panels[1].transAxes)
        figure.tight_layout()
        figure.savefig(out, metadata={"Software": None})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--rows", type=Path, default=ROWS)
    options = parser.parse_args()
    draw(options.rows, options.out)


if __name__ == "__main__":
    main()
