"""What a dictionary costs to store, in learned values, bits and bytes; and what a token's code costs."""

from __future__ import annotations

import math

from expander_sae.model import weights_file
from expander_sae.model.autoencoder import SparseAutoencoder
from expander_sae.model.precisions import FLOAT32
from expander_sae.model.stored_biases import stored_bytes
from expander_sae.storage.files import canonical_json

CODE_VALUE_BITS = 8
"""Of each of the k values of a code."""


def storage(autoencoder: SparseAutoencoder) -> dict[str, float]:
    """Counts and bytes of one autoencoder in its precision.

    Learned values of W are d·n (the true edges of an irregular mask; m·n dense), of the encoder 0 when
    tied. `storage_values_rows_bytes` has explicit row indices too (and column degrees when these differ),
    `storage_encoder_bytes` a free encoder with its steps, biases, and the gains and thresholds of an import.
    `storage_total_bytes` is what the weights file must hold: values, encoder, biases and the recipe of the
    mask, in place of which a learned mask has the rows themselves. In another precision than float32 the
    recipe has the few words beside that say how to read the values and which tokens are passed through.
    Columns that token ids name have `storage_ids_bytes`, those of the ids, and `storage_ids_total_bytes`,
    what whoever has the language model must hold: ids, biases and recipe, and no values. Where autoencoders
    of a layer can have a part in common, as spectral ones a basis, `storage_shared_bytes` are those of that
    part, and `storage_own_bytes` the total without. `code_bits` are those of a token's code, NaN where
    thresholds alone decide how many features it has.
    """
    decoder, free = autoencoder.decoder, autoencoder.free
    wide = autoencoder.b_enc.element_size()
    biases = stored_bytes(autoencoder.m, autoencoder.n, decoder.precision, wide)
    imported = sum(kept.nbytes for kept in (autoencoder.gains, autoencoder.thresholds) if kept is not None)
    values_bytes = decoder.value_bytes + decoder.step_bytes
    encoder_bytes = biases + imported + (0 if free is None else free.value_bytes + free.step_bytes)
    recipe = decoder.record_bytes
    if decoder.precision.name == FLOAT32:
        bits = 8 * wide
    else:
        bits, said = decoder.precision.bits, weights_file.record(autoencoder)
        recipe += len(canonical_json(said | _limit(autoencoder))) - len(canonical_json(said["mask"]))
    total, ids = values_bytes + encoder_bytes + recipe, decoder.named_by
    shared = decoder.shared_bytes
    common = {"storage_shared_bytes": shared, "storage_own_bytes": total - shared} if shared else {}
    named = {} if ids is None else {"storage_ids_bytes": ids, "storage_ids_total_bytes": total - values_bytes}
    return {
        "decoder_values": decoder.count,
        "encoder_values": 0 if free is None else free.count,
        "storage_values_bytes": values_bytes,
        "storage_values_rows_bytes": values_bytes + decoder.row_bytes,
        "storage_encoder_bytes": encoder_bytes,
        "storage_mask_recipe_bytes": recipe,
        "storage_total_bytes": total,
        "storage_bits_per_value": bits,
        "code_bits": math.nan if autoencoder.counts_vary else code_bits(autoencoder.n, autoencoder.k),
        **named,
        **common,
    }


def _limit(autoencoder: SparseAutoencoder) -> dict[str, float]:
    known = autoencoder.about.get("norm_limit")
    return {} if known is None else {"norm_limit": known}


def code_bits(n: int, k: int) -> float:
    """Bits of a token's code: log₂ of the C(n, k) sets of features, and 8 for each of k values."""
    ways = math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)
    return ways / math.log(2) + CODE_VALUE_BITS * k
