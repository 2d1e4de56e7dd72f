"""Verdicts on made-up tables whose truth is known."""

from __future__ import annotations

import copy
import itertools
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from expander_sae.claim_cells import DERIVED, Request, Tables
from expander_sae.claim_register import parse_register, read_register
from expander_sae.claim_tests import Region, joint_verdict, one_verdict
from expander_sae.claims import judge, levels, write_claims
from expander_sae.errors import UserError
from expander_sae.evaluation import tables

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = 40
BASE = {
    "model": "toy", "corpus": "words", "layer": 1, "recipe": "standard", "support": "expander",
    "encoder": "tied", "m": 64, "n": 512, "d": 7, "k": 8, "train_tokens": 1000, "steps": 10, "seed": 0,
}  # fmt: skip
OWN = BASE | {"support": "none", "encoder": "none", "n": 0, "d": 0, "k": 0, "steps": 0}
CLEAN, ZERO = 3.0, 9.0


class World:
    """Tables under construction. `recovered` sets a run's CE recovered, up to document noise."""

    def __init__(self, noise=0.02, by_seed=0.003, seed=0):
        self.rng = np.random.default_rng(seed)
        self.noise, self.by_seed = noise, by_seed
        self.metrics, self.documents = [], []
        self.counts = self.rng.integers(20, 120, DOCUMENTS)
        self.hardness = 0.3 * self.rng.standard_normal(DOCUMENTS)
        for metric, level in (("ce_clean", CLEAN), ("ce_zero", ZERO), ("ce_mean_kept", 7.0)):
            self.add(OWN, "none", "ce", metric, level + self.hardness)

    def add(self, run, inference, split, metric, per_token, first=0):
        where = {**run, "inference": inference, "split": split, "metric": metric}
        for place, (value, count) in enumerate(zip(per_token, self.counts, strict=True)):
            entry = {"document": first + place, "sum": float(value * count), "count": int(count)}
            self.documents.append(where | entry)
        value = float(np.average(per_token, weights=self.counts))
        self.metrics.append(where | {"value": value})

    def value(self, run, metric, value, inference="none", split="none"):
        self.metrics.append({**run, "inference": inference, "split": split, "metric": metric, "value": value})

    def recovered(self, share, seeds=10, inference="encoder", diverged=(), **columns):
        for number in range(seeds):
            run = BASE | columns | {"seed": number}
            lost = 1 - share - self.by_seed * self.rng.standard_normal()
            noise = self.noise * self.rng.standard_normal(DOCUMENTS)
            level = ZERO + 3 if number in diverged else CLEAN + (ZERO - CLEAN) * lost
            self.add(run, inference, "ce", "ce", level + self.hardness + noise)
            self.value(run, "diverged", float(number in diverged), inference, "test")
        return self

    def error(self, level, seeds=10, inference="encoder", **columns):
        for number in range(seeds):
            run = BASE | columns | {"seed": number}
            shape = 1 + 0.1 * self.hardness + 0.01 * self.rng.standard_normal(DOCUMENTS)
            self.add(run, inference, "test", "relative_error", level * shape, first=1000)
        return self

    def frames(self):
        return pd.DataFrame(self.metrics), pd.DataFrame(self.documents)


WHERE = {name: BASE[name] for name in ("model", "corpus", "layer", "recipe", "train_tokens")}
CLAIM = {
    "id": "claim",
    "sentence": "a sentence",
    "source": "a source",
    "statistic": "a statistic",
    "test": "difference",
    "metric": "ce_recovered",
    "cells": {"expander": {"support": "expander"}, "control": {"support": "clustered_cover"}},
    "threshold": {"above": 0},
}


def register(*claims, **settings):
    data = {"settings": [{"name": "toy", "where": WHERE, "values": settings}], "draws": 400}
    return parse_register({**data, "claims": [copy.deepcopy(CLAIM) | claim for claim in claims]})


def verdict(world, claim=None, **settings):
    (found,) = judge(register(claim or {}, **settings), Tables(*world.frames()))
    return found


RETENTION = {
    "test": "retention",
    "cells": {"kept": {"support": "expander"}, "whole": {"support": "dense"}},
    "threshold": {"at_least": 0.84},
}


