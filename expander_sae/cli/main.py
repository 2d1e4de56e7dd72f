"""`expander-sae COMMAND …`: the parser and what all commands share.

Exit codes: 0 done; 1 a mistake in files or values, or too little memory, said in one message that begins
with `error:`; 2 a mistake in the command line itself; 130 interrupted; 141 the reader of the output went
away. With `--json` stdout holds one JSON value and nothing else. A command's module is
`add_arguments(parser)` and `run(options, terminal)` with SUMMARY and EXAMPLES; it imports torch and the
like only inside `run`, so that help is immediate.
"""

from __future__ import annotations

import argparse
import io
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from types import ModuleType

from expander_sae import __version__
from expander_sae.cli.terminal import Terminal
from expander_sae.errors import explained

COMMANDS = (
    "train",
    "eval",
    "omp",
    "frontier",
    "inspect",
    "export",
    "push",
    "pull",
    "dashboard",
    "bench",
    "init",
    "completion",
)

DESCRIPTION = """Sparse autoencoders whose decoder columns write only d of m coordinates (arXiv 2607.01799).

Activations are a tensor [N, m] in a .npy, .safetensors or .pt file, a folder of Parquet shards, or the
manifest of a pool that the workflow made (pool/test.json)."""


def command_module(name: str) -> ModuleType:
    """The module of a command; importing it is cheap."""
    return import_module(f"expander_sae.cli.{name}")


def build_parser() -> argparse.ArgumentParser:
    """The whole command line."""
    parser = argparse.ArgumentParser(
        prog="expander-sae", description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--version", action="version", version=f"expander-sae {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name in COMMANDS:
        module = command_module(name)
        examples = "\n".join(f"  {line}" for line in module.EXAMPLES)
        sub = commands.add_parser(
            name,
            help=module.SUMMARY,
            description=f"{module.SUMMARY[0].upper()}{module.SUMMARY[1:]}.",
            epilog=f"examples:\n{examples}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        module.add_arguments(sub)
        sub.add_argument("--json", action="store_true", help="write one JSON value to stdout")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # an encoding without β still gets the rest
    options = build_parser().parse_args(arguments)
    terminal = Terminal(options.json)
    try:
        command_module(options.command).run(options, terminal)
        sys.stdout.flush()
    except BrokenPipeError:
        # The reader went away (`| head`): what is left to be flushed has nowhere to go.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except Exception as error:
        message = explained(error)
        if message is None:
            raise
        print(f"error: {message}", file=sys.stderr)
        return 1
    return 0
