"""What a study trains and measures, and where."""

import subprocess
import sys

from expander_sae.storage.files import canonical_json
from expander_sae.study import targets
from expander_sae.study.run import Evaluation
from tests.study.configs import ROOT, study_of


def test_what_a_run_is_pruned_from_is_trained_and_measured_only_where_it_is_asked_for():
    pruned = {"support": "pruned_retuned", "seeds": 0}
    alone = study_of(runs=[pruned])
    assert [run.support for run in alone.runs] == ["pruned_retuned"] * 2
    assert [run.support for run in alone.trained] == ["pruned_retuned"] * 2 + ["dense"]
    both = study_of(runs=[pruned, {"support": "dense", "seeds": 0}])
    assert [run.support for run in both.trained] == ["pruned_retuned"] * 2 + ["dense"]
    assert both.runs == both.trained
    assert both.runs[0].parent.path == both.runs[2].path


def test_a_training_job_has_a_bounded_number_of_seeds():
    grid = {"n": 4608, "d": 7, "seeds": list(range(7))}
    blocks = [{"support": "expander"}, {"support": "pruned_retuned", "seeds": [3, 1]}]
    study = study_of(grid=grid, runs=blocks, compute={"seeds_per_job": 3})
    jobs = [(job.runs[0].support, job.seeds) for job in study.trainings]
    assert jobs == [
        ("expander", (0, 1, 2)),
        ("expander", (3, 4, 5)),
        ("expander", (6,)),
        ("pruned_retuned", (1, 3)),
        ("dense", (1, 3)),
    ]


def test_cells_share_jobs_where_they_may():
    grid = {"n": 4608, "d": [7, 30, 100], "seeds": [0, 1]}
    blocks = [{"support": ["expander", "bernoulli"]}, {"support": "pruned_retuned", "d": 7, "seeds": 0}]
    alone, both = (study_of(grid=grid, runs=blocks, compute={"cells_per_job": n}) for n in (1, 4))
    assert list(alone.measured) == [cell.name for cell in alone.cells.values()]
    assert sorted(len({run.cell for run in job.runs}) for job in both.measured.values()) == [3, 4]
    for given in (alone, both):
        assert sorted(r.name for job in given.measured.values() for r in job.runs) == sorted(
            run.name for run in given.runs
        )
        assert sorted(r.name for job in given.trainings for r in job.runs) == sorted(
            run.name for run in given.trained
        )
    for job in both.trainings:
        assert not {run.parent for run in job.runs} & set(job.runs), "a job cannot wait for itself"
    assert len(both.trainings) == 3 and len(alone.trainings) == 8
    rows = targets.for_run_row(both, both.runs[0])
    folder = both.evaluations[both.measured_by[both.runs[0].path]].folder
    assert rows["documents"] == f"{folder}/documents.parquet"


def test_those_who_share_a_training_have_one_number_of_steps():
    blocks = [{"support": "expander"}, {"support": "dense", "match": "compute"}]
    study = study_of(runs=blocks, compute={"cells_per_job": 9})
    assert all(len({run.steps for run in job.runs}) == 1 for job in study.trainings)
    assert max(len(job.runs) for job in study.trainings) > 2
    (measured,) = study.measured.values()
    assert len(measured.runs) == len(study.runs)


def test_a_job_rounds_or_trains():
    """A pruned run is trained and a rounded one is not, though both start from one other run."""
    blocks = [{"support": ["expander", "dense"], "precision": "int8"}, {"support": "pruned_retuned"}]
    study = study_of(runs=blocks, compute={"cells_per_job": 9})
    assert {(run.support, run.is_trained) for job in study.trainings for run in job.runs} == {
        *((support, trained) for support in ("expander", "dense") for trained in (True, False)),
        ("pruned_retuned", True),
    }
    for job in study.trainings:
        assert len({run.is_trained for run in job.runs}) == 1


def test_pursuits_may_be_measured_on_fewer_tokens_and_what_was_measured_before_keeps_its_name():
    plain = study_of().runs[0].evaluation
    assert "pursued_tokens" not in plain.json and Evaluation.from_json(plain.json) == plain
    assert study_of(tokens={"pursued": 10**9}).runs[0].evaluation == plain
    few = study_of(tokens={"pursued": 100}).runs[0].evaluation
    assert few.pursued_tokens == 100 and Evaluation.from_json(few.json) == few


