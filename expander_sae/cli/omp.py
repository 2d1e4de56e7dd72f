"""`expander-sae omp`: the codes of a tensor."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from expander_sae.cli.arguments import INFERENCE, add_activations, add_compute, add_weights, positive
from expander_sae.cli.terminal import Terminal, pairs

if TYPE_CHECKING:
    from expander_sae.model.dictionary import SparseCode

SUMMARY = "write the sparse codes of activations, by orthogonal matching pursuit or another inference"
EXAMPLES = (
    "expander-sae omp weights.safetensors activations.npy --out codes.safetensors",
    "expander-sae omp weights.safetensors activations.npy --out codes.parquet --k 32",
    "expander-sae omp weights.safetensors activations.npy --out codes.parquet --inference encoder",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_weights(parser)
    add_activations(parser)
    parser.add_argument("--out", type=Path, required=True, help=".safetensors or .parquet file to write")
    parser.add_argument("--k", type=positive, help="features a token (default: that of the weights)")
    parser.add_argument("--inference", default="omp", help=f"{INFERENCE} (default: %(default)s)")
    add_compute(parser)


def run(options: argparse.Namespace, terminal: Terminal) -> None:
    import math

    from expander_sae.cli.data import given_activations, inference_of, load_weights
    from expander_sae.cli.outputs import ACTIVATIONS, WEIGHTS, check_files
    from expander_sae.errors import UserError
    from expander_sae.pursuit.budget import budgeted
    from expander_sae.pursuit.codes import codes_of

    read = {WEIGHTS: options.weights, ACTIVATIONS: options.activations}
    check_files({"out": options.out}, read, {"out": (".safetensors", ".parquet")})
    inference = inference_of(options.inference)
    autoencoder = load_weights(options)
    if options.k is not None:
        if options.k > autoencoder.n:
            raise UserError(f"--k: found {options.k}, expected 1 to n = {autoencoder.n}")
        autoencoder.k = options.k
    activations = given_activations(options, autoencoder.m)
    if options.inference != "encoder":
        autoencoder = budgeted(autoencoder, activations)
    codes = codes_of(autoencoder, activations, inference, options.inference)
    write = _parquet if options.out.suffix == ".parquet" else _safetensors
    settings = {"n": autoencoder.n, "k": autoencoder.k, "inference": options.inference}
    active = write(codes, options.out, settings)
    record: dict[str, object] = {
        "out": str(options.out),
        "bytes": options.out.stat().st_size,
        "tokens": len(activations),
        "k": autoencoder.k,
        "l0": active / len(activations),
    }
    limit = autoencoder.norm_limit
    if limit < math.inf:
        record["over_norm_limit"] = int((~autoencoder.encoded(activations)).sum())
    lines = pairs(list(record.items()))
    if record.get("over_norm_limit"):
        lines.append(f"tokens of a norm over {limit:g} are encoded here; the recipe passes them through")
    terminal.result(record, lines)


def _safetensors(codes: Iterator[SparseCode], path: Path, about: dict[str, object]) -> int:
    """index int32 [N, k] (−1: an empty place) and value float32 [N, k]; returns the active entries."""
    import torch

    from expander_sae.model.dictionary import joined
    from expander_sae.storage.safetensors_files import save_tensors

    code = joined(codes)
    save_tensors({"index": code.index.to(torch.int32), "value": code.value.float()}, path, about)
    return int((code.value != 0).sum())


def _parquet(codes: Iterator[SparseCode], path: Path, about: dict[str, object]) -> int:
    """A row a token: lists `feature` int32 and `value` float32 of the non-zero entries."""
    import json

    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    from expander_sae.storage.files import atomic_path

    schema = pa.schema([("feature", pa.list_(pa.int32())), ("value", pa.list_(pa.float32()))])
    schema = schema.with_metadata({"expander_sae": json.dumps(about)})
    active = 0
    with atomic_path(path) as temporary, pq.ParquetWriter(temporary, schema) as writer:
        for code in codes:
            kept = (code.value != 0).numpy()
            starts = pa.array(np.concatenate([[0], np.cumsum(kept.sum(axis=1))]), pa.int32())
            columns = [
                pa.ListArray.from_arrays(starts, pa.array(array[kept], kind))
                for array, kind in ((code.index.numpy(), pa.int32()), (code.value.numpy(), pa.float32()))
            ]
            writer.write_table(pa.table(columns, schema=schema))
            active += int(kept.sum())
    return active
