"""What a part of the campaign tried, and what came of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

_SHOWN = 5


@dataclass
class Tally:
    """Counts of one part.

    tried: faults; survived: those that ended as they should; compared, equal: final results held
    against an undisturbed run's, and those equal byte for byte; lost: files that were not there again.
    """

    part: str
    tried: int = 0
    survived: int = 0
    compared: int = 0
    equal: int = 0
    lost: int = 0
    skipped: str = ""
    seconds: float = 0.0
    failures: list[str] = field(default_factory=list)

    def fault(self, survived: bool, what: str = "") -> None:
        """Count a fault."""
        self.tried += 1
        self.survived += survived
        if not survived:
            self.failures.append(what)

    def result(self, wrong: Sequence[str], lost: Sequence[str] = ()) -> None:
        """Count a comparison; `wrong` and `lost` name the files that differ or are absent."""
        self.compared += 1
        self.equal += not wrong and not lost
        self.lost += len(lost)
        self.failures += [f"differs: {name}" for name in wrong] + [f"lost: {name}" for name in lost]

    @property
    def holds(self) -> bool:
        return self.survived == self.tried and self.equal == self.compared and not self.lost

    def as_dict(self) -> dict[str, Any]:
        return {**asdict(self), "failures": self.failures[:50], "holds": self.holds}


def table(tallies: Sequence[Tally]) -> str:
    """The tallies as text, with the first failures below."""
    head = ("part", "tried", "survived", "results equal", "files lost", "seconds")
    rows = [
        (
            tally.part,
            f"{tally.tried:,}" if not tally.skipped else "skipped",
            f"{tally.survived:,}" if not tally.skipped else "",
            f"{tally.equal:,} of {tally.compared:,}" if tally.compared else "",
            str(tally.lost) if tally.compared else "",
            f"{tally.seconds:.0f}",
        )
        for tally in tallies
    ]
    widths = [max(len(row[place]) for row in (head, *rows)) for place in range(len(head))]
    lines = [
        "  ".join(
            cell.ljust(width) if place == 0 else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in (head, *rows)
    ]
    for tally in tallies:
        if tally.skipped:
            lines.append(f"{tally.part}: skipped, {tally.skipped}")
        lines += [f"{tally.part}: FAILED {text}" for text in tally.failures[:_SHOWN]]
        if len(tally.failures) > _SHOWN:
            lines.append(f"{tally.part}: {len(tally.failures) - _SHOWN} more")
    return "\n".join(lines)
