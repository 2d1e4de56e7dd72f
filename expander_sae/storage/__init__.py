"""Files on disk: whole or absent, sealed, and arrays as tensors."""
