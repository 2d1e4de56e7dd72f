"""The embedded corpus: English prose that the pinned dependencies already carry.

Docstrings are read with `ast` from the files that each wheel installed; nothing is imported.
Order is fixed: package, file path, place in the file. The standard library is left out, since it
changes with Python.
"""

from __future__ import annotations

import ast
import gc
import hashlib
import importlib.metadata
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from expander_sae.errors import UserError

PACKAGES: dict[str, str] = {
    "numpy": "BSD-3-Clause",
    "scipy": "BSD-3-Clause",
    "pandas": "BSD-3-Clause",
    "matplotlib": "Matplotlib licence (PSF-based)",
    "torch": "BSD-3-Clause",
    "transformers": "Apache-2.0",
}
"""Package → licence of its documentation (vendored code keeps its own, see the package)."""

DOCSTRINGS_SHA256 = "9accd6a7e158f9d5ca3cd4db4ca11a3064449b8ed905dd0d2ad190011c493674"
"""sha256 of the corpus for the pinned versions of `PACKAGES`; a test asserts it."""

MIN_CHARACTERS = 500
# Written at build time: they differ between builds of one version.
_BUILD_FILE = re.compile(r"(_?version|__config__|_distributor_init(_local)?)\.py")
# Newer syntax is refused whichever Python runs, so that the corpus does not depend on it.
_GRAMMAR = (3, 11)
_TRIPLE_QUOTE = re.compile(rb'"""|\'\'\'')
LONE_SURROGATE = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True)
class DocstringCorpus:
    """Texts in their fixed order, the package of each, the versions, and the sha256 of all texts."""

    texts: list[str]
    packages: list[str]
    versions: dict[str, str]
    sha256: str


def read_docstrings(packages: Sequence[str] = tuple(PACKAGES)) -> DocstringCorpus:
    """Docstrings of modules, classes and functions longer than 500 characters."""
    texts: list[str] = []
    origins: list[str] = []
    versions: dict[str, str] = {}
    checksum = hashlib.sha256()
    with _collector_paused():
        for package in packages:
            versions[package], files = _installed_files(package)
            for path in files:
                for text in docstrings_of(path.read_bytes()):
                    texts.append(text)
                    origins.append(package)
                    raw = text.encode()
                    checksum.update(len(raw).to_bytes(8, "little") + raw)
    return DocstringCorpus(texts, origins, versions, checksum.hexdigest())


@contextmanager
def _collector_paused() -> Iterator[None]:
    """Syntax trees hold no cycles, and looking for some takes a quarter of the time."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _installed_files(package: str) -> tuple[str, list[Path]]:
    """(version, the .py files that the package's wheel installed, sorted by path)."""
    try:
        distribution = importlib.metadata.distribution(package)
    except importlib.metadata.PackageNotFoundError:
        raise UserError(
            f"corpus: package {package!r} is not installed; `pip install {package}` does it"
        ) from None
    files = (file for file in distribution.files or [] if file.parts[0] == package and file.suffix == ".py")
    found = sorted(file.as_posix() for file in files if not _BUILD_FILE.fullmatch(file.name))
    if not found:
        raise UserError(f"corpus: package {package!r} lists no .py files; reinstall it from its wheel")
    # A build tag such as +cpu says nothing about the text.
    return distribution.version.split("+")[0], [Path(str(distribution.locate_file(file))) for file in found]


def docstrings_of(source: bytes) -> list[str]:
    """Long docstrings of one file, in the order of the file; none if it does not parse."""
    places = [match.start() for match in _TRIPLE_QUOTE.finditer(source)]
    if not any(after - before > MIN_CHARACTERS for before, after in pairwise(places)):
        return []
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # other people's invalid escapes
            module = ast.parse(source, feature_version=_GRAMMAR)
    except (SyntaxError, ValueError):
        return []
    cleaned = (clean(raw) for raw in _raw_docstrings(module))
    return [text for text in cleaned if len(text) > MIN_CHARACTERS and not LONE_SURROGATE.search(text)]


def _raw_docstrings(node: ast.Module | ast.stmt) -> Iterator[str]:
    """Docstrings below `node` in source order; only statements are visited, not expressions."""
    body: list[ast.stmt] = getattr(node, "body", [])
    is_scope = isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
    if is_scope and body and isinstance(body[0], ast.Expr):
        value = body[0].value
        if isinstance(value, ast.Constant) and isinstance(value.value, str):
            yield value.value
    for name in ("body", "handlers", "cases", "orelse", "finalbody"):
        for child in getattr(node, name, ()):
            if hasattr(child, "body"):
                yield from _raw_docstrings(child)


def clean(docstring: str) -> str:
    """Remove the common indentation and blank ends: `inspect.cleandoc` changed between Python versions."""
    first, *rest = docstring.expandtabs().split("\n")
    margin = min((len(line) - len(line.lstrip(" ")) for line in rest if line.strip()), default=0)
    lines = [first.strip(), *(line[margin:].rstrip() for line in rest)]
    return "\n".join(lines).strip("\n")
