"""Folder names of models and corpora: two that could give other results never share one.

A label is the entry's name where its settings, its files and the stages that process it are those
of the release; otherwise six hex digits of a hash of what differs follow. Nothing stale can then be
taken for fresh, and nothing that was made is overwritten.
"""

from __future__ import annotations

import os
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from expander_sae.activations.splits import EXACT_TOKENS
from expander_sae.stages import lineage
from expander_sae.storage.content import contents
from expander_sae.storage.files import digest
from expander_sae.storage.locations import files_of
from expander_sae.study import presets

RELEASED = {"model": "model1", "corpus": "corpus1-extraction1-model1-pool1"}
"""Stage versions whose results carry plain names. Do not change: raise the stage's version."""

_READING = "texts3"
"""How files and the Hub's data sets are read as texts. Raise it where other texts or groups come of the same
ones. Those of the docstrings are the same since the release, as a test asserts."""


def label_model(entry: dict[str, Any]) -> dict[str, Any]:
    """The entry of `models` with its label. A folder's files are part of what it is."""
    content = contents(files_of(entry["location"])) if entry["source"] == "folder" else None
    return _labelled(entry, presets.MODELS, content, lineage("model"), RELEASED["model"])


def label_corpus(entry: dict[str, Any]) -> dict[str, Any]:
    """The entry `corpus` with its label. Its text files, or the versions of the packages whose
    docstrings or code are read, are part of what it is."""
    # Left out where it is the default, as in specs from before there was such a key.
    entry = {key: value for key, value in entry.items() if (key, value) != ("exact_tokens", EXACT_TOKENS)}
    content: Any = None
    # Of a Hub's id that is also a folder here, the Hub's library reads the folder.
    if entry["source"] == "files" or (entry["source"] == "hub" and os.path.exists(entry["location"])):
        content = [_READING, *contents(files_of(entry["location"]))]
    elif entry["source"] == "hub" and entry["name"] not in presets.CORPORA:
        content = _READING  # a built-in one keeps its plain name, by which claims know it: it is in English
    elif entry["source"] in presets.PACKAGE_SOURCES:
        installed = {name: _installed(name) for name in presets.PACKAGE_VERSIONS}
        content = None if installed == presets.PACKAGE_VERSIONS else installed
    return _labelled(entry, presets.CORPORA, content, lineage("pool"), RELEASED["corpus"])


def _labelled(
    entry: dict[str, Any], known: dict[str, dict[str, Any]], content: Any, stages: str, released: str
) -> dict[str, Any]:
    name = entry["name"]
    settings = {key: value for key, value in entry.items() if key != "name"}
    identity = [settings] + [content] * (content is not None) + [stages] * (stages != released)
    plain = identity == [known.get(name)]
    return {"name": name, "label": name if plain else f"{name}-{digest(identity)[:6]}", **settings}


def _installed(package: str) -> str | None:
    try:
        return version(package).partition("+")[0]  # 2.13.0+cpu has the texts of 2.13.0
    except PackageNotFoundError:
        return None
