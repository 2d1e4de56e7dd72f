"""A run, its columns and its spec; and names that finished results lie under, which must never change."""

from dataclasses import asdict, replace

import pytest

from expander_sae.errors import UserError
from expander_sae.storage.files import digest
from expander_sae.study.recipes import RECIPES
from expander_sae.study.run import CELL_COLUMNS, RUN_COLUMNS, Analysis, Cell, Evaluation, Run
from expander_sae.study.study import Study, load_config


def run(**changes):
    columns = {"model": "gpt", "corpus": "text", "layer": 3, "recipe": "standard", "support": "expander"}
    columns |= {
        "encoder": "tied",
        "m": 16,
        "n": 48,
        "d": 4,
        "k": 3,
        "train_tokens": 99,
        "steps": 10,
        "seed": 2,
    }
    return Run(**columns | {"seed": 2, "recipe_settings": RECIPES["standard"]} | changes)


def test_columns_are_those_that_tell_runs_apart():
    assert tuple(RUN_COLUMNS) == (*CELL_COLUMNS, "seed")
    assert tuple(run().columns) == tuple(RUN_COLUMNS)
    for name, kind in RUN_COLUMNS.items():
        other = run(**{name: "int8" if name == "precision" else "another" if kind is str else 7})
        assert (other != run() and other.name != run().name) or name == "m"
        assert (other.cell == run().cell) == (name == "seed")
    measured = run(evaluation=Evaluation(inference=("omp",)), analysis=Analysis(analyses=("novelty",)))
    assert measured == run() and hash(measured) == hash(run())


def test_a_cell_is_found_again_by_its_columns():
    assert Cell.of(list(run().columns.values())[:-1]) == run(seed=5).cell
    assert run().path == "results/gpt/text/layer3/standard_t99_s10/expander-tied/n48_d4_k3_seed2"
    assert run().cell.name == "gpt/text/layer3/standard_t99_s10/expander-tied/n48_d4_k3"


def test_a_run_in_float32_is_told_and_named_as_before_there_were_others():
    wide, rounded = run(), run(precision="int8")
    assert "precision" not in wide.spec and wide.columns["precision"] == "float32"
    assert (
        rounded.spec
        == wide.spec | {"precision": "int8"}
        == rounded.told | {"recipe_settings": wide.spec["recipe_settings"]}
    )
    assert rounded.cell.name == f"{wide.cell.name}_int8"
    for one in (wide, rounded):
        assert Run.from_spec(one.spec) == one
    assert Run.from_spec({**wide.spec, "precision": "float32"}) == wide
    assert rounded.unaided.columns == wide.unaided.columns


def test_a_run_that_is_rounded_starts_from_the_one_that_is_trained():
    for precision in ("bfloat16", "int8", "int4", "int2", "int1"):
        rounded = run(precision=precision, evaluation=Evaluation(inference=("omp",)))
        assert rounded.parent == run() and rounded.parent.evaluation == Evaluation()
        assert not rounded.is_trained and rounded.mask is None and run().mask is not None
    pruned = run(support="pruned_retuned", precision="int4")
    wide = run(support="pruned_retuned")
    assert pruned.ancestors == (wide, wide.dense) and pruned.dense == wide.dense
    for precision in ("int4_trained", "int2_trained", "int1_trained"):
        trained = run(precision=precision)
        assert trained.is_trained and trained.parent is None and trained.mask == run().mask


def test_a_run_with_codes_by_a_pursuit_goes_on_from_the_one_with_codes_by_its_encoder():
    first, pursued = run(), run(codes="omp", evaluation=Evaluation(inference=("omp",)))
    assert "codes" not in first.spec and first.columns["codes"] == "encoder"
    assert pursued.spec == first.spec | {"codes": "omp"} and Run.from_spec(pursued.spec) == pursued
    assert pursued.cell.name == f"{first.cell.name}_omp"
    assert pursued.parent == first and pursued.parent.evaluation == Evaluation()
    assert pursued.is_trained and pursued.mask is None, "the weights that it starts from hold the mask"
    rounded = run(codes="block_omp_4", precision="int8")
    assert rounded.cell.name == f"{first.cell.name}_block_omp_4_int8"
    assert rounded.ancestors == (run(codes="block_omp_4"), first)
    pruned = run(support="pruned_retuned", codes="omp")
    assert pruned.ancestors == (run(support="pruned_retuned"), pruned.dense) and not pruned.dense.is_pursued
    assert rounded.unaided.columns == first.unaided.columns


def test_training_with_a_pursuit_spoils_a_tied_encoder_alone():
    assert run().own_codes == ("encoder",) and run(codes="omp").own_codes == ("omp",)
    assert run(encoder="warm_tied", codes="omp").own_codes == ("encoder", "omp")


