"""`expander-sae dashboard`: one HTML page about features, or the same as batches for Neuronpedia."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from expander_sae.cli.arguments import add_activations, positive
from expander_sae.cli.terminal import Terminal, pairs

if TYPE_CHECKING:
    from expander_sae.dashboard.neuronpedia import Names
    from expander_sae.dashboard.rows import TokenRows
    from expander_sae.dashboard.sources import Sources

SUMMARY = "write one static HTML page about features, or batches for Neuronpedia: what they fire on and write"
EXAMPLES = (
    "expander-sae dashboard results/…/expander-tied/n4608_d30_k64_seed0 --out page.html",
    "expander-sae dashboard weights.safetensors --activations held_out.npy --out page.html",
    "expander-sae dashboard weights.safetensors --activations held_out.npy --token-ids ids.npy "
    "--documents documents.npy --tokenizer tokenizer --out page.html",
    "expander-sae dashboard weights.safetensors --pool pool/test.json --model model.json --out page.html",
    "expander-sae dashboard results/…/expander-tied/n4608_d30_k64_seed0 --format neuronpedia --out features",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    what = "run folder of the workflow, weights file or imported folder"
    add("weights", type=Path, metavar="run", help=what)
    add("--out", type=Path, required=True, help=".html file to write; neuronpedia: a folder")
    what = "page, or neuronpedia: JSON batches as SAEDashboard writes them (default: %(default)s)"
    add("--format", default="page", choices=("page", "neuronpedia"), help=what)
    add_activations(parser, "--activations", with_tokens=False)
    add("--token-ids", type=Path, metavar="FILE", help=".npy [N]: token ids of the rows of --activations")
    add("--documents", type=Path, metavar="FILE", help=".npy [N]: which document each row belongs to")
    add("--tokenizer", type=Path, metavar="FOLDER", help="tokenizer of the ids (default: the model's)")
    add("--pool", type=Path, help="test pool's manifest (default: pool/test.json above it)")
    add("--model", type=Path, help="model.json (default: that above the run; none with --activations)")
    first = "tokens to encode, the first ones (default: %(default)s)"
    add("--tokens", type=positive, default=8192, help=first)
    add(
        "--omp-tokens",
        type=positive,
        default=2048,
        help="page: those pursued by OMP too (default: %(default)s)",
    )
    kept = "of more features than this, as many evenly spaced ones are kept (default: %(default)s)"
    add("--features", type=positive, default=16384, help=kept)
    add("--no-logits", dest="logits", action="store_false", help="leave the language model alone")
    add("--set", metavar="NAME", help="neuronpedia: the source set (default: support, encoder, n, d and k)")
    add("--model-id", metavar="NAME", help="neuronpedia: the language model there (default: the run's name)")
    add("--layer", type=int, help="neuronpedia: the layer, from 0 (default: the run's)")


def run(options: argparse.Namespace, terminal: Terminal) -> None:
    from expander_sae.cli.outputs import ACTIVATIONS, WEIGHTS, check_files, check_folder
    from expander_sae.dashboard.sources import find_sources

    read = {WEIGHTS: options.weights, ACTIVATIONS: options.activations, "the pool": options.pool}
    read |= {"the model": options.model, "the token ids": options.token_ids}
    read |= {"the documents": options.documents}
    if options.format == "page":
        check_files({"out": options.out}, read)
    else:
        check_folder("out", options.out, read)
    write = {"page": _page, "neuronpedia": _batches}[options.format]
    given = _given(options)
    sources = find_sources(options.weights, options.pool, options.model, given, options.tokenizer)
    record = {"out": str(options.out), **write(options, sources)}
    terminal.result(record, pairs(list(record.items())))


def _page(options: argparse.Namespace, sources: Sources) -> dict[str, Any]:
    from expander_sae.dashboard.collect import Limits, collect
    from expander_sae.dashboard.page import write_page
    from expander_sae.errors import UserError

    for name in ("set", "model_id", "layer"):
        if getattr(options, name) is not None:
            raise UserError(f"--{name.replace('_', '-')}: found --format page, expected neuronpedia")
    limits = Limits(options.tokens, options.omp_tokens, options.features)
    data = collect(sources, limits, options.logits)
    return {
        "bytes": write_page(data, options.out),
        "tokens": data["tokens"],
        "features": data["shape"]["n"],
        "logit_effects": data["logits"] is not None,
    }


def _batches(options: argparse.Namespace, sources: Sources) -> dict[str, Any]:
    from expander_sae.dashboard.neuronpedia import write_batches
    from expander_sae.errors import UserError

    if (stale := next(options.out.glob("batch-*.json"), None)) is not None:
        raise UserError(f"--out: found {stale}, expected a folder without batches: a reader takes them all")
    names = _names(options, sources)
    tokens = min(options.tokens, sources.pool.tokens)
    batches = write_batches(sources, names, options.out, tokens, options.features, options.logits)
    return {
        "batches": batches,
        "tokens": tokens,
        "features": len(sources.features(options.features)),
        "logit_effects": options.logits and sources.model is not None,
        "source": f"{names.model}/{names.layer}-{names.set}",
    }


def _names(options: argparse.Namespace, sources: Sources) -> Names:
    """Those of the options, else those that the run's record has."""
    from expander_sae.dashboard.neuronpedia import Names
    from expander_sae.errors import UserError

    sae, spec = sources.autoencoder, sources.spec
    found: dict[str, Any] = {
        "model_id": options.model_id or spec.get("model"),
        "layer": spec.get("layer") if options.layer is None else options.layer,
    }
    for name, value in found.items():
        if value is None:
            option = f"--{name.replace('_', '-')}"
            raise UserError(f"{option}: found none in {sources.folder}, expected {option} for neuronpedia")
    shape = f"n{sae.n}-d{sae.d}-k{sae.k}"
    label = f"{sae.decoder.recipe.family}-{sae.encoder_kind}-{shape}".replace("_", "-")
    corpus = spec.get("corpus") or Path(sources.pool.path).name
    return Names(str(found["model_id"]), int(found["layer"]), options.set or label, str(corpus))


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
