"""Formats of other libraries. No training needs them; of a study only runs that are imported."""
