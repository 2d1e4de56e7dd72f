"""Load whatever another library wrote.

Each of `saelens`, `sparsify` and `dictionary_learning` has `export` and `load`, and needs nothing of the
library it is named after. `gemma_scope` has `load` alone.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from expander_sae.errors import UserError

if TYPE_CHECKING:
    from expander_sae.model.autoencoder import SparseAutoencoder


def load_foreign(folder: str | Path, backend: str = "auto") -> SparseAutoencoder:
    """Load a folder of SAELens, sparsify, dictionary_learning or Gemma Scope, told by its files.

    Raises:
        UserError: no such folder, or one of no known format or of more than one.
    """
    from expander_sae.interop import dictionary_learning, gemma_scope, saelens, sparsify

    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder")
    modules: tuple[Any, ...] = (saelens, sparsify, dictionary_learning, gemma_scope)
    found = [module for module in modules if (folder / module.WEIGHTS).is_file()]
    if len(found) > 1:
        names = " and ".join(module.WEIGHTS for module in found)
        raise UserError(f"{folder}: found {names}, expected one of them: which is meant?")
    if found:
        loaded: SparseAutoencoder = found[0].load(folder, backend)
        return loaded
    raise UserError(
        f"{folder}: found none of weights.safetensors, {saelens.WEIGHTS} (SAELens), {sparsify.WEIGHTS} "
        f"(sparsify), {dictionary_learning.WEIGHTS} (dictionary_learning) and {gemma_scope.WEIGHTS} (Gemma "
        "Scope), expected one of them"
    )
