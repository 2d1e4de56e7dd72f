"""`expander-sae frontier`: any autoencoders on one page."""

from __future__ import annotations

import argparse
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from expander_sae.cli.arguments import INFERENCE, add_activations, add_compute, positive
from expander_sae.cli.terminal import Terminal, table

if TYPE_CHECKING:
    import numpy as np

    from expander_sae.evaluation.compared import Measured, Spliced

SUMMARY = "draw any autoencoders on one page: bytes, fidelity and features, with OMP on their decoders"
EXAMPLES = (
    "expander-sae frontier ours.safetensors saelens_folder params.npz --activations held_out.npy",
    "expander-sae frontier A B C --activations pool/ce.json --model model.json --out page.png",
    "expander-sae frontier A B --activations held_out.npy --inference encoder --json",
)
COLUMNS = ("relative_error", "explained_variance", "l0", "dead_fraction", "frequent_fraction")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    what = "weights file, run folder, or what SAELens, sparsify, dictionary_learning or Gemma Scope wrote"
    add("weights", type=Path, nargs="+", help=what)
    add("--out", type=Path, default=Path("frontier.pdf"), help=".pdf or .png (default: %(default)s)")
    found = f"how codes are found: {INFERENCE} (default: encoder omp)"
    add("--inference", nargs="+", default=["encoder", "omp"], metavar="NAME", help=found)
    add("--model", type=Path, help="model.json: also cross-entropy recovered; a pool is needed")
    documents = "documents of the pool for --model (default: %(default)s)"
    add("--sequences", type=positive, default=64, help=documents)
    add_activations(parser, "--activations")
    add_compute(parser)


def run(options: argparse.Namespace, terminal: Terminal) -> None:
    from dataclasses import asdict

    from expander_sae.api import load
    from expander_sae.cli.data import given_activations, inference_of
    from expander_sae.cli.outputs import ACTIVATIONS, check_files
    from expander_sae.errors import UserError
    from expander_sae.evaluation.compared import compare
    from expander_sae.figures.compared import SUFFIXES, draw
    from expander_sae.machine.device import resolve_device

    if options.activations is None:
        raise UserError("--activations: found none, expected a file of activations [N, m]")
    for name in options.inference:
        inference_of(name)
    weights = {f"the weights {path}": path for path in options.weights}
    read = weights | {ACTIVATIONS: options.activations, "the model": options.model}
    check_files({"out": options.out}, read, {"out": SUFFIXES})
    device = resolve_device(options.device, "--device")
    activations, token_id, spliced = given_activations(options), *_pool(options)
    measured = []
    for name, path in zip(names(options.weights), options.weights, strict=True):
        autoencoder = load(path, device, options.backend)
        if autoencoder.m != activations.shape[1]:
            found = f"found m = {autoencoder.m}, expected {activations.shape[1]}, the width of"
            raise UserError(f"{path}: {found} {options.activations}")
        asked = (activations, options.activations, tuple(dict.fromkeys(options.inference)))
        measured.append(compare(name, autoencoder, *asked, token_id, spliced))
        terminal.remark(f"measured {name}")
    draw(measured, f"On {len(activations):,} tokens of {options.activations}", options.out)
    record: dict[str, Any] = {"out": str(options.out), "activations": str(options.activations)}
    record |= {"tokens": len(activations), "autoencoders": [asdict(one) for one in measured]}
    terminal.result(record, [f"page: {options.out}", *_lines(measured)])


def _pool(options: argparse.Namespace) -> tuple[np.ndarray | None, Spliced | None]:
    """(token ids of the activations, the model to splice into), where they are of a pool."""
    from expander_sae.activations.checked_model import load_checked
    from expander_sae.activations.pool import Pool
    from expander_sae.errors import UserError
    from expander_sae.evaluation.compared import Spliced
    from expander_sae.evaluation.cross_entropy import longest_document

    if options.activations.suffix != ".json":
        if options.model is not None:
            found = f"found {options.activations} beside it"
            raise UserError(f"--model: {found}, expected a pool's manifest (.json), which has documents")
        return None, None
    pool = Pool.open(options.activations, verify=False)  # `given_activations` has verified it
    token_id = pool.token_id[: options.tokens]
    if options.model is None:
        return token_id, None
    longest = longest_document([pool], options.sequences)
    model = load_checked(options.model, [int(pool.record["layer"])], longest, options.device)
    return token_id, Spliced(model, pool, options.sequences)


def names(paths: list[Path]) -> list[str]:
    """A short name of each: the last part of its path, as many parts as tell it from the others."""
    parts = [path.resolve().parts for path in paths]
    found = [path.name for path in paths]
    for size in range(2, max(map(len, parts)) + 1):
        twice = {name for name, count in Counter(found).items() if count > 1}
        found = [
            "/".join(part[-size:]) if name in twice else name for name, part in zip(found, parts, strict=True)
        ]
    return found


def _lines(measured: list[Measured]) -> list[str]:
    present = [
        name
        for name in (*COLUMNS, "token_entropy", "ce_recovered")
        if any(name in values for one in measured for values in one.metrics.values())
    ]
    header = ["autoencoder", "inference", "bytes", "n", "k", *(name.replace("_", " ") for name in present)]
    rows = [
        [one.name, inference, int(one.bytes), one.n, one.k, *map(values.get, present)]
        for one in measured
        for inference, values in one.metrics.items()
    ]
    return table(header, rows)
