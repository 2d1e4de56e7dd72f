"""From the blocks of a configuration to its runs."""

import pytest

from expander_sae.errors import UserError
from expander_sae.study import targets
from expander_sae.study.expand import matched
from tests.study.configs import study_of


def test_runs_are_the_product_of_a_block():
    study = study_of()
    assert [(run.d, run.seed) for run in study.runs] == [(7, 0), (7, 1), (30, 0), (30, 1)]
    assert study.runs[0].path == (
        "results/smollm2-135m-instruct/docstrings/layer15/tuned_t120000_s1500/expander-tied/"
        "n4608_d7_k64_seed0"
    )
    assert study.runs[0].mask == "results/masks/expander_m576_n4608_d7_seed0.json"
    assert [cell.seeds for cell in study.cells.values()] == [(0, 1), (0, 1)]


def test_a_run_named_twice_is_one_run_measured_in_every_way_asked():
    blocks = [
        {"support": "expander", "cross_entropy": ["omp"]},
        {"support": "expander", "d": 7, "seeds": 0, "cross_entropy": ["encoder"]},
    ]
    study = study_of(runs=blocks)
    assert len(study.runs) == len({run.path for run in study.runs}) == 4
    assert study.runs[0].evaluation.cross_entropy == ("encoder", "omp")
    assert study.runs[1].evaluation.cross_entropy == ("omp",)


def test_expansion_is_a_multiple_of_the_width():
    study = study_of(grid={"expansion": 8, "d": 7})
    assert {run.n for run in study.runs} == {8 * 576}


def test_dense_runs_have_d_equal_m_whatever_d_the_grid_names():
    study = study_of(runs=[{"support": "dense"}])
    assert [(run.n, run.d, run.seed) for run in study.runs] == [(4608, 576, 0), (4608, 576, 1)]
    assert study.runs[0].mask is None


def test_matched_dense_runs_have_as_many_values_and_small_ones_are_left_out():
    study = study_of(runs=[{"support": "dense", "match": "decoder", "seeds": 0}])
    assert [(run.n, run.d) for run in study.runs] == [(240, 576)]
    assert len(study.left_out) == 1 and "n'=56" in study.left_out[0] and "2k=128" in study.left_out[0]
    assert matched("decoder", 512, 4096, 50) == 50 * 4096 // 512
    assert matched("total", 512, 4096, 50) == 50 * 4096 // 1024
    assert matched(None, 512, 4096, 50) == 4096


def test_matched_compute_is_the_whole_dictionary_for_fewer_steps():
    block = {"support": "dense", "match": "compute", "seeds": 0}
    study = study_of(runs=[block], training={"steps": 5000})
    assert [(run.n, run.d, run.steps) for run in study.runs] == [(4608, 576, 61), (4608, 576, 260)]


def test_families_with_digits_and_learned_masks():
    block = {"support": ["dose144", "girth6", "pruned_retuned"], "d": 7, "seeds": 0}
    dosed, wide, pruned = study_of(runs=[block]).runs
    assert dosed.mask == "results/masks/dose144_m576_n4608_d7_seed0.json"
    assert wide.mask == "results/masks/girth6_m576_n4608_d7_seed0.json"
    assert pruned.mask is None and pruned.parent is not None
    assert (pruned.parent.support, pruned.parent.d, pruned.parent.n) == ("dense", 576, 4608)


def test_blocks_override_what_is_measured():
    blocks = [
        {"support": "expander", "d": 7, "seeds": 0, "inference": ["encoder"]},
        {"support": "expander", "d": 30, "seeds": 0, "train_cross_entropy": True},
        {"support": "expander", "d": 30, "seeds": 0, "analyses": ["novelty", "pursuits"]},
    ]
    study = study_of(runs=blocks, evaluation={"pursuits": ["niht", "block_omp_4"]})
    first, second = study.runs
    assert first.evaluation.inference == first.evaluation.cross_entropy == ("encoder",)
    assert second.evaluation.cross_entropy == ("encoder", "omp")
    assert second.evaluation.train_cross_entropy and not first.evaluation.train_cross_entropy
    assert list(study.analyses) == [second.cell.name]
    (asked,) = study.analyses[second.cell.name].spec.values()
    assert asked["analyses"] == ("pursuits", "novelty") and asked["pursuits"] == ("block_omp_4", "niht")
    assert asked["reference"] is None and "novelty" in study.left_out[0]


