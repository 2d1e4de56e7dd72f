"""Estimated peaks beside measured ones, and what counts as available."""

import subprocess
import sys
from pathlib import Path

import pytest

from expander_sae.cost.memory_estimate import Memory, asked_mb, asked_minutes
from expander_sae.errors import UserError
from expander_sae.machine import available_memory
from expander_sae.study.study import Study, load_config

ROOT = Path(__file__).resolve().parents[2]

# peak_mb of results/timings.parquet after the default run: CPU build of torch 2.13, Linux, 1 thread.
TRAINED = {
    ("dense", 240, 576): 642.2,
    ("dense", 800, 576): 658.6,
    ("expander", 4608, 7): 760.5,
    ("expander", 4608, 30): 812.8,
    ("bernoulli", 4608, 100): 788.1,
    ("dense", 4608, 576): 774.2,
}
EVALUATED = {("expander", 4608, 7): 1552.1, ("expander", 4608, 30): 1579.3, ("dense", 4608, 576): 1461.6}


@pytest.fixture(scope="module")
def study():
    return Study(load_config(ROOT / "config.yaml"))


def runs(study):
    return {(run.support, run.n, run.d): run for run in study.runs}


def test_estimates_are_near_what_the_default_run_took(study):
    memory, found, model = Memory(study), runs(study), next(iter(study.models.values()))
    for key, peak in TRAINED.items():
        assert 0.9 < memory.training(found[key]) / peak < 1.25, key
    for key, peak in EVALUATED.items():
        assert 0.9 < memory.evaluation(found[key]) / peak < 1.25, key
    assert memory.extraction(model) == pytest.approx(1016.6, rel=0.1)
    assert memory.pool(model, 122_880) == pytest.approx(299.3, rel=0.1)
    assert memory.model(model) == pytest.approx(1595.0, rel=0.1)
    assert memory.corpus(17 * 8192) == pytest.approx(510.3, rel=0.2)
    assert memory.mask(4608, 100) == pytest.approx(169.9, rel=0.2)


def test_every_request_is_above_what_was_measured(study):
    memory, found = Memory(study), runs(study)
    assert all(asked_mb(memory.training(found[key])) > peak for key, peak in TRAINED.items())
    assert all(asked_mb(memory.evaluation(found[key])) > peak for key, peak in EVALUATED.items())


def test_requests_grow_with_the_attempt():
    assert asked_mb(1000) == 1450
    assert [asked_mb(1000, attempt) for attempt in (2, 3)] == [2900, 4350]
    assert asked_minutes(600, 30) == 60
    assert asked_minutes(600, 30, attempt=2) == 120


def test_more_values_take_more_memory(study):
    """An encoder of its own, and a support that begins dense, cost gradients and moments too."""
    base = {
        "models": [{"name": "smollm2-135m-instruct", "layers": [15]}],
        "grid": {"n": 4608, "d": [30], "k": [64], "seeds": [0]},
    }
    dense = Study(load_config({**base, "runs": [{"support": "dense", "encoder": ["tied", "independent"]}]}))
    tied, free = (Memory(dense).training(run) for run in dense.runs)
    assert free - tied == pytest.approx(6 * 4 * 4608 * 576 / 1e6)
    assert Memory(dense, gpu=True).training(dense.runs[0]) > tied


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


def test_estimating_imports_no_torch():
    code = (
        "import sys\nimport expander_sae.cost.memory_estimate, expander_sae.machine.available_memory\n"
        "assert not {'torch', 'numpy', 'pandas'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
