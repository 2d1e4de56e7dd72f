"""From a configuration to its runs, and what is said about a wrong one."""

import csv
import subprocess
import sys
from pathlib import Path

import pytest

from expander_sae.errors import UserError
from expander_sae.study import presets
from expander_sae.study.expand import matched
from expander_sae.study.run import RUN_COLUMNS
from expander_sae.study.study import Study, load_config

ROOT = Path(__file__).resolve().parents[2]


def config(**changes):
    base = {
        "models": [{"name": "smollm2-135m-instruct", "layers": [15]}],
        "grid": {"n": 4608, "d": [7, 30], "seeds": [0, 1]},
        "runs": [{"support": "expander"}],
    }
    return {**base, **changes}


def mistakes(wrong):
    with pytest.raises(UserError) as caught:
        load_config(wrong)
    lines = str(caught.value).splitlines()
    assert all(line.startswith("config: ") for line in lines)
    return [line.removeprefix("config: ") for line in lines]


@pytest.mark.parametrize(
    "name", ["config.yaml", *(f"configs/{name}.yaml" for name in ("smoke", "paper", "smollm2-135m"))]
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
        "batch_tokens": 2048,
    }


def test_the_given_mapping_is_left_alone():
    given = config()
    load_config(given)
    assert given == config()


def test_runs_are_the_product_of_a_block():
    study = Study(load_config(config()))
    assert [(run.d, run.seed) for run in study.runs] == [(7, 0), (7, 1), (30, 0), (30, 1)]
    assert study.runs[0].path == (
        "results/smollm2-135m-instruct/docstrings/layer15/standard_t120000_s1500/expander-tied/"
        "n4608_d7_k64_seed0"
    )
    assert study.runs[0].mask == "results/masks/expander_m576_n4608_d7_seed0.json"
    assert [cell.seeds for cell in study.cells.values()] == [(0, 1), (0, 1)]


def test_a_run_named_twice_is_one_run_measured_in_every_way_asked():
    blocks = [
        {"support": "expander", "cross_entropy": ["omp"]},
        {"support": "expander", "d": 7, "seeds": 0, "cross_entropy": ["encoder"]},
    ]
    study = Study(load_config(config(runs=blocks)))
    assert len(study.runs) == len({run.path for run in study.runs}) == 4
    assert study.runs[0].evaluation.cross_entropy == ("encoder", "omp")
    assert study.runs[1].evaluation.cross_entropy == ("omp",)


def test_expansion_is_a_multiple_of_the_width():
    study = Study(load_config(config(grid={"expansion": 8, "d": 7})))
    assert {run.n for run in study.runs} == {8 * 576}


def test_dense_runs_have_d_equal_m_whatever_d_the_grid_names():
    study = Study(load_config(config(runs=[{"support": "dense"}])))
    assert [(run.n, run.d, run.seed) for run in study.runs] == [(4608, 576, 0), (4608, 576, 1)]
    assert study.runs[0].mask is None


def test_matched_dense_runs_have_as_many_values_and_small_ones_are_left_out():
    study = Study(load_config(config(runs=[{"support": "dense", "match": "decoder", "seeds": 0}])))
    assert [(run.n, run.d) for run in study.runs] == [(240, 576)]
    assert len(study.left_out) == 1 and "n'=56" in study.left_out[0] and "2k=128" in study.left_out[0]
    assert matched("decoder", 512, 4096, 50) == 50 * 4096 // 512
    assert matched("total", 512, 4096, 50) == 50 * 4096 // 1024
    assert matched(None, 512, 4096, 50) == 4096


def test_matched_compute_is_the_whole_dictionary_for_fewer_steps():
    block = {"support": "dense", "match": "compute", "seeds": 0}
    study = Study(load_config(config(runs=[block], training={"steps": 5000})))
    assert [(run.n, run.d, run.steps) for run in study.runs] == [(4608, 576, 61), (4608, 576, 260)]


def test_families_with_digits_and_learned_masks():
    block = {"support": ["dose144", "girth6", "pruned_retuned"], "d": 7, "seeds": 0}
    dosed, wide, pruned = Study(load_config(config(runs=[block]))).runs
    assert dosed.mask == "results/masks/dose144_m576_n4608_d7_seed0.json"
    assert wide.mask == "results/masks/girth6_m576_n4608_d7_seed0.json"
    assert pruned.mask is None and pruned.parent is not None
    assert (pruned.parent.support, pruned.parent.d, pruned.parent.n) == ("dense", 576, 4608)


def test_what_a_run_is_pruned_from_is_trained_and_measured_only_where_it_is_asked_for():
    pruned = {"support": "pruned_retuned", "seeds": 0}
    alone = Study(load_config(config(runs=[pruned])))
    assert [run.support for run in alone.runs] == ["pruned_retuned"] * 2
    assert [run.support for run in alone.trained] == ["pruned_retuned"] * 2 + ["dense"]
    both = Study(load_config(config(runs=[pruned, {"support": "dense", "seeds": 0}])))
    assert [run.support for run in both.trained] == ["pruned_retuned"] * 2 + ["dense"]
    assert both.runs == both.trained
    assert both.runs[0].parent.path == both.runs[2].path


