"""From text to activations: corpus, language model, extraction, shards, pool."""
