"""A study to its end as a module of another workflow, under a prefix.

    python -m tests.long.as_module FOLDER [--config configs/smoke.yaml]

Makes all figures, tables and the report below FOLDER/sparse/it's, beside a rule of the other workflow. It
ends with an error where something lies elsewhere or is still to be done. The smoke study takes some minutes.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import yaml

from tests.workflow.planning import ROOT
from tests.workflow.test_module import PREFIX, counts, parent, snakemake


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--config", type=Path, default=ROOT / "configs" / "smoke.yaml")
    options = parser.parse_args()
    folder = parent(options.folder, yaml.safe_load(options.config.read_text(encoding="utf-8")))
    done = snakemake(folder)
    if done.returncode != 0:
        raise SystemExit(done.stdout[-4000:] + done.stderr[-4000:])
    made = {path.name for path in folder.iterdir()} - {".snakemake"}
    elsewhere = made - {"Snakefile", "mine.yaml", "own.txt", Path(PREFIX).parts[0]}
    if elsewhere or (left := counts(folder)):
        raise SystemExit(f"found {elsewhere or left}, expected all under {PREFIX} and nothing to do")
    print(f"{folder / PREFIX / 'results/report.html'}")


if __name__ == "__main__":
    main()