@pytest.mark.parametrize(
    ("shares", "expected"),
    [((0.88, 0.80), "holds"), ((0.80, 0.88), "fails"), ((0.84, 0.84), "inconclusive")],
)
def test_a_difference_is_found_refuted_or_left_open(shares, expected):
    world = World().recovered(shares[0]).recovered(shares[1], support="clustered_cover")
    found = verdict(world)
    assert found["verdict"] == found["points_to"] == expected
    assert found["estimate"] == pytest.approx(shares[0] - shares[1], abs=0.005)
    assert found["interval"][0] < found["estimate"] < found["interval"][1]
    assert (found["seeds"], found["documents"], found["descriptive"]) == (10, DOCUMENTS, False)
    assert found["without_diverged"] is None


def test_the_estimate_is_the_published_ratio_of_token_means():
    world = World().recovered(0.8, seeds=6)
    found = verdict(
        world, {"test": "bound", "cells": {"cell": {"support": "expander"}}, "threshold": {"above": 0.5}}
    )
    metrics, _ = world.frames()
    mean = metrics.groupby("metric")["value"].mean()
    expected = (mean["ce_zero"] - mean["ce"]) / (mean["ce_zero"] - mean["ce_clean"])
    assert found["estimate"] == pytest.approx(expected, rel=1e-5)
    assert list(found["spread"]["values"]) == [str(seed) for seed in range(6)]
    assert np.mean(list(found["spread"]["values"].values())) == pytest.approx(expected, rel=1e-5)


def test_a_planted_false_claim_fails():
    world = World().recovered(0.70).recovered(0.95, support="dense")
    found = verdict(world, RETENTION)
    assert found["verdict"] == "fails"
    assert found["estimate"] == pytest.approx(0.70 / 0.95, abs=0.005)


def test_a_starved_claim_is_inconclusive_and_says_where_it_points():
    world = World().recovered(0.90, seeds=4).recovered(0.95, seeds=4, support="dense")
    found = verdict(world, RETENTION)
    assert (found["verdict"], found["points_to"], found["descriptive"]) == ("inconclusive", "holds", True)
    assert "4 seeds in common, 5 needed" in found["reason"]
    found = verdict(world, RETENTION | {"needs_seeds": False})
    assert (found["verdict"], found["descriptive"]) == ("holds", False)


def test_a_single_seed_has_an_interval_over_documents_but_no_verdict():
    world = World().recovered(0.90, seeds=1).recovered(0.70, seeds=1, support="clustered_cover")
    found = verdict(world)
    assert found["interval"][0] > 0
    assert (found["verdict"], found["points_to"]) == ("inconclusive", "holds")


def test_permuted_support_labels_decide_nothing():
    """Seed by seed, which run is called expander is drawn at random, half of them either way."""
    world = World(noise=0.01).recovered(0.88).recovered(0.84, support="clustered_cover")
    assert verdict(world)["verdict"] == "holds"
    exchanged = {"expander": "clustered_cover", "clustered_cover": "expander"}
    for chosen in itertools.islice(itertools.combinations(range(10), 5), 0, 252, 40):
        metrics, documents = world.frames()
        for frame in (metrics, documents):
            rows = frame["seed"].isin(chosen) & frame["support"].isin(exchanged)
            frame.loc[rows, "support"] = frame.loc[rows, "support"].map(exchanged)
        (found,) = judge(register({}), Tables(metrics, documents))
        assert found["verdict"] == "inconclusive"


def test_identical_runs_differ_by_exactly_nothing():
    world = World().recovered(0.88)
    metrics, documents = world.frames()
    runs = {"support": "clustered_cover"}
    twice = [pd.concat([f, f[f["support"] == "expander"].assign(**runs)]) for f in (metrics, documents)]
    claims = register({}, {"id": "b", "threshold": {"at_least": 0}})
    found = judge(claims, Tables(*(frame.reset_index(drop=True) for frame in twice)))
    assert [one["interval"] for one in found] == [[0.0, 0.0], [0.0, 0.0]]
    assert [one["verdict"] for one in found] == ["fails", "holds"]


