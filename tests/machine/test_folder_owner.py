"""One run in a folder at a time: real processes, killed for real."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from expander_sae.errors import UserError
from expander_sae.machine import folder_owner
from expander_sae.machine.folder_owner import VARIABLE, Owner
from tests.workflow.planning import ROOT, snakemake
from tests.workflow.test_plan import CONFIG

# A run of the workflow, as far as its folder is concerned: takes it and works until it is told to end.
HOLDER = """
import sys
from expander_sae.machine import folder_owner
from expander_sae.errors import reported_to_user
with reported_to_user():
    folder_owner.take(lambda: print("unlocked", flush=True))
print("taken", folder_owner.Owner.this_process().name, flush=True)
sys.stdin.readline()
"""
IDLE = [sys.executable, "-c", "import sys; print('works', flush=True); sys.stdin.readline()"]


@pytest.fixture
def start(tmp_path):
    """Starts a process in the test's folder; all are ended with the test."""
    started = []

    def start(command, **environment):
        pipe = subprocess.PIPE
        process = subprocess.Popen(
            command,
            stdin=pipe,
            stdout=pipe,
            stderr=pipe,
            text=True,
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def holder(start):
    process = start([sys.executable, "-c", HOLDER])
    return process, process.stdout.readline().strip()


def lock(folder):
    """What a snakemake leaves that is killed."""
    path = folder / ".snakemake/locks/0.input.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("results/metrics.parquet\n")


def records(folder):
    """What the processes on record have in their files."""
    found = (folder / folder_owner.RECORDS).glob("*.json")
    return {record["pid"]: record for record in (json.loads(path.read_text()) for path in found)}


def put(folder, **record):
    """A record, as another process would have left it."""
    path = folder / Owner(**record).record
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(record))
    return path


def take(folder):
    """Whether the lock was removed on the way."""
    unlocked = []
    folder_owner.take(lambda: unlocked.append(True), folder)
    return bool(unlocked)


def test_a_second_run_stops_and_names_the_first(start, tmp_path):
    first, word = holder(start)
    assert word.startswith("taken")
    second, word = holder(start)
    assert word == "" and second.wait() == 2
    message = second.stderr.read()
    assert "in use by a run of the workflow since 20" in message and f"process {first.pid};" in message
    assert f"kill {first.pid}" in message and "Traceback" not in message
    first.communicate("end\n")
    assert not take(tmp_path), "a run that ended leaves nothing to unlock"


def test_a_killed_run_is_unlocked_and_only_then(start, tmp_path):
    first, _ = holder(start)
    lock(tmp_path)
    with pytest.raises(UserError, match=f"process {first.pid}"):
        take(tmp_path)
    first.kill()
    first.wait()
    assert take(tmp_path)


def test_a_zombie_owns_nothing(start, tmp_path):
    first, _ = holder(start)
    lock(tmp_path)
    first.kill()
    os.waitid(os.P_PID, first.pid, os.WEXITED | os.WNOWAIT)
    assert take(tmp_path)


def test_jobs_that_outlive_a_killed_run_keep_the_folder(start, tmp_path):
    first, word = holder(start)
    job = start(IDLE, **{VARIABLE: word.removeprefix("taken ")})
    assert job.stdout.readline() == "works\n"  # before, its environment may not be there yet
    lock(tmp_path)
    first.kill()
    first.wait()
    with pytest.raises(UserError, match=rf"its jobs still work: {job.pid} \("):
        take(tmp_path)
    job.communicate("end\n")
    assert take(tmp_path)


def test_another_process_with_the_number_of_a_dead_one_is_not_the_owner(start, tmp_path):
    other = start(IDLE)
    put(tmp_path, host=Owner.this_process().host, pid=other.pid, created=1.0, began="long ago")
    lock(tmp_path)
    assert take(tmp_path)


def test_a_run_on_another_machine_is_left_alone_while_it_holds_the_lock(tmp_path):
    record = put(tmp_path, host="node17", pid=os.getpid(), created=1.0, began="2026-01-02 03:04:05")
    lock(tmp_path)
    with pytest.raises(UserError, match=r"on the machine node17, .* `snakemake --unlock`"):
        take(tmp_path)
    (tmp_path / ".snakemake/locks/0.input.lock").unlink()
    assert not take(tmp_path)
    assert record.exists(), "nobody here knows whether it is gone"


def test_a_foreign_run_beside_a_dead_one_of_this_machine_keeps_the_lock(start, tmp_path):
    first, _ = holder(start)
    put(tmp_path, host="node17", pid=1, created=1.0, began="2026-01-02 03:04:05")
    lock(tmp_path)
    first.kill()
    first.wait()
    with pytest.raises(UserError, match="on the machine node17"):
        take(tmp_path)


@pytest.mark.parametrize("record", [None, "", "{}", '{"host": 1}', "\x00"])
def test_a_lock_of_nobody_is_not_removed(tmp_path, record):
    lock(tmp_path)
    if record is not None:
        (tmp_path / folder_owner.RECORDS).mkdir(parents=True)
        (tmp_path / folder_owner.RECORDS / "node17-1.json").write_text(record)
    with pytest.raises(UserError, match=r"found a (lock without an owner|record that cannot be read)"):
        take(tmp_path)


