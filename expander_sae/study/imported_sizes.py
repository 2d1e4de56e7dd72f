"""The sizes of an autoencoder from elsewhere, by what stands before and beside its numbers.

No tensor is read, so that planning stays quick and needs no torch. The job that imports the autoencoder
compares them with what it then loads.
"""

from __future__ import annotations

import ast
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from expander_sae.errors import UserError, readable
from expander_sae.model.encoders import ENCODERS
from expander_sae.model.precisions import FLOAT32, RUN_PRECISIONS
from expander_sae.pursuit.inference import ENCODER, find
from expander_sae.storage import foreign_folders
from expander_sae.storage.files import read_json
from expander_sae.storage.foreign_folders import Format, weights_of
from expander_sae.storage.safetensors_header import about_of, header_of

THEIRS = "imported"
"""The encoder of what another library wrote: planning does not compare its numbers with the decoder's."""


@dataclass(frozen=True)
class Sizes:
    """Columns of a run that its files say: k is n where thresholds alone decide what is kept."""

    m: int
    n: int
    d: int
    k: int
    encoder: str = THEIRS
    precision: str = FLOAT32
    codes: str = ENCODER


def sizes_of(path: Path, form: Format) -> Sizes:
    """Those of the autoencoder at a path of this format.

    Raises:
        UserError: a file is missing or says no sizes.
    """
    weights, config = weights_of(path, form), path / form.config
    where = config if form.config else weights
    try:
        sizes = _READERS[form.name](weights, read_json(config) if form.config else {})
    except _NONE as error:
        expected = "expected what says m, n and k of an autoencoder"
        raise UserError(f"{where}: found none ({_words(error)}), {expected}") from None
    for name in ("m", "n", "d", "k"):
        if type(getattr(sizes, name)) is not int or getattr(sizes, name) < 1:
            found = f"found {name} {getattr(sizes, name)!r}"
            raise UserError(f"{where}: {found}, expected a whole number of at least 1")
    if sizes.encoder not in (THEIRS, *ENCODERS):
        raise UserError(f"{weights}: found encoder {sizes.encoder!r}, expected one of {', '.join(ENCODERS)}")
    if sizes.precision not in RUN_PRECISIONS or find(sizes.codes) is None:
        found = f"found precision {sizes.precision!r} and codes {sizes.codes!r}"
        raise UserError(f"{weights}: {found}, expected those of this version")
    return sizes


_NONE = (KeyError, TypeError, ValueError, AttributeError, IndexError, SyntaxError, RecursionError, zlib.error)
"""What reading sizes ends in where there are none."""


def _words(error: Exception) -> str:
    return f"no {error.args[0]!r}" if isinstance(error, KeyError) else " ".join(str(error).split())


def _native(weights: Path, _: dict[str, Any]) -> Sizes:
    said = about_of(weights)
    shape, mask, spec = said["shape"], said["mask"], said["about"].get("spec") or {}
    d = shape["m"] if mask is None else mask["recipe"]["d"]
    told = said["encoder"], said.get("precision", FLOAT32), spec.get("codes", ENCODER)
    return Sizes(shape["m"], shape["n"], d, shape["k"], *told)


def _saelens(weights: Path, config: dict[str, Any]) -> Sizes:
    shapes, architecture = _shapes(weights), config.get("architecture")
    m, n = _wide(shapes)
    record = (config.get("metadata") or {}).get("expander_sae") or {}
    d = _recorded_d(config if "values" in shapes else record, m)
    # Before SAELens 6 a TopK autoencoder was a standard one with another activation function.
    older = config.get("activation_fn_str", config.get("activation_fn")) == "topk"
    if architecture in ("topk", "expander_topk") or (older and architecture in (None, "standard")):
        kept: Any = (config.get("activation_fn_kwargs") or {}).get("k", config.get("k"))
        return Sizes(m, n, d, kept)
    return Sizes(m, n, d, n)


def _sparsify(weights: Path, config: dict[str, Any]) -> Sizes:
    m, n = _wide(_shapes(weights))
    return Sizes(m, n, _recorded_d(config.get("expander_sae") or {}, m), config["k"])


def _dictionary_learning(weights: Path, config: dict[str, Any]) -> Sizes:
    """A pickle is not read for planning: the configuration has to be there."""
    trainer = config["trainer"]
    m, n = trainer["activation_dim"], trainer["dict_size"]
    kind = trainer.get("dict_class") or trainer.get("trainer_class")
    top = kind in ("AutoEncoderTopK", "TopKTrainer", "TrainerTopK")
    return Sizes(m, n, _recorded_d(config.get("expander_sae") or {}, m), trainer["k"] if top else n)


def _gemma_scope(weights: Path, _: dict[str, Any]) -> Sizes:
    damaged = (zipfile.BadZipFile, EOFError)
    with readable(weights, "a .npz of numbers", *damaged), zipfile.ZipFile(weights) as file:
        n, m = _shape(file, "w_dec.npy" if "w_dec.npy" in file.namelist() else "W_dec.npy")
    return Sizes(m, n, m, n)


def _shape(file: zipfile.ZipFile, name: str) -> Any:
    with file.open(name) as stream:
        start = stream.read(12)
        # Format 1 of .npy says the length of its header in 2 bytes, later ones in 4.
        wide = 2 if start[6] == 1 else 4
        length = int.from_bytes(start[8 : 8 + wide], "little")
        return ast.literal_eval((start[8 + wide :] + stream.read(length - 4 + wide)).decode())["shape"]


_READERS: dict[str, Callable[[Path, dict[str, Any]], Sizes]] = {
    foreign_folders.NATIVE.name: _native,
    foreign_folders.SAELENS.name: _saelens,
    foreign_folders.SPARSIFY.name: _sparsify,
    foreign_folders.DICTIONARY_LEARNING.name: _dictionary_learning,
    foreign_folders.GEMMA_SCOPE.name: _gemma_scope,
}
"""Name of a format → its sizes, from the file of its weights and its configuration."""


def _shapes(weights: Path) -> dict[str, list[int]]:
    return {name: one["shape"] for name, one in header_of(weights).items() if name != "__metadata__"}


def _wide(shapes: dict[str, list[int]]) -> tuple[int, int]:
    """(m, n): of the decoder's bias, and of its matrix or its values on a mask, a row a feature."""
    return shapes["b_dec"][0], shapes["W_dec" if "W_dec" in shapes else "values"][0]


def _recorded_d(record: dict[str, Any], m: int) -> int:
    """Nonzeros of a column on the mask that we recorded; m where there is none."""
    mask = record.get("mask")
    return m if mask is None else int(mask["recipe"]["d"])
