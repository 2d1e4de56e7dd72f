"""BatchTopK without a matrix [B, n], against the published definition on one."""

from __future__ import annotations

import pytest
import torch

from expander_sae.interop.batch_topk import batch_topk
from expander_sae.rng import torch_generator
from tests.interop.problems import M, N, activations, small


@pytest.mark.parametrize("k", [0.5, 3, 4.5, 30, 48])
@pytest.mark.parametrize("skewed", [False, True])
def test_against_the_largest_positive_scores_of_the_batch(k: float, skewed: bool) -> None:
    sae, h = small("expander", "independent"), activations(40)
    if skewed:  # one token that has nearly every place, so that its first candidates are not enough
        h = torch.cat([h[:1] * 100, h[1:] * 1e-3])
    bias = torch.randn(N, generator=torch_generator(0, "bias"))
    encoder = sae._encoder_on(sae.dictionary())
    scores = (h @ encoder.columns(torch.arange(N)).T + bias).relu().flatten()
    best = scores.topk(min(int(k * len(h)), scores.numel()))
    expected = torch.zeros_like(scores).scatter(0, best.indices, best.values).view(len(h), N)
    code = batch_topk(encoder, h, bias, k)
    assert not code.value[code.index < 0].any()
    found = torch.zeros(len(h), N).scatter_add(1, code.index.clamp(min=0), code.value)
    assert torch.equal(found != 0, expected != 0) and torch.allclose(found, expected, rtol=1e-5, atol=1e-5)
    assert code.index.shape[1] == max(1, int((expected != 0).sum(dim=1).max()))
    assert h.shape[1] == M