def test_a_precision_is_an_axis_and_what_it_rounds_is_trained_and_not_measured():
    blocks = [{"support": "expander", "d": 7, "seeds": 0, "precision": ["int8", "int4_trained"]}]
    study = study_of(runs=blocks)
    rounded, trained = study.runs
    assert [run.precision for run in study.runs] == ["int8", "int4_trained"]
    assert rounded.path == f"{rounded.parent.path.removesuffix('_seed0')}_int8_seed0"
    assert study.trained == (rounded, trained, rounded.parent)
    assert list(study.cells) == [rounded.cell.name, trained.cell.name]
    told = targets.training_spec(next(job for job in study.trainings if job.runs == (rounded,)))
    assert told[rounded.path]["parent"] == targets.weights(rounded.parent.path)
    assert told[rounded.path]["mask"] is None
    both = study_of(runs=[{**blocks[0], "precision": ["float32", "int8"], "analyses": ["pursuits"]}])
    assert both.trained == both.runs == (rounded.parent, rounded)
    assert study_of(grid={"n": 4608, "d": 7, "precision": "bfloat16"}).runs[0].precision == "bfloat16"


def test_an_unknown_precision_names_its_key():
    with pytest.raises(UserError, match=r"runs\[0\]\.precision.*'int3'.*int4_trained"):
        study_of(runs=[{"support": "expander", "precision": ["int8", "int3"]}])


def test_codes_are_an_axis_and_what_a_pursuit_goes_on_from_is_trained_and_not_measured():
    block = {"support": "expander", "d": 7, "seeds": 0, "codes": ["omp", "encoder"], "precision": "int8"}
    study = study_of(runs=[block | {"codes": "omp"}])
    assert [run.codes for run in study.runs] == ["omp"]
    wide = study.runs[0].parent
    assert study.trained == (study.runs[0], wide, wide.parent) and not wide.parent.is_pursued
    jobs = [[run.codes for run in job.runs] for job in study.trainings]
    assert sorted(jobs) == [["encoder"], ["omp"], ["omp"]], "another number of steps is another job"
    told = targets.training_spec(study.trainings[1])[wide.path]
    assert told["parent"] == f"{wide.parent.path}/weights.safetensors" and told["mask"] is None
    both = study_of(runs=[block])
    assert [run.path.rpartition("/")[2] for run in both.runs] == [
        "n4608_d7_k64_omp_int8_seed0", "n4608_d7_k64_int8_seed0",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("block", "expected"),
    [
        ({"codes": "omp"}, [("omp",), ("omp",), False]),
        ({"codes": "block_omp_4"}, [("block_omp_4",), ("block_omp_4",), False]),
        ({"codes": "omp", "encoder": "warm_tied"}, [("encoder", "omp"), ("encoder", "omp"), True]),
        ({"codes": "omp", "inference": ["encoder"]}, [("omp",), ("omp",), False]),
        (
            {"codes": "omp", "inference": ["omp", "block_omp_8"], "cross_entropy": []},
            [("omp", "block_omp_8"), (), False],
        ),
    ],
)
def test_a_run_is_measured_by_the_codes_that_it_was_trained_with(block, expected):
    asked = {"support": "expander", "d": 7, "seeds": 0, "train_cross_entropy": True}
    study = study_of(runs=[asked | block | {"analyses": ["selectivity"]}])
    (run,) = study.runs
    found = run.evaluation
    assert [found.inference, found.cross_entropy, found.train_cross_entropy] == expected
    assert run.analysis.inference == found.inference
    spoilt = block.get("encoder") is None and "encoder" in block.get("inference", ["encoder"])
    assert [reason for reason in study.left_out if "spoils" in reason] == (
        [
            f"expander: codes by the tied encoder of codes {run.codes}, which training by them spoils; "
            f"{run.codes} stands for it"
        ]
        if spoilt
        else []
    )


def test_what_nobody_trains_is_one_run_of_no_steps_whatever_the_steps_and_seeds():
    block = {"support": ["pca", "random", "exemplars"], "steps": [100, 1500], "seeds": [1, 2]}
    runs = study_of(runs=[block]).runs
    assert {run.steps for run in runs} == {0}
    shapes = [(run.support, run.n, run.d, run.k, run.seed) for run in runs]
    assert shapes == [
        ("pca", 112, 576, 56, 0), ("pca", 480, 576, 64, 0),
        ("random", 4608, 7, 64, 1), ("random", 4608, 7, 64, 2),
        ("random", 4608, 30, 64, 1), ("random", 4608, 30, 64, 2),
        ("exemplars", 4608, 576, 64, 0),
    ]  # fmt: skip