def test_what_a_document_adds_to_every_run_does_not_blur_their_difference():
    world = World(noise=0.01).recovered(0.82).recovered(0.80, support="clustered_cover")
    bound = {"id": "b", "test": "bound", "cells": {"cell": {"support": "expander"}}, "metric": "ce"}
    claims = register({"metric": "ce", "threshold": {"below": 0}}, bound)
    found, alone = judge(claims, Tables(*world.frames()))
    assert found["verdict"] == "holds"
    assert np.ptp(found["interval"]) < 0.3 * np.ptp(alone["interval"])


def test_only_shared_seeds_and_documents_are_compared():
    world = World().recovered(0.88, seeds=8).recovered(0.80, seeds=6, support="clustered_cover")
    metrics, documents = world.frames()
    lost = (documents["support"] == "expander") & (documents["seed"] == 2) & (documents["document"] < 3)
    (found,) = judge(register({}), Tables(metrics, documents[~lost].reset_index(drop=True)))
    (one,) = found["comparisons"]
    assert (found["seeds"], found["documents"]) == (6, DOCUMENTS - 3)
    assert (one["seeds_left_out"], one["documents_left_out"]) == ([6, 7], 3)


def test_missing_cells_are_named_and_nothing_is_run():
    found = verdict(World().recovered(0.88))
    assert (found["verdict"], found["estimate"], found["interval"]) == ("not run", None, None)
    assert "support=clustered_cover" in found["reason"]
    assert "ce_recovered (encoder, ce)" in found["reason"]
    unmeasured = {
        "metric": "novel_share_jaccard",
        "test": "bound",
        "cells": {"cell": {"support": "expander"}},
    }
    assert verdict(World().recovered(0.88), unmeasured)["verdict"] == "not run"


def test_no_seed_in_common_is_not_run():
    world = World().recovered(0.88, seeds=3).recovered(0.80, seeds=6, support="clustered_cover")
    metrics, documents = world.frames()
    keep = [~((f["support"] == "clustered_cover") & (f["seed"] < 3)) for f in (metrics, documents)]
    (found,) = judge(register({}), Tables(metrics[keep[0]], documents[keep[1]].reset_index(drop=True)))
    assert found["verdict"] == "not run"
    assert "no seed is in every cell" in found["reason"]


def test_a_diverged_run_that_changes_the_verdict_leaves_it_open():
    world = World().recovered(0.92, diverged=(4,)).recovered(0.95, support="dense")
    found = verdict(world, RETENTION)
    assert found["verdict"] == "inconclusive"
    assert found["estimate"] < 0.84 < found["without_diverged"]["estimate"]
    assert found["without_diverged"]["verdict"] == "holds"
    assert (found["seeds"], found["without_diverged"]["seeds"]) == (10, 9)
    assert "diverged seeds: 4" in found["reason"]


def test_a_diverged_run_that_changes_nothing_is_shown_beside_the_verdict():
    world = World().recovered(0.60, diverged=(4,)).recovered(0.95, support="dense")
    found = verdict(world, RETENTION | {"threshold": {"at_most": 0.9}})
    assert found["verdict"] == found["without_diverged"]["verdict"] == "holds"
    assert found["without_diverged"]["estimate"] > found["estimate"]


def test_a_diverged_run_without_numbers_cannot_be_averaged_in():
    world = World().recovered(0.92, diverged=(4,)).recovered(0.95, support="dense")
    metrics, documents = world.frames()
    broken = (documents["support"] == "expander") & (documents["seed"] == 4)
    documents.loc[broken, "sum"] = np.nan
    (found,) = judge(register(RETENTION), Tables(metrics, documents))
    assert (found["verdict"], found["estimate"], found["interval"]) == ("inconclusive", None, None)
    assert found["without_diverged"]["verdict"] == "holds"


def test_all_seeds_diverged_leaves_nothing_to_judge_without_them():
    world = World().recovered(0.9, seeds=5, diverged=range(5)).recovered(0.95, seeds=5, support="dense")
    found = verdict(world, RETENTION)
    assert found["without_diverged"]["verdict"] == "not run"
    assert found["verdict"] == "inconclusive"


MONOTONE = {
    "test": "monotone",
    "over": "d",
    "values": "$all_d",
    "cells": {"cell": {"support": "expander"}},
}


