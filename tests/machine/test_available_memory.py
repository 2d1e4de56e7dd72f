"""What counts as available memory."""

import subprocess
import sys
from pathlib import Path

import pytest

from expander_sae.errors import UserError
from expander_sae.machine import available_memory

ROOT = Path(__file__).resolve().parents[2]


def machine(root, available_mb, cgroup="0::/\n", **files):
    """A made-up /proc and /sys below `root`."""
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/meminfo").write_text(
        f"MemTotal: 99999999 kB\nMemAvailable: {available_mb * 1_000_000 // 1024} kB\n"
    )
    (root / "proc/self/cgroup").write_text(cgroup)
    for name, text in files.items():
        path = root / "sys/fs/cgroup" / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def test_without_a_limit_the_machine_decides(tmp_path):
    assert available_memory.available_mb(machine(tmp_path, 5000)) == pytest.approx(5000, abs=1)


def test_the_narrowest_group_above_the_process_decides_and_its_caches_are_free(tmp_path):
    files = {
        "memory.max": "max\n",
        "a__memory.max": "3000000000\n",
        "a__memory.current": "2500000000\n",
        "a__memory.stat": "anon 1\ninactive_file 500000000\nactive_file 200000000\n"
        "slab_reclaimable 50000000\nslab_unreclaimable 7\n",
        "a__b__memory.max": "4000000000\n",
        "a__b__memory.current": "100\n",
    }
    root = machine(tmp_path, 9000, "0::/a/b\n", **files)
    assert available_memory.available_mb(root) == pytest.approx(1250, abs=1)


def test_the_older_interface(tmp_path):
    files = {
        "memory__job__memory.limit_in_bytes": "2000000000\n",
        "memory__job__memory.usage_in_bytes": "600000000\n",
        "memory__job__memory.stat": "total_inactive_file 100000000\ntotal_active_file 50000000\n",
    }
    root = machine(tmp_path, 9000, "3:cpu,cpuacct:/job\n7:memory:/job\n", **files)
    assert available_memory.available_mb(root) == pytest.approx(1550, abs=1)


def test_a_container_sees_its_own_root_only(tmp_path):
    files = {"memory.max": "2000000000\n", "memory.current": "500000000\n"}
    root = machine(tmp_path, 9000, "0::/../../docker/abc\n", **files)
    assert available_memory.available_mb(root) == pytest.approx(1500, abs=1)


def test_a_job_that_does_not_fit_says_by_how_much(tmp_path, monkeypatch):
    root = machine(tmp_path, 5000)
    available_memory.require(4990, root)
    with pytest.raises(UserError, match=r"needs about 7,500 MB, found 5,000 MB available: 2,500 MB short"):
        available_memory.require(7500, root)
    monkeypatch.setenv(available_memory.IGNORE, "1")
    available_memory.require(7500, root)


def test_where_nothing_is_known_nothing_is_refused(tmp_path):
    assert available_memory.available_mb(tmp_path) is None
    available_memory.require(1e12, tmp_path)


def test_this_machine_has_memory():
    free = available_memory.available_mb()
    assert free is None or free > 0


def test_a_script_stops_before_its_work_begins(tmp_path):
    """The message reaches the terminal, the log and the exit code; nothing is written."""
    script = ROOT / "workflow/scripts/mask.py"
    log, out = tmp_path / "mask.log", tmp_path / "mask.json"
    spec = '{"family":"expander","m":16,"n":32,"d":3,"seed":0}'
    command = [sys.executable, str(script), "--log", str(log), "--spec", spec, "--out", str(out)]
    done = subprocess.run([*command, "--memory", "1e9"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "error: memory: this job needs about 1,000,000,000 MB" in done.stderr
    assert "Traceback" not in done.stderr + log.read_text() and not out.exists()
    assert subprocess.run([*command, "--memory", "1"], capture_output=True, check=False).returncode == 0
    assert out.exists()
