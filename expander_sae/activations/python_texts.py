"""The texts of one Python file that a corpus takes: long docstrings, or long functions without theirs."""

from __future__ import annotations

import ast
import re
import warnings
from collections.abc import Iterable, Iterator
from itertools import pairwise

MIN_CHARACTERS = 500
# Newer statements are refused whichever Python runs, so that the corpus does not depend on it.
_GRAMMAR = (3, 11)
_TRIPLE_QUOTE = re.compile(rb'"""|\'\'\'')
_LINE_END = re.compile("\r\n|\r|\n")  # where the grammar ends a line; `splitlines` knows more places
LONE_SURROGATE = re.compile("[\ud800-\udfff]")

_Function = ast.FunctionDef | ast.AsyncFunctionDef
_Documented = ast.Module | ast.ClassDef | _Function


def docstrings_of(source: bytes) -> list[str]:
    """Long docstrings of one file, in the order of the file; none if it does not parse."""
    places = [match.start() for match in _TRIPLE_QUOTE.finditer(source)]
    if not any(after - before > MIN_CHARACTERS for before, after in pairwise(places)):
        return []
    module = _parsed(source)
    return [] if module is None else _long(clean(raw) for raw in _raw_docstrings(module))


def functions_of(source: bytes) -> list[str]:
    """Long functions and methods of one file, in its order, without docstrings; none if it does not parse.

    A function has those inside it, and none of its own decorators. One that is a docstring alone is its first
    lines.
    """
    module = _parsed(source)
    try:
        lines = _LINE_END.split(source.decode("utf-8-sig"))
    except UnicodeDecodeError:
        return []
    return [] if module is None else _long(_code(one, lines) for one in _functions(module))


def _parsed(source: bytes) -> ast.Module | None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # other people's invalid escapes
            return ast.parse(source, feature_version=_GRAMMAR)
    except (SyntaxError, ValueError):
        return None


def _long(texts: Iterable[str]) -> list[str]:
    return [text for text in texts if len(text) > MIN_CHARACTERS and not LONE_SURROGATE.search(text)]


def _raw_docstrings(node: ast.Module | ast.stmt) -> Iterator[str]:
    """Docstrings below `node` in source order; only statements are visited, not expressions."""
    if isinstance(node, _Documented) and (text := ast.get_docstring(node, clean=False)) is not None:
        yield text
    for child in _below(node):
        yield from _raw_docstrings(child)


def _below(node: ast.AST) -> Iterator[ast.stmt]:
    """Statements in `node` that have statements in them."""
    for name in ("body", "handlers", "cases", "orelse", "finalbody"):
        yield from (child for child in getattr(node, name, ()) if hasattr(child, "body"))


def _functions(node: ast.AST) -> Iterator[_Function]:
    """The outermost functions below `node`, in source order."""
    for child in _below(node):
        if isinstance(child, _Function):
            yield child
        else:
            yield from _functions(child)


def _code(function: _Function, lines: list[str]) -> str:
    """Its lines without the docstrings in it; its own indentation is taken from all lines that have it."""
    end = function.end_lineno or function.lineno
    kept = dict(zip(range(function.lineno, end + 1), lines[function.lineno - 1 : end], strict=True))
    for scope in ast.walk(function):
        if isinstance(scope, _Documented) and ast.get_docstring(scope, clean=False) is not None:
            _cut(scope.body[0], kept)
    indentation = lines[function.lineno - 1].encode()[: function.col_offset].decode()
    return "\n".join(line.removeprefix(indentation) for _, line in sorted(kept.items()))


def _cut(docstring: ast.stmt, kept: dict[int, str]) -> None:
    """Take a docstring out of these lines by their numbers; what else stands on its lines stays."""
    first, last = docstring.lineno, docstring.end_lineno or docstring.lineno
    before = kept[first].encode()[: docstring.col_offset].decode()
    behind = kept[last].encode()[docstring.end_col_offset :].decode().lstrip("; \t")
    for number in range(first, last + 1):
        del kept[number]
    if before.strip() or behind:
        kept[first] = before + behind


def clean(docstring: str) -> str:
    """Remove the common indentation and blank ends: `inspect.cleandoc` changed between Python versions."""
    first, *rest = docstring.expandtabs().split("\n")
    margin = min((len(line) - len(line.lstrip(" ")) for line in rest if line.strip()), default=0)
    lines = [first.strip(), *(line[margin:].rstrip() for line in rest)]
    return "\n".join(lines).strip("\n")
