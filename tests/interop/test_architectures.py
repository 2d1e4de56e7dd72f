"""Each architecture of SAELens, dictionary_learning, sparsify and Gemma Scope against the library itself.

`make test-saelens` installs them apart; elsewhere this is skipped.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import expander_sae
from expander_sae.errors import UserError
from expander_sae.interop import foreign_keys, saelens
from expander_sae.interop.saebench import SAEBenchAutoencoder
from expander_sae.rng import torch_generator
from tests.interop.problems import K, M, N, activations

pytestmark = pytest.mark.saelens

sae_lens = pytest.importorskip("sae_lens", reason="sae-lens is not installed: make test-saelens")

TOKENS = 2000
KINDS = {
    "standard": sae_lens.StandardSAE,
    "jumprelu": sae_lens.JumpReLUSAE,
    "gated": sae_lens.GatedSAE,
    "topk": sae_lens.TopKSAE,
}
TRAINED = {
    "batchtopk": sae_lens.BatchTopKTrainingSAE,
    "matryoshka_batchtopk": sae_lens.MatryoshkaBatchTopKTrainingSAE,
}


@torch.no_grad()
def filled(module: torch.nn.Module) -> Any:
    """Weights at random, of columns of many norms and biases that leave some tokens without a feature."""
    generator = torch_generator(0, "architectures")
    for name, parameter in module.named_parameters():
        parameter.normal_(generator=generator)
        if parameter.ndim == 2:
            parameter.div_(M**0.5)  # as a trained one, it rebuilds about as much as it is given
        if name in ("W_dec", "decoder.weight"):
            norms = torch.linspace(0.2, 3.0, N)
            parameter.mul_(norms if name == "decoder.weight" else norms[:, None])
        if name == "threshold":
            parameter.abs_()
        if name in ("r_mag", "b_dec", "bias", "decoder.bias", "decoder_bias"):
            parameter.mul_(0.3)
        if name in ("b_enc", "b_gate", "gate_bias", "encoder.bias"):
            parameter.mul_(0.3).sub_(1.5)
    return module


@torch.no_grad()
def same(path: Path, code: torch.Tensor, rebuilt: torch.Tensor) -> expander_sae.SparseAutoencoder:
    """The import holds their code [T, n] up to column norms, and rebuilds as they do, to 1e-5."""
    sae, h = expander_sae.load(path), activations(TOKENS)
    ours = sae.encode(h)
    held = torch.zeros(TOKENS, N + 1).scatter(1, ours.index + 1, 1.0)[:, 1:] > 0
    assert torch.equal(held, code != 0)
    assert (code == 0).all(dim=1).any() and len((code != 0).sum(dim=1).unique()) > 2
    found = sae.decode(ours)
    assert ((found - rebuilt).norm(dim=1) / h.norm(dim=1)).max() < 1e-5
    return sae


@pytest.mark.parametrize("subtract", [True, False])
@pytest.mark.parametrize("name", KINDS)
def test_an_architecture_of_saelens(name: str, subtract: bool, tmp_path: Path) -> None:
    kind: Any = KINDS[name]
    size = {"k": K} if name == "topk" else {}
    config = sae_lens.registry.get_sae_class(name)[1](d_in=M, d_sae=N, apply_b_dec_to_input=subtract, **size)
    filled(kind(config)).save_model(tmp_path / "theirs")
    theirs = sae_lens.SAE.load_from_disk(tmp_path / "theirs")
    h = activations(TOKENS)
    with torch.no_grad():
        code, rebuilt = theirs.encode(h), theirs(h)
    sae = same(tmp_path / "theirs", code, rebuilt)
    assert sae.k == (K if name == "topk" else N) and sae.counts_vary == (name != "topk")
    # What was imported goes out again, to us, to SAELens and to SAEBench.
    saelens.export(sae, tmp_path / "out", say=False)
    same(tmp_path / "out", code, rebuilt)
    with torch.no_grad():
        again = sae_lens.SAE.load_from_disk(tmp_path / "out")(h)
        bench = SAEBenchAutoencoder(sae, "tiny", 0)(h)
    for other in (again, bench):
        assert ((other - rebuilt).norm(dim=1) / h.norm(dim=1)).max() < 1e-5
    same(sae.save(tmp_path / "sae.safetensors"), code, rebuilt)


@pytest.mark.parametrize("rescale", [True, False])
@pytest.mark.parametrize("name", TRAINED)
def test_a_batch_topk_of_saelens_is_what_it_saves_at_the_end(
    name: str, rescale: bool, tmp_path: Path
) -> None:
    kind: Any = TRAINED[name]
    widths = {"matryoshka_widths": [N // 4, N]} if "matryoshka" in name else {}
    config = sae_lens.registry.get_sae_training_class(name)[1](
        d_in=M, d_sae=N, k=K, rescale_acts_by_decoder_norm=rescale, **widths
    )
    trained = filled(kind(config))
    trained.topk_threshold.fill_(0.4)
    trained.save_inference_model(tmp_path / "final")
    trained.save_model(tmp_path / "checkpoint")
    theirs, h = sae_lens.SAE.load_from_disk(tmp_path / "final"), activations(TOKENS)
    with torch.no_grad():
        code, rebuilt = theirs.encode(h), theirs(h)
    same(tmp_path / "final", code, rebuilt)
    same(tmp_path / "checkpoint", code, rebuilt)


@pytest.mark.parametrize(
    ("name", "trainer"),
    [
        ("AutoEncoder", "StandardTrainer"),
        ("AutoEncoderNew", None),
        ("GatedAutoEncoder", "GatedSAETrainer"),
        ("JumpReluAutoEncoder", "JumpReluTrainer"),
        ("AutoEncoderTopK", "TopKTrainer"),
        ("BatchTopKSAE", "BatchTopKTrainer"),
        ("MatryoshkaBatchTopKSAE", "MatryoshkaBatchTopKTrainer"),
    ],
)
def test_a_class_of_dictionary_learning(name: str, trainer: str | None, tmp_path: Path) -> None:
    pytest.importorskip("dictionary_learning", reason="dictionary_learning: make test-saelens")
    from dictionary_learning import dictionary
    from dictionary_learning.trainers import batch_top_k, matryoshka_batch_top_k, top_k

    kind: Any = next(
        getattr(module, name)
        for module in (dictionary, top_k, batch_top_k, matryoshka_batch_top_k)
        if hasattr(module, name)
    )
    size = {"k": K} if "TopK" in name else {}
    groups = {"group_sizes": [N // 4, N - N // 4]} if "Matryoshka" in name else {}
    theirs, h = filled(kind(M, N, **size, **groups)), activations(TOKENS)
    if "TopK" in name:
        theirs.threshold.fill_(0.4)
    with torch.no_grad():
        code, rebuilt = theirs.encode(h), theirs(h)
    torch.save(theirs.state_dict(), tmp_path / "ae.pt")
    for config in ({"dict_class": name}, {"trainer_class": trainer}, None):
        if config == {"trainer_class": None}:
            continue
        if config is None:
            (tmp_path / "config.json").unlink()
            if name in ("AutoEncoderTopK", "BatchTopKSAE"):
                with pytest.raises(UserError, match=r"a threshold of 0\.4 and no class"):
                    expander_sae.load(tmp_path)
                continue
        else:
            (tmp_path / "config.json").write_text(json.dumps({"trainer": config}))
        assert same(tmp_path, code, rebuilt).counts_vary == (name != "AutoEncoderTopK")


def test_sparsify_keeps_no_negative_value(tmp_path: Path) -> None:
    sparsify = pytest.importorskip("sparsify", reason="sparsify: make test-saelens")
    theirs = filled(sparsify.SparseCoder(M, sparsify.SparseCoderConfig(num_latents=N, k=K)))
    theirs.save_to_disk(tmp_path)
    found = theirs.encode(h := activations(TOKENS))
    code = torch.zeros(TOKENS, N).scatter(1, found.top_indices, found.top_acts)
    same(tmp_path, code.detach(), theirs.decode(found.top_acts, found.top_indices).detach())
    assert len(h) == TOKENS


@pytest.mark.parametrize("small_w", [True, False])
def test_a_file_of_gemma_scope(small_w: bool, tmp_path: Path) -> None:
    config = sae_lens.JumpReLUSAEConfig(d_in=M, d_sae=N, apply_b_dec_to_input=False)
    theirs, h = filled(sae_lens.JumpReLUSAE(config)), activations(TOKENS)
    arrays = {name: tensor.detach().numpy() for name, tensor in theirs.state_dict().items()}
    arrays = {name.replace("W_", "w_") if small_w else name: array for name, array in arrays.items()}
    np.savez(tmp_path / "params.npz", **arrays)
    with torch.no_grad():
        code, rebuilt = theirs.encode(h), theirs(h)
    same(tmp_path, code, rebuilt)
    same(tmp_path / "params.npz", code, rebuilt)


@pytest.mark.parametrize("name", ["abstopk", "temporal", "matching_pursuit", "transcoder", "skip_transcoder"])
def test_another_architecture_is_refused_by_name(name: str, tmp_path: Path) -> None:
    (tmp_path / "sae_weights.safetensors").write_bytes(b"")
    (tmp_path / "cfg.json").write_text(json.dumps({"architecture": name}))
    with pytest.raises(UserError, match=rf"architecture '{name}', expected one of topk, standard, jumprelu"):
        expander_sae.load(tmp_path)


def test_every_key_of_every_architecture_is_known() -> None:
    known = foreign_keys.SAELENS
    names = known.applied | known.harmless | known.only.keys()
    for name in (*KINDS, *TRAINED):
        for registry in (sae_lens.registry.SAE_CLASS_REGISTRY, sae_lens.registry.SAE_TRAINING_CLASS_REGISTRY):
            if name in registry:
                widths = {"matryoshka_widths": [N]} if "matryoshka" in name else {}
                assert registry[name][1](d_in=M, d_sae=N, **widths).to_dict().keys() <= names
