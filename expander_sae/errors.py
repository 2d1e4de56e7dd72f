"""The one exception that means: the user can mend this."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager


class UserError(Exception):
    """Bad input. The message names the key or file, what was found and what was expected."""


@contextmanager
def reported_to_user() -> Iterator[None]:
    """Turn a `UserError`, a full or forbidden disk, and too little memory, into one line and exit code 2."""
    try:
        yield
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    except OSError as error:
        if error.filename is None and error.errno is None:
            raise
        where = f"{error.filename}: " if error.filename else ""
        print(f"error: {where}{error.strerror or error}", file=sys.stderr)
        raise SystemExit(2) from None
    except (MemoryError, RuntimeError) as error:
        if not out_of_memory(error):
            raise
        first = " ".join(str(error).split())[:200]
        print(f"error: too little memory ({first or 'no more was given'})", file=sys.stderr)
        raise SystemExit(2) from None


def out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out, as Python, numpy or torch say it, on a CPU or a GPU."""
    return (
        isinstance(error, MemoryError)
        or type(error).__name__ == "OutOfMemoryError"
        or "DefaultCPUAllocator: can't allocate memory" in str(error)
        or "DefaultCPUAllocator: not enough memory" in str(error)
    )
