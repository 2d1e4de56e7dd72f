"""Rows of the speed table: which runs, and what is divided by what."""

from __future__ import annotations

from pathlib import Path

import pytest

from expander_sae.evaluation import speed, tables


def run(d: int, k: int, seed: int) -> dict[str, object]:
    values = ["model", "corpus", 15, "standard", "expander", "tied", 16, 64, d, k, 1000, 10, seed]
    return dict(zip(tables.RUN_COLUMNS, values, strict=True))


def test_each_run_has_the_time_of_its_shape(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    measured: list[tuple[int, int, int]] = []

    def pretended(dictionaries: list[speed.SparseDictionary], rounds: int) -> list[float]:
        measured.extend((one.m, one.n, one.values.shape[1]) for one in dictionaries)
        return [float(10 * place + 1) for place in range(len(dictionaries))]

    monkeypatch.setattr(speed, "correlation_ms", pretended)
    runs = [run(4, 8, 0), run(2, 8, 1), run(4, 16, 0), run(2, 8, 0)]
    speed.write_speed(runs, tmp_path / "speed.parquet", backend="torch")
    assert measured == [(16, 64, 2), (16, 64, 2), (16, 64, 4)], "two seeds of d=2, one of d=4"
    frame = tables.read_metrics(tmp_path / "speed.parquet").set_index(["d", "k", "seed"]).sort_index()
    assert frame["value"].to_dict() == {(2, 8, 0): 0.5, (2, 8, 1): 5.5, (4, 8, 0): 5.25, (4, 16, 0): 5.25}
    assert set(frame["metric"]) == {"correlate_ms_per_d"} and set(frame["split"]) == {"speed"}


def test_times_are_positive(tmp_path: Path) -> None:
    made = [speed.random_dictionary(16, 64, d, 0, backend="torch") for d in (2, 5)]
    assert all(took > 0 for took in speed.correlation_ms(made, rounds=2))
