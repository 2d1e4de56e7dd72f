"""What pages and docstrings refer to is there: files, names of the package, pages and their headings."""

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from tests.docs.blocks import ROOT, pages

MORE = ("CONTRIBUTING.md", "CHANGELOG.md", "config/README.md", "studies/smollm2-135m/README.md")
PAGES = [*pages(), *(ROOT / name for name in MORE)]
SOURCES = sorted(
    path
    for folder in ("expander_sae", "workflow", "benchmarks")
    for path in (ROOT / folder).rglob("*")
    if path.suffix in (".py", ".smk")
)

KEYS = {"expander_sae.sealed"}
"""Keys of file headers, which look like names of the package."""


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


NAMED_FILE = r"`([\w./-]+\.(?:py|smk))`|(?<![\w/.}$-])([\w-]+(?:/[\w.-]+)+\.(?:py|smk))\b"


def unknown_files(path: Path) -> Iterator[str]:
    """A file that is named lies in the checkout, in the package, or beside the one that names it."""
    for quoted, plain in re.findall(NAMED_FILE, path.read_text(encoding="utf-8")):
        name = quoted or plain
        if not any((home / name).is_file() for home in (ROOT, ROOT / "expander_sae", path.parent)):
            yield f"{relative(path)}: {name}"


def unknown_names(path: Path) -> Iterator[str]:
    if path.name == "CHANGELOG.md":
        return  # It also names what is gone.
    for name in re.findall(r"(?<=`)expander_sae(?:\.\w+)+(?=[`(])", path.read_text(encoding="utf-8")):
        if name not in KEYS and not exists(name):
            yield f"{relative(path)}: {name}"


@cache
def exists(name: str) -> bool:
    """A module, or what one defines or holds, read without importing it."""
    file, rest = ROOT, name.split(".")
    while rest and (file / rest[0]).is_dir():
        file /= rest.pop(0)
    file = file / f"{rest.pop(0)}.py" if rest and (file / f"{rest[0]}.py").is_file() else file / "__init__.py"
    body: list[ast.stmt] = ast.parse(file.read_text(encoding="utf-8")).body
    for part in rest:
        found = [node for node in body if part in defined(node)]
        if not found:
            return False
        body = getattr(found[0], "body", [])
    return True


def defined(node: ast.stmt) -> set[str]:
    """The names that a statement binds; those imported for types stand for what is imported lazily."""
    if isinstance(node, ast.If):
        return {name for each in node.body for name in defined(each)}
    if isinstance(node, ast.ImportFrom):
        return {alias.asname or alias.name for alias in node.names}
    if isinstance(node, ast.Assign | ast.AnnAssign):
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        return {target.id for target in targets if isinstance(target, ast.Name)}
    return {getattr(node, "name", "")}


@pytest.mark.parametrize("path", PAGES, ids=relative)
def test_pages_name_what_exists(path):
    assert [*unknown_files(path), *unknown_names(path)] == []


def test_sources_name_what_exists():
    assert [found for path in SOURCES for found in (*unknown_files(path), *unknown_names(path))] == []


def test_a_name_that_is_not_there_is_found(tmp_path):
    assert exists("expander_sae.masks.recipe.Mask.valid") and exists("expander_sae.Trainer")
    assert not exists("expander_sae.masks.recipe.Mask.nowhere") and not exists("expander_sae.nowhere")


def anchors(path: Path) -> set[str]:
    """The headings of a page, as the anchors that both GitHub and the site make of them."""
    text = re.sub(r"^```.*?^```", "", path.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("path", PAGES, ids=relative)
def test_links_lead_somewhere(path):
    text = re.sub(r"^```.*?^```", "", path.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if target.startswith(("http:", "https:")):
            continue
        name, _, anchor = target.partition("#")
        page = (path.parent / name).resolve() if name else path
        assert page.exists(), f"{target}: there is no such file"
        assert not anchor or anchor in anchors(page), f"{target}: the page has no such heading"
