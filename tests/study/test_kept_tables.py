"""Rows that a study keeps: their names, what is left to do beside them, and what they hold."""

import csv
import json
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from expander_sae.errors import UserError
from expander_sae.measurements import tables
from expander_sae.study.kept_tables import (
    OTHER_TABLES,
    RUN_TABLES,
    comes_from,
    recorded,
    row_files,
    superseded,
)
from expander_sae.study.study import Study, load_config
from tests.measurements.test_tables import documents, metrics, run
from tests.study.configs import config


def study(done=(), **changes):
    given = config(study={"folder": "studies/mine"}, **changes)
    return Study(load_config(given), frozenset(done))


def files(given, names, kinds=RUN_TABLES):
    return [
        file.removeprefix("studies/mine/rows/")
        for name in names
        for file in row_files(given.rows, name, kinds)
    ]


def test_names_are_readable_and_change_with_what_is_asked():
    plain = study()
    name = next(iter(plain.run_rows))
    assert name.startswith(
        "smollm2-135m-instruct_docstrings_layer15_tuned_t120000_s1500_expander-tied_n4608_d7_k64_seed0-"
    )
    assert list(study().run_rows) == list(plain.run_rows)
    for changes in (
        {"evaluation": {"cross_entropy": ["encoder"]}},
        {"evaluation": {"analyses": ["features"]}},
        {"tokens": {"test": 4096}},
    ):
        assert not set(study(**changes).run_rows) & set(plain.run_rows), changes
    assert list(study(compute={"threads": 2, "seeds_per_job": 1}).run_rows) == list(plain.run_rows)


def test_what_is_recorded_is_not_done_again():
    full = study()
    names = list(full.run_rows)
    part = study(files(full, names[:1]))
    assert [(run.d, run.seed) for run in part.pending] == [(7, 1), (30, 0), (30, 1)]
    assert [job.seeds for job in part.trainings] == [(1,), (0, 1)]
    assert part.runs == full.runs, "all of them are collected"
    done = study(files(full, names) + files(full, full.other_rows, OTHER_TABLES))
    assert not done.pending and not done.cells and not done.trainings
    assert all(done.is_recorded(name) for name in (*done.run_rows, *done.other_rows))


def test_a_row_without_one_of_its_tables_is_not_there():
    full = study()
    names = list(full.run_rows)
    there = files(full, names)
    assert len(study(there[1:]).pending) == 1


def test_runs_that_others_need_are_trained_although_their_rows_are_there():
    blocks = [
        {"support": "dense", "seeds": 0},
        {"support": "expander", "d": 7, "seeds": 0, "analyses": ["novelty"]},
        {"support": "pruned_retuned", "d": 7, "seeds": 1},
    ]
    full = study(runs=blocks)
    dense = next(name for name, run in full.run_rows.items() if run.support == "dense")
    part = study(files(full, [dense]), runs=blocks)
    assert [run.support for run in part.pending] == ["expander", "pruned_retuned"]
    assert [(run.support, run.seed) for run in part.trained] == [
        ("expander", 0),
        ("pruned_retuned", 1),
        ("dense", 1),
        ("dense", 0),
    ]


def test_other_rows_are_those_of_models_and_synthetic_trials():
    given = study(synthetic={"d": [7, 30]})
    assert len(given.other_rows) == 3
    assert sum(name.startswith("synthetic_m512_n4096_d") for name in given.other_rows) == 2
    assert recorded("no/such/folder") == frozenset()


