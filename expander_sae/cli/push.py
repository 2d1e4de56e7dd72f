"""`expander-sae push`: publish a run, or weights alone, on the Hugging Face Hub."""

from __future__ import annotations

import argparse
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from expander_sae.cli.arguments import add_activations
from expander_sae.cli.terminal import Terminal, pairs

if TYPE_CHECKING:
    from expander_sae.model.autoencoder import SparseAutoencoder

SUMMARY = "publish a run or weights on the Hugging Face Hub, with a card written from its metrics"
EXAMPLES = (
    "expander-sae push results/…/n4608_d30_k64_seed0 me/my-sae --dry-run",
    "expander-sae push results/…/n4608_d30_k64_seed0 me/my-sae --public --licence apache-2.0",
    "expander-sae push weights.safetensors me/my-sae --activations held_out.npy --dry-run",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("weights", type=Path, metavar="run", help="run folder, weights file or imported folder")
    add("repository", help="OWNER/NAME on the Hub")
    add("--dry-run", action="store_true", help="build everything and contact nobody")
    add("--public", action="store_true", help="make a new repository public")
    add("--licence", help="for the card, such as apache-2.0")
    add("--base-model", help="for the card: id of the language model on the Hub")
    add("--dataset", help="for the card: id of the data set on the Hub")
    add("--table", type=Path, help="metrics.parquet of the study, for the card's frontier")
    which = "which SAELens folder to add (default: %(default)s)"
    add("--saelens", choices=("dense", "compact", "none"), default="dense", help=which)
    add("--message", default="Upload an expander SAE", help="of the commit")
    add("--revision", help="branch to upload to")
    add_activations(parser, "--activations")


def run(options: argparse.Namespace, terminal: Terminal) -> None:
    from expander_sae.api import load
    from expander_sae.cli.data import given_activations
    from expander_sae.errors import UserError
    from expander_sae.interop.hub import push

    autoencoder = load(options.weights)
    spec = autoencoder.about.get("spec") or {}
    if "layer" in spec and "model" not in spec and options.base_model is None:
        raise UserError("--base-model: found none, and the weights name no model; expected an id on the Hub")
    given = options.activations is not None
    activations = given_activations(options, autoencoder.m) if given else None
    with _as_folder(options.weights, autoencoder) as folder:
        names = ("licence", "base_model", "dataset", "table", "message", "revision", "dry_run")
        same = {name: getattr(options, name) for name in names}
        kind = None if options.saelens == "none" else options.saelens
        private = not options.public
        pushed = push(
            folder, options.repository, private=private, with_saelens=kind, activations=activations, **same
        )
    record = {"url": pushed.url, "dry_run": options.dry_run, "files": pushed.files, "card": pushed.card}
    lines = pairs([(name, f"{size:,} bytes") for name, size in pushed.files.items()])
    if options.dry_run:
        lines += ["", "the card:", "", pushed.card, "dry run: nothing was uploaded"]
    else:
        lines.append(f"uploaded: {pushed.url}")
    terminal.result(record, lines)


@contextmanager
def _as_folder(given: Path, autoencoder: SparseAutoencoder) -> Iterator[Path]:
    """A run's folder as it is; of a weights file or an import, a folder with the weights alone."""
    from expander_sae.api import WEIGHTS

    if (given / WEIGHTS).is_file():
        yield given
        return
    with tempfile.TemporaryDirectory() as folder:
        if given.is_file():
            shutil.copyfile(given, Path(folder) / WEIGHTS)
        else:
            autoencoder.save(Path(folder) / WEIGHTS)
        yield Path(folder)
