"""What a page or an export about features is made of: weights, activations, what is known of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from expander_sae.activations.language_model import LanguageModel, tokenizer_of
from expander_sae.activations.pool import Pool
from expander_sae.activations.weights import read_model
from expander_sae.api import load
from expander_sae.dashboard.rows import TokenRows
from expander_sae.errors import UserError
from expander_sae.model.autoencoder import SparseAutoencoder
from expander_sae.storage.arrays import HALF
from expander_sae.training.run_folder import WEIGHTS


@dataclass(frozen=True)
class Sources:
    """An autoencoder with activations that it is looked at on.

    Args:
        folder: where its weights lie.
        autoencoder: in float32 or float64.
        pool: activations of its width.
        model: path of `model.json`, or None where no language model is known.
        words: the record of the folder that has the tokenizer, or None.
    """

    folder: Path
    autoencoder: SparseAutoencoder
    pool: Pool | TokenRows
    model: Path | None
    words: dict[str, Any] | None

    @property
    def spec(self) -> dict[str, Any]:
        """What is recorded of the run; nothing where it is none of ours."""
        return self.autoencoder.about.get("spec") or {}

    def features(self, most: int) -> np.ndarray:
        """int64: the numbers of all features, or of `most` that are evenly spaced."""
        n = self.autoencoder.n
        return np.unique(np.linspace(0, n - 1, min(most, n)).round().astype(np.int64))

    def text(self, ids: np.ndarray) -> list[str]:
        """Each token id as its tokenizer says it, or as a number."""
        if self.words is None:
            return [f"[{token}]" for token in ids]
        tokenizer = tokenizer_of(self.words)
        return [tokenizer.decode([int(token)], clean_up_tokenization_spaces=False) for token in ids]

    @torch.no_grad()
    def logit_effects(self, features: np.ndarray, at_once: int) -> Iterator[Tensor]:
        """The direct path W_U w_j, less its mean over the vocabulary: float32 [at_once, V] of each part.

        It skips the layers above and the final norm, whose scale depends on the token.
        """
        assert self.model is not None
        unembedding = LanguageModel.load(self.model).unembedding.float()
        if unembedding.shape[1] != self.autoencoder.m:
            raise UserError(
                f"{self.model}: a model of width {unembedding.shape[1]}, expected m = {self.autoencoder.m}"
            )
        for start in range(0, len(features), at_once):
            part = torch.from_numpy(features[start : start + at_once])
            effect: Tensor = self.autoencoder.dictionary().columns(part).detach() @ unembedding.T
            effect -= effect.mean(dim=1, keepdim=True)
            yield effect


def find_sources(
    folder: Path,
    pool_path: Path | None,
    model_path: Path | None,
    given: TokenRows | None = None,
    tokenizer: Path | None = None,
) -> Sources:
    """The sources of `folder`, or of what else `expander_sae.load` reads.

    The test pool's manifest (`pool/test.json`) and `model.json` are looked for in the folders above where
    they are None; the model not for `given` activations, which stand in place of a pool. `tokenizer` is a
    folder, in place of the model's.

    Raises:
        UserError: no weights, no activations, or activations of another width.
    """
    autoencoder = load(folder)
    if autoencoder.b_dec.dtype in HALF:
        autoencoder = autoencoder.float()
    pool = given or _pool(folder, pool_path)
    if pool.m != autoencoder.m:
        raise UserError(f"{pool.path}: activations of width {pool.m}, expected m = {autoencoder.m}")
    if given is None:  # activations of their own need not be of a model that lies nearby
        model_path = model_path or _find_above(folder / WEIGHTS, "model.json")
    words = None if model_path is None else read_model(model_path)
    if tokenizer is not None:
        words = {"name": str(tokenizer), "path": str(tokenizer), "trust_remote_code": False}
    return Sources(folder, autoencoder, pool, model_path, words)


def _find_above(folder: Path, name: str) -> Path | None:
    """The file `name` in the nearest folder above `folder`."""
    return next((above / name for above in folder.resolve().parents if (above / name).is_file()), None)


def _pool(folder: Path, pool_path: Path | None) -> Pool:
    found = pool_path or _find_above(folder / WEIGHTS, "pool/test.json")
    if found is None:
        raise UserError(
            f"{folder}: found no pool/test.json in the folders above it, expected --activations FILE (or "
            "--pool, the manifest of a pool that the workflow made)"
        )
    return Pool.open(found)