@pytest.mark.parametrize(
    ("shares", "expected", "label"),
    [
        ((0.80, 0.85, 0.90), "holds", None),
        ((0.80, 0.90, 0.85), "fails", "d 30 to 100"),
        ((0.80, 0.85, 0.85), "inconclusive", "d 30 to 100"),
    ],
)
def test_monotone_asks_for_every_step(shares, expected, label):
    world = World()
    for d, share in zip((7, 30, 100), shares, strict=True):
        world.recovered(share, d=d)
    found = verdict(world, MONOTONE, all_d=[7, 30, 100])
    assert found["verdict"] == expected
    assert [one["label"] for one in found["comparisons"]] == ["d 7 to 30", "d 30 to 100"]
    if label:
        assert label in found["reason"]


def test_a_step_that_fails_refutes_a_claim_with_missing_cells():
    world = World().recovered(0.9, d=7).recovered(0.8, d=30)
    found = verdict(world, MONOTONE, all_d=[7, 30, 100])
    assert found["verdict"] == "fails"
    assert "d=100" in found["reason"]
    world = World().recovered(0.8, d=7).recovered(0.9, d=30)
    assert verdict(world, MONOTONE, all_d=[7, 30, 100])["verdict"] == "not run"


def test_exists_asks_for_one_cell():
    claim = {
        "test": "exists",
        "each": {"d": [7, 30]},
        "cells": {
            "expander": {"support": "expander", "d": "$d"},
            "control": {"support": "clustered_cover", "d": "$d"},
        },
    }
    world = World()
    for d, share in ((7, 0.8), (30, 0.9)):
        world.recovered(share, d=d).recovered(0.85, d=d, support="clustered_cover")
    assert verdict(world, claim)["verdict"] == "holds"
    assert verdict(world, claim | {"test": "difference"})["verdict"] == "fails"
    world = World()
    for d in (7, 30):
        world.recovered(0.8, d=d).recovered(0.85, d=d, support="clustered_cover")
    assert verdict(world, claim)["verdict"] == "fails"


OMP = {
    "test": "ratio_between",
    "of": "reduction",
    "metric": "relative_error",
    "cells": {
        "numerator": {"support": "expander", "inference": "omp"},
        "denominator": {"support": "expander", "inference": "encoder"},
    },
    "threshold": {"at_least": 0.15, "at_most": 0.25},
}


@pytest.mark.parametrize(
    ("gain", "expected"),
    [(0.2, "holds"), (0.1, "fails"), (0.4, "fails"), (0.25, "inconclusive")],
)
def test_the_gain_of_omp_is_held_against_both_ends(gain, expected):
    world = World().error(0.5).error(0.5 * (1 - gain), inference="omp")
    found = verdict(world, OMP)
    assert found["verdict"] == expected
    assert found["estimate"] == pytest.approx(gain, abs=0.003)


def test_weights_make_a_difference_of_differences():
    world = World()
    for support, inference, share in (
        ("expander", "encoder", 0.80), ("expander", "omp", 0.86),
        ("dense", "encoder", 0.85), ("dense", "omp", 0.87),
    ):  # fmt: skip
        world.recovered(share, support=support, inference=inference)
    claim = {
        "cells": {
            "a": {"support": "expander", "inference": "omp"},
            "b": {"support": "expander"},
            "c": {"support": "dense", "inference": "omp"},
            "d": {"support": "dense"},
        },
        "weights": {"a": 1, "b": -1, "c": -1, "d": 1},
    }
    found = verdict(world, claim)
    assert found["estimate"] == pytest.approx(0.04, abs=0.006)
    assert found["verdict"] == "holds"


def test_metrics_without_documents_are_judged_over_seeds():
    world = World()
    for number in range(6):
        run = BASE | {"seed": number}
        world.value(run, "novel_share_jaccard", 0.30 + 0.01 * number, "encoder", "test")
        world.value(run, "novel_share_jaccard_null", 0.10 + 0.01 * number, "encoder", "test")
    cells = {
        "found": {"support": "expander"},
        "chance": {"support": "expander", "metric": "novel_share_jaccard_null"},
    }
    found = verdict(world, {"metric": "novel_share_jaccard", "cells": cells})
    assert (found["verdict"], found["documents"]) == ("holds", 0)
    assert found["estimate"] == pytest.approx(0.2)


