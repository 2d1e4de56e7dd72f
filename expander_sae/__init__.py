"""Sparse autoencoders whose decoder and encoder live on a d-regular mask (arXiv 2607.01799)."""

__version__ = "0.1.0"
