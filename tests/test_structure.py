"""The plan of the package, read from its files: the order of the folders, and the size of what is in them.

The order is that of the map in docs/design.md.
"""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from tests.docs.blocks import package_map

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "expander_sae"

ORDER = [path.removesuffix(".py").rstrip("/") for path in package_map() if "/" not in path.rstrip("/")]
"""Folders and top-level modules as on the map in docs/design.md, lowest first. An import stays in its folder
or goes to one further left here."""

TOP_LEVEL = {"__init__", "api", "errors", "rng", "stages"}
PLANNING = ("errors", "stages", "storage/files", "study", "cost")
"""What is imported where thousands of jobs are planned."""

LONGEST_FUNCTION = 50
"""Lines from `def` to the end, docstring and blank lines included."""

MOST_PARAMETERS = 8
"""Of a signature outside kernels/, self and cls left out. Parameters of a public function that can only be
given by name are not counted, since a call says what they are."""

LONGEST_FILE = 300
LONGER_FILES: frozenset[str] = frozenset()
"""Files that are longer all the same. The list may only get shorter."""


@dataclass(frozen=True)
class Import:
    """Where a statement stands, and the module or name that it asks for."""

    importer: str
    line: int
    wanted: str
    for_types: bool

    def __str__(self) -> str:
        return f"{self.importer}:{self.line} imports {self.wanted}"


@cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def module_files() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


def module_name(path: Path) -> str:
    """expander_sae.masks.recipe, or expander_sae.masks of its `__init__`."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports_of(path: Path) -> Iterator[Import]:
    """Every import of this package in the file: also those in functions, for types alone, and by name."""
    name = module_name(path)
    conditional = [node for node in ast.walk(tree(path)) if isinstance(node, ast.If)]
    typing = [node for node in conditional if ast.unparse(node.test) == "TYPE_CHECKING"]
    for_types = {inner for node in typing for inner in ast.walk(node)}
    for node in ast.walk(tree(path)):
        wanted: list[str] = []
        if isinstance(node, ast.Import):
            wanted = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name}:{node.lineno} has a relative import"
            wanted = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
            # Of an f-string the part before its first value: it has the folder.
            wanted = [each.value for each in ast.walk(node.args[0]) if isinstance(each, ast.Constant)][:1]
        for each in wanted:
            if each.partition(".")[0] == "expander_sae":
                yield Import(name, node.lineno, each, node in for_types)


def folder(name: str) -> str:
    """The folder or top-level module of a dotted name; nothing for the package itself."""
    return name.split(".")[1] if "." in name else ""


def functions() -> Iterator[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef]]:
    """(FILE:LINE name, function) of every function and method."""
    for path in module_files():
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                yield f"{path.relative_to(ROOT)}:{node.lineno} {node.name}", node


def check(offenders: list[str], rule: str) -> None:
    """Fail, with all of them and the rule that they break."""
    if offenders:
        pytest.fail("\n".join([f"{len(offenders)} break the rule: {rule}", *offenders]), pytrace=False)


def test_every_folder_has_its_place_in_the_order():
    found = {path.name for path in PACKAGE.iterdir() if path.is_dir() and list(path.glob("*.py"))}
    found |= {path.stem for path in PACKAGE.glob("*.py")} - {"__init__"}
    check(sorted(found ^ set(ORDER)), "what lies in expander_sae/ is on the map, and nothing else is")


def test_imports_point_down():
    place = {name: position for position, name in enumerate(ORDER)}
    upwards = [
        str(found)
        for path in module_files()
        for found in imports_of(path)
        if found.importer != "expander_sae" and found.wanted != "expander_sae.__version__"
        if place.get(folder(found.wanted), len(ORDER)) > place[folder(found.importer)]
    ]
    check(upwards, "an import stays in its folder or goes to one further up on the map")


def test_modules_import_each_other_in_no_circle():
    """Two modules of a folder may know each other's types: such imports are never run."""
    names = {module_name(path) for path in module_files()}
    graph: dict[str, set[str]] = {name: set() for name in names}
    for path in module_files():
        name = module_name(path)
        for found in imports_of(path) if name != "expander_sae" else ():
            home = found.wanted if found.wanted in names else found.wanted.rpartition(".")[0]
            if home in names - {"expander_sae", name} and not found.for_types:
                graph[name].add(home)
    circle: list[str] = []
    try:
        TopologicalSorter({name: sorted(graph[name]) for name in sorted(graph)}).prepare()
    except CycleError as error:
        circle = [" → ".join(reversed(error.args[1]))]
    check(circle, "no module imports, by way of others, itself")


