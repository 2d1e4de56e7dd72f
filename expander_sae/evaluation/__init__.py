"""What a trained autoencoder is worth: reconstruction, cross-entropy, storage."""
