"""The dense run that features are new against."""

from tests.study.configs import study_of


def test_novelty_is_measured_against_the_dense_run_of_the_same_seed():
    blocks = [
        {"support": "expander", "d": 7, "analyses": ["novelty"]},
        {"support": "dense", "seeds": 1},
    ]
    study = study_of(runs=blocks)
    spec = study.analyses[study.runs[0].cell.name].spec
    assert [found["reference"] for found in spec.values()] == [None, study.runs[2].path]


def test_a_dense_run_is_compared_with_its_next_seed():
    study = study_of(runs=[{"support": "dense", "seeds": [0, 1, 4], "analyses": ["novelty"]}])
    told = study.analyses[study.runs[0].cell.name].spec
    paths = [run.path for run in study.runs]
    assert {path: asked["reference"] for path, asked in told.items()} == {
        paths[0]: paths[1], paths[1]: paths[2], paths[2]: paths[0],
    }  # fmt: skip
    assert not study.left_out
    alone = study_of(runs=[{"support": "dense", "seeds": 4, "analyses": ["novelty"]}])
    assert alone.analyses[alone.runs[0].cell.name].spec[alone.runs[0].path]["reference"] is None
    assert alone.left_out[0].endswith("novelty, since the study has no other seed of it")


def test_a_pruned_run_is_not_compared_with_what_it_was_made_from():
    blocks = [{"support": ["dense", "pruned_retuned"], "d": 7, "seeds": 0, "analyses": ["novelty"]}]
    study = study_of(runs=blocks)
    pruned = next(run for run in study.runs if run.support == "pruned_retuned")
    assert study.analyses[pruned.cell.name].spec[pruned.path]["reference"] is None
    (line,) = [line for line in study.left_out if line.startswith(pruned.cell.name)]
    assert line.endswith("novelty, since it starts from the dense run of its seed")


def test_a_rounded_run_is_compared_with_the_dense_one_in_float32_unless_it_stores_that():
    blocks = [
        {"support": ["expander", "dense"], "d": 7, "seeds": 0, "precision": "int8", "analyses": ["novelty"]},
        {"support": "dense", "seeds": 0},
    ]
    study = study_of(runs=blocks)
    sparse, stored, dense = study.runs
    told = study.analyses[sparse.cell.name].spec | study.analyses[stored.cell.name].spec
    assert told[sparse.path]["reference"] == dense.path
    assert told[stored.path]["reference"] is None and stored.parent == dense
