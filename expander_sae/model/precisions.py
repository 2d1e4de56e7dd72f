"""The precisions in which a weights file can hold values. No torch: configurations are checked with them."""

from __future__ import annotations

from dataclasses import dataclass

from expander_sae.errors import UserError


@dataclass(frozen=True)
class Precision:
    """How a value is stored.

    Args:
        name: in files and, with `TRAINED` behind it where training itself rounded, in tables and paths.
        bits: of one value.
        levels: how many values an entry can have, times a step of its column; 0: a floating-point number. An
            odd number of them has 0 in its middle, and so −1, 0, 1 and so on; an even one has none, and so
            …, −3, −1, 1, 3, …, which is closer to bell-shaped entries by a whole level.
    """

    name: str
    bits: int
    levels: int = 0

    @property
    def top(self) -> int:
        """The largest level; the smallest is minus that."""
        return self.levels // 2 if self.levels % 2 else self.levels - 1


FLOAT32 = "float32"

PRECISIONS: dict[str, Precision] = {
    one.name: one
    for one in (
        Precision(FLOAT32, 32),
        Precision("bfloat16", 16),
        Precision("int8", 8, levels=255),
        Precision("int4", 4, levels=16),
        Precision("int2", 2, levels=4),
        Precision("int1", 1, levels=2),
    )
}
"""Name → how a file of that precision holds values, the widest first."""

TRAINED = "_trained"
"""Behind the precision of a run that was trained in it, and not rounded afterwards."""

RUN_PRECISIONS = (*PRECISIONS, *(f"{name}{TRAINED}" for name in ("int4", "int2", "int1")))
"""What the column `precision` of a run can say."""


def precision_of(name: str) -> Precision:
    """The precision of this name; `UserError` where there is none."""
    if name not in PRECISIONS:
        raise UserError(f"precision: found {name!r}, expected one of {', '.join(PRECISIONS)}")
    return PRECISIONS[name]


def is_trained(name: str) -> bool:
    """Whether a run of this precision is trained in it."""
    return name == FLOAT32 or name.endswith(TRAINED)


def stored_as(name: str) -> str:
    """The precision of the weights file of a run of this precision."""
    return name.removesuffix(TRAINED)
