"""Thresholding as on a GPU: a step works on all samples, and those that have stopped stay as they are."""

from __future__ import annotations

from types import ModuleType

import pytest
import torch

from expander_sae.pursuit import cosamp, niht
from tests.pursuit.problems import dictionary_of, normal, random_columns


@pytest.mark.parametrize("module", [niht, cosamp], ids=["niht", "cosamp"])
@pytest.mark.parametrize("selection", ["signed", "absolute"])
def test_samples_that_have_stopped_stay(
    module: ModuleType, selection: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    dictionary = dictionary_of("torch", *random_columns(30, 80, 4, 0), 30)
    target = normal(12, 30, seed=1)
    target[2], target[5] = 0, torch.nan
    target[7] = dictionary.columns(torch.tensor(3)) * 2  # done after a step
    pursue = getattr(module, module.__name__.rsplit(".", 1)[-1])
    alone = pursue(dictionary, target, 5, selection, 20)
    monkeypatch.setattr(module, "worked_on", lambda going: slice(None))
    monkeypatch.setattr(module, "looks", lambda step, device: step & (step - 1) == 0)
    together = pursue(dictionary, target, 5, selection, 20)
    assert torch.equal(alone.index, together.index)
    torch.testing.assert_close(alone.value, together.value, atol=1e-10, rtol=1e-10)
    assert not together.value[2].any() and not together.value[5].any()
