"""Folders of EleutherAI's sparsify (format of 1.3): cfg.json and sae.safetensors."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from torch import Tensor

from expander_sae.interop import formulas
from expander_sae.interop.dense import check_selection, from_dense, mask_record, to_dense
from expander_sae.interop.fidelity import Fidelity, measured_record
from expander_sae.interop.foreign_files import read_config, read_tensors, required, same_size
from expander_sae.interop.foreign_keys import SPARSIFY
from expander_sae.model.autoencoder import SparseAutoencoder
from expander_sae.storage.files import write_json
from expander_sae.storage.foreign_folders import SPARSIFY as SPARSIFY_FILES
from expander_sae.storage.safetensors_files import save_tensors

CONFIG, WEIGHTS = SPARSIFY_FILES.config, SPARSIFY_FILES.weights


def export(
    autoencoder: SparseAutoencoder,
    folder: str | Path,
    activations: Tensor | np.ndarray | None = None,
    say: bool = True,
) -> Fidelity | None:
    """Write a dense folder for `sparsify.SparseCoder.load_from_disk`; see `saelens.export`."""
    folder = Path(folder)
    check_selection(autoencoder, "sparsify")
    dense = to_dense(autoencoder)
    measured, record = measured_record(autoencoder, folder, activations, say)
    tensors = {"encoder.weight": dense.encoder, "encoder.bias": dense.b_enc}
    tensors |= {"W_dec": dense.gained.clone(), "b_dec": dense.b_dec}
    save_tensors(tensors, folder / WEIGHTS, {})
    config = {"activation": "topk", "normalize_decoder": True, "multi_topk": False, "transcode": False}
    config |= {"skip_connection": False, "expansion_factor": max(1, autoencoder.n // autoencoder.m)}
    config |= {"num_latents": autoencoder.n, "k": autoencoder.k, "d_in": autoencoder.m}
    write_json(folder / CONFIG, config | {"expander_sae": mask_record(autoencoder) | {"fidelity": record}})
    return measured


def load(folder: str | Path, backend: str = "auto") -> SparseAutoencoder:
    """Import a TopK autoencoder; one that `export` wrote comes back onto its mask.

    Raises:
        UserError: a transcoder, a skip connection, another or a signed activation, a key or tensor that is
            not known, or a malformed folder.
    """
    folder = Path(folder)
    path = folder / CONFIG
    config = read_config(path)
    SPARSIFY.check(config, path)
    k = required(config, "k", int, path)
    stored = read_tensors(folder / WEIGHTS, ("encoder.weight", "encoder.bias", "W_dec", "b_dec"))
    matrices = (stored["encoder.weight"], stored["W_dec"])
    weights = formulas.topk(matrices, stored["encoder.bias"], stored["b_dec"], k)
    same_size(config, {"d_in": stored["b_dec"].numel()}, path)
    if config.get("num_latents"):  # 0 says that expansion_factor is meant
        same_size(config, {"num_latents": stored["encoder.bias"].numel()}, path)
    return from_dense(weights, folder, config.get("expander_sae"), {"imported": "sparsify"}, backend)
