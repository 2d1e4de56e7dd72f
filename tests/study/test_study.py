"""What a study trains and measures, and where."""

import subprocess
import sys

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


def test_the_table_of_times_is_that_of_its_runs():
    def spec(**changes):
        return study_of(**changes).speed_spec()

    plain = spec()
    assert plain == spec(evaluation={"cross_entropy": ["encoder"]})
    assert len({plain, spec(training={"steps": 7}), spec(grid={"n": 4608, "d": [7], "seeds": [0, 1]})}) == 3


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
