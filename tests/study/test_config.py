"""What a configuration is read as, and what is said about a wrong one."""

import pytest

from expander_sae.errors import UserError
from expander_sae.study.study import Study, load_config
from tests.study.configs import ROOT, config


def mistakes(wrong):
    with pytest.raises(UserError) as caught:
        load_config(wrong)
    lines = str(caught.value).splitlines()
    assert all(line.startswith("config: ") for line in lines)
    return [line.removeprefix("config: ") for line in lines]


@pytest.mark.parametrize(
    "name", ["config.yaml", *(f"configs/{name}.yaml" for name in ("smoke", "paper", "smollm2-135m", "sweep"))]
)
def test_every_shipped_configuration_is_valid(name):
    assert Study(load_config(ROOT / name)).runs


def test_defaults_are_filled_in():
    checked = load_config(config())
    assert checked["corpus"]["name"] == "docstrings"
    assert checked["tokens"]["shard"] > 0
    assert checked["grid"]["k"] == [64]
    assert checked["compute"] == {
        "device": "auto",
        "backend": "auto",
        "threads": 1,
        "seeds_per_job": 5,
        "cells_per_job": "auto",
        "shards_per_job": 1,
        "keep_shards": True,
        "trainings_per_job": "auto",
        "products": "bfloat16",
        "batch_tokens": "auto",
    }


def test_the_given_mapping_is_left_alone():
    given = config()
    load_config(given)
    assert given == config()


def test_every_mistake_is_listed_with_its_key():
    wrong = config(
        training={"stepz": 3, "clip_norm": 0, "learning_rate": float("nan")},
        compute={"device": "tpu"},
        tokens={"train": "many"},
    )
    found = mistakes(wrong)
    assert len(found) == 5
    assert found[0].startswith("compute.device: found 'tpu', expected one of auto, cpu, cuda")
    assert found[1] == "tokens.train: found 'many', expected a whole number (token activations to train on)"
    assert found[2].startswith("training.clip_norm: found 0, expected more than 0")
    assert found[3] == "training.learning_rate: found nan, expected a finite number"
    assert found[4].startswith("training.stepz: unknown key; expected one of steps, ")
    assert found[4].endswith("(did you mean steps?)")


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        (
            {"grid": {"n": 4608, "d": [7, 600]}},
            "grid.d[1]: found 600, expected at most 576 (the width of model smollm2-135m-instruct)",
        ),
        (
            {"grid": {"n": 64, "d": 7}},
            "grid.d[0]: found 7 with n=64 and support expander, expected d·n at least",
        ),
        ({"grid": {"n": 1, "d": 7}}, "grid.n: found 1, expected at least 2"),
        ({"grid": {"n": 600, "d": 7, "k": [64, 601]}}, "grid.k[1]: found 601, expected at most n=600"),
        ({"grid": {"n": 600}}, "runs[0].d: missing"),
        (
            {"corpus": {"name": "docstrings", "context": 32769}},
            "corpus.context: found 32769, expected at most 32768 (tokens to which a document is cut)",
        ),
        ({"grid": {"d": 7}}, "runs[0].n: missing"),
        ({"grid": {"n": 600, "expansion": 2, "d": 7}}, "grid.expansion: found beside grid.n"),
        ({"grid": {"expansion": 0.3, "d": 7}}, "grid.expansion[0]: found 0.3, expected a multiple"),
        ({"grid": {"n": 600, "d": 7, "seeds": [0, 0]}}, "grid.seeds[1]: found 0 again"),
        (
            {"models": [{"name": "smollm2-135m-instruct", "layers": [30]}]},
            "models[0].layers[0]: found 30, expected at most 29",
        ),
        (
            {"models": [{"name": "smollm2-135m-instruct", "layers": 15}] * 2},
            "models[1].name: found 'smollm2-135m-instruct' again",
        ),
        ({"models": [{"name": "mine", "layers": 3}]}, "models[0].depth: missing"),
        ({"models": []}, "models: found [], expected at least 1 item"),
        ({"runs": [{"support": "expandr"}]}, "runs[0].support: found 'expandr', expected one of"),
        (
            {"runs": [{"support": "expander", "models": "gpt"}]},
            "runs[0].models: found 'gpt', expected one of",
        ),
        (
            {"runs": [{"support": "expander", "layers": 40}]},
            "runs[0].layers[0]: found 40, expected at most 29",
        ),
        (
            {"runs": [{"support": "expander", "match": "decoder"}]},
            "runs[0].match: found 'decoder' with support expander",
        ),
        (
            {"runs": [{"support": "dense", "encoder": ["tied", "full"]}]},
            "runs[0].encoder: found 'full' with support dense",
        ),
        (
            {"runs": [{"support": "frozen_decoder", "encoder": "warm_tied", "codes": "omp"}]},
            "runs[0].codes: found 'omp' with support frozen_decoder (runs[0]), expected encoder (no training",
        ),
        (
            {"grid": {"codes": ["block_omp_2"]}, "runs": [{"support": "exemplars"}]},
            "grid.codes: found 'block_omp_2' with support exemplars (runs[0]), expected encoder (no training",
        ),
        ({"grid": {"codes": ["mp"]}}, "grid.codes[0]: found 'mp', expected encoder, omp, or block_omp_L"),
        (
            {"runs": [{"support": "pruned_retuned", "encoder": "warm_tied"}]},
            "runs[0].encoder: found 'warm_tied' with support pruned_retuned (runs[0]), expected tied",
        ),
        (
            {"runs": [{"support": ["pca", "expander"], "encoder": ["tied", "full"]}]},
            "runs[0].encoder: found 'full' with support pca (runs[0]), expected tied",
        ),
        (
            {"runs": [{"support": "frozen_decoder"}]},
            "grid.encoder: found 'tied' with support frozen_decoder (runs[0]), expected warm_tied or ",
        ),
        *(
            (
                {"runs": [{"support": "expander"}, {"support": support, "precision": ["int8", trained]}]},
                f"runs[1].precision: found '{trained}' with support {support} (runs[1]), which nobody "
                f"trains; expected {trained[:4]}, which rounds it",
            )
            for support, trained in (
                ("pca", "int4_trained"),
                ("random", "int2_trained"),
                ("exemplars", "int1_trained"),
            )
        ),
        ({"grid": {"n": 600}, "runs": [{"support": "pca"}]}, "runs[0].d: missing"),
        (
            {"grid": {"n": 600, "d": [7, 600]}, "runs": [{"support": "pca"}]},
            "grid.d[1]: found 600, expected at most 576 (the width of model smollm2-135m-instruct)",
        ),
        (
            {"runs": [{"support": "girth6", "d": [7, 30]}]},
            "runs[0].d[1]: found 30 with n=4608 and support girth6: girth6: n = 4608 columns of d = 30 on "
            "m = 576 rows; at most m(m−1)/(d(d−1)) = 380 can exist",
        ),
        (
            {"runs": [{"support": "dose4609", "d": 7}]},
            "runs[0].d[0]: found 7 with n=4608 and support dose4609: dose4609: expected 1 to n = 4608",
        ),
        (
            {"runs": [{"support": ["dose64", "dose0"]}]},
            "runs[0].support[1]: found 'dose0', expected one of expander, bernoulli, ",
        ),
        (
            {"evaluation": {"analyses": ["noveltie"]}},
            "evaluation.analyses[0]: found 'noveltie', expected one of pursuits, features, ",
        ),
        ({"evaluation": {"pursuits": ["omp"]}}, "evaluation.pursuits[0]: found 'omp', expected niht, "),
        ({"synthetic": {"d": [7, 600]}}, "synthetic.d[1]: found 600, expected 1 to m=512"),
        ({"synthetic": {"k": 513}}, "synthetic.k[0]: found 513, expected at most 512"),
        ({"study": {"folder": "../elsewhere"}}, "study.folder: found '../elsewhere', expected a relative"),
        ({"study": {}}, "study.folder: missing"),
        (
            {"runs": [{"support": "expander", "inference": ["encoder"], "cross_entropy": ["omp"]}]},
            "runs[0].cross_entropy: found 'omp', expected only what runs[0].inference lists",
        ),
        (
            {"runs": [{"support": "dense", "match": "total"}]},
            "runs[0].match: found 'total' with encoder tied",
        ),
        (
            {"evaluation": {"inference": ["encoder"]}},
            "evaluation.cross_entropy: found 'omp', expected only what evaluation.inference lists",
        ),
        (
            {"corpus": {"name": "mine", "source": "files"}},
            "corpus.location: missing, expected a path or glob",
        ),
        ({"corpus": {"name": "docstrings", "context": 2}}, "corpus.min_tokens: found 4, expected at most 2"),
        (
            {"corpus": {"name": "docstrings", "context": 8193}},
            "corpus.context: found 8193, expected at most 8192 (positions of model smollm2-135m-instruct)",
        ),
        ({"surprise": 1}, "surprise: unknown key"),
        ({"compute": {"threads": True}}, "compute.threads: found True, expected a whole number"),
        (
            {"training": {"norm_limit": float("inf")}},
            "training.norm_limit: found inf, expected a finite number",
        ),
    ],
)
def test_a_mistake_names_key_value_and_what_is_allowed(changes, expected):
    assert any(line.startswith(expected) for line in mistakes(config(**changes)))


