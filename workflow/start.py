"""Start the workflow in this folder, unless another run of it works here.

What `make` calls. The folder's lock is removed first where the run that left it is gone. Without a
profile, jobs run on this machine: one at a time on its GPU, and side by side only as far as the
memory goes that is free now.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

from expander_sae.errors import UserError, reported_to_user
from expander_sae.machine import available_memory, folder_owner

ROOT = Path(__file__).resolve().parents[1]


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--configfile", type=Path, default=Path("config.yaml"))
    parser.add_argument("--cores", default="all", help="on this machine: a number, or all")
    parser.add_argument("--profile", type=Path, help="folder of a Snakemake profile, for a cluster")
    parser.add_argument("targets", nargs="*", help="files to make; results/frontier.pdf if none")
    return parser.parse_args()


def command(options: argparse.Namespace) -> list[str]:
    """Snakemake's command line without what is asked of it."""
    found = [sys.executable, "-m", "snakemake", "--snakefile", str(ROOT / "Snakefile")]
    found += ["--configfile", str(options.configfile)]
    if options.profile is not None:
        return [*found, "--workflow-profile", str(options.profile)]
    free = available_memory.available_mb()
    resources = ["gpu=1"] if free is None else ["gpu=1", f"mem_mb={int(free)}"]
    return [*found, "--cores", options.cores, "--resources", *resources]


def main() -> None:
    options = arguments()
    with reported_to_user():
        if not options.configfile.is_file():
            raise UserError(f"{options.configfile}: no such configuration file (CONFIG of make)")
        if options.profile is not None and not (options.profile / "config.yaml").is_file():
            raise UserError(f"{options.profile}: found no profile, expected a folder with a config.yaml")
        # Programs that the jobs call by name come from the environment of this interpreter.
        os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
        start = command(options)
        folder_owner.take(lambda: unlock(start))
    sys.stdout.flush()
    # The same process goes on as Snakemake, so that the record stays true.
    os.execv(sys.executable, [*start, "--quiet", "host", "rules", "--", *options.targets])


def unlock(start: list[str]) -> None:
    done = subprocess.run([*start, "--unlock"], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise UserError(f"the folder's lock cannot be removed\n{done.stderr.strip()}")


if __name__ == "__main__":
    main()