def test_a_point_is_compared_as_it_stands():
    world = World()
    world.value(BASE, "recovery_largest_difference", 0.12, "omp", "all_cells")
    claim = {
        "metric": "recovery_largest_difference", "inference": "omp", "split": "all_cells", "test": "bound",
        "cells": {"cell": {"support": "expander"}}, "point": True, "needs_seeds": False,
    }  # fmt: skip
    assert verdict(world, claim | {"threshold": {"at_most": 0.15}})["verdict"] == "holds"
    assert verdict(world, claim | {"threshold": {"at_most": 0.10}})["verdict"] == "fails"


def test_documents_of_two_splits_are_drawn_independently():
    """Nothing pairs them: equal documents differ by 0, with twice the variance of one of them."""
    world = World()
    noise = 0.5 * world.rng.standard_normal(DOCUMENTS)
    for metric, level in (("ce_clean", CLEAN), ("ce_zero", ZERO)):
        world.add(OWN, "none", "ce_train", metric, level + world.hardness, first=5000)
    for number in range(6):
        run = BASE | {"seed": number}
        world.add(run, "encoder", "ce", "ce", 4 + noise)
        world.add(run, "encoder", "ce_train", "ce", 4 + noise, first=5000)
    unseen = {"support": "expander"}
    bound = {"id": "b", "test": "bound", "cells": {"cell": unseen}}
    claims = register({"cells": {"seen": {**unseen, "split": "ce_train"}, "unseen": unseen}}, bound)
    both, alone = judge(claims, Tables(*world.frames()))
    assert (both["estimate"], both["documents"]) == (0, 2 * DOCUMENTS)
    assert np.ptp(both["interval"]) == pytest.approx(np.sqrt(2) * np.ptp(alone["interval"]), rel=0.15)


def test_levels_are_corrected_for_claims_and_comparisons():
    found = register({}, {"id": "b"}, {"id": "c"}, {"id": "d"}, {"id": "e"})
    at = levels(found, 4)
    assert at.single == pytest.approx(0.99)
    assert at.family == pytest.approx(0.9975)


@pytest.mark.parametrize(
    ("region", "to_hold", "to_fail", "expected"),
    [
        (Region(low=0.0, low_open=True), (0.1, 0.2), (0.0, 0.3), "holds"),
        (Region(low=0.0, low_open=True), (0.0, 0.2), (0.0, 0.3), "inconclusive"),
        (Region(low=0.0, low_open=True), (-0.3, 0.0), (-0.4, 0.0), "fails"),
        (Region(low=0.0), (0.0, 0.2), (0.0, 0.3), "holds"),
        (Region(low=0.0), (-0.3, -0.1), (-0.4, 0.0), "inconclusive"),
        (Region(low=0.0), (-0.3, -0.1), (-0.4, -0.05), "fails"),
        (Region(0.15, 0.25), (0.1, 0.3), (0.1, 0.3), "inconclusive"),
        (Region(0.15, 0.25), None, None, "inconclusive"),
    ],
)
def test_one_verdict(region, to_hold, to_fail, expected):
    assert one_verdict(region, to_hold, to_fail) == expected


@pytest.mark.parametrize(
    ("verdicts", "all_of_them", "one_of_them"),
    [
        (["holds", "holds"], "holds", "holds"),
        (["holds", "fails"], "fails", "holds"),
        (["fails", "fails"], "fails", "fails"),
        (["holds", "inconclusive"], "inconclusive", "holds"),
        (["fails", "inconclusive"], "fails", "inconclusive"),
        (["holds", "not run"], "not run", "holds"),
        (["fails", "not run"], "fails", "not run"),
        ([], "not run", "not run"),
    ],
)
def test_joint_verdict(verdicts, all_of_them, one_of_them):
    assert joint_verdict(verdicts, True) == all_of_them
    assert joint_verdict(verdicts, False) == one_of_them


