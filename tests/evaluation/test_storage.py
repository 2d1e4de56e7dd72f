"""Storage against the published counts and the bytes on disk."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from expander_sae.evaluation.storage import storage
from expander_sae.masks.learned import prune
from expander_sae.masks.recipe import MaskRecipe
from expander_sae.model.autoencoder import SparseAutoencoder
from expander_sae.rng import torch_generator


def test_published_value_counts() -> None:
    """Pythia-70M: 28,672 learned values at d=7 against 2,097,152 dense, 73 times fewer."""
    sparse = storage(SparseAutoencoder(512, 4096, 64, MaskRecipe("expander", 512, 4096, 7, 0).generate()))
    dense = storage(SparseAutoencoder(512, 4096, 64))
    assert sparse["decoder_values"] == 28_672
    assert dense["decoder_values"] == 2_097_152
    assert round(dense["decoder_values"] / sparse["decoder_values"]) == 73
    assert sparse["storage_values_rows_bytes"] == 28_672 * (4 + 2)
    assert dense["storage_values_rows_bytes"] == dense["storage_values_bytes"] == 4 * 2_097_152
    assert sparse["encoder_values"] == dense["encoder_values"] == 0
    assert sparse["storage_encoder_bytes"] == 4 * (4096 + 512)


@pytest.mark.parametrize("family", ["expander", "bernoulli", "dense"])
@pytest.mark.parametrize("encoder", ["tied", "warm_tied"])
def test_total_is_what_the_file_holds(tmp_path: Path, family: str, encoder: str) -> None:
    mask = None if family == "dense" else MaskRecipe(family, 64, 512, 7, 0).generate()
    autoencoder = SparseAutoencoder(64, 512, 8, mask, encoder)
    autoencoder.save(tmp_path / "w.safetensors")
    size = (tmp_path / "w.safetensors").stat().st_size
    counted = storage(autoencoder)
    assert counted["storage_total_bytes"] <= size <= counted["storage_total_bytes"] + 800
    assert counted["encoder_values"] == (0 if encoder == "tied" else counted["decoder_values"])


@pytest.mark.parametrize("family", ["expander", "bernoulli"])
@pytest.mark.parametrize("encoder", ["own_support", "full"])
def test_encoders_apart_from_the_decoder_are_counted(tmp_path: Path, family: str, encoder: str) -> None:
    mask = MaskRecipe(family, 64, 512, 7, 0).generate()
    autoencoder = SparseAutoencoder(64, 512, 8, mask, encoder)
    autoencoder.save(tmp_path / "w.safetensors")
    counted = storage(autoencoder)
    assert counted["encoder_values"] == (64 * 512 if encoder == "full" else 7 * 512)
    size = (tmp_path / "w.safetensors").stat().st_size
    assert counted["storage_total_bytes"] <= size <= counted["storage_total_bytes"] + 900


def test_a_learned_mask_is_stored_row_by_row(tmp_path: Path) -> None:
    mask, kept = prune(torch.randn(512, 64, generator=torch_generator(0, "columns")), 7, 0)
    autoencoder = SparseAutoencoder(64, 512, 8, mask)
    autoencoder.save(tmp_path / "w.safetensors")
    counted = storage(autoencoder)
    assert counted["decoder_values"] == kept.numel() == 7 * 512
    assert counted["storage_mask_recipe_bytes"] >= 2 * 7 * 512
    size = (tmp_path / "w.safetensors").stat().st_size
    assert counted["storage_total_bytes"] <= size <= counted["storage_total_bytes"] + 900
