"""What a dictionary costs to store, in learned values and bytes."""

from __future__ import annotations

from expander_sae.masks.recipe import describe
from expander_sae.model.autoencoder import SparseAutoencoder
from expander_sae.storage.files import canonical_json

BYTES_PER_VALUE = 4
"""Weights are float32."""


def row_index_bytes(m: int) -> int:
    """Bytes of one row index: 2 up to m = 65,536."""
    return 2 if m <= 1 << 16 else 4


def storage(autoencoder: SparseAutoencoder) -> dict[str, int]:
    """Counts and bytes of one autoencoder.

    decoder_values: learned values of W, d·n (the true edges of an irregular mask; m·n dense).
    encoder_values: those of an encoder of its own, 0 when tied.
    storage_values_rows_bytes: values plus explicit row indices (and column degrees when these
    differ); storage_encoder_bytes: encoder and both biases; storage_total_bytes: values, encoder,
    biases and the mask's recipe, which is what the weights file must hold;
    storage_mask_recipe_bytes: the recipe that regenerates the rows; of a learned mask, which none
    does, the rows themselves.
    """
    mask, own = autoencoder.mask, autoencoder.encoder_mask
    everywhere = autoencoder.m * autoencoder.n
    values = everywhere if mask is None else mask.edges
    encoder = 0 if autoencoder.encoder is None else everywhere if own is None else own.edges
    if mask is None:
        rows_bytes = recipe_bytes = 0
    else:
        degree_bytes = 0 if mask.regular else autoencoder.n * row_index_bytes(autoencoder.m)
        rows_bytes = mask.edges * row_index_bytes(autoencoder.m) + degree_bytes
        recipe_bytes = len(canonical_json(describe(mask)).encode())
        if mask.learned:
            recipe_bytes += mask.edges * row_index_bytes(autoencoder.m)
    values_bytes = values * BYTES_PER_VALUE
    encoder_bytes = (encoder + autoencoder.n + autoencoder.m) * BYTES_PER_VALUE
    return {
        "decoder_values": values,
        "encoder_values": encoder,
        "storage_values_bytes": values_bytes,
        "storage_values_rows_bytes": values_bytes + rows_bytes,
        "storage_encoder_bytes": encoder_bytes,
        "storage_mask_recipe_bytes": recipe_bytes,
        "storage_total_bytes": values_bytes + encoder_bytes + recipe_bytes,
    }
