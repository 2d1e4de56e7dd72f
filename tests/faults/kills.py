"""SIGKILL at random moments, then the same job again: no file lost, every final byte the same."""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import time
from pathlib import Path

from tests.faults.processes import Ended
from tests.faults.tally import Tally
from tests.faults.tiny_study import ENVIRONMENT, FINAL, ROOT, TinyStudy, differences, snakemake, snapshot


def undisturbed(study: TinyStudy, folder: Path) -> tuple[dict[str, str], list[Ended]]:
    """(sha256 of every result, how each job ended) of a run that nothing disturbs."""
    folder.mkdir(parents=True)
    ended = study.run_all(folder)
    if ended[-1].code:
        raise RuntimeError(f"{study.jobs[len(ended) - 1].stage}: {ended[-1].output}")
    return snapshot(folder), ended


def kill_jobs(
    study: TinyStudy,
    scratch: Path,
    expected: dict[str, str],
    times: list[Ended],
    kills: int,
    draw: random.Random,
) -> Tally:
    """At least `kills` kills of single jobs: half at a random time, half at a random file event."""
    tally = Tally("kills of jobs")
    turn = 0
    while tally.tried < kills:
        folder = scratch / f"kills-{turn}"
        folder.mkdir()
        turn += 1
        for job, usual in zip(study.jobs, times, strict=True):
            for _ in range(draw.randint(1, 3)):
                if draw.random() < 0.5:
                    ended = study.run(job, folder, kill_after=draw.uniform(0.0, usual.seconds))
                else:
                    ended = study.run(job, folder, kill_at_event=draw.randint(1, max(usual.events, 1)))
                if ended.killed:
                    tally.fault(True)
                elif ended.code:
                    tally.fault(False, f"{job.stage} ended with {ended.code}: {ended.output[-500:]}")
            ended = study.run(job, folder)
            if ended.code:
                tally.fault(False, f"{job.stage} again: {ended.code} {ended.output[-500:]}")
                break
        tally.result(*differences(expected, snapshot(folder)))
        shutil.rmtree(folder)
    return tally


def kill_workflow(
    study: TinyStudy, scratch: Path, expected: dict[str, str], kills: int, draw: random.Random
) -> Tally:
    """Kill snakemake and its jobs together at random moments, and start it again until it ends."""
    tally = Tally("kills of the workflow")
    folder = scratch / "workflow"
    folder.mkdir()
    shutil.copy(study.folder / "study.yaml", folder)
    environment = {**os.environ, **ENVIRONMENT, "PYTHONPATH": str(ROOT)}
    command = snakemake(folder, "--nolock", "--quiet", "all", "--", *FINAL)
    deadline = time.monotonic() + 1200
    while True:
        with open(folder / "output", "wb") as output:
            process = subprocess.Popen(
                command, stdout=output, stderr=output, env=environment, cwd=folder, start_new_session=True
            )
            try:
                limit = draw.uniform(5, 25) if tally.tried < kills else deadline - time.monotonic()
                process.wait(limit)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        text = (folder / "output").read_text(errors="replace")
        if process.returncode == -signal.SIGKILL and time.monotonic() < deadline:
            tally.fault(True)
            continue
        if process.returncode:
            tally.fault(False, f"snakemake ended with {process.returncode}: {text[-1500:]}")
        break
    found = {name: sha for name, sha in snapshot(folder).items() if name in FINAL}
    tally.result(*differences({name: expected[name] for name in FINAL}, found))
    shutil.rmtree(folder)
    return tally
