"""Weights files and checkpoints keep their bytes: later releases read and write what one wrote."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import torch

from expander_sae.masks.learned import prune
from expander_sae.masks.recipe import Mask, MaskRecipe
from expander_sae.model.autoencoder import SparseAutoencoder
from expander_sae.study.recipes import Recipe
from expander_sae.training.step import TrainingState

M, N, D, K = 12, 40, 5, 4

WRITTEN = {
    ("expander", "tied"): "27aa8d2caf717627",
    ("expander", "own_support"): "d91e608ccf2c162e",
    ("expander", "full"): "4f4bab7ac9d81de1",
    ("bernoulli", "independent"): "2a8cc33c740cf551",
    ("dose20", "warm_tied"): "f028aa6efa561dcd",
    ("pruned_retuned", "tied"): "0ee6be5cfc6c4159",
    ("dense", "tied"): "2ec122ba90d2be20",
    ("dense", "independent"): "7db299c8a31e9389",
}
"""The beginning of each file's SHA-256."""


def numbered(support: str, encoder: str) -> SparseAutoencoder:
    """An autoencoder whose parameters count 0, 1/8, 2/8, …, each from its own start."""
    mask: Mask | None = None
    if support == "pruned_retuned":
        mask, _ = prune(torch.arange(N * M).reshape(N, M) % 7 - 3.0, D, 3)
    elif support != "dense":
        mask = MaskRecipe(support, M, N, D, 3).generate()
    made = SparseAutoencoder(M, N, K, mask, encoder, "torch")
    with torch.no_grad():
        for start, parameter in enumerate(made.parameters()):
            parameter.copy_((torch.arange(parameter.numel()).reshape(parameter.shape) + start) / 8)
    return made


@pytest.mark.parametrize(("support", "encoder"), WRITTEN)
def test_files_are_byte_for_byte_those_of_the_first_release(
    support: str, encoder: str, tmp_path: Path
) -> None:
    made, path = numbered(support, encoder), tmp_path / "w.safetensors"
    made.about = {"norm_limit": 2.5}
    made.save(path, note="ä")
    assert hashlib.sha256(path.read_bytes()).hexdigest()[:16] == WRITTEN[support, encoder]
    loaded = SparseAutoencoder.load(path, backend="torch")
    assert loaded.about == {"norm_limit": 2.5, "note": "ä"}
    loaded.save(tmp_path / "again.safetensors")
    assert (tmp_path / "again.safetensors").read_bytes() == path.read_bytes()


@pytest.mark.parametrize("encoder", ["tied", "warm_tied"])
@pytest.mark.parametrize("support", ["expander", "dense"])
def test_parameters_keep_names_and_order(support: str, encoder: str) -> None:
    """Names are those of checkpoints; the order decides the last bits of a clipped gradient's norm."""
    names = ["values", *(["encoder"] if encoder != "tied" else []), "b_enc", "b_dec"]
    made = numbered(support, encoder)
    assert [name for name, _ in made.named_parameters()] == names == list(made.state_dict())
    state = TrainingState.start(made, Recipe(), 0)
    kept = {name for name in state.tensors() if name.startswith("parameter.")}
    assert kept == {f"parameter.{name}" for name in names}