def test_of_runs_that_start_at_once_one_gets_the_folder(start):
    processes = [start([sys.executable, "-c", HOLDER]) for _ in range(4)]
    words = [process.stdout.readline() for process in processes]
    assert sum(word.startswith("taken") for word in words) == 1


BESIDE = """
import sys
from expander_sae.machine import folder_owner
folder_owner.write()
print("beside", flush=True)
sys.stdin.readline()
folder_owner.remove()
"""


def test_a_run_that_joined_another_keeps_the_folder_when_that_one_dies(start, tmp_path):
    """As `snakemake` by hand does, for files that the first does not make."""
    first, _ = holder(start)
    second = start([sys.executable, "-c", BESIDE])
    assert second.stdout.readline() == "beside\n"
    assert set(records(tmp_path)) == {first.pid, second.pid}
    lock(tmp_path)
    first.kill()
    first.wait()
    with pytest.raises(UserError, match=f"process {second.pid}; wait for it"):
        take(tmp_path)
    second.communicate("end\n")
    assert set(records(tmp_path)) == {first.pid}, "one that ends in good order takes itself off"
    assert take(tmp_path)
    assert set(records(tmp_path)) == {os.getpid()}


def test_a_run_with_jobs_left_stays_on_record(start, tmp_path):
    job = start(IDLE, **{VARIABLE: Owner.this_process().name})
    folder_owner.write(tmp_path)
    folder_owner.remove(tmp_path)
    assert set(records(tmp_path)) == {os.getpid()}
    job.communicate("end\n")
    folder_owner.remove(tmp_path)
    assert not records(tmp_path)


def test_without_psutil_a_message_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "psutil", None)
    with pytest.raises(UserError, match=r"psutil: not installed, .*expander-sae\[workflow\]"):
        folder_owner.write(tmp_path)


def test_snakemake_is_on_record_before_it_locks_and_not_after_it_ends(tmp_path):
    """What an input function sees, which Snakemake calls before it locks; a dry run leaves nothing."""
    snakefile = tmp_path / "Snakefile"
    snakefile.write_text(
        f"include: {str(ROOT / 'Snakefile')!r}\n\n\n"
        "def seen(wildcards):\n"
        "    found = [p.name for p in Path('.snakemake/owners').glob('*.json')]\n"
        "    locks = list(Path('.snakemake/locks').glob('*'))\n"
        "    print('SEEN', len(found), str(os.getpid()) in ''.join(found), len(locks), file=sys.stderr)\n"
        "    return []\n\n\n"
        "rule probe:\n    input: seen\n    output: 'probe.txt'\n    shell: 'touch {output}'\n"
    )
    dry = snakemake(tmp_path, CONFIG, "--dry-run", "--", "probe.txt", snakefile=snakefile)
    assert dry.returncode == 0, dry.stderr
    assert "SEEN 0 False 0" in dry.stderr and not records(tmp_path)
    done = snakemake(tmp_path, CONFIG, "--", "probe.txt", snakefile=snakefile)
    assert done.returncode == 0, done.stderr
    assert "SEEN 1 True 0" in done.stderr
    assert (tmp_path / "probe.txt").exists() and not records(tmp_path)


@pytest.mark.slow
def test_the_workflow_after_sigkill(tmp_path):
    """A second start is told who works here; after the first is killed, the next unlocks and ends."""
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(CONFIG))
    target = "results/masks/expander_m576_n1152_d7_seed0.json"
    command = [sys.executable, str(ROOT / "workflow/start.py"), "--cores", "1", target]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with open(tmp_path / "first.log", "wb") as log:
        first = subprocess.Popen(
            command, cwd=tmp_path, env=environment, stdout=log, stderr=log, start_new_session=True
        )
    try:
        while first.poll() is None and not any(tmp_path.glob(".snakemake/locks/*")):
            time.sleep(0.01)
        assert first.poll() is None, (tmp_path / "first.log").read_text()
        first.send_signal(signal.SIGSTOP)
        second = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert second.returncode == 2
        assert f"process {first.pid}; wait for it or end it" in second.stderr
    finally:
        os.killpg(first.pid, signal.SIGKILL)
        first.wait()
    assert any(tmp_path.glob(".snakemake/locks/*"))
    third = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert third.returncode == 0, third.stdout + third.stderr
    assert f"(process {first.pid}) is gone" in third.stderr
    assert (tmp_path / target).exists() and not any(tmp_path.glob(".snakemake/locks/*"))


def test_what_is_wrong_with_the_command_line_is_said_at_once(tmp_path):
    for options, message in (
        (["--configfile", "none.yaml"], "none.yaml: no such configuration file"),
        (["--configfile", str(ROOT / "config.yaml"), "--profile", "none"], "none: found no profile"),
    ):
        done = subprocess.run(
            [sys.executable, str(ROOT / "workflow/start.py"), *options],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 2 and f"error: {message}" in done.stderr
    assert not Path(tmp_path / ".snakemake").exists()
