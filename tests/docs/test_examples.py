"""The examples of the docstrings, run as doctests, in the folder of a reader who has nothing yet."""

import doctest
import re
from importlib import import_module

import pytest

from tests.docs.blocks import ROOT

SHOWN = ("Trainer", "SparseCode", "MaskRecipe", "load", "evaluate", "omp", "cumulative_coherence", "deficit")
"""What a reader would try first; each has an example."""


def module_of(path):
    return ".".join(path.relative_to(ROOT).with_suffix("").parts)


WITH_EXAMPLES = [
    module_of(path)
    for path in sorted((ROOT / "expander_sae").rglob("*.py"))
    if re.search(r"^\s+>>> ", path.read_text(encoding="utf-8"), re.MULTILINE)
]


@pytest.mark.parametrize("name", WITH_EXAMPLES)
def test_examples_run(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = doctest.testmod(import_module(name), optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    assert result.attempted and not result.failed


def test_what_a_reader_tries_first_has_an_example():
    finder = doctest.DocTestFinder()
    found = {
        test.name.rpartition(".")[2]
        for name in WITH_EXAMPLES
        for test in finder.find(import_module(name))
        if test.examples
    }
    assert set(SHOWN) - found == set()
