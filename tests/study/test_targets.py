"""Which files the jobs of a study read, and which its tables are put together from."""

import subprocess
import sys
from pathlib import PurePosixPath

import pytest

from expander_sae.study import targets
from expander_sae.study.study import Study, load_config
from tests.study.configs import config

SYNTHETIC = {"m": 64, "n": 128, "d": [3, 4], "k": [2], "sigma": [0], "masks": 1, "trials": 4}
ANALYSED = {"support": "expander", "analyses": ["features"]}


def study(rows=False, **changes):
    kept = {"study": {"folder": "studies/mine"}} if rows else {}
    return Study(load_config(config(**kept, **changes)))


def test_tables_come_from_every_cell_from_each_baseline_once_and_from_synthetic_trials():
    given = study(synthetic=SYNTHETIC)
    folders = [str(PurePosixPath(file).parent) for file in targets.tables(given, "documents")]
    assert len(folders) == len(set(folders)) == len(given.cells) + 1 + 2
    assert {task.folder for task in given.evaluations.values()} < set(folders)
    assert folders[-2:] == list(given.synthetic)
    assert targets.curves(given) == [f"{run.path}/training.csv" for run in given.runs]
    assert [PurePosixPath(file).stem for file in targets.pools(given)] == ["train", "test", "ce"]


def test_a_study_that_keeps_rows_is_put_together_from_them_alone():
    given = study(rows=True, synthetic=SYNTHETIC)
    names = [*given.run_rows, *given.other_rows]
    assert targets.tables(given, "metrics") == [f"studies/mine/rows/{name}.metrics.parquet" for name in names]
    assert targets.curves(given) == [f"studies/mine/rows/{name}.curve.parquet" for name in given.run_rows]
    assert targets.synthetic(given) == targets.tables(given, "metrics")[-2:]
    assert targets.pools(given) == targets.analyses(given) == []
    assert targets.unrecorded(given, names) == names
    first = next(iter(given.run_rows))
    there = Study(given.config, {f"{first}.{table}.parquet" for table in ("metrics", "documents", "curve")})
    assert targets.unrecorded(there, names) == names[1:]
    assert targets.unrecorded(study(), names) == []


def test_the_comparison_with_published_trials_is_named_by_the_trials_and_not_by_where_they_lie():
    assert targets.agreement(study()) == []
    (here,) = targets.agreement(study(synthetic=SYNTHETIC))
    assert targets.agreement(study(rows=True, synthetic=SYNTHETIC)) == [here]
    assert targets.agreement(study(synthetic={**SYNTHETIC, "trials": 5})) != [here]


def test_training_reads_masks_and_the_weights_that_runs_start_from():
    pruned = {"support": "pruned_retuned", "d": 7}
    given = study(runs=[{"support": "expander", "d": 7}, {"support": "dense"}, pruned])
    for cell in given.cells.values():
        read, told = targets.for_training(cell), targets.training_spec(cell)
        support = cell.runs[0].support
        assert len(read["masks"]) == (2 if support == "expander" else 0)
        assert len(read["parents"]) == (2 if support == "pruned_retuned" else 0)
        assert [run["parent"] for run in told.values() if run["parent"]] == read["parents"]
        assert [run["mask"] for run in told.values() if run["mask"]] == read["masks"]


@pytest.mark.parametrize("leak", [True, False])
def test_only_runs_that_are_measured_on_it_read_the_training_pool(leak):
    given = study(evaluation={"train_cross_entropy": leak})
    for cell in given.cells.values():
        read = targets.for_evaluation(given, cell)
        assert ("train" in read) == leak
        assert read["weights"] == [f"{run.path}/weights.safetensors" for run in cell.runs]


@pytest.mark.parametrize(
    ("seeds", "name"), [((0,), "0"), ((0, 1), "0_1"), ((0, 1, 2), "0to2"), ((0, 2, 3), "0_2_3")]
)
def test_seeds_are_told_in_a_rules_name(seeds, name):
    assert targets.seeds_name(seeds) == name


def test_planning_imports_nothing_heavy():
    code = (
        "import sys\nimport expander_sae.study.targets\n"
        "assert not {'torch', 'numpy', 'pandas'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_labels_are_read_where_an_analysis_needs_them():
    given = study(runs=[{"support": "expander", "analyses": ["features"]}])
    cell = next(iter(given.cells.values()))
    assert "labels" not in targets.for_analysis(given, cell)
    given = study(runs=[{"support": "expander", "analyses": ["features", "probing"]}])
    files = targets.for_analysis(given, next(iter(given.cells.values())))
    assert files["labels"] == "results/smollm2-135m-instruct/docstrings/labels.parquet"
