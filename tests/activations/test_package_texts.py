import pytest

from expander_sae.activations.package_texts import PACKAGES, TEXTS_OF, read_package_texts
from expander_sae.errors import UserError
from expander_sae.study import presets

DOCSTRINGS_SHA256 = "9accd6a7e158f9d5ca3cd4db4ca11a3064449b8ed905dd0d2ad190011c493674"
CODE_SHA256 = "2759e4723785da67d0f261902e4a39a74ee82f709504f040d6685e8a442db5a0"


def test_missing_package_is_named():
    with pytest.raises(UserError, match="no-such-package"):
        read_package_texts("docstrings", ["no-such-package"])


@pytest.mark.parametrize(
    ("source", "count", "sha256"), [("docstrings", 13747, DOCSTRINGS_SHA256), ("code", 56300, CODE_SHA256)]
)
def test_texts_of_the_pinned_packages_are_the_recorded_ones(source, count, sha256):
    corpus = read_package_texts(source)
    assert corpus.sha256 == sha256, f"packages are {corpus.versions}"
    assert list(corpus.versions) == list(PACKAGES)
    assert len(corpus.texts) == count


def test_a_plan_and_the_reading_know_the_same_sources():
    assert tuple(TEXTS_OF) == presets.PACKAGE_SOURCES and tuple(PACKAGES) == tuple(presets.PACKAGE_VERSIONS)
