"""Verdicts on claims that were written down before the data."""