def test_a_training_job_has_a_bounded_number_of_seeds():
    grid = {"n": 4608, "d": 7, "seeds": list(range(7))}
    blocks = [{"support": "expander"}, {"support": "pruned_retuned", "seeds": [3, 1]}]
    study = Study(load_config(config(grid=grid, runs=blocks, compute={"seeds_per_job": 3})))
    jobs = [(job.runs[0].support, job.seeds) for job in study.trainings]
    assert jobs == [
        ("expander", (0, 1, 2)),
        ("expander", (3, 4, 5)),
        ("expander", (6,)),
        ("pruned_retuned", (1, 3)),
        ("dense", (1, 3)),
    ]


def test_blocks_override_what_is_measured():
    blocks = [
        {"support": "expander", "d": 7, "seeds": 0, "inference": ["encoder"]},
        {"support": "expander", "d": 30, "seeds": 0, "train_cross_entropy": True},
        {"support": "expander", "d": 30, "seeds": 0, "analyses": ["novelty", "pursuits"]},
    ]
    study = Study(load_config(config(runs=blocks, evaluation={"pursuits": ["niht", "block_omp_4"]})))
    first, second = study.runs
    assert first.evaluation.inference == first.evaluation.cross_entropy == ("encoder",)
    assert second.evaluation.cross_entropy == ("encoder", "omp")
    assert second.evaluation.train_cross_entropy and not first.evaluation.train_cross_entropy
    assert list(study.analyses) == [second.cell.name]
    (asked,) = study.analyses[second.cell.name].spec.values()
    assert asked["analyses"] == ("pursuits", "novelty") and asked["pursuits"] == ("block_omp_4", "niht")
    assert asked["reference"] is None and "novelty" in study.left_out[0]


def test_novelty_is_measured_against_the_dense_run_of_the_same_seed():
    blocks = [
        {"support": "expander", "d": 7, "analyses": ["novelty"]},
        {"support": "dense", "seeds": 1},
    ]
    study = Study(load_config(config(runs=blocks)))
    spec = study.analyses[study.runs[0].cell.name].spec
    assert [found["reference"] for found in spec.values()] == [None, study.runs[2].path]


def test_a_dense_run_is_compared_with_its_next_seed():
    study = Study(
        load_config(config(runs=[{"support": "dense", "seeds": [0, 1, 4], "analyses": ["novelty"]}]))
    )
    told = study.analyses[study.runs[0].cell.name].spec
    paths = [run.path for run in study.runs]
    assert {path: asked["reference"] for path, asked in told.items()} == {
        paths[0]: paths[1], paths[1]: paths[2], paths[2]: paths[0],
    }  # fmt: skip
    assert not study.left_out
    alone = Study(load_config(config(runs=[{"support": "dense", "seeds": 4, "analyses": ["novelty"]}])))
    assert alone.analyses[alone.runs[0].cell.name].spec[alone.runs[0].path]["reference"] is None
    assert alone.left_out[0].endswith("novelty, since the study has no other seed of it")


def test_a_pruned_run_is_not_compared_with_what_it_was_made_from():
    blocks = [{"support": ["dense", "pruned_retuned"], "d": 7, "seeds": 0, "analyses": ["novelty"]}]
    study = Study(load_config(config(runs=blocks)))
    pruned = next(run for run in study.runs if run.support == "pruned_retuned")
    assert study.analyses[pruned.cell.name].spec[pruned.path]["reference"] is None
    (line,) = [line for line in study.left_out if line.startswith(pruned.cell.name)]
    assert line.endswith("novelty, since it starts from the dense run of its seed")


def test_the_table_of_times_is_that_of_its_runs():
    def spec(**changes):
        return Study(load_config(config(**changes))).speed_spec()

    plain = spec()
    assert plain == spec(evaluation={"cross_entropy": ["encoder"]})
    assert len({plain, spec(training={"steps": 7}), spec(grid={"n": 4608, "d": [7], "seeds": [0, 1]})}) == 3


def test_another_analysis_is_another_folder_and_the_same_evaluation():
    def folders(**changes):
        blocks = [{"support": "expander", "d": 7, "analyses": ["pursuits"]}]
        study = Study(load_config(config(runs=blocks, evaluation=changes)))
        (cell,) = study.analyses
        return study.evaluations[cell].folder, study.analyses[cell].folder

    plain = folders()
    assert folders(pursuit_tokens=100)[0] == plain[0] and folders(pursuit_tokens=100)[1] != plain[1]
    assert folders(train_cross_entropy=True)[0] != plain[0]
    assert folders(train_cross_entropy=True)[1] == plain[1]


def test_synthetic_trials_have_a_folder_for_each_d():
    study = Study(load_config(config(synthetic={"d": [7, 30], "k": 4, "trials": 3})))
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
    assert Study(load_config(config())).synthetic == {}


