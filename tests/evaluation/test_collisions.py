"""Collisions against sets of rows in plain Python."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from expander_sae.errors import UserError
from expander_sae.evaluation import collisions as module
from expander_sae.evaluation.collisions import collisions, relabelled
from expander_sae.masks.recipe import MaskRecipe
from expander_sae.model.dictionary import SparseCode
from expander_sae.theory.certificates import deficit


def random_code(batch: int, n: int, k: int, seed: int) -> SparseCode:
    """With empty places, and zeros that do not count as active."""
    generator = np.random.default_rng(seed)
    index = np.stack([generator.permutation(n)[:k] for _ in range(batch)])
    index[generator.random((batch, k)) < 0.2] = -1
    value = generator.standard_normal((batch, k)) * (generator.random((batch, k)) < 0.9) * (index >= 0)
    return SparseCode(torch.from_numpy(index), torch.from_numpy(value))


@pytest.mark.parametrize("family", ["expander", "bernoulli", "clustered", "clustered_cover"])
@pytest.mark.parametrize("cells", [1, 1 << 22])
def test_equals_sets_of_rows(family: str, cells: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_CELLS", cells)
    mask = MaskRecipe(family, 20, 50, 4, 0).generate()
    code = random_code(30, 50, 6, 1)
    found = collisions(code, mask)
    for b in range(30):
        active = [int(j) for j, x in zip(code.index[b], code.value[b], strict=True) if x != 0]
        rows = [set(mask.rows[j, : mask.degrees[j]].tolist()) for j in active]
        edges, coverage = sum(map(len, rows)), len(set().union(*rows))
        assert (found.active[b], found.edges[b], found.coverage[b]) == (len(active), edges, coverage)
        assert found.duplicate_edges[b] == edges - coverage
        assert found.deficit[b] == pytest.approx(deficit(mask, np.array(active)) if active else 0)


def test_summary_and_silent_tokens() -> None:
    mask = MaskRecipe("clustered", 8, 12, 4, 0).generate()
    same = np.flatnonzero(mask.rows[:, 0] == 0)[:2]
    code = SparseCode(torch.tensor([same.tolist(), [-1, -1]]), torch.tensor([[1.0, -2.0], [0.0, 0.0]]))
    found = collisions(code, mask)
    assert found.edges.tolist() == [8, 0] and found.coverage.tolist() == [4, 0]
    assert found.summary() == {
        "collision_coverage": 2.0,
        "collision_deficit": 0.25,
        "collision_duplicate_edges": 2.0,
    }
    with pytest.raises(UserError, match="no token"):
        collisions(SparseCode(torch.empty(0, 2, dtype=torch.int64), torch.empty(0, 2)), mask).summary()
    with pytest.raises(UserError, match="feature 12"):
        collisions(SparseCode(torch.tensor([[12]]), torch.ones(1, 1)), mask)


def test_renaming_keeps_the_structure_of_the_code() -> None:
    code = random_code(40, 30, 5, 2)
    renamed = relabelled(code, 30, seed=3)
    assert torch.equal(renamed.value, code.value)
    assert torch.equal(renamed.index < 0, code.index < 0)
    pairs = {(int(a), int(b)) for a, b in zip(code.index.flatten(), renamed.index.flatten(), strict=True)}
    assert len({a for a, _ in pairs}) == len({b for _, b in pairs}) == len(pairs)
    assert torch.equal(relabelled(code, 30, seed=3).index, renamed.index)
    assert not torch.equal(relabelled(code, 30, seed=4).index, renamed.index)


def test_random_supports_cover_what_chance_says() -> None:
    mask = MaskRecipe("expander", 64, 2000, 7, 0).generate()
    index = torch.from_numpy(np.stack([np.random.default_rng(b).permutation(2000)[:10] for b in range(400)]))
    found = collisions(SparseCode(index, torch.ones(400, 10)), mask)
    error = found.coverage.std() / 20
    expected = 64 * (1 - (1 - 7 / 64) ** 10)  # of ten independent, uniform 7-subsets of 64 rows
    assert abs(found.coverage.mean() - expected) < 4 * error
