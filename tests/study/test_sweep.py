"""Which runs a sweep compares, and what is made for them."""

from dataclasses import asdict

import pytest

from expander_sae.errors import UserError
from expander_sae.study import targets
from expander_sae.study.recipes import RECIPES
from expander_sae.study.study import load_config
from tests.study.configs import config, study_of

MODEL = "smollm2-135m-instruct"


def swept(sweep, **changes):
    return study_of(sweep=sweep, **changes)


def test_every_cell_is_trained_under_every_combination():
    study = swept(
        {"training": {"learning_rate": [0.01, 0.1], "bias_rate": [None, 1]}, "seeds": [3, 4], "steps": [5, 6]}
    )
    assert len(study.sweep.runs) == 2 * 4 * 2 * 2
    assert {(run.d, run.seed, run.steps) for run in study.sweep.runs} == {
        (d, seed, steps) for d in (7, 30) for seed in (3, 4) for steps in (5, 6)
    }
    assert [*study.sweep.values.values()] == [
        {"learning_rate": rate, "bias_rate": bias} for rate in (0.01, 0.1) for bias in (None, 1.0)
    ]
    for run in study.sweep.runs:
        assert asdict(run.recipe_settings) == asdict(RECIPES["tuned"]) | study.sweep.values[run.recipe]
        assert run.evaluation.inference == ()


def test_a_swept_run_is_the_run_of_a_study_with_that_recipe():
    rate = 0.02
    (one, *_) = swept({"training": {"learning_rate": [rate]}, "seeds": 1}).sweep.runs
    assert one.path in {run.path for run in study_of(training={"learning_rate": rate}).runs}


def test_it_is_trained_and_validated_beside_the_study_which_it_leaves_as_it_is():
    plain, study = study_of(), swept({"training": {"learning_rate": [0.01, 0.1]}})
    assert study.runs == plain.runs and set(study.trained) == {*plain.runs, *study.sweep.runs}
    assert targets.tables(study, "metrics") == targets.tables(plain, "metrics")
    assert {name: count for name, count in study.needs(MODEL).items() if name != "validation"} == plain.needs(
        MODEL
    )
    assert "validation" not in plain.shards(MODEL) and study.shards(MODEL)["validation"] == 1
    assert {path for task in study.validations.values() for path in task.spec} == {
        run.path for run in study.sweep.runs
    }
    for cell in study.swept.values():
        read = targets.for_validation(cell)
        assert read["validation"].endswith("layer15/pool/validation.json")
        assert read["weights"] == [f"{run.path}/weights.safetensors" for run in cell.runs]


def test_runs_that_start_from_others_or_are_not_trained_are_left_out():
    runs = [{"support": ["pruned_retuned", "pca"], "seeds": 0}, {"support": "dense", "seeds": 0}]
    assert {run.support for run in swept({"training": {"learning_rate": [1]}}, runs=runs).sweep.runs} == {
        "dense"
    }


@pytest.mark.parametrize(
    ("training", "message"),
    [
        ({"learning_rate": [0.1, 0]}, "sweep.training.learning_rate: found 0, expected a number above 0"),
        ({"learning": [0.1]}, "sweep.training.learning: unknown key, expected one of batch_size"),
        ({"learning_rate": 0.1}, "sweep.training.learning_rate: found 0.1, expected a list"),
        ({}, "sweep.training: found {}, expected"),
    ],
)
def test_mistakes_are_named(training, message):
    with pytest.raises(UserError) as caught:
        load_config(config(sweep={"training": training}))
    assert message in str(caught.value)