def test_a_cell_that_is_not_one_setting_is_refused():
    world = World().recovered(0.88, d=7).recovered(0.88, d=30).recovered(0.8, support="clustered_cover")
    with pytest.raises(
        UserError, match=r"claims\[0\] \(claim\)\.cells\.expander: the tables hold d 7, 30; say which"
    ):
        verdict(world)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"test": "always"}, r"claims\[0\] \(claim\)\.test: found 'always', expected one of monotone"),
        ({"tset": "bound"}, r"claims\[0\] \(claim\): unknown key 'tset'"),
        ({"threshold": {"over": 1}}, r"threshold: unknown key 'over', expected above"),
        ({"threshold": {"above": "high"}}, r"threshold\.above: found 'high', expected a number"),
        ({"threshold": {"above": 2, "below": 1}}, r"threshold: found 2 to 1"),
        ({"cells": {"a": {"width": 7}, "b": {}}}, r"cells\.a: unknown key 'width'"),
        ({"cells": {"a": {"d": "seven"}, "b": {}}}, r"cells\.a\.d: found 'seven', expected a whole number"),
        ({"cells": {"a": {"d": "$low"}, "b": {}}}, r"cells\.a\.d: found \$low in setting 'toy'"),
        ({"cells": {"a": {}}}, r"weights: missing"),
        ({"cells": {"a": {}}, "test": "bound"}, r"cells: found a, expected cell"),
        ({"settings": ["elsewhere"]}, r"settings: found 'elsewhere', expected one of toy"),
        ({"sentence": ""}, r"sentence: found '', expected a text"),
        (MONOTONE | {"values": [7]}, r"values: found \[7\], expected a list of two or more"),
        (OMP | {"of": "quotient"}, r"of: found 'quotient', expected ratio or reduction"),
    ],
)
def test_mistakes_in_the_file_are_named(change, message):
    with pytest.raises(UserError, match=message):
        register(change)


def test_claims_are_told_apart():
    with pytest.raises(UserError, match="claims: found 'claim' twice"):
        register({}, {})


def test_the_file_written_is_the_same_byte_for_byte(tmp_path):
    world = World().recovered(0.92, diverged=(4,)).recovered(0.95, support="dense")
    metrics, documents = world.frames()
    order = np.random.default_rng(0).permutation(len(documents))
    claims = [CLAIM | RETENTION, CLAIM | {"id": "b"}]
    data = {"settings": [{"name": "toy", "where": WHERE}], "draws": 400, "claims": claims}
    (tmp_path / "claims.yaml").write_text(json.dumps(data))
    written = []
    for rows in (documents, documents.iloc[order]):
        tables.write_metrics(metrics.to_dict("records"), tmp_path / "m.parquet")
        tables.write_documents(rows.to_dict("records"), tmp_path / "d.parquet")
        paths = (tmp_path / name for name in ("m.parquet", "d.parquet", "claims.yaml", "claims.json"))
        write_claims(*paths)
        written.append((tmp_path / "claims.json").read_bytes())
    assert written[0] == written[1]
    assert b"NaN" not in written[0]
    assert [one["verdict"] for one in json.loads(written[0])] == ["inconclusive", "not run"]


def test_the_shipped_claims_are_well_formed_and_documented():
    found = read_register(ROOT / "workflow" / "claims.yaml")
    page = (ROOT / "docs" / "claims.md").read_text(encoding="utf-8")
    assert [claim.id for claim in found.claims if f"`{claim.id}`" not in page] == []
    assert all(claim.plans[found.settings[0].name] for claim in found.claims)


def test_nothing_measured_means_nothing_run():
    found = read_register(ROOT / "workflow" / "claims.yaml")
    records = judge(found, Tables(*World().frames()))
    assert {record["setting"] for record in records} == {found.settings[0].name}
    assert {record["verdict"] for record in records} == {"not run"}


def test_the_ablations_are_those_of_the_evaluation():
    runs = pytest.importorskip("expander_sae.evaluation.runs")
    for metric, ablated in runs.BASELINES.items():
        assert DERIVED[metric].model == (ablated, "ce_clean")


def test_a_request_reads_like_a_sentence():
    where = {"model": "toy", "support": "dense", "k": 64}
    request = Request("key", where, "ce_recovered", "omp", "ce", {"model": "toy", "k": 8})
    assert str(request) == "ce_recovered (omp, ce) of support=dense, k=64"
