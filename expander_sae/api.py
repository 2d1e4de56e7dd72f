"""The functions of the public API: files, codes and measurements of one autoencoder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from expander_sae.errors import UserError
from expander_sae.evaluation.reconstruction import measure
from expander_sae.model.autoencoder import SparseAutoencoder
from expander_sae.model.dictionary import SparseCode
from expander_sae.pursuit.inference import inferences
from expander_sae.storage.arrays import as_tensor

WEIGHTS = "weights.safetensors"
DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)


def load(
    path: str | Path,
    device: str | torch.device = "cpu",
    backend: str = "auto",
    dtype: torch.dtype | None = None,
) -> SparseAutoencoder:
    """Load a native file, a run's folder, or a folder of SAELens, sparsify or dictionary_learning.

    The mask of a native file is regenerated and its checksum verified. `about` of the result holds
    what was stored beside the weights, such as `norm_limit`.

    dtype: of the parameters, None as stored. In bfloat16 and float16 a CPU computes slowly, and pursuits
    work in float32.

    Raises:
        UserError: no such file, or none of these formats; the message names it. A device that is not there,
            or a dtype that is no floating-point type.
    """
    if dtype is not None and dtype not in DTYPES:
        raise UserError(f"dtype: found {dtype}, expected one of {', '.join(map(str, DTYPES))}")
    try:
        torch.empty(0, device=device)
    # An unknown name, a torch without CUDA, a kind of device that this torch has not: each its own kind.
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        said = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(f"device: found {str(device)!r}, which torch cannot use ({said})") from None
    path = Path(path)
    if path.is_dir() and not (path / WEIGHTS).is_file():
        from expander_sae.interop.foreign import load_foreign

        loaded = load_foreign(path, backend)
    else:
        loaded, _ = SparseAutoencoder.load(path / WEIGHTS if path.is_dir() else path, "cpu", backend)
    return loaded.to(device, dtype)


def save(autoencoder: SparseAutoencoder, path: str | Path, **metadata: Any) -> Path:
    """Write one safetensors file: values, biases and the mask as a recipe. Returns the file's path.

    metadata: JSON values kept beside `autoencoder.about`.

    Raises:
        UserError: the file cannot be written.
    """
    path = Path(path)
    autoencoder.save(path, **metadata)
    return path


def encode(
    autoencoder: SparseAutoencoder,
    activations: Tensor | np.ndarray,
    inference: str = "encoder",
    batch_size: int = 4096,
) -> SparseCode:
    """Codes of activations [N, m], `batch_size` at a time: index int64 [N, k] and value [N, k].

    inference: ``encoder``, or a pursuit on the frozen decoder: ``omp``, ``niht``, ``cosamp`` or
        ``block_omp_{L}``, which takes L columns a round.

    Raises:
        UserError: another width, an unknown inference, or a batch size under 1.
    """
    run = inferences(inference)
    rows = _rows(autoencoder, activations)
    if batch_size < 1:
        raise UserError(f"batch_size: found {batch_size}, expected at least 1")
    parts = [run(autoencoder, autoencoder.own(part)) for part in rows.split(batch_size)]
    if not parts:
        empty = rows.new_zeros(0, autoencoder.k)
        return SparseCode(empty.long(), empty)
    return SparseCode(torch.cat([part.index for part in parts]), torch.cat([part.value for part in parts]))


def decode(autoencoder: SparseAutoencoder, code: SparseCode) -> Tensor:
    """Reconstruction ĥ [N, m] of a code, in the model's units."""
    return autoencoder.decode(code)


def evaluate(
    autoencoder: SparseAutoencoder,
    activations: Tensor | np.ndarray,
    inference: str = "encoder",
    every_token: bool = False,
) -> dict[str, float]:
    """Measure an autoencoder on activations [N, m] in the model's units.

    As the recipe says, tokens whose norm exceeds `about["norm_limit"]` are passed through and take no
    part, unless `every_token`. A few thousand rows are held at a time, so that a mapped file may be larger
    than memory. Returns

    - relative_error: mean of ‖h − ĥ‖/‖h‖,
    - explained_variance: 1 − Σ‖h − ĥ‖²/Σ‖h − h̄‖²,
    - cosine: mean of ⟨h, ĥ⟩/(‖h‖‖ĥ‖),
    - l0: mean number of nonzero code entries,
    - dead_fraction: share of the features that never fire on these tokens,
    - encoded_share: share of the tokens that are encoded.

    Raises:
        UserError: another width, an unknown inference, or no token to encode.
    """
    rows = _rows(autoencoder, activations)
    run = inferences(inference)
    kept = encoded(autoencoder, rows) if not every_token else torch.ones(len(rows), dtype=torch.bool)
    if not kept.any():
        raise UserError(f"activations: found no token of {len(rows)} to encode, expected one or more")
    chosen = None if bool(kept.all()) else kept.nonzero()[:, 0].numpy()
    sums, cosine = measure(autoencoder, rows, run, chosen)
    return sums.summary() | {"cosine": cosine, "encoded_share": float(kept.double().mean())}


def encoded(autoencoder: SparseAutoencoder, activations: Tensor) -> Tensor:
    """bool [N] on the CPU: which tokens the recipe encodes; the others are passed through unchanged."""
    limit = autoencoder.about.get("norm_limit")
    if limit is None:
        return torch.ones(len(activations), dtype=torch.bool)
    norms = [part.double().norm(dim=1) for part in activations.split(4096)]
    return (torch.cat(norms) <= limit).cpu() if norms else torch.ones(0, dtype=torch.bool)


def _rows(autoencoder: SparseAutoencoder, activations: Tensor | np.ndarray) -> Tensor:
    rows = as_tensor(activations)
    if rows.ndim != 2 or rows.shape[1] != autoencoder.m:
        raise UserError(f"activations: found shape {list(rows.shape)}, expected [N, m = {autoencoder.m}]")
    return rows
