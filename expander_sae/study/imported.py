"""Blocks of a configuration that take an autoencoder from elsewhere, and what they may not say."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from expander_sae.errors import UserError
from expander_sae.masks.supports import IMPORTED
from expander_sae.masks.supports import imported as support_for
from expander_sae.storage.content import contents
from expander_sae.storage.files import digest
from expander_sae.storage.foreign_folders import config_of, format_of, weights_of
from expander_sae.storage.locations import named
from expander_sae.study.imported_sizes import Sizes, sizes_of

_OWN = ("path", "name")
"""Keys that no other block has."""

_NOT_ASKED = ("expansion", "n", "d", "k", "seeds", "encoder", "codes", "precision", "steps", "match")
"""Keys of a block that its files answer, or that only training asks."""


@dataclass(frozen=True)
class Imported:
    """An autoencoder from elsewhere, as it lies there now.

    Args:
        path: of the file or the folder, as the configuration says it.
        sha256: of what the files hold that are read of it; where they lie changes nothing.
    """

    label: str
    path: str
    sha256: str
    sizes: Sizes

    @property
    def support(self) -> str:
        return support_for(self.label, self.sha256)


def imports(entry: dict[str, Any]) -> bool:
    """Whether a block takes an autoencoder from elsewhere."""
    return IMPORTED in _supports(entry)


def read(label: str, location: str) -> Imported:
    """What lies at a path, relative to the working folder like every path of a configuration.

    Raises:
        UserError: nothing is there, or no autoencoder.
    """
    path = Path(named(location))
    if not path.exists():
        raise UserError(f"{location}: no such file or folder, expected an autoencoder")
    return Imported(label, location, checksum(path), sizes_of(path, format_of(path)))


def checksum(path: Path) -> str:
    """Of the content of the files that are read of an autoencoder, in the order weights, configuration."""
    form = format_of(path)
    files = [str(file) for file in (weights_of(path, form), config_of(path, form)) if file is not None]
    return digest([form.name, *(sha256 for _, sha256 in contents(files))])


def own_keys(entry: dict[str, Any]) -> dict[str, Any]:
    """The keys of a block that its autoencoder says, as its lists."""
    found = read(entry["name"], entry["path"])
    sizes = vars(found.sizes)
    lists = {key: [sizes[key]] for key in ("n", "d", "k", "encoder", "codes", "precision")}
    return {"support": [found.support], "seeds": [0], "steps": [0], "imported": found, **lists}


def errors(entries: Sequence[dict[str, Any]], index: int) -> Iterator[str]:
    """What is wrong with a block in what only such blocks have, or must not have."""
    entry, here = entries[index], f"runs[{index}]"
    if not imports(entry):
        for key in _OWN:
            if key in entry:
                found = f"found {entry[key]!r} with support {_supports(entry)[0]}"
                yield f"{here}.{key}: {found}, expected support {IMPORTED}"
        return
    if len(_supports(entry)) > 1:
        yield f"{here}.support: found {_supports(entry)}, expected {IMPORTED} alone"
    for key in _NOT_ASKED:
        if key in entry:
            why = "its files say its sizes, and it is not trained"
            yield f"{here}.{key}: found {entry[key]!r} with support {IMPORTED}, expected no such key: {why}"
    missing = [key for key in _OWN if key not in entry]
    yield from (f"{here}.{key}: missing, expected it with support {IMPORTED}" for key in missing)
    earlier = {str(one.get("name")).casefold() for one in entries[:index] if imports(one)}
    if "name" in entry and entry["name"].casefold() in earlier:
        yield f"{here}.name: found {entry['name']!r} again, expected another name"
    if not missing:
        try:
            read(entry["name"], entry["path"])
        except UserError as error:
            yield f"{here}.path: {error}"


def _supports(entry: dict[str, Any]) -> list[Any]:
    return entry["support"] if isinstance(entry["support"], list) else [entry["support"]]
