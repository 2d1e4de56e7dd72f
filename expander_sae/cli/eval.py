"""`expander-sae eval`: how well a weights file rebuilds activations."""

from __future__ import annotations

import argparse
from typing import Any

from expander_sae.cli.arguments import INFERENCE, add_activations, add_compute, add_weights
from expander_sae.cli.terminal import Terminal, table

SUMMARY = "measure how well weights rebuild activations, with the encoder or by pursuit"
EXAMPLES = (
    "expander-sae eval weights.safetensors held_out.npy",
    "expander-sae eval weights.safetensors held_out.npy --inference encoder omp --tokens 2048",
    "expander-sae eval results/…/n4608_d30_k64_seed0 results/…/pool/test.json --json",
)

METRICS = ("relative_error", "explained_variance", "cosine", "l0", "dead_fraction")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_weights(parser)
    add_activations(parser)
    found = f"how codes are found: {INFERENCE} (default: as in training, mostly encoder)"
    parser.add_argument("--inference", nargs="+", metavar="NAME", help=found)
    add_compute(parser)


def run(options: argparse.Namespace, terminal: Terminal) -> None:
    from expander_sae.cli.data import given_activations, inference_of, load_weights
    from expander_sae.evaluation.reconstruction import measure
    from expander_sae.machine.progress import Progress
    from expander_sae.model.autoencoder import SparseAutoencoder
    from expander_sae.model.dictionary import SparseCode
    from expander_sae.model.encoders import codes_of
    from expander_sae.pursuit.budget import budgeted
    from expander_sae.pursuit.codes import encoded_rows
    from expander_sae.pursuit.inference import Inference

    asked = {name: inference_of(name) for name in options.inference or ()}
    autoencoder = load_weights(options)
    own = codes_of(autoencoder.about)
    inferences = asked or {own: inference_of(own)}
    activations = given_activations(options, autoencoder.m)
    rows = encoded_rows(autoencoder, activations, options.activations)
    measured: dict[str, dict[str, float]] = {}
    for name, inference in inferences.items():
        of = autoencoder if name == "encoder" else budgeted(autoencoder, activations, rows)
        with Progress(name, len(rows), "token") as progress:

            def counted(
                model: SparseAutoencoder,
                batch: Any,
                inference: Inference = inference,
                progress: Progress = progress,
            ) -> SparseCode:
                code = inference(model, batch)
                progress.advance(len(batch))
                return code

            sums, cosine = measure(of, activations, counted, rows)
        measured[name] = sums.summary() | {"cosine": cosine}
    record = {
        "weights": str(options.weights),
        "activations": str(options.activations),
        "tokens": len(activations),
        "encoded_tokens": len(rows),
        "precision": autoencoder.precision,
        "inference": measured,
    }
    header = ["inference", *(metric.replace("_", " ") for metric in METRICS)]
    shown = table(header, [[name, *map(values.get, METRICS)] for name, values in measured.items()])
    terminal.result(record, [_said(record), *shown])


def _said(record: dict[str, Any]) -> str:
    tokens = f"{record['encoded_tokens']:,} of {record['tokens']:,} tokens encoded"
    return f"{tokens}, weights in {record['precision']}"
