"""Refuse what cannot be written before anything is read, and not after hours of work."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from glob import escape
from pathlib import Path

from expander_sae.errors import UserError
from expander_sae.storage.files import check_writable

WEIGHTS, ACTIVATIONS = "the weights", "the activations"


def check_files(
    outputs: Mapping[str, Path | None],
    inputs: Mapping[str, Path | None],
    suffixes: Mapping[str, tuple[str, ...]] | None = None,
    streams: tuple[str, ...] = (),
) -> None:
    """Every output, by its option without dashes, is a file of its own that can be written; none is an input.

    An input is a file or a folder, by what it is. An option's file has one of its `suffixes`. Those of
    `streams` are written to and not replaced, so that they may be a pipe or /dev/stderr.
    """
    taken = dict(_read(inputs))
    for option, path in outputs.items():
        if path is None:
            continue
        allowed = (suffixes or {}).get(option)
        if allowed is not None and path.suffix not in allowed:
            raise UserError(f"--{option}: suffix {path.suffix!r}, expected {' or '.join(allowed)}")
        if (other := taken.setdefault(path.resolve(), f"--{option}")) != f"--{option}":
            raise UserError(f"--{option}: found {path}, which is {other}; expected a file of its own")
        if option not in streams or path.is_dir() or not path.exists():
            check_writable(path)


def check_folder(option: str, folder: Path, inputs: Mapping[str, Path | None]) -> None:
    """The folder can be made and written to, and nothing is read from it."""
    if folder.exists() and not folder.is_dir():
        raise UserError(f"--{option}: found {folder}, which is a file; expected a folder to write")
    for what, path in inputs.items():
        if path is not None and path.is_dir() and path.resolve() == folder.resolve():
            raise UserError(f"--{option}: found {folder}, which has {what}; expected a folder of its own")
    # Where it is missing only the place is tried, so that a command that fails leaves no empty folder.
    check_writable(folder / "new" if folder.is_dir() else folder)


def _read(inputs: Mapping[str, Path | None]) -> Iterator[tuple[Path, str]]:
    """(file, what it is) of all that is read."""
    for what, path in inputs.items():
        if path is None:
            continue
        yield path.resolve(), what
        parts: Iterable[Path] = ()
        if path.suffix == ".json" and not path.is_dir():
            parts = path.parent.glob(
                f"{escape(path.stem)}.*"
            )  # beside a pool's manifest: its activations and tokens
        elif what == WEIGHTS:
            parts = path.glob("weights.safetensors" if (path / "weights.safetensors").is_file() else "*")
        else:
            parts = path.glob("*.parquet")
        whole = path.resolve()
        yield from ((part.resolve(), f"a file of {what}") for part in parts if part.resolve() != whole)