def test_packages_are_a_docstring_and_nothing_else():
    offenders = []
    for path in module_files():
        if path.name == "__init__.py" and path.parent != PACKAGE:
            body = tree(path).body
            if len(body) != 1 or ast.get_docstring(tree(path)) is None:
                offenders.append(str(path.relative_to(ROOT)))
    check(offenders, "an __init__.py holds a docstring only, else planning starts to import numpy")


def test_the_package_itself_imports_lazily():
    body = tree(PACKAGE / "__init__.py").body
    imported = {node.module for node in body if isinstance(node, ast.ImportFrom)}
    imported |= {alias.name for node in body if isinstance(node, ast.Import) for alias in node.names}
    check(sorted(imported - {"importlib", "typing"}), "the package imports a name when it is first used")


def test_few_modules_lie_at_the_top():
    found = {path.stem for path in PACKAGE.glob("*.py")}
    check(sorted(found - TOP_LEVEL), f"at the top lie {', '.join(sorted(TOP_LEVEL))} and no other module")


def test_no_function_is_long():
    offenders = []
    for place, node in functions():
        assert node.end_lineno is not None
        lines = node.end_lineno - node.lineno + 1
        if lines > LONGEST_FUNCTION:
            offenders.append(f"{place}: {lines} lines")
    check(offenders, f"a function has at most {LONGEST_FUNCTION} lines")


def test_no_signature_is_long():
    offenders = []
    for place, node in functions():
        if place.startswith("expander_sae/kernels/"):
            continue
        positional = [*node.args.posonlyargs, *node.args.args]
        positional = [each for each in positional if each.arg not in ("self", "cls")]
        public = not node.name.startswith("_") or node.name == "__init__"
        counted = len(positional) + (0 if public else len(node.args.kwonlyargs))
        if counted > MOST_PARAMETERS:
            offenders.append(f"{place}: {counted} parameters")
    check(offenders, f"a signature has at most {MOST_PARAMETERS} parameters (public ones by name apart)")


def test_no_file_is_long():
    files = [*module_files(), *(ROOT / "workflow").rglob("*.py"), *(ROOT / "workflow").rglob("*.smk")]
    lines = {
        path.relative_to(ROOT).as_posix(): len(path.read_text(encoding="utf-8").splitlines())
        for path in [*files, ROOT / "Snakefile"]
    }
    long = {name: count for name, count in lines.items() if count > LONGEST_FILE}
    offenders = [f"{name}: {count} lines" for name, count in sorted(long.items()) if name not in LONGER_FILES]
    check(offenders, f"a file has at most {LONGEST_FILE} lines")
    check(sorted(LONGER_FILES - set(long)), "LONGER_FILES names only files that are longer")


def test_planning_imports_no_arrays():
    modules = [
        module_name(path)
        for part in PLANNING
        for path in sorted((PACKAGE / part).glob("*.py")) or [PACKAGE / f"{part}.py"]
    ]
    code = """if True:
        import importlib, sys
        for name in sys.argv[1:]:
            importlib.import_module(name)
            if heavy := {"numpy", "torch", "pandas"} & sys.modules.keys():
                sys.exit(f"{name} imports {', '.join(sorted(heavy))}")"""
    done = subprocess.run(
        [sys.executable, "-c", code, *modules], cwd=ROOT, capture_output=True, text=True, check=False
    )
    check([done.stderr.strip()] if done.returncode else [], "planning imports no numpy, torch or pandas")


def test_docstrings_have_one_dialect():
    """Google's: what a parameter is stands under `Args:`, what is raised under `Raises:`."""
    offenders = []
    for path in module_files():
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                said = (ast.get_docstring(node) or "") + "\n"
                prose = re.split(r"^(?:Args|Returns|Yields|Raises):\n", said, maxsplit=1, flags=re.MULTILINE)[
                    0
                ]
                found = re.search(r"^(?:Returns|Raises) |\. Raises `|^:param|^-{3,}$", said, re.MULTILINE)
                found = found or next((m for m in BARE.finditer(prose) if m[1] in parameters(node)), None)
                if found:
                    offenders.append(
                        f"{path.relative_to(ROOT)}:{node.lineno} {node.name}: {found[0].strip()}"
                    )
    check(offenders, "a docstring has a sentence, then sections Args:, Returns:, Raises:")


BARE = re.compile(r"^([a-z_]\w*)(?:, \w+)*: ", re.MULTILINE)


def parameters(node: ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) -> set[str]:
    """Of a function; of a class the fields, which are those of its constructor where it is a dataclass."""
    if isinstance(node, ast.ClassDef):
        return {ast.unparse(each.target) for each in node.body if isinstance(each, ast.AnnAssign)}
    return {each.arg for each in ast.walk(node.args) if isinstance(each, ast.arg)}
