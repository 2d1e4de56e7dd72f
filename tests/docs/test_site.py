"""The site builds offline with every link checked, and its pages fetch nothing."""

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from expander_sae.cli.main import COMMANDS
from tests.docs.blocks import ROOT

MKDOCS = shutil.which("mkdocs")
pytestmark = pytest.mark.skipif(
    MKDOCS is None and importlib.util.find_spec("mkdocs") is None, reason="the extra `docs` is not installed"
)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    start = [MKDOCS] if MKDOCS else [sys.executable, "-m", "mkdocs"]
    # A proxy that nobody answers at: a fetch would fail.
    proxies = ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY")
    offline = dict.fromkeys(proxies, "http://127.0.0.1:9")
    done = subprocess.run(
        [*start, "build", "--strict", "--site-dir", str(folder)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, **offline, "NO_MKDOCS_2_WARNING": "1"},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def test_every_page_and_command_is_there(site):
    written = (ROOT / "docs").rglob("*.md")
    pages = {path.relative_to(ROOT / "docs").with_suffix(".html").as_posix() for path in written}
    assert pages <= {path.relative_to(site).as_posix() for path in site.rglob("*.html")}
    commands = (site / "reference" / "commands.html").read_text(encoding="utf-8")
    assert all(f"usage: expander-sae {name}" in commands for name in COMMANDS)
    library = (site / "reference" / "library.html").read_text(encoding="utf-8")
    names = ["training.trainer.Trainer", "model.dictionary.SparseCode"]
    names += ["interop.foreign.load_foreign", "interop.hub.push"]
    names += [f"interop.{part}.export" for part in ("saelens", "sparsify", "dictionary_learning")]
    assert [name for name in names if f'id="expander_sae.{name}"' not in library] == []


def test_pages_fetch_nothing_from_elsewhere(site):
    for path in Path(site).rglob("*.html"):
        text = path.read_text(encoding="utf-8")
        fetched = re.findall(r"""<(?:script|img|iframe|source)[^>]*src=["']?(?:https?:)?//[^"'>]*""", text)
        links = r"""<link[^>]*rel=["']?(?:stylesheet|preconnect|icon)[^>]*href=["']?https?://"""
        fetched += re.findall(links, text)
        assert fetched == [], path
