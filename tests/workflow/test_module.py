"""The workflow as a module of another one, under a prefix, beside rules that are not ours.

`python -m tests.long.as_module` runs a study to its end in that way.
"""

import re
import shutil
import subprocess
from functools import partial

import pytest
import yaml

from tests.workflow.planning import BEING_WRITTEN, ROOT, SNAKEMAKE, plan
from tests.workflow.test_plan import COLLECTORS, CONFIG, KEPT, keep_rows

PREFIX = "sparse/it's"
TARGETS = {"all", "default", "everything", "own"}
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
    done = snakemake(folder, "--dry-run", "--quiet", "all")
    assert done.returncode == 0, done.stdout + done.stderr
    return jobs_of(done)


def jobs_of(done):
    """{rule: number of jobs} of a dry run, without its targets, under the names of our rules."""
    table = (done.stdout + done.stderr).partition("Job stats:")[2].partition("total")[0]
    found: dict[str, int] = {}
    for name, count in re.findall(r"^(\w+) +(\d+)$", table, re.MULTILINE):
        name = re.sub(r"^train_[\dto_]+$", "train", name.removeprefix("expander_"))
        if name not in TARGETS:
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


# What `snakedeploy deploy-workflow` (0.17) writes, but for the repository: a path in its place.
DEPLOYED = """
configfile: "config/config.yaml"


module deployed:
    snakefile:
        "SOURCE/workflow/Snakefile"
    config:
        config


use rule * from deployed
"""


def test_what_snakedeploy_writes_plans_the_default_study(tmp_path):
    """Rules can then lie elsewhere than the library: scripts and schemas are the library's."""
    for name in ("Snakefile", "workflow/Snakefile", "workflow/rules", "workflow/report"):
        source, target = ROOT / name, tmp_path / "fetched" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        copy = partial(shutil.copytree, ignore=BEING_WRITTEN) if source.is_dir() else shutil.copy
        copy(source, target)
    shutil.copytree(ROOT / "config", tmp_path / "config")
    (tmp_path / "Snakefile").write_text(DEPLOYED.replace("SOURCE", str(tmp_path / "fetched")))
    done = snakemake(tmp_path, "--dry-run", "--quiet", "all", "--printshellcmds")
    assert done.returncode == 0, done.stdout + done.stderr
    config = yaml.safe_load((ROOT / "config.yaml").read_text())
    assert jobs_of(done) == plan(tmp_path, config)


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
