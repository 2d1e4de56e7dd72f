"""Storage against the published counts and the bytes on disk."""

from __future__ import annotations

from pathlib import Path

import pytest

from expander_sae.autoencoder import SparseAutoencoder
from expander_sae.evaluation.storage import storage
from expander_sae.masks import MaskRecipe


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
