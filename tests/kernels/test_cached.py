"""A process that compiles the numba kernels, and one that loads them from the cache, round alike."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("numba", reason="the numba extra is not installed")

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_the_process_that_compiles_and_one_that_loads_agree(tmp_path: Path) -> None:
    environment = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "tests.kernels.digests"]

    def digests() -> tuple[list[str], set[Path]]:
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
        return done.stdout.splitlines(), set(tmp_path.rglob("*.nbc"))

    compiled, cached = digests()
    loaded, after = digests()
    assert cached == after != set()  # the second process compiled nothing
    assert compiled == loaded != []
