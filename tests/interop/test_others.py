"""Exported folders in sparsify and dictionary_learning themselves; skipped where these are not installed.

Passed with sparsify 1.3.3 and dictionary_learning 0.1.0 on a CPU.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import expander_sae
from expander_sae.interop import dictionary_learning, sparsify
from tests.interop.problems import K, M, N, activations, reference, small

FAMILIES = pytest.mark.parametrize(
    ("family", "encoder"), [("expander", "tied"), ("bernoulli", "independent"), ("dense", "tied")]
)


def same(theirs: torch.Tensor, code: torch.Tensor, sae: expander_sae.SparseAutoencoder) -> None:
    """Their reconstruction is ours where all kept values are positive, and is with ReLU everywhere."""
    rebuilt, positive = reference(sae, activations(), relu=True)
    assert torch.allclose(theirs.double(), rebuilt, atol=1e-5)
    assert 0 < int(positive.sum()) < len(positive) and torch.equal((code > 0).all(dim=1), positive)
    ours = sae.decode(sae.encode(activations()))
    assert torch.allclose(theirs[positive], ours[positive], atol=1e-5)


@FAMILIES
@torch.no_grad()
def test_sparsify_computes_what_we_say(family: str, encoder: str, tmp_path: Path) -> None:
    library: Any = pytest.importorskip("sparsify", reason="sparsify is not installed")
    sae = small(family, encoder)
    sparsify.export(sae, tmp_path / "ours", say=False)
    theirs = library.SparseCoder.load_from_disk(tmp_path / "ours")
    code = theirs.encode(activations())
    same(theirs.decode(code.top_acts, code.top_indices), code.top_acts, sae)
    theirs.save_to_disk(tmp_path / "theirs")
    again = sparsify.load(tmp_path / "theirs")
    assert (again.m, again.n, again.k) == (M, N, K)
    h = activations()
    assert torch.allclose(again.decode(again.encode(h)), sae.decode(sae.encode(h)), atol=1e-5)


@FAMILIES
@torch.no_grad()
def test_dictionary_learning_computes_what_we_say(family: str, encoder: str, tmp_path: Path) -> None:
    library: Any = pytest.importorskip(
        "dictionary_learning.trainers.top_k", reason="dictionary_learning is not installed"
    )
    sae = small(family, encoder)
    dictionary_learning.export(sae, tmp_path / "ours", say=False)
    theirs = library.AutoEncoderTopK.from_pretrained(tmp_path / "ours" / "ae.pt")
    code = theirs.encode(activations())
    same(theirs(activations()), code.topk(K, dim=1).values, sae)
    (tmp_path / "theirs").mkdir()
    torch.save(theirs.state_dict(), tmp_path / "theirs" / "ae.pt")
    again = dictionary_learning.load(tmp_path / "theirs")
    h = activations()
    assert torch.allclose(again.decode(again.encode(h)), sae.decode(sae.encode(h)), atol=1e-5)
