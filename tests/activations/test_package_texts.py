import pytest

from expander_sae.activations.package_texts import PACKAGES, read_package_texts
from expander_sae.errors import UserError

DOCSTRINGS_SHA256 = "9accd6a7e158f9d5ca3cd4db4ca11a3064449b8ed905dd0d2ad190011c493674"
NUMPY_CODE_SHA256 = "720b02b2297fcd89cfb39f793f2c874512b245d1e2dc38975c1598f25d24b34e"


def test_missing_package_is_named():
    with pytest.raises(UserError, match="no-such-package"):
        read_package_texts("docstrings", ["no-such-package"])


def test_corpus_of_the_pinned_packages_is_the_recorded_one():
    corpus = read_package_texts("docstrings")
    assert corpus.sha256 == DOCSTRINGS_SHA256, f"packages are {corpus.versions}"
    assert list(corpus.versions) == list(PACKAGES)
    assert len(corpus.texts) == 13747


def test_code_of_a_pinned_package_is_the_recorded_one():
    corpus = read_package_texts("code", ["numpy"])
    assert corpus.sha256 == NUMPY_CODE_SHA256, f"packages are {corpus.versions}"
    assert len(corpus.texts) == 3144 and set(corpus.packages) == {"numpy"}
