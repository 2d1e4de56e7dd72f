"""`expander-sae inspect`: what a weights file holds."""

from __future__ import annotations

import argparse
import math
from typing import TYPE_CHECKING, Any

from expander_sae.cli.arguments import add_activations, add_compute, add_weights
from expander_sae.cli.terminal import Terminal, number, pairs

if TYPE_CHECKING:
    from expander_sae.model.autoencoder import SparseAutoencoder

SUMMARY = "show what a weights file holds: shape, storage, mask, flatness; with activations, what fires"
EXAMPLES = (
    "expander-sae inspect weights.safetensors",
    "expander-sae inspect results/…/n4608_d30_k64_seed0 --activations results/…/pool/test.json",
    "expander-sae inspect weights.safetensors --json | jq .storage.storage_total_bytes",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_weights(parser)
    add_activations(parser, "--activations")
    add_compute(parser)


def run(options: argparse.Namespace, terminal: Terminal) -> None:
    from expander_sae.cli.data import load_weights, stored_bytes
    from expander_sae.evaluation.storage import storage

    autoencoder = load_weights(options)
    record: dict[str, Any] = {
        "file": str(options.weights),
        "file_bytes": stored_bytes(options.weights),
        "shape": {name: getattr(autoencoder, name) for name in ("m", "n", "d", "k")},
        "encoder": autoencoder.encoder_kind,
        "dtype": str(autoencoder.b_dec.dtype).removeprefix("torch."),
        "precision": autoencoder.precision,
        "storage": storage(autoencoder),
        "compression": autoencoder.m * autoencoder.n / storage(autoencoder)["decoder_values"],
        "support": autoencoder.decoder.recipe.family,
        "mask": _mask(autoencoder),
        "columns": _columns(autoencoder),
        "trained_with": autoencoder.about.get("spec"),
        "norm_limit": autoencoder.about.get("norm_limit"),
    }
    if options.activations is not None:
        record["activations"] = _firing(autoencoder, options)
    terminal.result(record, _lines(record))


def _mask(autoencoder: SparseAutoencoder) -> dict[str, Any] | None:
    """Recipe, checksum and degrees; None without a mask. The checksum was verified on loading."""
    from expander_sae.masks.recipe import describe

    mask = autoencoder.mask
    if mask is None:
        return None
    degrees = mask.row_degrees()
    return describe(mask) | {
        "edges": mask.edges,
        "column_degrees": [int(mask.degrees.min()), int(mask.degrees.max())],
        "row_degrees": [int(degrees.min()), int(degrees.max())],
        "uncovered_rows": mask.uncovered_rows(),
    }


def _columns(autoencoder: SparseAutoencoder) -> dict[str, Any]:
    """Flatness β_j of the columns, and how many hold nothing or a value that is not finite."""
    from expander_sae.model.dictionary import entries_of
    from expander_sae.theory.certificates import flatness

    values, mask = entries_of(autoencoder.dictionary()).cpu().double(), autoencoder.mask
    bounded = values.isfinite().all(dim=1)
    beta = flatness(values, None if mask is None else mask.degrees)[bounded]
    live = beta[beta > 0]
    return {
        "words": autoencoder.decoder.words,
        "not_finite": int((~bounded).sum()),
        "zero": int((beta == 0).sum()),
        "flatness_mean": float(live.mean()),
        "flatness_max": float(live.max()) if len(live) else float("nan"),
    }


def _firing(autoencoder: SparseAutoencoder, options: argparse.Namespace) -> dict[str, Any]:
    """What the trained encoder does on activations: error, dead features, collisions."""
    import numpy as np
    from torch import Tensor

    from expander_sae.cli.data import given_activations
    from expander_sae.evaluation.collisions import collisions, relabelled
    from expander_sae.evaluation.reconstruction import measure
    from expander_sae.model.dictionary import SparseCode, joined
    from expander_sae.model.encoders import codes_of
    from expander_sae.pursuit.codes import encoded_rows
    from expander_sae.pursuit.inference import inferences
    from expander_sae.storage.arrays import widened

    activations = given_activations(options, autoencoder.m)
    rows = encoded_rows(autoencoder, activations, options.activations)
    parts: list[SparseCode] = []
    infer = inferences(codes_of(autoencoder.about))

    def kept(model: SparseAutoencoder, batch: Tensor) -> SparseCode:
        code = infer(model, batch)
        parts.append(SparseCode(code.index.cpu(), widened(code.value).cpu()))
        return code

    sums, _ = measure(autoencoder, activations, kept, rows)
    code = joined(iter(parts))
    counts = code.counts(autoencoder.n).cpu().numpy()
    found: dict[str, Any] = {
        "file": str(options.activations),
        "tokens": len(activations),
        "encoded_share": len(rows) / len(activations),
        "dead_features": int((counts == 0).sum()),
        "most_frequent": [int(j) for j in np.argsort(-counts, kind="stable")[:5]],
        **sums.summary(),
        "negative_share": float((code.value < 0).double().mean()),
    }
    if autoencoder.mask is not None:
        found |= collisions(code, autoencoder.mask).summary()
        null = collisions(relabelled(code, autoencoder.n, 0), autoencoder.mask).summary()
        found["collision_deficit_null"] = null["collision_deficit"]
    return found


def _code_size(bits: float) -> str:
    varies = "as many features as exceed their thresholds"
    return f"{bits:,.0f} bits" if math.isfinite(bits) else varies


def _lines(record: dict[str, Any]) -> list[str]:
    shape, kept, columns, mask = (record[part] for part in ("shape", "storage", "columns", "mask"))
    rows: list[tuple[str, Any]] = [
        ("file", f"{record['file']} ({record['file_bytes']:,} bytes)"),
        ("shape", "m = {m:,}, n = {n:,}, d = {d:,}, k = {k:,}".format(**shape)),
        ("encoder", record["encoder"]),
        ("values", f"{kept['decoder_values']:,} ({number(record['compression'])} times fewer than dense)"),
        ("precision", f"{record['precision']}, {kept['storage_bits_per_value']} bits a value"),
        ("bytes", f"{kept['storage_total_bytes']:,} of values, biases, encoder and mask recipe"),
        ("a token's code", _code_size(kept["code_bits"])),
    ]
    if "storage_ids_bytes" in kept:
        named = f"{kept['storage_ids_total_bytes']:,} where the language model is at hand"
        rows.append(("bytes by token ids", named))
    if mask is None:
        rows.append(("mask", f"none: a {record['support'].replace('_', ' ')} dictionary"))
        rows.append(("columns", record["columns"]["words"]))
    else:
        recipe = mask["recipe"]
        rows += [
            ("mask", "{family}, m = {m:,}, n = {n:,}, d = {d:,}, seed {seed}".format(**recipe)),
            ("mask sha256", f"{mask['sha256']} (verified)"),
            ("columns a row", "{} to {}".format(*mask["row_degrees"])),
            ("rows uncovered", mask["uncovered_rows"]),
        ]
    rows.append(("flatness β", "mean {flatness_mean:.3f}, largest {flatness_max:.3f}".format(**columns)))
    rows.append(("columns of zeros", columns["zero"]))
    if columns["not_finite"]:
        rows.append(("columns not finite", columns["not_finite"]))
    if record["norm_limit"] is not None:
        rows.append(("passed through", f"tokens of norm above {record['norm_limit']:.4g}"))
    if found := record.get("activations"):
        rows += [("", ""), ("on", f"{found['tokens']:,} tokens of {found['file']}")]
        rows.append(("dead features", f"{found['dead_features']:,} of {shape['n']:,}"))
        names = ("encoded_share", "relative_error", "explained_variance", "l0", "negative_share")
        rows += [(name.replace("_", " "), found[name]) for name in names]
        if "collision_deficit" in found:
            null = f"{found['collision_deficit']:.4f} (features renamed at random: "
            rows.append(("collision deficit", f"{null}{found['collision_deficit_null']:.4f})"))
            rows.append(("rows reached", found["collision_coverage"]))
    return pairs(rows)
