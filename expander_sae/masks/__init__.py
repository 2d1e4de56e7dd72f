"""Masks: which rows a column may write."""
