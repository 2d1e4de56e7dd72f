"""Formats of other libraries. Nothing here is needed for training or for the workflow."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from expander_sae.errors import UserError

if TYPE_CHECKING:
    from expander_sae.autoencoder import SparseAutoencoder


def load_foreign(folder: Path, backend: str = "auto") -> SparseAutoencoder:
    """Load a folder that another library wrote.

    Raises:
        UserError: a folder of no known format.
    """
    raise UserError(f"{folder}: found none of the files of a known format, expected weights.safetensors")
