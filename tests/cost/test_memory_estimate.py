"""Estimated peaks beside measured ones."""

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from expander_sae.cost.memory_estimate import Memory, asked_mb, asked_minutes
from expander_sae.study.study import Study, load_config

ROOT = Path(__file__).resolve().parents[2]

# peak_mb of results/timings.parquet after the default run: CPU build of torch 2.13, Linux, 1 thread.
TRAINED = {
    ("dense", 240, 576): 642.2,
    ("dense", 800, 576): 658.6,
    ("expander", 4608, 7): 760.5,
    ("expander", 4608, 30): 812.8,
    ("bernoulli", 4608, 100): 788.1,
    ("dense", 4608, 576): 774.2,
}
EVALUATED = {("expander", 4608, 7): 1552.1, ("expander", 4608, 30): 1579.3, ("dense", 4608, 576): 1461.6}


@pytest.fixture(scope="module")
def study():
    """The default one, and a run that was in it when its peaks were measured."""
    config = yaml.safe_load((ROOT / "config.yaml").read_text())
    config["runs"].append({"support": "bernoulli", "d": [100]})
    return Study(load_config(config))


def runs(study):
    return {(run.support, run.n, run.d): run for run in study.runs}


def test_estimates_are_near_what_the_default_run_took(study):
    memory, found, model = Memory(study), runs(study), next(iter(study.models.values()))
    for key, peak in TRAINED.items():
        assert 0.9 < memory.training(found[key]) / peak < 1.25, key
    for key, peak in EVALUATED.items():
        assert 0.9 < memory.evaluation(found[key]) / peak < 1.25, key
    assert memory.extraction(model) == pytest.approx(1016.6, rel=0.1)
    assert memory.pool(model, 122_880) == pytest.approx(299.3, rel=0.1)
    assert memory.model(model) == pytest.approx(1595.0, rel=0.1)
    assert memory.corpus(17 * 8192) == pytest.approx(510.3, rel=0.2)
    assert memory.mask(4608, 100) == pytest.approx(169.9, rel=0.2)


def test_every_request_is_above_what_was_measured(study):
    memory, found = Memory(study), runs(study)
    assert all(asked_mb(memory.training(found[key])) > peak for key, peak in TRAINED.items())
    assert all(asked_mb(memory.evaluation(found[key])) > peak for key, peak in EVALUATED.items())


def test_requests_grow_with_the_attempt():
    assert asked_mb(1000) == 1450
    assert [asked_mb(1000, attempt) for attempt in (2, 3)] == [2900, 4350]
    assert asked_minutes(600, 30) == 60
    assert asked_minutes(600, 30, attempt=2) == 120


def test_more_values_take_more_memory(study):
    """An encoder of its own, and a support that begins dense, cost gradients and moments too."""
    base = {
        "models": [{"name": "smollm2-135m-instruct", "layers": [15]}],
        "grid": {"n": 4608, "d": [30], "k": [64], "seeds": [0]},
    }
    dense = Study(load_config({**base, "runs": [{"support": "dense", "encoder": ["tied", "independent"]}]}))
    tied, free = (Memory(dense).training(run) for run in dense.runs)
    assert free - tied == pytest.approx(6 * 4 * 4608 * 576 / 1e6)
    assert Memory(dense, gpu=True).training(dense.runs[0]) > tied


def test_long_documents_are_tested_two_at_once():
    """Before a shard is made; they are longer than a batch, and what is compared may be more than a shard."""
    config = {
        "models": [{"name": "smollm2-135m-instruct", "layers": [15]}],
        "grid": {"n": 4608, "d": [30], "k": [64], "seeds": [0]},
        "runs": [{"support": "expander"}],
    }
    short, long = (
        Memory(study).extraction(next(iter(study.models.values())))
        for study in (
            Study(load_config({**config, "corpus": {"name": "docstrings", "context": context}}))
            for context in (128, 8192)
        )
    )
    assert long - short > 16 * (2 * 8192 - 2048) * 576 * 4 / 1e6


def test_estimating_imports_no_torch():
    code = (
        "import sys\nimport expander_sae.cost.memory_estimate, expander_sae.machine.available_memory\n"
        "assert not {'torch', 'numpy', 'pandas'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_what_nobody_trained_is_held_as_columns_of_all_entries():
    """Random columns are as large in memory as dense ones, whatever their file holds."""
    blocks = [{"support": ["random", "dense", "expander"], "d": 7}]
    config = {"models": [{"name": "smollm2-135m-instruct", "layers": 15}], "grid": {"n": 4608}}
    config |= {"runs": blocks, "evaluation": {"inference": ["omp"], "cross_entropy": []}}
    study = Study(load_config(config))
    found = {run.support: Memory(study).evaluation(run) for run in study.runs}
    assert found["random"] == found["dense"] > found["expander"]


def test_decoders_of_several_matrices_take_the_memory_of_all_of_them():
    """A hybrid has the values of an expander; its scores are all there at once."""
    blocks = [{"support": ["hybrid", "spectral", "grown", "dense", "expander"], "d": 30}]
    config = {"models": [{"name": "smollm2-135m-instruct", "layers": 15}], "grid": {"n": 4608}}
    config |= {"runs": blocks, "evaluation": {"inference": ["encoder"], "cross_entropy": []}}
    study = Study(load_config(config))
    memory = Memory(study)
    asked = {run.support: memory.training(run) for run in study.runs}
    assert asked["grown"] == asked["expander"] and abs(asked["hybrid"] - asked["expander"]) < 10
    assert asked["expander"] < asked["spectral"], "its principal components take tokens in float64"
    read = {run.support: memory.evaluation(run) for run in study.runs}
    assert read["grown"] == read["expander"] < read["hybrid"] < read["spectral"] < read["dense"]


def test_many_tokens_take_no_more_memory_where_they_are_streamed():
    def of(tokens, **training):
        config = {
            "models": [{"name": "smollm2-135m-instruct", "layers": [15]}],
            "tokens": {"train": tokens, "shard": 1 << 20, "test": 1 << 10},
            "training": training,
            "grid": {"n": 4608, "d": [30], "k": [64], "seeds": [0]},
            "runs": [{"support": "expander"}],
        }
        study = Study(load_config(config))
        (model,), (run,) = study.models.values(), study.runs
        memory = Memory(study)
        return memory.training(run), memory.extraction(model), memory.corpus(tokens)

    few, many = of(10**7, stream=1 << 17), of(10**9, stream=1 << 17)
    assert many[:2] == few[:2] and few[0] < 2000 and few[1] < 2000
    assert many[2] - few[2] == pytest.approx(200 * (10**9 - 10**7) / 128 / 1e6)
    assert of(10**7)[0] > few[0] + 20_000, "a pool is mapped whole"
