"""How the C library's allocator treats memory that a process frees."""

from __future__ import annotations

import ctypes

_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
_LARGEST_KEPT = 32 << 20


def keep_freed_memory(megabytes: int = 128) -> bool:
    """Let this process keep this much of what it frees instead of handing it back; False where it cannot.

    For processes that repeat one step: a training step at m = 2048, n = 4608 otherwise gets 9 MB of its
    temporaries as 2,200 fresh pages, each filled with zeros by the kernel, a third of its time; of a forward
    pass of a language model it is a seventh. glibc only; results do not depend on it.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):
        return False
    # glibc takes no larger threshold than 32 MB for blocks that are mapped one by one.
    kept = bool(mallopt(_M_MMAP_THRESHOLD, _LARGEST_KEPT))
    return kept and bool(mallopt(_M_TRIM_THRESHOLD, megabytes << 20))
