"""Verdicts on made-up tables whose truth is known: found, refuted, starved, permuted, missing."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pandas as pd
import pytest

from expander_sae.claims.judge import judge, write_claims
from expander_sae.claims.register import parse_register, read_register
from expander_sae.errors import UserError
from expander_sae.measurements import tables
from expander_sae.measurements.document_cells import Tables
from tests.claims.world import (
    BASE,
    CLAIM,
    CLEAN,
    DOCUMENTS,
    OWN,
    RETENTION,
    ROOT,
    WHERE,
    ZERO,
    World,
    register,
    verdict,
)


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
    found = verdict(world, RETENTION | {"point": True})
    assert (found["verdict"], found["descriptive"]) == ("holds", False)


def test_a_single_seed_has_an_interval_over_documents_but_no_verdict():
    world = World().recovered(0.90, seeds=1).recovered(0.70, seeds=1, support="clustered_cover")
    found = verdict(world)
    assert found["interval"][0] > 0
    assert (found["verdict"], found["points_to"]) == ("inconclusive", "holds")


def test_a_claim_that_a_setting_s_rows_suggested_decides_nothing_there():
    world = World().recovered(0.88).recovered(0.80, support="clustered_cover")
    alone = verdict(world)
    claims = register({}, {"id": "later", "known_in": ["toy"]})
    test, later = judge(claims, Tables(*world.frames()))
    assert (later["verdict"], later["points_to"], later["descriptive"]) == ("inconclusive", "holds", True)
    assert later["reason"].endswith(
        "descriptive: written after rows of this setting were read; points to holds"
    )
    # Nor does it cost the others anything.
    assert test["level"] == alone["level"] == 0.95
    assert test["interval"] == alone["interval"] == later["interval"]


def test_the_interval_that_is_told_is_the_one_that_decides():
    """Four comparisons: all must hold, each at its own level; that one fails is found among four."""
    many = {"each": {"d": [7, 8, 9, 10]}, "cells": {
        "expander": {"support": "expander", "d": "$d"}, "control": {"support": "clustered_cover", "d": "$d"},
    }}  # fmt: skip
    for shares, verdict_, decides in (
        ((0.88, 0.80), "holds", "interval"),
        ((0.80, 0.88), "fails", "interval_family"),
        ((0.84, 0.84), "inconclusive", "interval"),
    ):
        world = World()
        for d in (7, 8, 9, 10):
            world.recovered(shares[0], d=d).recovered(shares[1], support="clustered_cover", d=d)
        found = verdict(world, many)
        assert found["verdict"] == verdict_
        assert found["interval_deciding"] == found[decides]
        assert found["interval_family"] != found["interval"]
        assert f"[{found[decides][0]:.4g}, {found[decides][1]:.4g}]" in found["reason"]


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


@pytest.mark.parametrize("metric", ["ce_recovered", "relative_error", "storage"])
def test_what_no_seed_changes_stands_beside_every_seed(metric):
    world, floor = World(), {"support": "pca", "n": 112, "d": 64}
    world.recovered(0.88, seeds=8).recovered(0.80, seeds=1, **floor)
    world.error(0.3, seeds=8).error(0.4, seeds=1, **floor)
    for seed in range(8):
        world.value(BASE | {"seed": seed}, "storage", 100.0 + seed, "encoder", "test")
    world.value(BASE | floor, "storage", 50.0, "encoder", "test")
    above = {"above": 0} if metric != "relative_error" else {"below": 0}
    cells = {"trained": {"support": "expander"}, "floor": floor}
    found = verdict(world, {"metric": metric, "cells": cells, "threshold": above})
    assert (found["verdict"], found["seeds"], found["descriptive"]) == ("holds", 8, False)
    assert found["comparisons"][0]["seeds_left_out"] == []
    control = verdict(world, {"metric": metric, "cells": cells | {"floor": floor | {"support": "clustered"}}})
    assert control["verdict"] == "not run"
    if metric == "storage":
        assert found["estimate"] == pytest.approx(53.5)


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


def test_a_reason_names_the_first_of_many_missing_values():
    cells = {side: {"support": side, "d": "$d"} for side in ("expander", "clustered_cover")}
    found = verdict(World().recovered(0.88, d=2), {"each": {"d": [3, 4, 5]}, "cells": cells})
    assert found["reason"].count("ce_recovered (encoder, ce)") == 3
    assert found["reason"].endswith("and 3 more, which claims.json names")
    assert len({text for one in found["comparisons"] for text in one["missing"]}) == 6


def test_no_seed_in_common_is_not_run():
    world = World().recovered(0.88, seeds=3).recovered(0.80, seeds=6, support="clustered_cover")
    metrics, documents = world.frames()
    keep = [~((f["support"] == "clustered_cover") & (f["seed"] < 3)) for f in (metrics, documents)]
    (found,) = judge(register({}), Tables(metrics[keep[0]], documents[keep[1]].reset_index(drop=True)))
    assert found["verdict"] == "not run"
    assert "no seed is in every cell" in found["reason"]


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
        "cells": {"cell": {"support": "expander"}}, "point": True,
    }  # fmt: skip
    assert verdict(world, claim | {"threshold": {"at_most": 0.15}})["verdict"] == "holds"
    assert verdict(world, claim | {"threshold": {"at_most": 0.10}})["verdict"] == "fails"


def test_a_lower_bound_can_refute_and_not_prove():
    for level, expected in ((0.3, "inconclusive"), (3.0, "fails")):
        world = World()
        for number in range(10):
            world.value(BASE | {"seed": number}, "identifiability", level + 0.001 * number)
        claim = {
            "metric": "identifiability", "inference": "none", "split": "none", "test": "bound",
            "cells": {"cell": {"support": "expander"}}, "threshold": {"below": 1},
        }  # fmt: skip
        found = verdict(world, claim | {"lower_bound": True})
        assert found["verdict"] == found["points_to"] == expected
        assert ("is a lower bound and cannot prove below 1" in found["reason"]) == (expected != "fails")
        assert verdict(world, claim)["verdict"] == ("holds" if expected != "fails" else "fails")


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


def test_a_cell_that_is_not_one_setting_is_refused():
    world = World().recovered(0.88, d=7).recovered(0.88, d=30).recovered(0.8, support="clustered_cover")
    with pytest.raises(
        UserError, match=r"claims\[0\] \(claim\)\.cells\.expander: the tables hold d 7, 30; say which"
    ):
        verdict(world)


def test_the_file_written_is_the_same_byte_for_byte(tmp_path):
    world = World().recovered(0.92, diverged=(4,)).recovered(0.95, support="dense")
    metrics, documents = world.frames()
    order = np.random.default_rng(0).permutation(len(documents))
    claims = [CLAIM | RETENTION, CLAIM | {"id": "b"}]
    data = {"settings": [{"name": "toy", "where": WHERE}], "draws": 400, "claims": claims}
    (tmp_path / "claims.yaml").write_text(json.dumps(data))
    written = []
    for rows in (documents, documents.iloc[order]):
        tables.write_metrics(tables.completed(metrics).to_dict("records"), tmp_path / "m.parquet")
        tables.write_documents(tables.completed(rows).to_dict("records"), tmp_path / "d.parquet")
        paths = (tmp_path / name for name in ("m.parquet", "d.parquet", "claims.yaml", "claims.json"))
        write_claims(*paths)
        written.append((tmp_path / "claims.json").read_bytes())
    assert written[0] == written[1]
    assert b"NaN" not in written[0]
    assert [one["verdict"] for one in json.loads(written[0])] == ["inconclusive", "not run"]


def test_nothing_measured_means_nothing_run():
    found = read_register(ROOT / "workflow" / "claims.yaml")
    records = judge(found, Tables(*World().frames()))
    assert {record["setting"] for record in records} == {"smollm2", "synthetic", "smollm2-speed"}
    assert {record["verdict"] for record in records} == {"not run"}


def test_a_part_is_judged_with_its_setting_and_in_one_correction():
    settings = [{"name": "toy", "where": WHERE}, {"name": "timed", "where": WHERE | {"layer": 2}}]
    settings += [{"name": "part", "part_of": "timed", "where": WHERE, "claims": ["claim"]}]
    claims = [CLAIM, CLAIM | {"id": "b", "known_in": ["timed"]}]
    parsed = parse_register({"settings": settings, "draws": 400, "claims": claims})
    world = World().recovered(0.88).recovered(0.84, support="clustered_cover")
    assert {one["setting"] for one in judge(parsed, Tables(*world.frames()))} == {"toy"}
    found = judge(parsed, Tables(*world.recovered(0.88, layer=2).frames()))
    assert [one["setting"] for one in found] == ["toy", "toy", "timed", "timed", "part"]
    assert [one["level"] for one in found] == [0.975, 0.975, 0.95, 0.95, 0.95]


def test_times_alone_do_not_make_a_setting():
    data = {
        "settings": [{"name": "toy", "where": WHERE}, {"name": "timed", "where": WHERE | {"layer": 2}}],
        "draws": 400,
        "claims": [CLAIM],
    }
    world, times = World().recovered(0.88), World()
    times.value(BASE | {"layer": 2}, "correlate_ms_per_d", 1.0, split="speed")
    rows = times.frames()[0]
    rows = rows[rows["split"] == "speed"]
    metrics, documents = world.frames()
    parsed = parse_register(data)
    assert [one["setting"] for one in judge(parsed, Tables(metrics, documents, rows))] == ["toy"]
    both = pd.concat([metrics, rows], ignore_index=True)
    assert [one["setting"] for one in judge(parsed, Tables(both, documents))] == ["toy", "timed"]
