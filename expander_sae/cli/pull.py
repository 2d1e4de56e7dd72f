"""`expander-sae pull`: fetch a run from the Hugging Face Hub."""

from __future__ import annotations

import argparse
from pathlib import Path

from expander_sae.cli.terminal import Terminal

SUMMARY = "fetch a published autoencoder from the Hugging Face Hub and verify its mask"
EXAMPLES = ("expander-sae pull me/my-sae --out my-sae", "expander-sae inspect $(expander-sae pull me/my-sae)")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("repository", help="OWNER/NAME on the Hub")
    parser.add_argument("--out", type=Path, help="folder to write (default: the Hub's own cache)")
    parser.add_argument("--revision", help="commit, tag or branch")
    parser.add_argument(
        "--overwrite", action="store_true", help="replace the files of an earlier pull in --out"
    )


def run(options: argparse.Namespace, terminal: Terminal) -> None:
    from expander_sae.interop.hub import pull

    folder = pull(options.repository, options.out, revision=options.revision, overwrite=options.overwrite)
    files = {file.name: file.stat().st_size for file in sorted(folder.iterdir()) if file.is_file()}
    terminal.result({"folder": str(folder), "files": files}, [str(folder)])
