"""Reading the list of claims, and the one that is shipped."""

from __future__ import annotations

import pytest

from expander_sae.claims.register import parse_register, read_register
from expander_sae.errors import UserError
from expander_sae.measurements.document_cells import DERIVED, Request
from expander_sae.study.study import Study, load_config
from tests.claims.world import (
    CLAIM,
    MONOTONE,
    OMP,
    ROOT,
    WHERE,
    register,
)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"test": "always"}, r"claims\[0\] \(claim\)\.test: found 'always', expected one of monotone"),
        ({"tset": "bound"}, r"claims\[0\] \(claim\)\.tset: unknown key; .*did you mean test\?"),
        ({"threshold": {"over": 1}}, r"threshold\.over: unknown key; expected one of above"),
        ({"threshold": {"above": "high"}}, r"threshold\.above: found 'high', expected a number"),
        ({"threshold": {"above": 2, "below": 1}}, r"threshold: found 2 to 1"),
        ({"cells": {"a": {"width": 7}, "b": {}}}, r"cells\.a: unknown key 'width'"),
        ({"cells": {"a": {"d": "seven"}, "b": {}}}, r"cells\.a\.d: found 'seven', expected a whole number"),
        ({"cells": {"a": {"d": "$low"}, "b": {}}}, r"cells\.a\.d: found \$low in setting 'toy'"),
        ({"cells": {"a": {}}}, r"weights: missing"),
        ({"cells": {"a": {}}, "test": "bound"}, r"cells: found a, expected cell"),
        ({"settings": ["toy"]}, r"\(claim\)\.settings: unknown key"),
        ({"known_in": ["elsewhere"]}, r"known_in: found 'elsewhere', expected one of toy"),
        ({"sentence": ""}, r"sentence: found '', expected a text"),
        (MONOTONE | {"values": [7]}, r"values: found \[7\], expected a list of two or more"),
        (OMP | {"of": "quotient"}, r"of: found 'quotient', expected one of ratio, reduction"),
        (OMP | {"weights": {}}, r"weights: found it with test ratio_between, which has no such key"),
        ({"each": {"d": 7}}, r"each: found {'d': 7}, expected lists of values, or a list of mappings"),
    ],
)
def test_mistakes_in_the_file_are_named(change, message):
    with pytest.raises(UserError, match=message):
        register(change)


def test_a_setting_can_ask_for_some_claims_only():
    elsewhere = {"name": "elsewhere", "where": WHERE | {"layer": 2}, "claims": ["b"]}
    data = {"settings": [{"name": "toy", "where": WHERE}, elsewhere], "claims": [CLAIM, CLAIM | {"id": "b"}]}
    found = parse_register(data)
    assert [list(claim.plans) for claim in found.claims] == [["toy"], ["toy", "elsewhere"]]
    elsewhere["all_but"] = elsewhere.pop("claims")
    found = parse_register(data)
    assert [list(claim.plans) for claim in found.claims] == [["toy", "elsewhere"], ["toy"]]
    elsewhere["all_but"] = ["c"]
    with pytest.raises(
        UserError, match=r"settings \(elsewhere\)\.all_but: found 'c', expected the id of a claim"
    ):
        parse_register(data)
    elsewhere["claims"] = ["b"]
    with pytest.raises(UserError, match="found both claims and all_but, expected one of them"):
        parse_register(data)


def test_a_part_has_what_its_setting_has_unless_it_says_other():
    part = {"name": "part", "part_of": "toy", "claims": ["claim"]}
    other = {"name": "other", "part_of": "toy", "where": WHERE | {"layer": 2}}
    data = {
        "settings": [{"name": "toy", "where": WHERE, "values": {"low": 7}}, part, other],
        "claims": [CLAIM],
    }
    whole, same, elsewhere = parse_register(data).settings
    assert (same.where, same.values, same.whole) == (whole.where, whole.values, whole)
    assert (elsewhere.where["layer"], elsewhere.values) == (2, whole.values)
    other["part_of"] = "part"
    with pytest.raises(UserError, match=r"settings\[2\]\.part_of: found 'part', expected one of toy"):
        parse_register(data)
    del other["where"], other["part_of"]
    with pytest.raises(UserError, match=r"settings\[2\]\.where: missing"):
        parse_register(data)


