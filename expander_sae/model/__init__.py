"""The autoencoder and the dictionary of its decoder."""
