"""`expander-sae completion`: a completion script for a shell, made from the parser by shtab."""

from __future__ import annotations

import argparse
from pathlib import Path

from expander_sae.cli.arguments import local
from expander_sae.cli.terminal import Terminal
from expander_sae.storage.remote import place

SUMMARY = "print a completion script for bash, zsh or fish"
EXAMPLES = (
    "expander-sae completion bash >> ~/.bashrc",
    "expander-sae completion zsh > ~/.zfunc/_expander-sae",
    "expander-sae completion fish > ~/.config/fish/completions/expander-sae.fish",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("shell", choices=("bash", "zsh", "fish"))


def run(options: argparse.Namespace, terminal: Terminal) -> None:
    import shtab

    from expander_sae.cli.main import build_parser

    parser = build_parser()
    _mark_files(parser, shtab.FILE)
    script = shtab.complete(parser, options.shell)
    terminal.result({"shell": options.shell, "script": script}, [script])


def _mark_files(parser: argparse.ArgumentParser, mark: object) -> None:
    """Tell shtab which arguments are files: those whose type makes a path of them."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for command in action.choices.values():
                _mark_files(command, mark)
        elif action.type in (Path, local, place):
            action.complete = mark  # type: ignore[attr-defined]
