"""`expander-sae export`: a folder that another library loads."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from expander_sae.cli.arguments import add_activations, add_compute, add_weights, positive
from expander_sae.cli.terminal import Terminal, pairs

SUMMARY = "write a folder that SAELens, sparsify or dictionary_learning loads, or weights in fewer bits"
EXAMPLES = (
    "expander-sae export weights.safetensors --format saelens --out exported",
    "expander-sae export weights.safetensors --format saelens --out exported --activations held_out.npy",
    "expander-sae export weights.safetensors --format saelens --compact --out exported",
    "expander-sae export weights.safetensors --format native --precision int8 --out int8",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add_weights(parser)
    add("--out", type=Path, required=True, help="folder to write")
    add("--format", required=True, choices=("saelens", "sparsify", "dictionary_learning", "native"))
    add("--precision", help="native: float32, bfloat16, int8, int4, int2 or int1 (default: as it is)")
    add("--compact", action="store_true", help="saelens: values and the mask's recipe only")
    add("--model-name", help="saelens: name of the language model")
    add("--hook-name", help="saelens: name of the hook point")
    add("--context-size", type=positive, help="saelens: tokens of a sequence; `run_evals` wants it")
    add(
        "--prepend-bos",
        action=argparse.BooleanOptionalAction,
        help="saelens: whether sequences begin with a special token; `run_evals` wants it",
    )
    add_activations(parser, "--activations")
    add_compute(parser)


def run(options: argparse.Namespace, terminal: Terminal) -> None:
    from dataclasses import asdict

    from expander_sae.api import WEIGHTS as NATIVE
    from expander_sae.cli.data import given_activations, load_weights, stored_bytes
    from expander_sae.cli.outputs import ACTIVATIONS, WEIGHTS, check_folder
    from expander_sae.interop import dictionary_learning, saelens, sparsify

    metadata = _metadata(options)
    check_folder("out", options.out, {WEIGHTS: options.weights, ACTIVATIONS: options.activations})
    autoencoder = load_weights(options)
    given = options.activations is not None
    activations = given_activations(options, autoencoder.m) if given else None
    measured = None
    if options.format == "native":
        if options.precision is not None:
            autoencoder = autoencoder.stored(options.precision)
        autoencoder.save(options.out / NATIVE)
    elif options.format == "saelens":
        measured = saelens.export(autoencoder, options.out, activations, options.compact, False, **metadata)
    else:
        write = {"sparsify": sparsify, "dictionary_learning": dictionary_learning}[options.format].export
        measured = write(autoencoder, options.out, activations, say=False)
    record: dict[str, Any] = {
        "out": str(options.out),
        "format": options.format,
        "precision": autoencoder.precision,
        "bytes": stored_bytes(options.out),
        "fidelity": None if measured is None else asdict(measured),
    }
    shown = pairs([(name, record[name]) for name in ("out", "format", "precision", "bytes")])
    unknown = "no --activations: not measured how often kept values are not positive"
    if autoencoder.thresholds is not None:
        unknown = "it keeps what exceeds its thresholds, as the other library does"
    told = [] if options.format == "native" else [measured.text() if measured else unknown]
    terminal.result(record, [*shown, *told])


def _metadata(options: argparse.Namespace) -> dict[str, Any]:
    """What is said of the model, which SAELens alone keeps; options of another format are refused."""
    from expander_sae.api import WEIGHTS as NATIVE
    from expander_sae.errors import UserError

    names = ("model_name", "hook_name", "context_size", "prepend_bos")
    metadata = {name: value for name in names if (value := getattr(options, name)) is not None}
    if options.format != "saelens" and (options.compact or metadata):
        option = "compact" if options.compact else next(iter(metadata)).replace("_", "-")
        raise UserError(f"--{option}: found --format {options.format}, expected saelens")
    if options.precision is not None and options.format != "native":
        raise UserError(f"--precision: found --format {options.format}, expected native")
    if options.format == "native":
        if options.activations is not None:
            raise UserError("--activations: found --format native, expected that of another library")
        if (options.out / NATIVE).resolve() == options.weights.resolve():
            raise UserError(f"--out: found {options.out}, which has the weights; expected another folder")
    return metadata
