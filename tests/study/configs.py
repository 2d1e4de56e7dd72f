"""A small configuration, and changes to it."""

from pathlib import Path

from expander_sae.study.study import Study, load_config

ROOT = Path(__file__).resolve().parents[2]


def config(**changes):
    base = {
        "models": [{"name": "smollm2-135m-instruct", "layers": [15]}],
        "grid": {"n": 4608, "d": [7, 30], "seeds": [0, 1]},
        "runs": [{"support": "expander"}],
    }
    return {**base, **changes}


def study_of(**changes):
    """The study of `config`."""
    return Study(load_config(config(**changes)))
