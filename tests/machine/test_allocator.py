"""What a process does with memory that it frees, seen from its count of page faults."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

_PROGRAM = """
import resource
import sys
import numpy as np
from expander_sae.machine.allocator import keep_freed_memory

if sys.argv[1] == "kept" and not keep_freed_memory():
    sys.exit(3)

def step():
    parts = [np.ones(1 << 18) for _ in range(6)]

for _ in range(5):
    step()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    step()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(how: str) -> int:
    run = subprocess.run([sys.executable, "-c", _PROGRAM, how], capture_output=True, text=True, check=False)
    if run.returncode == 3 and platform.libc_ver()[0] != "glibc":
        pytest.skip("the C library has no mallopt")
    assert run.returncode == 0, run.stderr
    return int(run.stdout)


def test_a_repeated_step_gets_its_memory_back_without_new_pages() -> None:
    pages = 20 * 6 * (1 << 18) * 8 // 4096
    assert faults("kept") < pages // 100
