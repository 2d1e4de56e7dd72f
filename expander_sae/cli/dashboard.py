"""`expander-sae dashboard`: one HTML page about a run, or about weights and activations."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from expander_sae.cli.arguments import add_activations, positive
from expander_sae.cli.terminal import Terminal, pairs

if TYPE_CHECKING:
    from expander_sae.dashboard.rows import TokenRows

SUMMARY = "write one static HTML page about features: what they fire on and what they write"
EXAMPLES = (
    "expander-sae dashboard results/…/expander-tied/n4608_d30_k64_seed0 --out page.html",
    "expander-sae dashboard weights.safetensors --activations held_out.npy --out page.html",
    "expander-sae dashboard weights.safetensors --activations held_out.npy --token-ids ids.npy "
    "--documents documents.npy --tokenizer tokenizer --out page.html",
    "expander-sae dashboard weights.safetensors --pool pool/test.json --model model.json --out page.html",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    what = "run folder of the workflow, weights file or imported folder"
    add("weights", type=Path, metavar="run", help=what)
    add("--out", type=Path, required=True, help=".html file to write")
    add_activations(parser, "--activations", with_tokens=False)
    add("--token-ids", type=Path, metavar="FILE", help=".npy [N]: token ids of the rows of --activations")
    add("--documents", type=Path, metavar="FILE", help=".npy [N]: which document each row belongs to")
    add("--tokenizer", type=Path, metavar="FOLDER", help="tokenizer of the ids (default: the model's)")
    add("--pool", type=Path, help="test pool's manifest (default: pool/test.json above it)")
    add("--model", type=Path, help="model.json (default: that above the run; none with --activations)")
    first = "tokens to encode, the first ones (default: %(default)s)"
    add("--tokens", type=positive, default=8192, help=first)
    add("--omp-tokens", type=positive, default=2048, help="those pursued by OMP too (default: %(default)s)")
    kept = "of more features than this, as many evenly spaced ones are kept (default: %(default)s)"
    add("--features", type=positive, default=16384, help=kept)
    add("--no-logits", dest="logits", action="store_false", help="leave the language model alone")


def run(options: argparse.Namespace, terminal: Terminal) -> None:
    from expander_sae.cli.outputs import ACTIVATIONS, WEIGHTS, check_files
    from expander_sae.dashboard.collect import Limits, collect
    from expander_sae.dashboard.page import write_page

    read = {WEIGHTS: options.weights, ACTIVATIONS: options.activations, "the pool": options.pool}
    read |= {"the model": options.model, "the token ids": options.token_ids}
    check_files({"out": options.out}, read | {"the documents": options.documents})
    limits = Limits(options.tokens, options.omp_tokens, options.features)
    given, known = _given(options), (options.pool, options.model)
    data = collect(options.weights, *known, limits, options.logits, given, options.tokenizer)
    record = {
        "out": str(options.out),
        "bytes": write_page(data, options.out),
        "tokens": data["tokens"],
        "features": data["shape"]["n"],
        "logit_effects": data["logits"] is not None,
    }
    terminal.result(record, pairs(list(record.items())))


def _given(options: argparse.Namespace) -> TokenRows | None:
    """The rows of `--activations`, with what is known of them; None where a pool is to be read."""
    from expander_sae.cli.data import given_activations
    from expander_sae.dashboard.rows import TokenRows, read_numbers
    from expander_sae.errors import UserError

    options_of_rows = {"--token-ids": options.token_ids, "--documents": options.documents}
    if options.activations is None:
        for option, path in options_of_rows.items():
            if path is not None:
                raise UserError(f"{option}: found no --activations, expected the rows that it describes")
        return None
    if options.pool is not None:
        raise UserError("--pool: found --activations beside it, expected one of them")
    if options.tokenizer is not None and options.token_ids is None:
        raise UserError("--tokenizer: found no --token-ids, expected the ids that it turns into words")
    rows = given_activations(options, fewer=True)
    ids, documents = (
        None if path is None else read_numbers(path, len(rows), option)
        for option, path in options_of_rows.items()
    )
    return TokenRows(options.activations, rows, ids, documents)