def test_a_context_beyond_the_positions_of_a_model_on_disk(tmp_path, monkeypatch):
    model = {
        "name": "mine",
        "source": "folder",
        "location": str(tmp_path),
        "width": 8,
        "depth": 2,
        "layers": 1,
    }
    found = {
        "models": [model],
        "grid": {"n": 16, "d": 2, "k": 2},
        "corpus": {"name": "docstrings", "context": 65},
    }
    load_config(config(**found))  # nothing is known of it yet
    (tmp_path / "config.json").write_text('{"n_positions": 64}')
    said = "corpus.context: found 65, expected at most 64 (positions of model mine)"
    assert mistakes(config(**found)) == [said]
    load_config(config(**{**found, "corpus": {"name": "docstrings", "context": 64}}))
    # A folder of this very name is meant, as where the model is loaded.
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "nowhere"))
    (tmp_path / "~" / "model").mkdir(parents=True)
    (tmp_path / "config.json").rename(tmp_path / "~" / "model" / "config.json")
    model["location"] = "~/model"
    assert mistakes(config(**found)) == [said]


@pytest.mark.parametrize(
    "name", ["../up", "a/b", "a b", "$(id)", "a;b", "", ".hidden", "logs", "Masks", "x" * 81, "synthetic"]
)
def test_names_cannot_leave_the_results(name):
    model = {
        "name": name,
        "source": "folder",
        "location": "somewhere",
        "width": 8,
        "depth": 2,
        "layers": 1,
    }
    assert mistakes(config(models=[model], grid={"n": 16, "d": 2, "k": 2}))[0].startswith("models[0].name: ")


@pytest.mark.parametrize("text", ["", "[]", "models: [", "- 1", "\x00", "models: {a: b}", "3"])
def test_a_file_that_is_no_configuration_is_named(tmp_path, text):
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(UserError):
        load_config(path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UserError, match=r"none\.yaml: no such configuration file"):
        load_config(tmp_path / "none.yaml")