def test_every_setting_s_runs_are_in_a_shipped_configuration():
    """A setting of other sizes than its configuration's would never be judged, and nobody would know."""
    register = read_register(ROOT / "workflow" / "claims.yaml")
    studies = ("smollm2-135m", "smollm2-tuned", "smollm2-tuned-layer22", "smollm2-tuned-code")
    studies += ("smollm2-tuned-grid", "paper")
    files = [ROOT / "config.yaml", *(ROOT / f"configs/{name}.yaml" for name in studies)]
    runs = [run for file in files for run in Study(load_config(file)).runs]
    for setting in register.settings:
        here = [
            run for run in runs if all(getattr(run, key) == value for key, value in setting.where.items())
        ]
        if setting.part_of:  # it needs no trained run
            continue
        assert here, setting.name
        if setting.claims is None:
            continue
        for claim in register.claims:
            for plan in claim.plans.get(setting.name, ()):
                for request in plan.requests:
                    assert any(
                        all(getattr(run, key) == value for key, value in request.where.items())
                        for run in runs  # a floor has no steps, and so is not among those of the setting
                    ), (setting.name, claim.id, request.where)


@pytest.mark.parametrize(
    ("topics", "message"),
    [
        ({"One": ["claim", "claim"]}, r"topics\.One"),
        ({"One": ["claim"], "Two": ["claim"]}, r"topics\.Two: found 'claim', which 'One' has too"),
        ({"One": ["other"]}, r"topics\.One: found 'other', expected the id of a claim"),
        ({"One": []}, r"topics: found none with the claim 'claim', expected one|claim"),
    ],
)
def test_a_claim_stands_under_one_topic(topics, message):
    data = {"settings": [{"name": "toy", "where": WHERE, "values": {"low": 7}}], "claims": [CLAIM]}
    assert parse_register(data).claims[0].topic == ""
    assert parse_register(data | {"topics": {"One": ["claim"]}}).claims[0].topic == "One"
    if topics == {"One": []}:
        assert parse_register(data | {"topics": topics}).claims[0].topic == ""
        return
    with pytest.raises(UserError, match=message):
        parse_register(data | {"topics": topics})


def test_claims_are_told_apart():
    with pytest.raises(UserError, match="claims: found 'claim' twice"):
        register({}, {})


def test_the_shipped_claims_are_well_formed_and_documented():
    found = read_register(ROOT / "workflow" / "claims.yaml")
    page = (ROOT / "docs" / "claims.md").read_text(encoding="utf-8")
    assert [claim.id for claim in found.claims if f"`{claim.id}`" not in page] == []
    shipped = [setting.name for setting in found.settings if setting.whole is found.settings[0]]
    judged = {claim.id: sum(name in claim.plans for name in shipped) for claim in found.claims}
    assert set(judged.values()) <= {0, 1}
    later = [claim for claim in found.claims if not judged[claim.id]]  # asked of the tuned study alone
    assert all("smollm2-tuned" in claim.plans and "smollm2" in claim.known_in for claim in later)


def test_the_ablations_are_those_of_the_evaluation():
    runs = pytest.importorskip("expander_sae.evaluation.runs")
    for metric, ablated in runs.BASELINES.items():
        assert DERIVED[metric].model == (ablated, "ce_clean")


def test_a_request_reads_like_a_sentence():
    where = {"model": "toy", "support": "dense", "k": 64}
    request = Request("key", where, "ce_recovered", "omp", "ce", {"model": "toy", "k": 8})
    assert str(request) == "ce_recovered (omp, ce) of support=dense, k=64"
