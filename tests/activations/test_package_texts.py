import pytest

from expander_sae.activations.package_texts import PACKAGES, TEXTS_OF, read_package_texts
from expander_sae.errors import UserError
from expander_sae.study import presets

DOCSTRINGS_SHA256 = "9accd6a7e158f9d5ca3cd4db4ca11a3064449b8ed905dd0d2ad190011c493674"
# Of three packages, which takes a quarter of the time. All six: 56,300 texts, 2759e4723785….
CODE_SHA256 = "441d8c49b1d4def788344a3b04a83e9eeb502c5d9209bd531e15ef2ce3675188"


def test_missing_package_is_named():
    with pytest.raises(UserError, match="no-such-package"):
        read_package_texts("docstrings", ["no-such-package"])


@pytest.mark.parametrize(
    ("source", "packages", "count", "sha256"),
    [
        ("docstrings", tuple(PACKAGES), 13747, DOCSTRINGS_SHA256),
        ("code", ("numpy", "scipy", "matplotlib"), 12554, CODE_SHA256),
    ],
)
def test_texts_of_the_pinned_packages_are_the_recorded_ones(source, packages, count, sha256):
    corpus = read_package_texts(source, packages)
    assert corpus.sha256 == sha256, f"packages are {corpus.versions}"
    assert tuple(corpus.versions) == packages
    assert len(corpus.texts) == count


def test_a_plan_and_the_reading_know_the_same_sources():
    assert tuple(TEXTS_OF) == presets.PACKAGE_SOURCES and tuple(PACKAGES) == tuple(presets.PACKAGE_VERSIONS)
