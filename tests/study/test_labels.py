"""Folder names that tell settings apart."""

from expander_sae.study import presets
from tests.study.configs import study_of


def test_labels_tell_settings_apart():
    def labels(**changes):
        study = study_of(**changes)
        run = study.runs[0]
        return run.model, run.corpus, run.recipe

    plain = labels()
    assert plain == ("smollm2-135m-instruct", "docstrings", "tuned")
    half = labels(models=[{"name": "smollm2-135m-instruct", "layers": 15, "dtype": "bfloat16"}])
    assert half[0].startswith("smollm2-135m-instruct-") and len(half[0]) == len(plain[0]) + 7
    assert labels(corpus={"name": "docstrings", "data_seed": 1})[1].startswith("docstrings-")
    assert labels(training={"learning_rate": 1e-3})[2].startswith("tuned-")
    spelled_out = {"name": "smollm2-135m-instruct", **presets.MODELS["smollm2-135m-instruct"], "layers": [15]}
    assert labels(models=[spelled_out]) == plain
    assert labels(training={"batch_size": 256.0}) == plain, "a number equal to the default is the default"
