"""The texts of one Python file: which, in which order, and what is left out."""

import pytest

from expander_sae.activations.python_texts import clean, docstrings_of, functions_of

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


def body(word, indent="    "):
    return "".join(f"{indent}{word} = '{'x' * 50}'\n" for _ in range(12))


def test_functions_come_in_source_order_whole_and_without_docstrings():
    source = f'''"""module {LONG}"""
@decorated
def first(a,
          b):  # kept
    """left out {LONG}"""
{body("one")}
    def inner():
        """left out {LONG}"""
        return 1
class A:
    """left out {LONG}"""
    def short(self):
        return 0
    async def method(self):
        \'\'\'left out
        \'\'\'
{body("two", " " * 8)}
if True:
    pass
else:
    def last():
{body("three", " " * 8)}
'''
    found = functions_of(source.encode())
    assert [text.split("(")[0] for text in found] == ["def first", "async def method", "def last"]
    assert found[0].startswith("def first(a,\n          b):  # kept\n    one = ")
    assert found[0].endswith("    def inner():\n        return 1")
    assert found[1].startswith("async def method(self):\n    two = ")
    assert not any("left out" in text for text in found)


def test_lines_of_a_function_are_those_of_the_grammar():
    """A form feed or a line separator in a string ends no line; a BOM is no text."""
    source = (
        "\ufeffdef f():\r\n    a = '\f\u2028'\r\n" + body("b").replace("\n", "\r\n") + "def g(): pass\r\n"
    )
    (text,) = functions_of(source.encode())
    assert text.split("\n")[:2] == ["def f():", "    a = '\f\u2028'"] and "def g" not in text


@pytest.mark.parametrize("wrong", [b"def f(:\n", b"def f():\n    a = '\xff'\n", b"type A = int\n"])
def test_a_file_that_is_no_python_or_no_utf_8_gives_no_functions(wrong):
    right = f"def f():\n{body('a')}".encode()
    assert len(functions_of(right)) == 1
    assert functions_of(wrong + right) == []


def test_what_stands_on_the_line_of_a_docstring_stays():
    source = f'''def f():
    "left out"; a = "ü"
    class A: "left out"
    @decorated
    def g(): """left
        out"""; return 5
{body("b")}'''
    (text,) = functions_of(source.encode())
    assert text.split("\n")[:5] == [
        "def f():", '    a = "ü"', "    class A: ", "    @decorated", "    def g(): return 5",
    ]  # fmt: skip
    assert "left" not in text and text.endswith(body("b").rstrip("\n"))


def test_a_method_moves_left_and_a_text_in_it_that_begins_its_line_stays():
    source = (
        f"class A:\n    def f(self):\n        a = '''\nfirst\n  second  \n\tthird'''\n{body('b', ' ' * 8)}"
    )
    (text,) = functions_of(source.encode())
    lines = text.split("\n")
    assert lines[:5] == ["def f(self):", "    a = '''", "first", "  second  ", "\tthird'''"]
    assert lines[5].startswith("    b = ")
