"""What mkdocs adds to the pages: the help of every command, taken from the parser itself."""

import argparse
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from expander_sae.cli.main import build_parser

MARKER = "<!-- the help of every command -->"


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Put the commands' help where a page has the marker."""
    return markdown.replace(MARKER, commands()) if MARKER in markdown else markdown


def commands() -> str:
    """A section for each command."""
    parser = build_parser()
    chosen = next(action for action in parser._actions if isinstance(action, argparse._SubParsersAction))
    sections = [f"## {name}\n\n```text\n{sub.format_help()}```\n" for name, sub in chosen.choices.items()]
    return "\n".join(sections)
