"""From tokens to activation shards: all layers asked of a model in one forward pass."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch

from expander_sae.activations.batching import batches
from expander_sae.activations.checked_model import load_checked
from expander_sae.activations.language_model import LanguageModel
from expander_sae.activations.shards import FLOAT32, Rows, shard_writer, write_shard
from expander_sae.activations.tokens import TokenRange, TokenTable
from expander_sae.errors import UserError
from expander_sae.machine.piece_sizes import EXTRACTED_TOKENS
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
    """Write one shard of a split, one file a layer; see `extract_shards`."""
    told = {shard: outputs}, shard_tokens, device, batch_tokens
    extract_shards(model_json, tokens_parquet, split, *told, stored=stored)


def extract_shards(
    model_json: Path,
    tokens_parquet: Place,
    split: str,
    outputs: Mapping[int, Mapping[int, Place]],
    shard_tokens: int,
    device: str = "cpu",
    batch_tokens: int = 2048,
    *,
    stored: str = FLOAT32,
) -> None:
    """Write shards of a split by a model that is loaded once; `outputs`: shard → layer → file.

    Shard i has tokens [i · shard_tokens, (i + 1) · shard_tokens), fewer where the split ends, none where it
    ended before. Documents are run from their beginning, in batches of at most `batch_tokens` padded tokens;
    no more is held than the activations of `EXTRACTED_TOKENS`. The metadata tell model, layer, split, place
    and tokens. A model that is used for the first time is tested before (`load_checked`).
    """
    table = TokenTable(tokens_parquet)
    layers = sorted({layer for files in outputs.values() for layer in files})
    model = load_checked(model_json, layers, table.longest, device)
    for shard, files in outputs.items():
        start, stop = shard * shard_tokens, min((shard + 1) * shard_tokens, table.tokens(split))
        about: dict[str, Any] = {
            "model": model.label,
            "model_sha256": model.sha256,
            "split": split,
            "shard": shard,
            "shard_tokens": shard_tokens,
            "tokens_sha256": table.sha256(split, start, stop),
            "lineage": lineage("extraction"),
        }
        parts = _parts(model, table, about, sorted(files), batch_tokens)
        if stop - start <= EXTRACTED_TOKENS:
            for layer, rows in next(parts):
                write_shard(files[layer], rows, {**about, "layer": layer}, stored)
        else:
            _write_long(parts, files, model.width, about, stored)


def _write_long(
    parts: Iterator[Iterator[tuple[int, Rows]]],
    files: Mapping[int, Place],
    m: int,
    about: dict[str, Any],
    stored: str,
) -> None:
    """Write parts of a shard as they come."""
    with ExitStack() as stack:
        writers = {}
        for layer, path in files.items():
            writer = shard_writer(path, m, {**about, "layer": layer}, stored)
            writers[layer] = stack.enter_context(writer)
        for layer, rows in chain.from_iterable(parts):
            writers[layer](rows)


def _parts(
    model: LanguageModel, table: TokenTable, about: dict[str, Any], layers: list[int], batch_tokens: int
) -> Iterator[Iterator[tuple[int, Rows]]]:
    """The rows of a shard, `EXTRACTED_TOKENS` at a time; one part of none where the split ended before it."""
    split, size = about["split"], about["shard_tokens"]
    start = about["shard"] * size
    stop = max(start + 1, min(start + size, table.tokens(split)))
    label = f"{model.label} {split}-{about['shard']:05d}"
    for first in range(start, stop, EXTRACTED_TOKENS):
        tokens = table.read(split, first, min(first + EXTRACTED_TOKENS, stop))
        part = f", tokens {first - start:,} of {stop - start:,} on" if size > EXTRACTED_TOKENS else ""
        yield _extracted(model, tokens, layers, batch_tokens, f"{label}{part}")


def _extracted(
    model: LanguageModel, tokens: TokenRange, layers: list[int], batch_tokens: int, label: str
) -> Iterator[tuple[int, Rows]]:
    """(layer, the rows of a range) of each layer; the activations of one that was taken are let go of."""
    found = residuals(model, tokens, sorted(layers), batch_tokens, label)
    kept = slice(tokens.context, None)
    for layer in layers:
        document, position, token_id = tokens.document[kept], tokens.position[kept], tokens.token_id[kept]
        yield layer, Rows(document, position, token_id, found.pop(layer))


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
