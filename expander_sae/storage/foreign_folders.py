"""Which files other libraries keep an autoencoder in, and by them what a path holds."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from expander_sae.errors import UserError


@dataclass(frozen=True)
class Format:
    """Names of a library's files.

    Args:
        name: of the module of `interop` that reads them.
        library: as messages call it.
        config: "" where there is none.
    """

    name: str
    library: str
    weights: str
    config: str = ""


NATIVE = Format("native", "expander-sae", "weights.safetensors")
SAELENS = Format("saelens", "SAELens", "sae_weights.safetensors", "cfg.json")
SPARSIFY = Format("sparsify", "sparsify", "sae.safetensors", "cfg.json")
DICTIONARY_LEARNING = Format("dictionary_learning", "dictionary_learning", "ae.pt", "config.json")
GEMMA_SCOPE = Format("gemma_scope", "Gemma Scope", "params.npz")
FOREIGN = (SAELENS, SPARSIFY, DICTIONARY_LEARNING, GEMMA_SCOPE)


def format_of(path: Path) -> Format:
    """The format of a file, or of a folder by its files; one that holds our weights is ours.

    Raises:
        UserError: as of `foreign_format`.
    """
    if not path.is_dir():
        return GEMMA_SCOPE if path.suffix == ".npz" else NATIVE
    return NATIVE if (path / NATIVE.weights).is_file() else foreign_format(path)


def foreign_format(folder: Path) -> Format:
    """Which other library wrote a folder.

    Raises:
        UserError: files of no known format, or of more than one.
    """
    found = [one for one in FOREIGN if (folder / one.weights).is_file()]
    if len(found) > 1:
        names = " and ".join(one.weights for one in found)
        raise UserError(f"{folder}: found {names}, expected one of them: which is meant?")
    if not found:
        *first, last = [f"{one.weights} ({one.library})" for one in FOREIGN]
        listed = f"{NATIVE.weights}, {', '.join(first)} and {last}"
        raise UserError(f"{folder}: found none of {listed}, expected one of them")
    return found[0]


def weights_of(path: Path, form: Format) -> Path:
    """The file of the weights, of a path that has this format."""
    return path / form.weights if path.is_dir() else path


def config_of(path: Path, form: Format) -> Path | None:
    """The file that says what the weights are; None where there is none."""
    file = path / form.config if form.config and path.is_dir() else None
    return file if file is not None and file.is_file() else None
