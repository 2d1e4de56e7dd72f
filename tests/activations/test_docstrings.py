import pytest

from expander_sae.activations.docstrings import (
    DOCSTRINGS_SHA256,
    PACKAGES,
    clean,
    docstrings_of,
    read_docstrings,
)
from expander_sae.errors import UserError

LONG = "word " * 120


def test_docstrings_come_in_source_order_and_long_ones_only():
    source = f'''"""module {LONG}"""
class A:
    """class {LONG}"""
    def short(self):
        """short"""
    def f(self):
        """method {LONG}"""
        def inner():
            """inner {LONG}"""
        try:
            pass
        except ValueError:
            def g():
                """handler {LONG}"""
        text = """not a docstring {LONG}"""
if True:
    pass
else:
    async def h():
        """async {LONG}"""
'''
    found = [text.split()[0] for text in docstrings_of(source.encode())]
    assert found == ["module", "class", "method", "inner", "handler", "async"]


def test_file_that_does_not_parse_gives_nothing():
    assert docstrings_of(f'"""{LONG}"""\ndef f(:'.encode()) == []


def test_newer_syntax_is_refused_on_every_python():
    assert docstrings_of(f'"""{LONG}"""\ntype A = int'.encode()) == []


def test_text_without_unicode_form_is_left_out():
    assert docstrings_of(f'"""\\ud800 {LONG}"""'.encode()) == []


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ("  one line  ", "one line"),
        ("First.\n\n    Second\n      indented \n    ", "First.\n\nSecond\n  indented"),
        ("\n    A\n\tB\n", "A\n    B"),
        ("", ""),
    ],
)
def test_clean_removes_common_indentation(raw, expected):
    assert clean(raw) == expected


def test_missing_package_is_named():
    with pytest.raises(UserError, match="no-such-package"):
        read_docstrings(["no-such-package"])


def test_corpus_of_the_pinned_packages_is_the_recorded_one():
    corpus = read_docstrings()
    assert corpus.sha256 == DOCSTRINGS_SHA256, f"packages are {corpus.versions}"
    assert list(corpus.versions) == list(PACKAGES)
    assert len(corpus.texts) == 13747