def test_a_spec_gives_the_run_again():
    recipe = replace(RECIPES["paper"], learning_rate=1e-3)
    again = Run.from_spec(run(recipe_settings=recipe).spec)
    assert again == run() and again.recipe_settings == recipe
    assert again.evaluation == Evaluation() and again.analysis == Analysis()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda spec: spec.pop("layer"), "spec.layer: missing"),
        (lambda spec: spec.update(layers=[3]), "spec.layers: unknown key, expected one of model, corpus"),
        (lambda spec: spec.update(k="3"), "spec.k: found '3', expected a whole number"),
        (lambda spec: spec.update(k=True), "spec.k: found True, expected a whole number"),
        (lambda spec: spec.update(model=None), "spec.model: found None, expected text"),
        (lambda spec: spec["recipe_settings"].pop("clip_norm"), "spec.recipe_settings.clip_norm: missing"),
        (
            lambda spec: spec["recipe_settings"].update(norm_limit="10"),
            "spec.recipe_settings.norm_limit: found '10', expected a number or null",
        ),
        (lambda spec: spec.update(recipe_settings=[]), "spec.recipe_settings: found list, expected a JSON"),
    ],
)
def test_a_malformed_spec_is_refused(change, message):
    spec = run().spec
    change(spec)
    with pytest.raises(UserError) as caught:
        Run.from_spec(spec)
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        (Evaluation, Evaluation(("encoder", "omp"), ("omp",), 50, 4, True)),
        (Analysis, Analysis(("pursuits",), 50, ("niht",), 10)),
        (Analysis, Analysis(("novelty",), 50, reference="results/dense")),
    ],
)
def test_what_is_measured_survives_json(kind, settings):
    told = {
        name: list(value) if isinstance(value, tuple) else value for name, value in asdict(settings).items()
    }
    assert kind.from_json(told) == settings
    name = next(iter(told))
    with pytest.raises(UserError, match=rf"{name}: found 'all', expected a list of names"):
        kind.from_json(told | {name: "all"})
    with pytest.raises(UserError, match="test_tokens: missing"):
        kind.from_json({key: value for key, value in told.items() if key != "test_tokens"})


def test_what_no_analysis_of_labels_asks_for_names_no_result():
    told = Analysis(("novelty",), 50)
    assert told.json.keys() == {"analyses", "test_tokens", "pursuits", "pursuit_tokens", "reference"}
    assert Analysis.from_json(told.json) == told
    labelled = Analysis(("probing",), 50, inference=("omp",), labelled_tokens=40, labels="mine.jsonl")
    assert Analysis.from_json(labelled.json) == labelled
    assert set(labelled.json) - set(told.json) == {"inference", "labelled_tokens", "labels"}


MODEL = "smollm2-135m-instruct"
PINNED = {
    "models": [{"name": MODEL, "layers": [15]}],
    "corpus": {"name": "pile"},
    "grid": {"n": 4608, "d": [7, 30], "seeds": [0, 1]},
    "runs": [
        {"support": "expander", "d": 7, "train_cross_entropy": True, "analyses": ["novelty", "pursuits"]},
        {"support": "pruned_retuned", "d": 30, "seeds": 0, "inference": ["encoder"]},
        {"support": "dense", "match": "compute", "d": 30, "encoder": "independent", "seeds": 1},
    ],
    "recipe": "standard",
    "training": {"learning_rate": 1e-3},
    "evaluation": {"pursuits": ["niht", "block_omp_4"]},
    "synthetic": {"d": 7, "k": 4, "trials": 3},
    "study": {"folder": "studies/pinned"},
}
LAYER = f"{MODEL}/pile/layer15"
ROWS = [
    "standard-a5d628_t120000_s1500/expander-tied/n4608_d7_k64_seed0-b8f07e0f3b09",
    "standard-a5d628_t120000_s1500/expander-tied/n4608_d7_k64_seed1-6009e3bdd307",
    "standard-a5d628_t120000_s1500/pruned_retuned-tied/n4608_d30_k64_seed0-86d774408c8e",
    "standard-a5d628_t120000_s78/dense-independent/n4608_d576_k64_seed1-bd5c38097b6b",
]
BASELINE = "baseline/standard-a5d628_t120000-574810cb4252"


def test_finished_results_stay_where_they_are():
    """Of another name or spec, they would be made again."""
    study = Study(load_config(PINNED))
    assert [run.path for run in study.runs] == [f"results/{LAYER}/{row.rpartition('-')[0]}" for row in ROWS]
    assert list(study.run_rows) == [f"{LAYER}/{row}".replace("/", "_") for row in ROWS]
    assert list(study.other_rows.values()) == [
        f"results/{LAYER}/{BASELINE}", "results/synthetic/m512_n4096_d7-55557466b883",
    ]  # fmt: skip
    assert [digest(run.spec)[:12] for run in study.trained] == [
        "88c6bfce0727", "ac7a39f1ef36", "15da0c7fd916", "9fb8b58f848b", "c3f54bf79cff",
    ]  # fmt: skip
    folders = [task.folder for task in [*study.evaluations.values(), *study.analyses.values()]]
    assert [folder.rpartition("/")[2] for folder in folders] == [
        "e4b69eb7ea8e", "6ac0865978dc", "c1786a091e9b", "577252bfe6a5",
    ]  # fmt: skip
    assert digest(study.baselines[MODEL, 15, 120_000].spec)[:12] == "cd9e7ef874cc"
    assert study.speed_spec() == "89bd0c30454493dad8acd393654eba811a3d4720d6dab5285ee83d438c760d1d"
