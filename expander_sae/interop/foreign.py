"""Load whatever another library wrote.

Each of `saelens`, `sparsify` and `dictionary_learning` has `export` and `load`, and needs nothing of the
library it is named after. `gemma_scope` has `load` alone.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from expander_sae.errors import UserError
from expander_sae.storage.foreign_folders import NATIVE, Format, foreign_format, format_of, weights_of

if TYPE_CHECKING:
    from expander_sae.model.autoencoder import SparseAutoencoder


def load_any(path: str | Path, backend: str = "auto") -> SparseAutoencoder:
    """Load a native file, a run's folder, what `load_foreign` loads, or a `.npz` file of Gemma Scope.

    Raises:
        UserError: no such file, or none of these formats.
    """
    from expander_sae.model.autoencoder import SparseAutoencoder

    path = Path(path)
    form = format_of(path)
    if form == NATIVE:
        return SparseAutoencoder.load(weights_of(path, form), "cpu", backend)
    return _load(form, path, backend)


def load_foreign(folder: str | Path, backend: str = "auto") -> SparseAutoencoder:
    """Load a folder of SAELens, sparsify, dictionary_learning or Gemma Scope, told by its files.

    Raises:
        UserError: no such folder, or one of no known format or of more than one.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder")
    return _load(foreign_format(folder), folder, backend)


def _load(form: Format, path: Path, backend: str) -> SparseAutoencoder:
    loaded: SparseAutoencoder = import_module(f"expander_sae.interop.{form.name}").load(path, backend)
    return loaded