def test_principal_components_are_no_more_than_there_are():
    runs = study_of(runs=[{"support": "pca", "d": [100, 200]}]).runs
    assert [(run.n, run.d, run.k) for run in runs] == [(2 * 576, 576, 64)]


def test_exemplars_need_no_d():
    runs = study_of(grid={"n": 4608}, runs=[{"support": ["exemplars", "dense"]}]).runs
    assert [(run.support, run.d) for run in runs] == [("exemplars", 576), ("dense", 576)]


def test_an_encoder_that_rebuilds_nothing_is_left_out_and_said_so():
    block = {"support": ["pca", "random"], "d": 7, "train_cross_entropy": True}
    study = study_of(runs=[block])
    found = {run.support: run.evaluation for run in study.runs}
    assert found["pca"].inference == found["pca"].cross_entropy == ("encoder", "omp")
    assert found["random"].inference == found["random"].cross_entropy == ("omp",)
    assert found["pca"].train_cross_entropy and not found["random"].train_cross_entropy
    assert study.left_out == ["random: codes by its encoder, since they rebuild nothing"]


def test_frozen_decoders_and_encoders_have_masks_and_steps():
    names = ["frozen_decoder", "frozen_encoder", "soft_frozen"]
    runs = study_of(runs=[{"support": names, "encoder": "warm_tied", "d": 7, "seeds": 0}]).runs
    assert [run.support for run in runs] == names
    assert {(run.steps, run.n, run.d, run.k) for run in runs} == {(1500, 4608, 7, 64)}
    assert all(run.mask and run.parent is None for run in runs)


def test_decoders_of_other_kinds_are_trained_without_a_mask_file():
    names = ["hybrid", "hybrid25", "spectral", "grown"]
    runs = study_of(runs=[{"support": names, "d": 30, "seeds": 1}]).runs
    assert [(run.support, run.d, run.steps, run.seed) for run in runs] == [(x, 30, 1500, 1) for x in names]
    assert all(run.mask is None and run.parent is None for run in runs)


@pytest.mark.parametrize(
    ("support", "expected"),
    [
        ("hybrid50", "support: found 'hybrid50', expected one of expander, .*hybrid.<percent of its values"),
        (
            "hybrid99",
            r"runs\[0\].d\[0\]: found 7 with n=4608 and support hybrid99: hybrid: found d = 7 and 99 %",
        ),
        ("spectral6", "expected d = 7 to m = 576 principal components"),
    ],
)
def test_a_decoder_that_cannot_be_is_refused_while_planning(support, expected):
    with pytest.raises(UserError, match=expected):
        study_of(runs=[{"support": support, "d": 7}])


def test_a_sweep_leaves_out_what_nobody_trains():
    sweep = {"training": {"learning_rate": [0.001, 0.003]}, "seeds": 0}
    study = study_of(runs=[{"support": ["expander", "random", "pca"], "d": 7, "seeds": 0}], sweep=sweep)
    assert study.sweep is not None
    assert {run.support for run in study.sweep.runs} == {"expander"}


def test_analyses_of_labels_are_told_inferences_tokens_and_the_users_file():
    block = {"support": "expander", "d": 7, "seeds": 0}
    asked = {"analyses": ["probing"], "labels": "mine.jsonl", "inference": ["encoder"], "cross_entropy": []}
    (run,) = study_of(runs=[block], evaluation=asked).runs
    assert (run.analysis.inference, run.analysis.labels) == (("encoder",), "mine.jsonl")
    assert run.analysis.labelled_tokens == run.analysis.test_tokens == 8192
    few = [{**block, "inference": ["omp"]}, block]
    (run,) = study_of(runs=few, evaluation={**asked, "labelled_tokens": 100}).runs
    assert (run.analysis.inference, run.analysis.labelled_tokens) == (("encoder", "omp"), 100)
    (run,) = study_of(runs=[block], evaluation={**asked, "analyses": ["features"]}).runs
    assert (run.analysis.inference, run.analysis.labelled_tokens, run.analysis.labels) == ((), 0, None)
