"""The encoders that an autoencoder can have. No torch: configurations are checked with them."""

ENCODERS = ("tied", "warm_tied", "independent", "own_support", "full")
"""See `SparseAutoencoder`; the last two are for decoders on a mask only."""