def test_labels_tell_settings_apart():
    def labels(**changes):
        study = Study(load_config(config(**changes)))
        run = study.runs[0]
        return run.model, run.corpus, run.recipe

    plain = labels()
    assert plain == ("smollm2-135m-instruct", "docstrings", "standard")
    half = labels(models=[{"name": "smollm2-135m-instruct", "layers": 15, "dtype": "bfloat16"}])
    assert half[0].startswith("smollm2-135m-instruct-") and len(half[0]) == len(plain[0]) + 7
    assert labels(corpus={"name": "docstrings", "data_seed": 1})[1].startswith("docstrings-")
    assert labels(training={"learning_rate": 1e-3})[2].startswith("standard-")
    spelled_out = {"name": "smollm2-135m-instruct", **presets.MODELS["smollm2-135m-instruct"], "layers": [15]}
    assert labels(models=[spelled_out]) == plain
    assert labels(training={"batch_size": 256.0}) == plain, "a number equal to the default is the default"


def test_planning_imports_neither_torch_nor_numpy():
    code = (
        "import sys; from expander_sae.study.study import Study, load_config;"
        f"Study(load_config({str(ROOT / 'config.yaml')!r}));"
        "print([name for name in ('torch', 'numpy', 'pandas') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


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
            {"runs": [{"support": "pruned_retuned", "encoder": "warm_tied"}]},
            "runs[0].encoder: found 'warm_tied' with support pruned_retuned (runs[0]), expected tied",
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


def test_the_paper_grid_measures_every_published_value():
    study = Study(load_config(ROOT / "configs/paper.yaml"))
    columns = [name for name in RUN_COLUMNS if name not in ("corpus", "recipe", "steps", "seed")]
    # The seeds from 3 on serve the claims, and are measured by less.
    runs = [run for run in study.runs if (run.seed, run.steps) == (0, 5000)]
    held = {tuple(str(getattr(run, name)) for name in columns): run for run in runs}
    with open(ROOT / "resources/paper_figures.csv", encoding="utf-8") as stream:
        published = list(csv.DictReader(stream))
    missing = set()
    for row in published:
        run, inference = held.get(tuple(row[name] for name in columns)), row["inference"]
        if run is None:
            missing.add(tuple(row.values()))
        elif inference in ("niht", "cosamp"):
            asked = "pursuits" in run.analysis.analyses and inference in run.analysis.pursuits
            missing |= set() if asked else {tuple(row.values())}
        elif inference != "omp_single_block":  # one round of a block pursuit, in CE: not spliced here
            kind = "cross_entropy" if row["metric"].startswith("ce") else "inference"
            missing |= set() if inference in getattr(run.evaluation, kind) else {tuple(row.values())}
    assert len(published) > 800 and not missing
    assert {run.recipe for run in study.runs} == {"paper"}


def test_the_paper_grid_has_ten_seeds_of_the_cells_that_carry_a_claim():
    study = Study(load_config(ROOT / "configs/paper.yaml"))
    seeds: dict[tuple[str, int, str, int], set[int]] = {}
    for run in study.runs:
        main = (run.encoder, run.n, run.k, run.train_tokens, run.steps)
        if main == ("tied", 8 * run.m, 64, 200_000, 5000):
            seeds.setdefault((run.model, run.layer, run.support, run.d), set()).add(run.seed)
    for d in (7, 100):
        for support in ("expander", "clustered_cover", "bernoulli"):
            assert seeds["pythia-70m-deduped", 3, support, d] == set(range(10))
    assert seeds["pythia-70m-deduped", 3, "dense", 512] == set(range(10))
    assert seeds["qwen2.5-3b", 12, "expander", 7] == seeds["qwen2.5-3b", 12, "dense", 2048] == set(range(10))
    assert seeds["pythia-70m-deduped", 3, "expander", 30] == {0, 1, 2}


def test_the_shipped_study_holds_what_its_claims_compare():
    study = Study(load_config(ROOT / "configs/smollm2-135m.yaml"))
    seeds: dict[tuple[str, int, int, int], set[int]] = {}
    for run in study.runs:
        if run.encoder == "tied" and run.train_tokens == 200000 and run.steps == 5000:
            seeds.setdefault((run.support, run.n, run.d, run.k), set()).add(run.seed)
    ten, three = set(range(10)), {0, 1, 2}
    for support in ("expander", "clustered_cover", "bernoulli"):
        assert seeds[support, 4608, 7, 64] == seeds[support, 4608, 100, 64] == ten
    assert seeds["dense", 4608, 576, 64] == ten
    for d in (7, 100):
        for support in ("pruned_retuned", "dose144", "dose576", "dose2304", "right_regular"):
            assert seeds[support, 4608, d, 64] == three
        for k in (16, 32, 128):
            assert seeds["expander", 4608, d, k] == seeds["pruned_retuned", 4608, d, k] == three
    assert seeds["dense", 240, 576, 64] == seeds["dense", 800, 576, 64] == three
    compared = [run for run in study.runs if "novelty" in run.analysis.analyses]
    told = {path: spec for task in study.analyses.values() for path, spec in task.spec.items()}
    assert compared and all(told[run.path]["reference"] for run in compared)
    assert study.rows == "studies/smollm2-135m/rows" and len(study.synthetic) == 5
