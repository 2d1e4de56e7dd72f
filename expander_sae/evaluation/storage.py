"""What a dictionary costs to store, in learned values and bytes."""

from __future__ import annotations

from expander_sae.model.autoencoder import SparseAutoencoder

BYTES_PER_VALUE = 4
"""Weights are float32."""


def storage(autoencoder: SparseAutoencoder) -> dict[str, int]:
    """Counts and bytes of one autoencoder.

    Learned values of W are d·n (the true edges of an irregular mask; m·n dense), of the encoder 0 when
    tied. `storage_values_rows_bytes` has explicit row indices too (and column degrees when these differ),
    `storage_encoder_bytes` both biases, and the gains of an import. `storage_total_bytes` is what the weights
    file must hold: values, encoder, biases and the recipe of the mask, in place of which a learned mask has
    the rows themselves.
    """
    decoder, free = autoencoder.decoder, autoencoder.free
    encoder_values = 0 if free is None else free.count
    values_bytes = decoder.count * BYTES_PER_VALUE
    gains = 0 if autoencoder.gains is None else autoencoder.n
    encoder_bytes = (encoder_values + autoencoder.n + autoencoder.m + gains) * BYTES_PER_VALUE
    return {
        "decoder_values": decoder.count,
        "encoder_values": encoder_values,
        "storage_values_bytes": values_bytes,
        "storage_values_rows_bytes": values_bytes + decoder.row_bytes,
        "storage_encoder_bytes": encoder_bytes,
        "storage_mask_recipe_bytes": decoder.record_bytes,
        "storage_total_bytes": values_bytes + encoder_bytes + decoder.record_bytes,
    }
