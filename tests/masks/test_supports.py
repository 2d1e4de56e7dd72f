"""The table of supports: what is found in it, what is refused, and in which order it is shown."""

from __future__ import annotations

import subprocess
import sys

import pytest

from expander_sae.errors import UserError
from expander_sae.masks import supports
from expander_sae.masks.supports import SUPPORTS, Support, find, register, support_of, support_order
from expander_sae.model.columns import Columns


def test_a_number_behind_the_name_is_read() -> None:
    known = support_of("dose64")
    assert (known.name, known.number) == ("dose64", 64)
    assert known.distinct_supports(16, 128, 4) == 64
    assert known.impossible(16, 32, 4) == "dose64: expected 1 to n = 32 supports"
    assert support_of("girth6").number is None, "its digit belongs to its name"


def test_a_name_has_one_number_where_it_needs_none() -> None:
    assert support_of("hybrid").number == 50 and support_of("hybrid25").number == 25
    assert support_of("spectral").number == 256 and support_of("spectral8").shown.startswith("spectral8[")


@pytest.mark.parametrize(
    "name",
    ["dose", "dose0", "dose07", "dose-1", "dose1x", "expander1", "Dense", "", "hybrid50", "spectral256"],
)
def test_a_name_that_is_no_support_is_refused(name: str) -> None:
    assert find(name) is None
    expected = r"expected one of expander, bernoulli, .*, dose<number of distinct supports>, dense, pruned"
    with pytest.raises(UserError, match=f"support: found {name!r}, {expected}"):
        support_of(name)


def test_every_line_that_names_code_names_some_that_is_there() -> None:
    for known in SUPPORTS.values():
        assert known.make is None or callable(known.function())
        assert not known.fitted or callable(known.fitting())
        assert issubclass(known.columns(), Columns)


def test_figures_follow_a_fixed_order() -> None:
    """The expander first, the dense dictionary last, doses by their number, strangers by name."""
    shuffled = ["dense", "dose64", "window", "expander", "dose144", "girth6", "small_dense", "arcs"]
    ordered = ["expander", "girth6", "small_dense", "dense", "arcs", "window", "dose64", "dose144"]
    assert sorted(shuffled, key=support_order) == ordered
    assert supports.on_frontier()[0] == "expander" and supports.on_frontier()[-1] == "dense"
    assert supports.followed() == ["expander", "dense"]


@pytest.mark.parametrize("name", ["expander", "dose64", "a-b", "a/b", "7up", ""])
def test_a_new_support_needs_a_new_name(name: str) -> None:
    with pytest.raises(UserError, match="expected a new name of letters, digits and underscores"):
        register(Support(name))


def test_the_table_needs_neither_numpy_nor_torch() -> None:
    heavy = "{'numpy', 'torch', 'pandas'} & sys.modules.keys()"
    code = (
        f"import sys, expander_sae.masks.supports as s; s.support_of('dose64'); assert not {heavy}, {heavy}"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