def test_the_table_of_times_is_that_of_its_runs():
    def spec(**changes):
        return study_of(**changes).speed_spec()

    plain = spec()
    assert plain == spec(evaluation={"cross_entropy": ["encoder"]})
    assert len({plain, spec(training={"steps": 7}), spec(grid={"n": 4608, "d": [7], "seeds": [0, 1]})}) == 3


def test_each_shape_is_timed_in_one_precision():
    grid = {"n": 4608, "d": [7, 30], "seeds": [0]}
    for asked, timed in (
        (["int8"], "int8"),
        (["int4", "bfloat16"], "bfloat16"),
        (["int8", "float32"], "float32"),
    ):
        runs = study_of(grid=grid | {"precision": asked}, runs=[{"support": "expander"}]).timed
        assert [(run.d, run.precision) for run in runs] == [(7, timed), (30, timed)]


def test_another_analysis_is_another_folder_and_the_same_evaluation():
    def folders(**changes):
        blocks = [{"support": "expander", "d": 7, "analyses": ["pursuits"]}]
        study = study_of(runs=blocks, evaluation=changes)
        (cell,) = study.analyses
        return study.evaluations[cell].folder, study.analyses[cell].folder

    plain = folders()
    assert folders(pursuit_tokens=100)[0] == plain[0] and folders(pursuit_tokens=100)[1] != plain[1]
    assert folders(train_cross_entropy=True)[0] != plain[0]
    assert folders(train_cross_entropy=True)[1] == plain[1]


def test_synthetic_trials_have_a_folder_for_each_d():
    study = study_of(synthetic={"d": [7, 30], "k": 4, "trials": 3})
    parts = list(study.synthetic)
    assert [part.rpartition("-")[0] for part in parts] == [
        "results/synthetic/m512_n4096_d7",
        "results/synthetic/m512_n4096_d30",
    ]
    assert study.synthetic[parts[1]] == {
        "m": 512,
        "n": 4096,
        "d": 30,
        "k": [4],
        "sigma": [0.0, 0.01, 0.05],
        "masks": 5,
        "trials": 3,
    }
    assert study_of().synthetic == {}


def test_planning_imports_neither_torch_nor_numpy():
    code = (
        "import sys; from expander_sae.study.study import Study, load_config;"
        f"Study(load_config({str(ROOT / 'config.yaml')!r}));"
        "print([name for name in ('torch', 'numpy', 'pandas') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_gpu_gets_a_training_job_of_many_runs():
    """Of one pool, one number of steps and one generation; a CPU what it got before, or what is asked for."""
    grid = {"n": 4608, "d": [7, 30, 100], "seeds": [0, 1]}
    blocks = [{"support": ["expander", "bernoulli", "dense"]}, {"support": "pruned_retuned", "d": 7}]
    given = study_of(grid=grid, runs=blocks)
    assert len(given.trainings) == len({run.cell for run in given.trained})
    assert len(given.measured) == 8 and len(given.on_gpu().measured) == 1
    jobs = given.on_gpu().trainings
    assert sorted(len(job.runs) for job in jobs) == [2, 14]
    assert sorted(run.path for job in jobs for run in job.runs) == sorted(run.path for run in given.trained)
    asked = study_of(grid=grid, runs=blocks, compute={"trainings_per_job": 4})
    assert max(len(job.runs) for job in asked.trainings) == 4
    assert [job.name for job in asked.trainings] == [job.name for job in asked.on_gpu().trainings]


def test_what_a_training_job_is_told_fits_into_a_command_line():
    """Linux takes 128 KiB an argument, and a shell's command is one."""
    blocks = [{"support": "expander"}]
    grid = {"n": 4608, "d": list(range(5, 105)), "seeds": [0]}
    told = [
        len(canonical_json(targets.training_spec(job)))
        for job in study_of(grid=grid, runs=blocks).on_gpu().trainings
    ]
    assert len(told) == 2 and max(told) < 120_000
