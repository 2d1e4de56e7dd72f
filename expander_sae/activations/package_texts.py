"""The embedded corpora: English prose and code that the pinned dependencies already carry.

Texts are taken from the files that each wheel installed; nothing is imported. Order is fixed: package,
file path, place in the file. The standard library is left out, since it changes with Python.
"""

from __future__ import annotations

import gc
import hashlib
import importlib.metadata
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from expander_sae.activations.python_texts import docstrings_of, functions_of
from expander_sae.errors import UserError

PACKAGES: dict[str, str] = {
    "numpy": "BSD-3-Clause",
    "scipy": "BSD-3-Clause",
    "pandas": "BSD-3-Clause",
    "matplotlib": "Matplotlib licence (PSF-based)",
    "torch": "BSD-3-Clause",
    "transformers": "Apache-2.0",
}
"""Package → licence of its code and documentation (vendored code keeps its own, see the package)."""

TEXTS_OF: dict[str, Callable[[bytes], list[str]]] = {"docstrings": docstrings_of, "code": functions_of}
"""Corpus → the texts of one Python file."""

# Written at build time: they differ between builds of one version.
_BUILD_FILE = re.compile(r"(_?version|__config__|_distributor_init(_local)?)\.py")


@dataclass(frozen=True)
class PackageTexts:
    """Texts in their fixed order, the package of each, the versions, and the sha256 of all texts."""

    texts: list[str]
    packages: list[str]
    versions: dict[str, str]
    sha256: str


def read_package_texts(source: str, packages: Sequence[str] = tuple(PACKAGES)) -> PackageTexts:
    """What `TEXTS_OF` has under `source`, of every file of these packages."""
    texts: list[str] = []
    origins: list[str] = []
    versions: dict[str, str] = {}
    checksum = hashlib.sha256()
    with _collector_paused():
        for package in packages:
            versions[package], files = _installed_files(package)
            for path in files:
                for text in TEXTS_OF[source](path.read_bytes()):
                    texts.append(text)
                    origins.append(package)
                    raw = text.encode()
                    checksum.update(len(raw).to_bytes(8, "little") + raw)
    return PackageTexts(texts, origins, versions, checksum.hexdigest())


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
