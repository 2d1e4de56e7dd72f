"""Formats of other libraries. Nothing here is needed for training or for the workflow."""
