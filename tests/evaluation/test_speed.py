"""Rows of the speed table: which runs, and what is divided by what."""

from __future__ import annotations

from pathlib import Path

import pytest

from expander_sae.evaluation import speed
from expander_sae.measurements import tables


def run(d: int, k: int, seed: int, support: str = "expander") -> dict[str, object]:
    values = [
        "model",
        "corpus",
        15,
        "standard",
        support,
        "tied",
        16,
        64,
        d,
        k,
        "float32",
        "encoder",
        1000,
        10,
        seed,
    ]
    return dict(zip(tables.RUN_COLUMNS, values, strict=True))


def test_each_run_has_the_time_of_its_shape(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    measured: list[tuple[int, int, int]] = []

    def pretended(dictionaries: list[speed.Dictionary], rounds: int) -> list[float]:
        sparse = [one for one in dictionaries if isinstance(one, speed.SparseDictionary)]
        measured.extend((one.m, one.n, one.values.shape[1]) for one in sparse)
        measured.extend((one.m, one.n, one.m) for one in dictionaries if one not in sparse)
        return [float(10 * place + 1) for place in range(len(dictionaries))]

    monkeypatch.setattr(speed, "correlation_ms", pretended)
    runs = [run(4, 8, 0), run(2, 8, 1), run(4, 16, 0), run(2, 8, 0), run(16, 8, 1, "dense")]
    speed.write_speed(runs, tmp_path / "speed.parquet", backend="torch")
    expected = [(16, 64, 2), (16, 64, 2), (16, 64, 4), (16, 64, 16)]
    assert measured == expected, "two seeds of d=2, one of d=4, one dense"
    frame = tables.read_metrics(tmp_path / "speed.parquet").set_index(["d", "k", "seed"]).sort_index()
    assert set(frame["split"]) == {"speed"}
    took = {(2, 8, 0): 11.0, (2, 8, 1): 21.0, (4, 8, 0): 31.0, (4, 16, 0): 31.0, (16, 8, 1): 1.0}
    assert frame[frame["metric"] == "correlate_ms"]["value"].to_dict() == took
    each = frame[frame["metric"] == "correlate_ms_per_d"]["value"].to_dict()
    assert each == {key: value / key[0] for key, value in took.items()}


def test_times_are_positive(tmp_path: Path) -> None:
    made = [speed.random_dictionary(16, 64, d, 0, backend="torch") for d in (2, 5)]
    assert all(took > 0 for took in speed.correlation_ms([*made, speed.random_dense(16, 64)], rounds=2))
