"""The workflow as a module of another one, under a prefix, beside rules that are not ours.

`python -m tests.long.as_module` runs a study to its end in that way.
"""

import subprocess

import pytest
import yaml

from tests.workflow.planning import ROOT, SNAKEMAKE, plan
from tests.workflow.test_plan import COLLECTORS, CONFIG, KEPT, keep_rows

PREFIX = "sparse/it's"
PARENT = """
configfile: "mine.yaml"


module expander:
    snakefile:
        "SOURCE/Snakefile"
    config:
        config["expander"]
    prefix:
        "PREFIX"


use rule * from expander as expander_*


rule own:
    output:
        "own.txt",
    shell:
        "for word in $(echo one two); do echo $word; done > {output}"


rule everything:
    default_target: True
    input:
        rules.expander_all.input,
        "own.txt",
"""


def parent(folder, config, text=PARENT):
    """A workflow in `folder` that imports ours with this configuration."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "Snakefile").write_text(text.replace("SOURCE", str(ROOT)).replace("PREFIX", PREFIX))
    (folder / "mine.yaml").write_text(yaml.safe_dump({"expander": config}))
    return folder


def snakemake(folder, *arguments):
    return subprocess.run([*SNAKEMAKE, *arguments], cwd=folder, capture_output=True, text=True, check=False)


def counts(folder):
    """{rule: number of jobs} of a dry run, without targets, under the names of our rules."""
    done = snakemake(folder, "--dry-run", "--quiet", "all")
    assert done.returncode == 0, done.stdout + done.stderr
    table = (done.stdout + done.stderr).partition("Job stats:")[2].partition("total")[0]
    lines = [line.split() for line in table.splitlines() if "expander_" in line]
    found: dict[str, int] = {}
    for name, count in lines:
        name = name.removeprefix("expander_")
        name = "train" if name.startswith("train_") else name
        found[name] = found.get(name, 0) + int(count)
    return found


def test_a_module_plans_what_the_workflow_plans(tmp_path):
    assert counts(parent(tmp_path / "parent", CONFIG)) == plan(tmp_path, CONFIG)


def test_other_rules_keep_their_shell_and_ours_write_under_the_prefix(tmp_path):
    folder, mask = parent(tmp_path, CONFIG), "results/masks/expander_m16_n32_d3_seed0.json"
    done = snakemake(folder, "--", "own.txt", f"{PREFIX}/{mask}")
    assert done.returncode == 0, done.stdout + done.stderr
    assert (folder / "own.txt").read_text() == "one\ntwo\n"
    assert (folder / PREFIX / mask).stat().st_size
    assert list((folder / PREFIX / "results/logs/masks").glob("*.json")), "what the job cost"
    assert not (folder / "results").exists()


def test_rows_that_a_study_keeps_are_found_under_the_prefix(tmp_path):
    folder = parent(tmp_path, KEPT)
    keep_rows(folder / PREFIX)
    assert counts(folder) == COLLECTORS


@pytest.mark.parametrize(
    ("old", "new", "word"),
    [
        (
            '    prefix:\n        "PREFIX"\n',
            '    replace_prefix:\n        {"results": "x"}\n',
            "expected `prefix`",
        ),
        ('    config:\n        config["expander"]\n', "", "config: models: missing"),
        ('"PREFIX"', '"{place}"', "found braces"),
    ],
)
def test_what_a_module_cannot_have_is_said(tmp_path, old, new, word):
    folder = parent(tmp_path, CONFIG, PARENT.replace(old, new))
    done = snakemake(folder, "--dry-run")
    assert done.returncode != 0 and word in done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr
