"""``python -m tests.faults [--quick] [--seed N] [--json FILE] [--only PART …]``: the fault campaign.

Prints what was tried, survived and lost; exit code 0 only if nothing was lost, every result equals the
undisturbed run's, and every fault ended as it should. No network is used.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from expander_sae.machine.device import set_threads

set_threads(1)
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

from tests.faults import (  # noqa: E402
    commands,
    corruption,
    disks,
    inputs,
    kills,
    models,
    network,
    odd_arrays,
    odd_corpora,
    odd_paths,
    processes,
    security,
)
from tests.faults.tally import Tally, table  # noqa: E402
from tests.faults.tiny_study import TinyStudy  # noqa: E402

AMOUNTS: dict[str, dict[str, int]] = {
    "full": {
        "kills": 220,
        "workflow_kills": 5,
        "positions": 4000,
        "damaged": 12,
        "disks": 8,
        "configs": 4000,
        "files": 2000,
        "odd": 2000,
        "commands": 520,
        "folders": 5,
        "models": 1200,
    },
    "quick": {
        "kills": 40,
        "workflow_kills": 1,
        "positions": 200,
        "damaged": 4,
        "disks": 3,
        "configs": 500,
        "files": 500,
        "odd": 500,
        "commands": 60,
        "folders": 3,
        "models": 300,
    },
    "slice": {
        "kills": 6,
        "workflow_kills": 0,
        "positions": 10,
        "damaged": 1,
        "disks": 1,
        "configs": 40,
        "files": 30,
        "odd": 100,
        "commands": 5,
        "folders": 1,
        "models": 20,
    },
}


class Campaign:
    """The parts over one tiny study, in a scratch folder."""

    def __init__(self, folder: Path, amounts: dict[str, int], seed: int) -> None:
        self.folder, self.amounts, self.seed = folder, amounts, seed
        self.study = TinyStudy(folder / "study")
        # Once to compile and warm up, once for the times and events that kills are drawn from.
        kills.undisturbed(self.study, folder / "warm")
        self.expected, self.times = kills.undisturbed(self.study, folder / "calm")
        shutil.rmtree(folder / "warm")
        self.calm = folder / "calm"

    def parts(self) -> dict[str, Callable[[], Tally]]:
        """Name → part."""
        study, calm, scratch, expected, n = self.study, self.calm, self.folder, self.expected, self.amounts

        def draw(name: str) -> random.Random:
            return random.Random(f"{self.seed}/{name}")

        def apart(part: str, work: Callable[[Path], dict[str, Any]]) -> Callable[[], Tally]:
            def run() -> Tally:
                here = scratch / "apart"
                shutil.copytree(calm, here)
                found = processes.isolated(lambda: work(here), here, 3600)
                shutil.rmtree(here)
                if found is None:
                    return Tally(part, 1, 0, failures=["the process died or hung"])
                return Tally(**{key: value for key, value in found.items() if key != "holds"})

            return run

        parts = {
            "kills": lambda: kills.kill_jobs(study, scratch, expected, self.times, n["kills"], draw("kills")),
            "workflow": lambda: kills.kill_workflow(
                study, scratch, expected, n["workflow_kills"], draw("workflow")
            ),
            "files": apart(
                "damaged files", lambda at: corruption.corrupt_files(at, n["positions"], self.seed)
            ),
            "results": lambda: corruption.corrupt_results(
                study, calm, scratch, expected, n["damaged"], draw("results")
            ),
            "disk": lambda: disks.fill_disk(study, calm, scratch, expected, n["disks"], draw("disk")),
            "permissions": lambda: disks.forbid(study, calm, scratch, expected),
            "network": lambda: network.break_network(scratch, next((calm / "results").glob("*/model.json"))),
            "config": apart(
                "bad input: config", lambda at: inputs.bad_configs(study.folder, n["configs"], self.seed)
            ),
            "models": apart("odd language models", lambda at: models.odd_models(n["models"], self.seed)),
            "commands": lambda: commands.bad_scripts(
                study, calm, scratch / "commands", n["commands"], draw("commands")
            ),
            "cli": lambda: commands.bad_cli(calm, scratch / "cli", n["commands"], draw("cli")),
            "shell": lambda: security.shell(scratch, security.FOLDERS[: n["folders"]]),
            "foreign": lambda: security.foreign_code(scratch),
            "tokens": lambda: security.tokens_in_logs(scratch),
        }
        for kind in ("shard", "mask", "weights"):
            parts[kind] = apart(
                f"bad input: {kind}",
                lambda at, kind=kind: inputs.bad_files(at, kind, n["files"], self.seed),  # type: ignore[misc]
            )
        return parts | {name: apart(f"odd {name}", work) for name, work in self._odd().items()}

    def _odd(self) -> dict[str, Callable[[Path], dict[str, Any]]]:
        """Name → part on inputs that are odd and, for the most part, right."""
        model, count, seed = self.study.folder / "model", self.amounts["odd"], self.seed
        return {
            "paths": lambda at: odd_paths.odd_paths(at, count, seed),
            "corpora": lambda at: odd_corpora.odd_corpora(at, model, count, seed),
            "arrays": lambda at: odd_arrays.odd_arrays(at, count, seed),
        }


PARTS = (
    "kills workflow files results disk permissions network config models shard mask weights paths corpora"
    " arrays commands cli shell foreign tokens"
)


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.faults", description=(__doc__ or "").split("\n")[0]
    )
    sizes = parser.add_mutually_exclusive_group()
    sizes.add_argument("--quick", action="store_true", help="fewer of everything: some minutes")
    sizes.add_argument("--slice", action="store_true", help="a little of everything, as the tests run it")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="write the counts there")
    parser.add_argument("--only", nargs="+", choices=PARTS.split(), default=PARTS.split())
    options = parser.parse_args()
    began = time.perf_counter()
    processes.preload()
    tallies = []
    with tempfile.TemporaryDirectory(prefix="faults-") as name:
        folder = Path(name)
        folder.chmod(0o755)  # a part lays down its rights and must still get in
        size = "quick" if options.quick else "slice" if options.slice else "full"
        campaign = Campaign(folder, AMOUNTS[size], options.seed)
        parts = campaign.parts()
        for part in options.only:
            started = time.perf_counter()
            tally = parts[part]()
            tally.seconds = time.perf_counter() - started
            tallies.append(tally)
            state = "skipped" if tally.skipped else "ok" if tally.holds else "FAILED"
            print(
                f"{tally.part}: {state}, {tally.tried:,} tried, {tally.seconds:.0f} s",
                file=sys.stderr,
                flush=True,
            )
    print(table(tallies))
    print(
        f"{sum(tally.tried for tally in tallies):,} faults in {time.perf_counter() - began:.0f} s, "
        f"seed {options.seed}"
    )
    if options.json:
        options.json.write_text(json.dumps([tally.as_dict() for tally in tallies], indent=2) + "\n")
    return 0 if all(tally.holds for tally in tallies) else 1


if __name__ == "__main__":
    raise SystemExit(main())
