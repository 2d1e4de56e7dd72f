"""How a script of the workflow gets its options, says what is wrong and records what it cost."""

import json
import subprocess
import sys

import pytest

from tests.workflow.planning import ROOT

SCRIPT = """
from pathlib import Path
from typing import Any

import job

from expander_sae.errors import UserError


def main(spec: dict[str, Any], count: int, parts: list[Path], out: Path, other: Path | None = None) -> bool:
    if spec.get("refuse"):
        raise UserError("spec: found refuse, expected none")
    out.write_text(repr([spec, count, [part.name for part in parts], other]))
    return count > 0


if __name__ == "__main__":
    job.run(main, STAGE)
"""

PLACED = SCRIPT.replace(
    "repr([spec, count, [part.name for part in parts], other])", 'str(job.place("results/x"))'
)


@pytest.fixture
def start(tmp_path):
    def run(*options, stage="mask", script=SCRIPT, prefix="", **changes):
        given = {"--log": "results/logs/a/b.log", "--spec": '{"a": [1]}', "--count": "3", "--out": "out"}
        given |= {f"--{name}": value for name, value in changes.items()}
        (tmp_path / "script.py").write_text(script.replace("STAGE", repr(stage)))
        words = [word for pair in given.items() for word in pair]
        path = f"{ROOT / 'workflow' / 'scripts'}:{ROOT}"
        command = [sys.executable, "script.py", *words, *options]
        return subprocess.run(
            command,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
            env={"PYTHONPATH": path, "EXPANDER_SAE_PREFIX": prefix},
        )

    return run


def test_options_are_read_as_the_parameters_are_annotated(start, tmp_path):
    assert start("--parts", "x/a b", "c", "--other", "d").returncode == 0
    assert (tmp_path / "out").read_text() == "[{'a': [1]}, 3, ['a b', 'c'], PosixPath('d')]"
    cost = json.loads((tmp_path / "results/logs/a/b.json").read_text())
    assert (cost["stage"], cost["job"]) == ("mask", "a/b") and cost["seconds"] >= 0 < cost["peak_mb"]


def test_under_a_prefix_a_job_finds_what_it_is_told_and_is_named_without_it(start, tmp_path):
    """As in another workflow that imports this one: options have the prefix, what a spec names has not."""
    prefix = "sparse/it's/"
    done = start("--parts", prefix=prefix, log=f"{prefix}results/logs/a/b.log", script=PLACED)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out").read_text() == f"{prefix}results/x"
    assert json.loads((tmp_path / prefix / "results/logs/a/b.json").read_text())["job"] == "a/b"


def test_a_list_may_be_empty_or_lie_in_a_file(start, tmp_path):
    assert start("--parts").returncode == 0
    assert (tmp_path / "out").read_text() == "[{'a': [1]}, 3, [], None]"
    many = [f"part {index}" for index in range(200_000)]
    (tmp_path / "list").write_text("\n".join(many) + "\n")
    assert start("--parts", "@list").returncode == 0
    assert (tmp_path / "out").read_text().count("part ") == len(many), "more than a command line holds"


def test_a_missing_option_is_named(start):
    done = start()
    assert done.returncode == 2 and "required: --parts" in done.stderr


def test_what_the_user_can_mend_is_one_line_on_the_terminal_and_in_the_log(start, tmp_path):
    done = start("--parts", spec='{"refuse": true}')
    assert done.returncode == 2 and done.stderr == "error: spec: found refuse, expected none\n"
    assert done.stderr in (tmp_path / "results/logs/a/b.log").read_text()
    assert not (tmp_path / "results/logs/a/b.json").exists()


def test_a_defect_leaves_its_traceback_in_the_log(start, tmp_path):
    done = start("--parts", count="many")
    assert done.returncode == 1 and "traceback in results/logs/a/b.log" in done.stderr
    assert "Traceback" not in done.stderr
    assert "Traceback" in (tmp_path / "results/logs/a/b.log").read_text()


@pytest.mark.parametrize(("stage", "count"), [(None, "1"), ("mask", "0")])
def test_a_job_without_a_stage_or_without_work_records_no_cost(start, tmp_path, stage, count):
    assert start("--parts", stage=stage, count=count).returncode == 0
    assert not (tmp_path / "results/logs/a/b.json").exists()
