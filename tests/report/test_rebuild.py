"""Figures, tables, verdicts and the report from committed rows, without torch."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from expander_sae.errors import UserError
from expander_sae.evaluation.synthetic_tables import columns, write_agreement
from expander_sae.measurements import tables
from expander_sae.measurements.new_rows import Rows
from expander_sae.report import __main__ as command
from expander_sae.report.__main__ import default_out
from expander_sae.report.gather import gather
from tests.figures import study

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def rows(tmp_path):
    """A study's folder: a file for each run, one curve."""
    frame = study.study(later=False)
    folder = tmp_path / "studies" / "toy" / "rows"
    for place, (_, part) in enumerate(frame.groupby(["support", "n", "d", "seed"])):
        tables.write_metrics(part.to_dict("records"), folder / f"run{place}.metrics.parquet")
        tables.write_documents([], folder / f"run{place}.documents.parquet")
    schema = pa.schema(list(tables.CURVES.items()))
    curve = pa.Table.from_pandas(study.curves(), schema=schema, preserve_index=False)
    pq.write_table(curve, folder / "run0.curve.parquet", store_schema=False)
    return folder.parent


def test_rows_become_the_tables_of_a_results_folder(rows, tmp_path):
    found = gather(rows, tmp_path / "out")
    frame = tables.read_metrics(found.metrics)
    assert len(frame) == len(study.study(later=False))
    assert len(pd.read_parquet(found.curves)) == len(study.curves())
    before = found.metrics.read_bytes()
    assert gather(rows, tmp_path / "again").metrics.read_bytes() == before


def test_the_same_run_twice_is_refused(rows, tmp_path):
    shutil.copy(rows / "rows" / "run0.metrics.parquet", rows / "rows" / "copy.metrics.parquet")
    with pytest.raises(UserError, match=r"two inputs hold a row.*copy\.metrics.* and .*run0\.metrics"):
        gather(rows, tmp_path / "out")


def test_rows_under_the_name_of_another_run_are_refused(rows, tmp_path):
    part = rows / "rows" / "run0.metrics.parquet"
    about = json.dumps({"run": "results/run1"})
    tables.record([part], "metrics", None, about, part)
    with pytest.raises(UserError, match=r"run0\.metrics\.parquet: found rows of results/run1"):
        gather(rows, tmp_path / "out")


def test_the_agreement_of_synthetic_rows_is_that_of_the_workflow(tmp_path):
    published = tmp_path / "published.csv"
    cells = [{"m": 32, "n": 64, "sigma": 0.0, "d": d, "k": 2, "support_recovery_rate": 0.9} for d in (3, 4)]
    pd.DataFrame(cells).to_csv(published, index=False)
    parts = []
    for d in (3, 4):
        parts.append(tmp_path / "study" / "rows" / f"synthetic_m32_n64_d{d}-{d:012x}.metrics.parquet")
        made = []
        for seed in (0, 1):
            rows = Rows(columns(32, 64, d, 2, seed))
            found = [1.0] * (d + seed) + [0.0] * (8 - d - seed)
            rows.add("omp_absolute", "sigma0", {"exact_recovery": sum(found) / 8})
            trials = [(trial, one, 1) for trial, one in enumerate(found)]
            rows.add_document_sums("omp_absolute", "sigma0", "exact_recovery", trials)
            made.append(rows)
        tables.write_metrics([row for rows in made for row in rows.metrics], parts[-1])
        documents = parts[-1].with_name(parts[-1].name.replace("metrics", "documents"))
        tables.write_documents([row for rows in made for row in rows.documents], documents)
    write_agreement(parts, published, 8, tmp_path / "workflow.parquet")
    tables.collect_metrics([*parts, tmp_path / "workflow.parquet"], tmp_path / "collected.parquet")
    found = gather(tmp_path / "study", tmp_path / "out", published)
    assert found.metrics.read_bytes() == (tmp_path / "collected.parquet").read_bytes()
    assert "recovery_largest_difference" in set(tables.read_metrics(found.metrics)["metric"])


def test_a_folder_without_tables_is_named(tmp_path):
    with pytest.raises(UserError, match=r"metrics\.parquet: no such table, expected it"):
        gather(tmp_path, tmp_path / "out")
    (tmp_path / "rows").mkdir()
    with pytest.raises(UserError, match=r"rows: found no \*\.metrics\.parquet.*made by: snakemake"):
        gather(tmp_path, tmp_path / "out")


def test_a_study_s_report_lies_among_the_results(rows, tmp_path):
    assert default_out(rows) == Path("results") / "toy"
    assert default_out(tmp_path) == tmp_path


def test_one_command_rebuilds_everything_without_torch(rows, tmp_path):
    code = (
        "import sys; from expander_sae.report.__main__ import main; "
        f"main([{str(rows)!r}, '--out', {str(tmp_path / 'out')!r}]); "
        "sys.exit('torch was imported' if 'torch' in sys.modules else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr
    for name in ("claims.json", "frontier.pdf", "figures/claims.pdf", "tables/headline.tex", "report.html"):
        assert (tmp_path / "out" / name).stat().st_size > 0, name
    for made, kept in command.KEPT.items():
        assert (rows / kept).read_bytes() == (tmp_path / "out" / made).read_bytes(), kept


def test_what_a_wheel_lacks_is_said_before_anything_is_drawn(rows, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "jinja2", None)
    with pytest.raises(SystemExit) as end:
        command.main([str(rows), "--out", str(tmp_path / "out")])
    assert end.value.code == 2 and not (tmp_path / "out").exists()
    message = r"jinja2: not installed, .*expander-sae\[workflow\]"
    assert re.fullmatch(f"error: .*{message}.*\n", capsys.readouterr().err)
