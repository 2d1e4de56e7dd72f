"""The one exception that means: the user can mend this."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager


class UserError(Exception):
    """Bad input. The message names the key or file, what was found and what was expected."""


def explained(error: BaseException) -> str | None:
    """What to tell the user of an error that is theirs to mend; None where it is a defect.

    Theirs are a `UserError`, a full or forbidden disk, and too little memory.
    """
    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, OSError) and not (error.filename is None and error.errno is None):
        where = f"{error.filename}: " if error.filename else ""
        return f"{where}{error.strerror or error}"
    if out_of_memory(error):
        return f"too little memory ({' '.join(str(error).split())[:200] or 'no more was given'})"
    return None


def first_line(error: BaseException) -> str:
    """An error of another library in one line: its kind, and the first line of what it says.

    Where that is a heading, which ends in a colon, the line after it too.
    """
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    said = lines[: 2 if lines and lines[0].endswith(":") else 1]
    return " ".join([f"{type(error).__name__}:", *said]) if said else type(error).__name__


@contextmanager
def readable(file: object, what: str, *errors: type[Exception]) -> Iterator[None]:
    """A missing file, or one that is not `what` (OSError and `errors` tell that), as a `UserError`."""
    known: tuple[type[Exception], ...] = (OSError, *errors)
    try:
        yield
    except FileNotFoundError:
        raise UserError(f"{file}: no such file") from None
    except known as error:
        raise UserError(f"{file}: not {what} ({first_line(error)})") from None


@contextmanager
def as_user_error(what: str) -> Iterator[None]:
    """Any error of another library as a `UserError` that says `what` failed, but for too little memory."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        if out_of_memory(error):
            raise
        raise UserError(f"{what} ({first_line(error)})") from None


@contextmanager
def reported_to_user() -> Iterator[None]:
    """Turn an error that the user can mend into one line on stderr and exit code 2."""
    try:
        yield
    except Exception as error:
        message = explained(error)
        if message is None:
            raise
        print(f"error: {message}", file=sys.stderr)
        raise SystemExit(2) from None


def out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out, as Python, numpy or torch say it, on a CPU or a GPU."""
    return (
        isinstance(error, MemoryError)
        or type(error).__name__ == "OutOfMemoryError"
        or "DefaultCPUAllocator: can't allocate memory" in str(error)
        or "DefaultCPUAllocator: not enough memory" in str(error)
    )
