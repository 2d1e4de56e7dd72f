"""The kinds of claim, and how verdicts on comparisons make one on the claim."""

from __future__ import annotations

import pytest

from expander_sae.claims.threshold import Region
from expander_sae.claims.verdicts import Case, joint_verdict, one_verdict
from tests.claims.world import (
    MONOTONE,
    OMP,
    World,
    register,
    verdict,
)


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


def test_levels_are_corrected_for_claims_and_comparisons():
    found = register(
        {"each": {"inference": ["encoder", "omp", "niht", "cosamp"]}},
        {"id": "b"},
        {"id": "c"},
        {"id": "d"},
        {"id": "e"},
    )
    case = Case(found, found.claims[0], found.settings[0])
    assert case.level == pytest.approx(0.99)
    assert case.level_family == pytest.approx(0.9975)


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
