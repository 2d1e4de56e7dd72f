"""What memory this process may still take, and refusing a job that needs more. Imports no torch."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from expander_sae.errors import UserError

IGNORE = "EXPANDER_SAE_IGNORE_MEMORY"
"""An environment variable: set to 1, no job is refused for its memory."""

_MB = 1e6

# Limit, use, and what of the use the kernel frees before it refuses anything: cached files, read again
# or not (both lists are reclaimed), and kernel caches. Tmpfs and anonymous memory are in none of them.
_V1 = ("memory.limit_in_bytes", "memory.usage_in_bytes", ("total_inactive_file", "total_active_file"))
_V2 = ("memory.max", "memory.current", ("inactive_file", "active_file", "slab_reclaimable"))


def available_mb(root: Path = Path("/")) -> float | None:
    """Megabytes that can be taken before the machine, or a control group of this process, is full.

    What the kernel can free at once (caches) counts as free. None where neither says, as on macOS. Below
    `root` lie proc/ and sys/.
    """
    free = (_machine(root), *_groups(root))
    return min((value for value in free if value is not None), default=None)


def require(needed_mb: float, root: Path = Path("/")) -> None:
    """Raise `UserError` where a job of so many megabytes would not fit, saying by how much."""
    if os.environ.get(IGNORE) == "1":
        return
    free = available_mb(root)
    if free is not None and needed_mb > free:
        raise UserError(
            f"memory: this job needs about {needed_mb:,.0f} MB, found {free:,.0f} MB available: "
            f"{needed_mb - free:,.0f} MB short. Stop other programs, take a larger machine or ask the "
            f"scheduler for more, or make the job smaller (docs/cluster.md); {IGNORE}=1 tries all the same"
        )


def _machine(root: Path) -> float | None:
    for line in _lines(root / "proc/meminfo"):
        name, _, value = line.partition(":")
        if name == "MemAvailable":
            return int(value.split()[0]) * 1024 / _MB
    return None


def _groups(root: Path) -> Iterator[float | None]:
    """What each control group above this process leaves, of both versions of the interface."""
    for line in _lines(root / "proc/self/cgroup"):
        _, kinds, path = line.split(":", 2)
        if kinds and "memory" not in kinds.split(","):
            continue
        mount = root / ("sys/fs/cgroup/memory" if kinds else "sys/fs/cgroup")
        limit, used, freed = _V1 if kinds else _V2
        # In a container the path can be that of the host, of which only the root is to be seen.
        group = mount / path.lstrip("/")
        for folder in (group, *group.parents):
            yield _left(folder / limit, folder / used, folder / "memory.stat", freed)
            if folder == mount:
                break


def _left(limit: Path, used: Path, statistics: Path, freed: tuple[str, ...]) -> float | None:
    most, taken = _number(limit), _number(used)
    if most is None or taken is None:
        return None
    for line in _lines(statistics):
        name, _, value = line.partition(" ")
        if name in freed:
            taken -= int(value)
    return (most - max(taken, 0)) / _MB


def _number(path: Path) -> int | None:
    """The number in a file; None where there is none, `max` for instance."""
    text = "".join(_lines(path)).strip()
    return int(text) if text.isdigit() else None


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
