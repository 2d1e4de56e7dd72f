"""A run measured on the validation pool, against the measurement written out."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from expander_sae.activations.pool import Pool
from expander_sae.errors import UserError
from expander_sae.evaluation.validation import TABLE, validate_run
from expander_sae.measurements import tables
from tests.evaluation.pools import LIMIT, write_pool, write_run

ASKED = {"inference": ["encoder", "omp"], "tokens": 200}


def test_errors_are_those_of_the_encoded_validation_tokens(tmp_path: Path) -> None:
    pool, autoencoder = write_pool(tmp_path / "pool", "validation"), write_run(tmp_path / "run")
    validate_run(tmp_path / "run", ASKED, pool, backend="torch")
    rows = tables.read_metrics(tmp_path / "run" / TABLE)
    assert set(rows["split"]) == {"validation"} and set(rows["inference"]) == {"encoder", "omp"}
    h = Pool.open(pool).activations[:200]
    h = h[np.linalg.norm(h, axis=1) <= LIMIT]
    code = autoencoder.encode(h)
    norms = np.linalg.norm(h, axis=1)
    error = np.linalg.norm(h - autoencoder.decode(code).numpy(), axis=1) / norms
    found = rows[rows["inference"] == "encoder"].set_index("metric")["value"]
    assert found["relative_error"] == pytest.approx(error.mean(), rel=1e-5)
    fired = np.unique(code.index[code.value != 0].numpy())
    assert found["dead_fraction"] == pytest.approx(1 - len(fired) / autoencoder.n)
    assert found["diverged"] == float(error.mean() > 1)


def test_a_broken_run_is_diverged_and_nothing_else(tmp_path: Path) -> None:
    pool = write_pool(tmp_path / "pool", "validation")
    write_run(tmp_path / "run", values=np.inf)
    validate_run(tmp_path / "run", ASKED, pool, backend="torch")
    rows = tables.read_metrics(tmp_path / "run" / TABLE)
    assert set(rows["metric"]) == {"diverged"} and set(rows["value"]) == {1.0}


@pytest.mark.parametrize(
    ("split", "tokens", "message"),
    [
        ("test", 200, "found split 'test', expected 'validation'"),
        ("validation", 301, "300 tokens, expected at"),
    ],
)
def test_another_split_or_too_few_tokens_are_refused(
    tmp_path: Path, split: str, tokens: int, message: str
) -> None:
    pool = write_pool(tmp_path / "pool", split)
    write_run(tmp_path / "run")
    with pytest.raises(UserError, match=message):
        validate_run(tmp_path / "run", ASKED | {"tokens": tokens}, pool)
