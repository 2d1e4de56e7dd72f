"""Folders in sparsify 1.3.3 and dictionary_learning 0.1.0 themselves.

`make test-saelens` installs them apart; elsewhere this is skipped.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch

import expander_sae
from expander_sae.interop import dictionary_learning, foreign_keys, sparsify
from tests.interop.problems import K, M, N, activations, reference, small

pytestmark = pytest.mark.saelens

FAMILIES = pytest.mark.parametrize(
    ("family", "encoder"), [("expander", "tied"), ("bernoulli", "independent"), ("dense", "tied")]
)


def installed(module: str) -> Any:
    name = module.partition(".")[0]
    return pytest.importorskip(module, reason=f"{name} is not installed: make test-saelens")


def selected_as(theirs: torch.Tensor, rebuilt: torch.Tensor, folder: Path) -> None:
    """The import selects what their code [N, n] holds, and rebuilds it: some tokens have fewer than k."""
    sae, h = expander_sae.load(folder), activations()
    code = sae.encode(h)
    assert 0 < int(((theirs > 0).sum(dim=1) == K).sum()) < len(h)
    chosen = torch.zeros(len(h), N + 1).scatter(1, code.index + 1, 1.0)[:, 1:]
    assert torch.equal(chosen, (theirs > 0).float())
    assert torch.allclose(sae.decode(code), rebuilt, atol=1e-4)


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
    library = installed("sparsify")
    sae = small(family, encoder)
    sparsify.export(sae, tmp_path / "ours", say=False)
    theirs = library.SparseCoder.load_from_disk(tmp_path / "ours")
    code = theirs.encode(activations())
    same(theirs.decode(code.top_acts, code.top_indices), code.top_acts, sae)
    theirs.save_to_disk(tmp_path / "theirs")
    again = sparsify.load(tmp_path / "theirs")
    assert (again.m, again.n, again.k) == (M, N, K)
    rebuilt, _ = reference(sae, h := activations(), relu=True)
    assert torch.allclose(again.decode(again.encode(h)).double(), rebuilt, atol=1e-5)


@FAMILIES
@torch.no_grad()
def test_dictionary_learning_computes_what_we_say(family: str, encoder: str, tmp_path: Path) -> None:
    library = installed("dictionary_learning.trainers.top_k")
    sae = small(family, encoder)
    dictionary_learning.export(sae, tmp_path / "ours", say=False)
    theirs = library.AutoEncoderTopK.from_pretrained(tmp_path / "ours" / "ae.pt")
    code = theirs.encode(activations())
    same(theirs(activations()), code.topk(K, dim=1).values, sae)
    (tmp_path / "theirs").mkdir()
    torch.save(theirs.state_dict(), tmp_path / "theirs" / "ae.pt")
    again = dictionary_learning.load(tmp_path / "theirs")
    rebuilt, _ = reference(sae, h := activations(), relu=True)
    assert torch.allclose(again.decode(again.encode(h)).double(), rebuilt, atol=1e-5)


@torch.no_grad()
def test_a_sparsify_decoder_of_any_norms_selects_as_it_does_there(tmp_path: Path) -> None:
    library = installed("sparsify")
    sparsify.export(small("dense", "independent"), tmp_path / "ours", say=False)
    theirs = library.SparseCoder.load_from_disk(tmp_path / "ours")
    theirs.W_dec.mul_(torch.linspace(0.2, 5.0, N)[:, None])
    theirs.save_to_disk(tmp_path / "theirs")
    code = theirs.encode(activations())
    dense = torch.zeros(len(activations()), N).scatter(1, code.top_indices, code.top_acts)
    selected_as(dense, theirs.decode(code.top_acts, code.top_indices), tmp_path / "theirs")


@torch.no_grad()
def test_a_decoder_of_dictionary_learning_of_any_norms_selects_as_it_does_there(tmp_path: Path) -> None:
    library = installed("dictionary_learning.trainers.top_k")
    dictionary_learning.export(small("dense", "independent"), tmp_path / "ours", say=False)
    theirs = library.AutoEncoderTopK.from_pretrained(tmp_path / "ours" / "ae.pt")
    theirs.decoder.weight.mul_(torch.linspace(0.2, 5.0, N))
    (tmp_path / "theirs").mkdir()
    torch.save(theirs.state_dict(), tmp_path / "theirs" / "ae.pt")
    selected_as(theirs.encode(activations()), theirs(activations()), tmp_path / "theirs")


def test_every_key_that_they_write_is_known(tmp_path: Path) -> None:
    library = installed("sparsify")
    fields = {field.name for field in dataclasses.fields(library.SparseCoderConfig)}
    known = foreign_keys.SPARSIFY
    assert fields | {"d_in"} <= known.applied | known.harmless | known.only.keys()
    trainers = installed("dictionary_learning.trainers.top_k")
    trainer = trainers.TopKTrainer(steps=9999, activation_dim=M, dict_size=N, k=K, layer=3, lm_name="tiny")
    torch.save(trainer.ae.state_dict(), tmp_path / "ae.pt")
    (tmp_path / "config.json").write_text(json.dumps({"trainer": trainer.config, "buffer": None}))
    assert expander_sae.load(tmp_path).k == K
