"""Load whatever another library wrote.

Each of `saelens`, `sparsify` and `dictionary_learning` has `export` and `load`, and needs nothing of the
library it is named after.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from expander_sae.errors import UserError

if TYPE_CHECKING:
    from expander_sae.model.autoencoder import SparseAutoencoder


def load_foreign(folder: str | Path, backend: str = "auto") -> SparseAutoencoder:
    """Load a folder of SAELens, sparsify or dictionary_learning, told by its files.

    Raises:
        UserError: no such folder, or one of no known format or of more than one.
    """
    from expander_sae.interop import dictionary_learning, saelens, sparsify

    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder")
    modules = (saelens, sparsify, dictionary_learning)
    found = [module for module in modules if (folder / module.WEIGHTS).is_file()]
    if len(found) > 1:
        names = " and ".join(module.WEIGHTS for module in found)
        raise UserError(f"{folder}: found {names}, expected one of them: which is meant?")
    if found:
        return found[0].load(folder, backend)
    raise UserError(
        f"{folder}: found none of weights.safetensors, {saelens.WEIGHTS} (SAELens), {sparsify.WEIGHTS} "
        f"(sparsify) and {dictionary_learning.WEIGHTS} (dictionary_learning), expected one of them"
    )
