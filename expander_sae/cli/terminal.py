"""What a command prints: one JSON value on stdout, or lines for a person."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterable, Sequence
from typing import Any


class Terminal:
    """Results go to stdout, remarks and progress to stderr."""

    def __init__(self, as_json: bool = False) -> None:
        self.as_json = as_json

    def result(self, record: dict[str, Any], lines: Iterable[str]) -> None:
        """Print `record` as JSON where that was asked for, otherwise the lines."""
        if self.as_json:
            # JSON can spell what an encoding lacks; a person is shown a question mark.
            lacking = (sys.stdout.encoding or "").lower().replace("-", "") != "utf8"
            print(json.dumps(finite(record), indent=2, ensure_ascii=lacking))
        else:
            for line in lines:
                print(line)

    def remark(self, line: str) -> None:
        """Tell the user something that is no result."""
        print(line, file=sys.stderr, flush=True)


def finite(value: Any) -> Any:
    """The value with NaN and infinities, which JSON lacks, as null."""
    if isinstance(value, dict):
        return {key: finite(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [finite(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def number(value: Any) -> str:
    """A value as a person reads it: thousands separated, four significant digits."""
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, str):
        return value
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:,.0f}" if abs(value) >= 1e4 else f"{value:.4g}"


def pairs(rows: Sequence[tuple[str, Any]]) -> list[str]:
    """Aligned lines `name  value`."""
    width = max((len(name) for name, _ in rows), default=0)
    return [f"{name:<{width}}  {number(value)}" for name, value in rows]


def table(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> list[str]:
    """Aligned columns, the first to the left and the others to the right."""
    cells = [list(header), *([number(value) for value in row] for row in rows)]
    first, *others = (max(map(len, column)) for column in zip(*cells, strict=True))
    return ["  ".join([row[0].ljust(first), *map(str.rjust, row[1:], others)]).rstrip() for row in cells]
