"""Refuse what cannot be written before anything is read, and not after hours of work."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
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
    """Every output is a file of its own that can be written, and none of what is read.

    Args:
        outputs: option (without dashes) → file.
        inputs: what it is → file or folder.
        suffixes: those that an option's file may have.
        streams: options whose file is written to and not replaced, so that it may be a pipe or /dev/stderr.

    Raises:
        UserError: naming the option, the file and what is wrong with it.
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
    """The folder can be made and written to, and nothing is read from it.

    Raises:
        UserError: naming the option, the folder and what is wrong with it.
    """
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
        if path.is_dir():
            native = path / "weights.safetensors"
            if what == WEIGHTS:
                parts = [native] if native.is_file() else [*path.iterdir()]
            else:
                parts = [*path.glob("*.parquet")]
        else:
            # Beside a pool's manifest lie its activations and tokens.
            parts = [*path.parent.glob(f"{path.stem}.*")] if path.suffix == ".json" else []
        yield from (
            (part.resolve(), f"a file of {what}") for part in parts if part.resolve() != path.resolve()
        )
