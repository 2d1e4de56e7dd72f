"""The largest scores of each column, against a stable sort."""

from __future__ import annotations

import pytest
import torch

from expander_sae.kernels.exact_topk import topk_of_columns


@pytest.mark.parametrize("n", [1, 5, 768, 769])  # one column is searched for in another way up to 768
@pytest.mark.parametrize("k", [1, 4])
@pytest.mark.parametrize("transposed", [False, True])
def test_the_largest_are_those_of_a_stable_sort_with_ties_and_nan(n: int, k: int, transposed: bool) -> None:
    k = min(k, n)
    generator = torch.Generator().manual_seed(n)
    scores = torch.randint(-3, 4, (n, 200), generator=generator).float()
    scores[torch.rand(n, 200, generator=generator) < 0.5 / n] = torch.nan
    given = scores.t().contiguous().t() if transposed else scores
    value, index = scores.t().sort(dim=1, descending=True, stable=True)
    found, best = topk_of_columns(given, k)
    order = found.sort(dim=1).indices
    expected = index[:, :k].sort(dim=1)
    assert torch.equal(found.gather(1, order), expected.values)
    assert torch.equal(
        best.gather(1, order).nan_to_num(99), value[:, :k].gather(1, expected.indices).nan_to_num(99)
    )
