"""The weights file of an autoencoder: its tensors, and a JSON header that says what they are."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor

from expander_sae.errors import UserError
from expander_sae.masks.recipe import Mask, MaskRecipe
from expander_sae.masks.stored import keep, kept
from expander_sae.masks.supports import described, find
from expander_sae.model import stored_biases
from expander_sae.model.columns import Columns
from expander_sae.model.dense import check_size
from expander_sae.model.held_parameters import of_encoder
from expander_sae.model.precisions import FLOAT32, Precision, precision_of
from expander_sae.storage.files import canonical_json
from expander_sae.storage.safetensors_files import load_tensors, save_tensors

FORMAT = "expander-sae/1"
WITH_GAINS, WITH_THRESHOLDS = "expander-sae/2", "expander-sae/3"
"""Of a file with gains, or with thresholds and perhaps gains, which versions refuse that know none."""
_OPTIONAL = {"gains": WITH_GAINS, "thresholds": WITH_THRESHOLDS}
"""Tensor [n] that a file may have → its format; that of the last one that it has counts."""


class Stored(Protocol):
    """What a file holds of an autoencoder."""

    m: int
    n: int
    k: int
    encoder_kind: str
    about: dict[str, Any]
    gains: Tensor | None
    thresholds: Tensor | None

    @property
    def b_enc(self) -> Tensor: ...
    @property
    def b_dec(self) -> Tensor: ...
    @property
    def decoder(self) -> Columns: ...
    @property
    def free(self) -> Columns | None: ...
    @property
    def encoder_mask(self) -> Mask | None: ...


A = TypeVar("A", bound=Stored)


def write(autoencoder: Stored, path: Path, about: dict[str, Any]) -> None:
    """Write tensors and header; see `SparseAutoencoder.save`."""
    if path.is_dir():
        raise UserError(f"{path}: a folder, expected the name of a file to write")
    for key, value in about.items():
        try:
            canonical_json(value)
        except (TypeError, ValueError, RecursionError):
            raise UserError(f"{key}: found {type(value).__name__}, expected a JSON value") from None
    decoder, free, mask = autoencoder.decoder, autoencoder.free, autoencoder.encoder_mask
    biases = stored_biases.tensors(autoencoder.b_enc.detach(), autoencoder.b_dec.detach(), decoder.precision)
    tensors = {**biases, **decoder.tensors()}
    if free is not None:
        tensors |= {of_encoder(name): tensor for name, tensor in free.tensors().items()}
    header = record(autoencoder) | {"about": about}
    for name, format_ in _OPTIONAL.items():
        if (tensor := getattr(autoencoder, name)) is not None:
            header["format"], tensors[name] = format_, tensor
    if mask is not None and mask is not decoder.mask:
        header["encoder_mask"] = {"sha256": mask.sha256}
    save_tensors(tensors, path, header)
    for one in {decoder.mask, mask}:
        if one is not None:
            keep(one, path.parent)


def record(autoencoder: Stored) -> dict[str, Any]:
    """What the header says of how the tensors are to be read."""
    shape, decoder = {"m": autoencoder.m, "n": autoencoder.n, "k": autoencoder.k}, autoencoder.decoder
    said: dict[str, Any] = {"format": FORMAT, "shape": shape, "encoder": autoencoder.encoder_kind}
    said |= {"mask": decoder.record()}
    if decoder.precision.name != FLOAT32:
        said["precision"] = decoder.precision.name
    if decoder.precision.levels:
        said["b_enc_step"] = stored_biases.step_of(autoencoder.b_enc.detach())
    return said


def read(kind: Callable[..., A], path: str | Path, backend: str) -> A:
    """The autoencoder of a file; see `SparseAutoencoder.load`."""
    tensors, header = load_tensors(path)
    formats = (FORMAT, *_OPTIONAL.values())
    if header.get("format") not in formats:
        raise UserError(
            f"{path}: format {header.get('format')!r}, expected {' or '.join(map(repr, formats))}"
        )
    try:
        precision = _precision(header, path)
        support = _recorded_support(header, _counted(tensors, precision), path)
        dtype = tensors["b_enc"].dtype if precision.name == FLOAT32 else torch.float32
        asked = {"mask": support, "encoder": header["encoder"], "backend": backend, "dtype": dtype}
        own = header.get("encoder_mask")
        if own is not None and header["encoder"] == "own_support":
            asked["encoder_mask"] = kept(header["mask"]["recipe"], own["sha256"], Path(path).parent)
        loaded = kind(**header["shape"], **asked)
        _verify_encoder(loaded, header.get("encoder_mask"), path)
        _restore(loaded, tensors, header.get("b_enc_step"), precision)
        for name, format_ in _OPTIONAL.items():
            if name in tensors or header["format"] == format_:
                setattr(loaded, name, _for_each_feature(name, tensors[name], loaded.b_enc))
        loaded.about = header["about"]
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        raise UserError(f"{path}: damaged weights ({error})") from None
    return loaded


def _precision(header: dict[str, Any], origin: str | Path) -> Precision:
    try:
        return precision_of(header.get("precision", FLOAT32))
    except UserError as error:
        raise UserError(f"{origin}: {error}") from None


def _counted(tensors: dict[str, Tensor], precision: Precision) -> dict[str, Tensor]:
    """The tensors, with one without content in place of packed values: of as many as the bytes can hold."""
    packed = {name for name, tensor in tensors.items() if tensor.dtype == torch.uint8 and name != "rows"}
    counts = {name: tensors[name].numel() * 8 // precision.bits for name in packed}
    return tensors | {name: torch.empty(count, device="meta") for name, count in counts.items()}


@torch.no_grad()
def _restore(loaded: Stored, tensors: dict[str, Tensor], step: Any, precision: Precision) -> None:
    for columns in filter(None, (loaded.decoder, loaded.free)):
        columns.precision = precision
    loaded.decoder.restore(tensors)
    if loaded.free is not None:
        names = {of_encoder(name): name for name in loaded.free.tensor_names()}
        loaded.free.restore({names[name]: tensor for name, tensor in tensors.items() if name in names})
    b_enc, b_dec = stored_biases.restored(tensors, step, precision)
    loaded.b_enc.copy_(b_enc)
    loaded.b_dec.copy_(b_dec)


def _for_each_feature(name: str, tensor: Tensor, like: Tensor) -> Tensor:
    """The same, of the dtype and device of b_enc; `ValueError` where it is not [n] or not finite."""
    if tensor.shape != like.shape or not bool(tensor.isfinite().all()):
        raise ValueError(f"{name} of shape {list(tensor.shape)}, expected [{len(like)}] finite numbers")
    return tensor.to(like.device, like.dtype)


def _recorded_support(
    header: dict[str, Any], tensors: dict[str, Tensor], origin: str | Path
) -> Mask | MaskRecipe | None:
    """The support that a file records, compared with the tensors before it is made; None: a dense decoder."""
    shape, record = header["shape"], header["mask"]
    if not all(type(shape[key]) is int for key in ("m", "n", "k")):
        raise UserError(f"{origin}: shape {shape!r}, expected whole numbers m, n and k")
    m, n = (tensors[name].numel() for name in ("b_dec", "b_enc"))
    if (shape["m"], shape["n"]) != (m, n):
        found = f"m = {shape['m']}, n = {shape['n']} beside biases of {m} and {n}"
        raise UserError(f"{origin}: {found}; was it altered?")
    if header["encoder"] == "full":
        check_size("encoder", tensors, origin)
    family = "dense" if record is None else record["recipe"]["family"]
    if record is not None and "sha256" not in record and find(family) is None:
        raise UserError(f"{origin}: support {family!r}, expected one that is registered here")
    kind: type[Columns] = described(family).columns()
    return kind.recorded(record, tensors, origin)


def _verify_encoder(loaded: Stored, record: dict[str, Any] | None, path: str | Path) -> None:
    mask = loaded.encoder_mask
    if record is not None and mask is not None and mask.sha256 != record["sha256"]:
        found = f"encoder_mask sha256 {record['sha256']}, regenerated {mask.sha256}"
        raise UserError(f"{path}: {found}; was the file altered?")
