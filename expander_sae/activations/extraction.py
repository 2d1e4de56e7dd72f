"""From tokens to activation shards: all layers asked of a model in one forward pass."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from expander_sae.activations.batching import batches
from expander_sae.activations.checked_model import load_checked
from expander_sae.activations.language_model import LanguageModel
from expander_sae.activations.shards import FLOAT32, Rows, write_shard
from expander_sae.activations.tokens import TokenRange, TokenTable
from expander_sae.errors import UserError
from expander_sae.machine.progress import Progress
from expander_sae.stages import lineage
from expander_sae.storage.remote import Place


def extract_shard(
    model_json: Path,
    tokens_parquet: Place,
    split: str,
    shard: int,
    shard_tokens: int,
    outputs: Mapping[int, Place],
    device: str = "cpu",
    batch_tokens: int = 2048,
    *,
    stored: str = FLOAT32,
) -> None:
    """Write tokens [shard · shard_tokens, (shard + 1) · shard_tokens) of a split, one file a layer.

    Fewer where the split ends, none where it ended before. Documents are run from their beginning, in batches
    of at most `batch_tokens` padded tokens. The metadata tell model, layer, split, place and tokens. A model
    that is used for the first time is tested before (`load_checked`).
    """
    table = TokenTable(tokens_parquet)
    tokens = table.read(split, shard * shard_tokens, (shard + 1) * shard_tokens)
    model = load_checked(model_json, sorted(outputs), table.longest, device)
    found = residuals(model, tokens, sorted(outputs), batch_tokens, f"{model.label} {split}-{shard:05d}")
    kept = slice(tokens.context, None)
    for layer, path in outputs.items():
        about: dict[str, Any] = {
            "model": model.label,
            "model_sha256": model.sha256,
            "layer": layer,
            "split": split,
            "shard": shard,
            "shard_tokens": shard_tokens,
            "tokens_sha256": tokens.sha256,
            "lineage": lineage("extraction"),
        }
        rows = Rows(tokens.document[kept], tokens.position[kept], tokens.token_id[kept], found[layer])
        write_shard(path, rows, about, stored)


def residuals(
    model: LanguageModel, tokens: TokenRange, layers: list[int], batch_tokens: int, label: str
) -> dict[int, np.ndarray]:
    """{layer: float32[tokens asked, m]}: the residual stream at every token of a range."""
    asked = len(tokens.document) - tokens.context
    found = {layer: np.empty((asked, model.width), np.float32) for layer in layers}
    with Progress(label, len(tokens.document), "token") as progress:
        for batch in batches(tokens.document, tokens.token_id, batch_tokens):
            wanted = batch.rows >= tokens.context
            rows, place = batch.rows[wanted] - tokens.context, torch.from_numpy(batch.place[wanted])
            for layer, states in model.residual(batch.ids, layers).items():
                flat = states.reshape(-1, model.width)
                found[layer][rows] = flat[place.to(flat.device)].cpu().numpy()
            progress.advance(len(batch.rows))
    for layer, activations in found.items():
        if not np.isfinite(activations).all():
            raise UserError(
                f"models[{model.record['name']}].dtype: layer {layer} has activations that are not finite in "
                f"{model.record['dtype']}; check the weights or use float32"
            )
    return found
