"""workflow/Snakefile, where the workflow catalog looks, plans what the Snakefile plans."""

import os
import re
import subprocess
import sys

import yaml

from tests.workflow.planning import ROOT, plan
from tests.workflow.test_plan import CONFIG


def test_the_shim_plans_the_whole_workflow(tmp_path):
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(CONFIG))
    shim = [sys.executable, "-m", "snakemake", "--snakefile", str(ROOT / "workflow/Snakefile")]
    done = subprocess.run(
        [*shim, "--cores", "2", "--dry-run", "--quiet", "all"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    table = (done.stdout + done.stderr).partition("Job stats:")[2].partition("total")[0]
    planned = {name: int(count) for name, count in re.findall(r"^(\w+) +(\d+)$", table, re.MULTILINE)}
    assert planned.pop("default") == 1
    assert planned == plan(tmp_path, CONFIG)


def test_what_the_catalog_reads_is_there():
    usage = yaml.safe_load((ROOT / ".snakemake-workflow-catalog.yml").read_text())["usage"]
    assert usage["report"] is True and "software-stack-deployment" in usage
    assert (ROOT / "config/README.md").read_text().startswith("# Config")
