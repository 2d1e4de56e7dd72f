"""The texts of one Python file that a corpus takes: long docstrings, or long functions without theirs."""

from __future__ import annotations

import ast
import re
import warnings
from collections.abc import Iterable, Iterator
from itertools import pairwise

MIN_CHARACTERS = 500
# Newer syntax is refused whichever Python runs, so that the corpus does not depend on it.
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

    A function has those inside it; decorators are left out.
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
    """Its lines, without the docstrings that are in it and without the common indentation."""
    own = range(function.lineno - 1, function.end_lineno or 0)
    inside = [one for one in ast.walk(function) if isinstance(one, _Documented)]
    places = [one.body[0] for one in inside if ast.get_docstring(one, clean=False) is not None]
    left_out = {line for one in places for line in range(one.lineno - 1, one.end_lineno or 0)}
    kept = [lines[line].expandtabs().rstrip() for line in own if line not in left_out]
    margin = min((len(line) - len(line.lstrip(" ")) for line in kept if line), default=0)
    return "\n".join(line[margin:] for line in kept).strip("\n")


def clean(docstring: str) -> str:
    """Remove the common indentation and blank ends: `inspect.cleandoc` changed between Python versions."""
    first, *rest = docstring.expandtabs().split("\n")
    margin = min((len(line) - len(line.lstrip(" ")) for line in rest if line.strip()), default=0)
    lines = [first.strip(), *(line[margin:].rstrip() for line in rest)]
    return "\n".join(lines).strip("\n")
