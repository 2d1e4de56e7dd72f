"""The functions of the public API: what an autoencoder cannot do without other modules.

What it does by itself are its methods: `encode`, `decode`, `encoded`, `save`.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from expander_sae.errors import UserError
from expander_sae.evaluation.reconstruction import measure
from expander_sae.interop.foreign import load_any
from expander_sae.machine.device import resolve_device
from expander_sae.model.autoencoder import SparseAutoencoder
from expander_sae.model.dictionary import SparseCode, joined
from expander_sae.model.encoders import codes_of
from expander_sae.pursuit.budget import budgeted
from expander_sae.pursuit.codes import encoded_rows
from expander_sae.pursuit.inference import inferences
from expander_sae.storage.arrays import as_tensor, finite_norms
from expander_sae.storage.foreign_folders import NATIVE

WEIGHTS = NATIVE.weights
DTYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)


def load(
    path: str | Path,
    device: str | torch.device = "cpu",
    backend: str = "auto",
    dtype: torch.dtype | None = None,
) -> SparseAutoencoder:
    """Load a native file, a run's folder, or one of SAELens, sparsify, dictionary_learning or Gemma Scope.

    The mask of a native file is regenerated and its checksum verified. `about` of the result holds
    what was stored beside the weights, such as `norm_limit`.

    Args:
        path: the file or folder.
        device: where the parameters are to be; ``auto`` is CUDA where there is one.
        backend: kernels of a sparse dictionary, see `expander_sae.kernels.backends.select`.
        dtype: of the parameters, None as stored. In bfloat16 and float16 a CPU computes slowly, and
            pursuits work in float32.

    Raises:
        UserError: no such file, or none of these formats; the message names it. A device that is not there,
            or a dtype that is no floating-point type.

    Examples:
        >>> path = SparseAutoencoder(m=8, n=32, k=4).save("sae.safetensors")
        >>> load(path).k
        4
    """
    if dtype is not None and dtype not in DTYPES:
        raise UserError(f"dtype: found {dtype}, expected one of {', '.join(map(str, DTYPES))}")
    place = resolve_device(device, kinds=None)
    return load_any(path, backend).to(place, dtype)


def infer(
    autoencoder: SparseAutoencoder,
    activations: Tensor | np.ndarray,
    inference: str = "omp",
    batch_size: int = 4096,
) -> SparseCode:
    """Codes of activations [N, m] by a pursuit: index int64 [N, k] and value [N, k].

    Of an autoencoder whose thresholds decide how many features a token has, a pursuit takes as many as its
    encoder takes on average here.

    Args:
        autoencoder: whose decoder is used as it is; its own encoder is `autoencoder.encode`.
        activations: [N, m], of any device and numeric dtype.
        inference: ``omp``, ``niht``, ``cosamp`` or ``block_omp_{L}``, which takes L columns a round; or
            ``encoder``, the trained one.
        batch_size: rows at a time.

    Raises:
        UserError: another width, a value that is not finite, an unknown inference, or a batch size under 1.

    Examples:
        >>> from expander_sae import Trainer
        >>> h = torch.randn(100, 8, generator=torch.Generator().manual_seed(0))
        >>> sae = Trainer(h, n=32, d=2, k=4).fit(steps=5)
        >>> infer(sae, h, "omp").index.shape
        torch.Size([100, 4])
    """
    run = inferences(inference)
    rows = _rows(autoencoder, activations)
    if batch_size < 1:
        raise UserError(f"batch_size: found {batch_size}, expected at least 1")
    finite_norms(rows)
    of = autoencoder if inference == "encoder" else budgeted(autoencoder, rows)
    return joined(run(of, autoencoder.own(part)) for part in rows.split(batch_size))


def evaluate(
    autoencoder: SparseAutoencoder,
    activations: Tensor | np.ndarray,
    inference: str | None = None,
    every_token: bool = False,
) -> dict[str, float]:
    """Measure an autoencoder on activations [N, m] in the model's units.

    A few thousand rows are held at a time, so that a mapped file may be larger than memory.

    Args:
        autoencoder: what to measure.
        activations: [N, m], of any device and numeric dtype.
        inference: as of `infer`; None: that whose codes the decoder was trained with.
        every_token: measure on the tokens, too, that the recipe passes through (`autoencoder.encoded`).

    Returns:
        relative_error, mean of ‖h − ĥ‖/‖h‖; explained_variance, 1 − Σ‖h − ĥ‖²/Σ‖h − h̄‖²; cosine, mean of
        ⟨h, ĥ⟩/(‖h‖‖ĥ‖); l0, mean number of nonzero code entries; dead_fraction, share of the features that
        never fire on these tokens; encoded_share, share of the tokens that are encoded.

    Raises:
        UserError: another width, a value that is not finite, an unknown inference, or no token to encode.

    Examples:
        >>> from expander_sae import Trainer
        >>> h = torch.randn(100, 8, generator=torch.Generator().manual_seed(0))
        >>> sae = Trainer(h, n=32, d=2, k=4).fit(steps=5)
        >>> evaluate(sae, h)["relative_error"] > evaluate(sae, h, "omp")["relative_error"]  # the same decoder
        True
    """
    rows = _rows(autoencoder, activations)
    name = codes_of(autoencoder.about) if inference is None else inference
    run = inferences(name)
    norms = finite_norms(rows)
    kept = np.arange(len(rows)) if every_token else encoded_rows(autoencoder, rows, "activations", norms)
    of = autoencoder if name == "encoder" else budgeted(autoencoder, rows, kept)
    sums, cosine = measure(of, rows, run, None if len(kept) == len(rows) else kept)
    return sums.summary() | {"cosine": cosine, "encoded_share": len(kept) / len(rows)}


def _rows(autoencoder: SparseAutoencoder, activations: Tensor | np.ndarray) -> Tensor:
    rows = as_tensor(activations)
    if rows.ndim != 2 or rows.shape[1] != autoencoder.m:
        raise UserError(f"activations: found shape {list(rows.shape)}, expected [N, m = {autoencoder.m}]")
    return rows
