"""workflow/Snakefile, where the workflow catalog looks, plans what the Snakefile plans."""

import yaml

from tests.workflow.planning import ROOT, plan
from tests.workflow.test_plan import CONFIG


def test_the_shim_plans_the_whole_workflow(tmp_path):
    planned = plan(tmp_path, CONFIG, snakefile="workflow/Snakefile")
    assert planned.pop("default") == 1
    assert planned == plan(tmp_path, CONFIG)


def test_what_the_catalog_reads_is_there():
    usage = yaml.safe_load((ROOT / ".snakemake-workflow-catalog.yml").read_text())["usage"]
    assert usage["report"] is True and "software-stack-deployment" in usage
    assert (ROOT / "config/README.md").read_text().startswith("# Config")
