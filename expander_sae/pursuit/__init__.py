"""Pursuits: the code found by optimisation on a fixed dictionary."""
