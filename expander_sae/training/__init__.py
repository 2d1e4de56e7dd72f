"""Recipes, the training loop, and a run on disk."""
