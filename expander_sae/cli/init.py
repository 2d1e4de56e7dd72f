"""`expander-sae init`: a folder in which the installed workflow runs a study."""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path

from expander_sae.cli.terminal import Terminal
from expander_sae.storage.workflow_files import ROOT

SUMMARY = "write a folder with a configuration, in which the installed workflow runs a study"
EXAMPLES = (
    "expander-sae init my-study",
    "expander-sae init trial --config smoke",
)

PROFILES = ("default", "slurm")

WORKFLOW = """\
# The study of config.yaml. Its rules are those of the installed expander-sae; rules of your own can follow.
from expander_sae.storage.workflow_files import SNAKEFILE


include: SNAKEFILE


rule study:
    default_target: True
    localrule: True
    input:
        rules.all.input,
"""
"""The Snakefile. Targets of an included file are no defaults, so that it has one of its own."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", type=Path, help="folder to write")
    parser.add_argument(
        "--config",
        choices=("default", *sorted(path.stem for path in ROOT.glob("configs/*.yaml"))),
        default="default",
        help="which configuration to begin with (default: the default study)",
    )


def run(options: argparse.Namespace, terminal: Terminal) -> None:
    from importlib.util import find_spec

    from expander_sae.errors import UserError
    from expander_sae.storage.files import atomic_path, check_writable

    config = ROOT / ("config.yaml" if options.config == "default" else f"configs/{options.config}.yaml")
    files = {"Snakefile": WORKFLOW, "config.yaml": config.read_text(encoding="utf-8")}
    for name in PROFILES:
        profile = f"profiles/{name}/config.yaml"
        files[profile] = (ROOT / profile).read_text(encoding="utf-8")
    there = [name for name in files if (options.folder / name).exists()]
    if there:
        found = f"found {', '.join(there)} in {options.folder}"
        raise UserError(f"folder: {found}, expected a folder without a study")
    for name, text in files.items():
        check_writable(options.folder / name)
        with atomic_path(options.folder / name) as temporary:
            temporary.write_text(text, encoding="utf-8")
    if find_spec("snakemake") is None:
        terminal.remark("snakemake is not installed: pip install 'expander-sae[workflow]'")
    next_steps = [
        f"cd {shlex.quote(str(options.folder))}",
        "snakemake -n",
        "snakemake --cores all results/frontier.pdf",
    ]
    terminal.result({"folder": str(options.folder), "files": list(files), "next": next_steps}, next_steps)