def curve(path, seed):
    with open(path, "w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(["step", "loss", "relative_error", "silent_share", "learning_rate"])
        writer.writerows([[step, 1.5 * seed + step, 0.5, 0, 3e-4] for step in (50, 100)])


def test_recorded_rows_collect_to_the_same_bytes(tmp_path):
    tables.write_metrics([*metrics(0), *metrics(1)], tmp_path / "metrics.parquet")
    tables.write_documents([*documents(0), *documents(1)], tmp_path / "documents.parquet")
    curves = {}
    for seed in (0, 1):
        curve(tmp_path / f"{seed}.csv", seed)
        curves[str(tmp_path / f"{seed}.csv")] = run(seed)
    tables.write_curves(curves, tmp_path / "curves.parquet")
    collectors = {
        "metrics": tables.collect_metrics,
        "documents": tables.collect_documents,
        "curves": tables.collect_curves,
    }
    for name, collect in collectors.items():
        parts = [tmp_path / f"{seed}.{name}.parquet" for seed in (0, 1)]
        for seed, part in enumerate(parts):
            if name == "curves":
                tables.write_curves({str(tmp_path / f"{seed}.csv"): run(seed)}, part, "about")
            else:
                about = json.dumps({"seed": seed})
                tables.record([tmp_path / f"{name}.parquet"], name, run(seed), about, part)
                assert tables.recorded_about(part) == json.dumps({"seed": seed})
        collect(parts, tmp_path / "rows.parquet")
        collect([tmp_path / f"{name}.parquet"], tmp_path / "whole.parquet")
        assert (tmp_path / "rows.parquet").read_bytes() == (tmp_path / "whole.parquet").read_bytes(), name
    frame = tables.read_curves(tmp_path / "rows.parquet")
    assert frame["loss"].tolist() == [50.0, 100.0, 51.5, 101.5]
    assert frame["step"].tolist() == [50, 100, 50, 100]


def test_damaged_rows_are_named(tmp_path):
    part = tmp_path / "damaged.metrics.parquet"
    tables.write_metrics(metrics(0), tmp_path / "metrics.parquet")
    tables.record([tmp_path / "metrics.parquet"], "metrics", run(0), "{}", part)
    whole = part.read_bytes()
    part.write_bytes(whole[:50] + bytes([whole[50] ^ 1]) + whole[51:])
    with pytest.raises(UserError, match=r"damaged\.metrics\.parquet: "):
        tables.collect_metrics([part], tmp_path / "out.parquet")
    (tmp_path / "0.csv").write_text("step,loss\n1,what\n")
    with pytest.raises(UserError, match=r"0\.csv: not a training.csv"):
        tables.write_curves({str(tmp_path / "0.csv"): run(0)}, tmp_path / "out.parquet")


def test_the_rows_of_a_run_are_small(tmp_path):
    """As many as a run of the shipped study has: hundreds of runs are committed."""
    one = documents(0)[0]
    kinds = [
        ("encoder", "relative_error"),
        ("omp", "relative_error"),
        ("encoder", "squared_error"),
        ("omp", "ce"),
    ]
    values = pd.Series(range(80)).sample(frac=1, random_state=0).to_numpy() / 7
    many = [
        {**one, "inference": inference, "metric": metric, "document": i, "sum": float(values[i])}
        for inference, metric in kinds
        for i in range(80)
    ]
    tables.write_documents(many, tmp_path / "documents.parquet")
    tables.record([tmp_path / "documents.parquet"], "documents", None, "{}", tmp_path / "small.parquet")
    small, whole = ((tmp_path / name).stat().st_size for name in ("small.parquet", "documents.parquet"))
    assert small < min(whole, 8000)


OLD, NEW = "0" * 12, "f" * 12


def test_only_the_same_table_of_the_same_run_is_superseded(tmp_path):
    stem = "model_words_layer1_paper_t10_s5_expander-tied_n64_d7_k8_seed1"
    kept = [
        f"{stem}-{NEW}.metrics.parquet",
        f"{stem}-{NEW}.documents.parquet",
        f"{stem}-{OLD}.documents.parquet",
        f"{stem}0-{OLD}.metrics.parquet",
        f"other-{stem}-{OLD}.metrics.parquet",
        f"{stem}-0123.metrics.parquet",
        f"{stem}.metrics.parquet",
    ]
    for name in [*kept, f"{stem}-{OLD}.metrics.parquet"]:
        (tmp_path / name).touch()
    assert superseded(tmp_path / kept[0]) == [tmp_path / f"{stem}-{OLD}.metrics.parquet"]
    assert superseded(tmp_path / kept[-1]) == []


def test_a_row_is_named_for_where_it_comes_from():
    assert comes_from(f"m_c_seed1-{NEW}", "results/m/c_seed1")
    assert not comes_from(f"m_c_seed10-{NEW}", "results/m/c_seed1")
    assert comes_from(f"synthetic_m5-{NEW}", f"results/synthetic/m5-{NEW}")
    assert not comes_from(f"synthetic_m5-{NEW}", f"results/synthetic/m5-{OLD}")


@pytest.mark.parametrize("trained_on", [("device", "backend"), ()])  # what is rounded is trained on none
def test_recording_a_run_again_takes_away_its_older_rows(tmp_path, trained_on):
    folder, spec = tmp_path / "results" / "r_seed0", run(0)
    folder.mkdir(parents=True)
    about = dict.fromkeys(("fingerprint", "mask_sha256", "finite", "torch", *trained_on))
    (folder / "run.json").write_text(json.dumps({"spec": spec, **about}))
    tables.write_metrics(metrics(0), folder / "metrics.parquet")
    tables.write_documents(documents(0), folder / "documents.parquet")
    curve(folder / "training.csv", 0)
    script = Path(__file__).resolve().parents[2] / "workflow" / "scripts" / "record.py"
    inputs = ["--run", "results/r_seed0", "--metrics", "results/r_seed0/metrics.parquet"]
    inputs += ["--documents", "results/r_seed0/documents.parquet"]
    inputs += ["--history", "results/r_seed0/training.csv"]
    for digest in (OLD, NEW):
        out = [f"rows/r_seed0-{digest}.{table}.parquet" for table in RUN_TABLES]
        command = [sys.executable, script, "--log", "results/logs/r.log", *inputs, "--out", *out]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    assert recorded(tmp_path / "rows") == {f"r_seed0-{NEW}.{table}.parquet" for table in RUN_TABLES}
