"""`expander-sae dashboard`: one HTML page about a run."""

from __future__ import annotations

import argparse
from pathlib import Path

from expander_sae.cli.arguments import positive
from expander_sae.cli.terminal import Terminal, pairs

SUMMARY = "write one static HTML page about a run: its features, what they fire on and what they write"
EXAMPLES = (
    "expander-sae dashboard results/…/expander-tied/n4608_d30_k64_seed0 --out page.html",
    "expander-sae dashboard weights.safetensors --pool pool/test.json --model model.json --out page.html",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", type=Path, help="run folder of the workflow, or a weights file")
    parser.add_argument("--out", type=Path, required=True, help=".html file to write")
    parser.add_argument("--pool", type=Path, help="test pool's manifest (default: pool/test.json above it)")
    parser.add_argument("--model", type=Path, help="model.json (default: that above the run)")
    parser.add_argument(
        "--tokens", type=positive, default=8192, help="test tokens to encode (default: %(default)s)"
    )
    parser.add_argument(
        "--omp-tokens", type=positive, default=2048, help="those pursued by OMP too (default: %(default)s)"
    )
    parser.add_argument(
        "--features",
        type=positive,
        default=16384,
        help="of more features than this, as many evenly spaced ones are kept (default: %(default)s)",
    )
    parser.add_argument(
        "--no-logits", dest="logits", action="store_false", help="leave the language model alone"
    )


def run(options: argparse.Namespace, terminal: Terminal) -> None:
    from expander_sae.dashboard.collect import Limits, collect
    from expander_sae.dashboard.page import write_page

    limits = Limits(options.tokens, options.omp_tokens, options.features)
    data = collect(options.run, options.pool, options.model, limits, options.logits)
    size = write_page(data, options.out)
    record = {
        "out": str(options.out),
        "bytes": size,
        "tokens": data["tokens"],
        "features": data["shape"]["n"],
        "logit_effects": data["logits"] is not None,
    }
    terminal.result(record, pairs(list(record.items())))
