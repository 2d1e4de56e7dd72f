"""What a dictionary costs to store, in learned values and bytes."""

from __future__ import annotations

from expander_sae.model.autoencoder import SparseAutoencoder

BYTES_PER_VALUE = 4
"""Weights are float32."""


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
    decoder, free = autoencoder.decoder, autoencoder.free
    encoder_values = 0 if free is None else free.count
    values_bytes = decoder.count * BYTES_PER_VALUE
    encoder_bytes = (encoder_values + autoencoder.n + autoencoder.m) * BYTES_PER_VALUE
    return {
        "decoder_values": decoder.count,
        "encoder_values": encoder_values,
        "storage_values_bytes": values_bytes,
        "storage_values_rows_bytes": values_bytes + decoder.row_bytes,
        "storage_encoder_bytes": encoder_bytes,
        "storage_mask_recipe_bytes": decoder.record_bytes,
        "storage_total_bytes": values_bytes + encoder_bytes + decoder.record_bytes,
    }
