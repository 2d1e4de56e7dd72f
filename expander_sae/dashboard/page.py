"""The page: template, style, script and data in one HTML file that loads nothing else."""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
from importlib.resources import files
from pathlib import Path
from typing import Any

from expander_sae.storage.files import atomic_path


def _read(name: str) -> str:
    return files("expander_sae.dashboard").joinpath(name).read_text(encoding="utf-8")


def _embedded(data: Any) -> str:
    """JSON that cannot end the script element that holds it, whatever text is in it."""
    text = json.dumps(data, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _allowed(text: str) -> str:
    return "'sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode("ascii") + "'"


def render(data: dict[str, Any]) -> str:
    """The page of what `collect` returned.

    Text of the corpus and the model is data: the script sets it as text and never as markup, and
    the page's policy lets the browser run this script only and fetch nothing.
    """
    style, script = _read("page.css"), _read("page.js")
    policy = f"default-src 'none'; img-src data:; style-src {_allowed(style)}; script-src {_allowed(script)}"
    parts = {
        "TITLE": html.escape(data["title"]),
        "POLICY": html.escape(f"{policy}; base-uri 'none'; form-action 'none'"),
        "STYLE": style,
        "SCRIPT": script,
        "DATA": _embedded(data),
    }
    # One pass, so that a part is never looked through for the names of others.
    return re.sub(r"\{\{([A-Z]+)\}\}", lambda match: parts[match[1]], _read("page.html"))


def write_page(data: dict[str, Any], path: Path) -> int:
    """Write the page atomically; returns its bytes."""
    content = render(data).encode()
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)
    return len(content)
