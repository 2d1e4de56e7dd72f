"""The variants of the extraction task do the same forward passes."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from benchmarks import extraction
from expander_sae.activations.shards import Shard
from expander_sae.activations.tokens import TokenTable


def test_both_ways_to_make_a_shard_hold_the_same_activations(tmp_path: Path) -> None:
    model = extraction.model_file(tmp_path, convert=False, results=tmp_path)
    assert extraction.width_of(model) == 64
    variants = {v.name: v for v in extraction.extraction(model, tmp_path, 300)}
    assert list(variants) == ["bare_forward", "extract_loaded", "extract_shard"]
    found = []
    for name in ("extract_loaded", "extract_shard"):
        variants[name].make()()
        rows = list(Shard(tmp_path / "shard.parquet").row_groups())
        found.append(np.concatenate([part.activation for part in rows]))
    assert found[0].shape == (300, 64)
    np.testing.assert_array_equal(*found)


def test_random_documents_fill_the_range(tmp_path: Path) -> None:
    extraction.write_random_tokens(tmp_path / "tokens.parquet", 1000, 50)
    given = TokenTable(tmp_path / "tokens.parquet").read("train", 0, 1000)
    assert len(given.document) == 1000
    assert given.context == 0
    assert given.token_id.max() < 50
    lengths = np.bincount(given.document)[:-1]
    assert lengths.min() >= 64
    assert lengths.max() == 128
