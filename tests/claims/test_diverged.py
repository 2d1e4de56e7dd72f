"""Claims with diverged runs are judged with and without them."""

from __future__ import annotations

import numpy as np
import pandas as pd

from expander_sae.claims.judge import judge
from expander_sae.measurements.document_cells import Tables
from tests.claims.world import (
    RETENTION,
    World,
    register,
    verdict,
)


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


def test_a_run_that_left_nothing_but_its_flag_counts_as_diverged():
    """What evaluation writes of a run with a parameter that is not finite."""
    world = World().recovered(0.92).recovered(0.95, support="dense")
    metrics, documents = world.frames()
    broken = (metrics["support"] == "expander") & (metrics["seed"] == 4)
    metrics.loc[broken & (metrics["metric"] == "diverged"), "value"] = 1.0
    stored = metrics[metrics["metric"] == "diverged"].assign(metric="decoder_values", split="none")
    gone = (metrics["support"] == "expander") & (metrics["seed"] == 4) & (metrics["metric"] != "diverged")
    lost = (documents["support"] == "expander") & (documents["seed"] == 4)
    (found,) = judge(register(RETENTION), Tables(pd.concat([metrics[~gone], stored]), documents[~lost]))
    assert (found["verdict"], found["estimate"], found["interval"]) == ("inconclusive", None, None)
    assert (found["without_diverged"]["verdict"], found["without_diverged"]["seeds"]) == ("holds", 9)
    assert "diverged seeds: 4" in found["reason"]


def test_all_seeds_diverged_leaves_nothing_to_judge_without_them():
    world = World().recovered(0.9, seeds=5, diverged=range(5)).recovered(0.95, seeds=5, support="dense")
    found = verdict(world, RETENTION)
    assert found["without_diverged"]["verdict"] == "not run"
    assert found["verdict"] == "inconclusive"


def test_a_pursuit_that_diverges_leaves_what_the_encoder_found():
    """Flags are by inference: OMP's says nothing of the encoder, the encoder's counts for both."""
    gap = {
        "cells": {"expander": {"support": "expander", "inference": "omp"}, "control": {"support": "expander"}}
    }
    for by, plain in (("omp", ()), ("encoder", (4,))):
        world = World().recovered(0.92).recovered(0.90, support="dense").recovered(0.93, inference="omp")
        metrics, documents = world.frames()
        flags = (
            (metrics["metric"] == "diverged") & (metrics["seed"] == 4) & (metrics["support"] == "expander")
        )
        metrics.loc[flags & (metrics["inference"] == by), "value"] = 1.0
        claims = register(RETENTION, gap | {"id": "gap"})
        retained, gained = judge(claims, Tables(metrics, documents))
        assert (retained["without_diverged"] is None) == (not plain)
        assert gained["without_diverged"]["seeds"] == 9
