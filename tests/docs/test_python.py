"""The Python of the documentation, run as it stands: pages, the notebook, the quick start."""

import builtins
import contextlib
import json
import re

import numpy as np
import pytest
import torch

from expander_sae import load
from expander_sae.cli.main import main
from expander_sae.masks.supports import SUPPORTS
from expander_sae.pursuit.inference import INFERENCES
from tests.cli.conftest import make_weights
from tests.docs.blocks import ROOT, blocks

DASHBOARD = "sae_dashboard.neuronpedia.neuronpedia_dashboard"
ELSEWHERE = ("sae_lens", DASHBOARD, "sparsify", "dictionary_learning", "wandb")
"""Libraries that some blocks use and that `make test-saelens` installs apart."""
COMPILED = ("expander_sae.interop.hub", "expander_sae.interop.saelens_training", "sae_bench")
"""What blocks need that no test can have: the Hub (tests/interop/test_hub.py has a stand-in for it, and
tests/interop/test_saelens_training.py a tiny model) and a library that wants old versions of others. These
blocks are compiled only."""


def uses(block, modules):
    return set(modules) & set(re.findall(r"^(?:import|from) ([\w.]+)", block.text, re.MULTILINE))


def marks(block):
    foreign = [pytest.mark.saelens] if uses(block, ELSEWHERE) else []
    return [pytest.mark.xdist_group(block.page), *foreign]


PYTHON = [pytest.param(block, id=block.place, marks=marks(block)) for block in blocks("python")]
NOTEBOOKS = sorted((ROOT / "docs" / "notebooks").glob("*.ipynb"))


def furnished(folder):
    """The folder, with the files that pages name."""
    array = np.random.default_rng(0).standard_normal((300, 24)).astype(np.float32)
    np.save(folder / "activations.npy", array)
    torch.save(torch.from_numpy(array), folder / "activations.pt")
    make_weights(folder / "sae.safetensors")
    np.save(folder / "ids.npy", np.arange(300) % 9)
    what = (
        "sae.safetensors",
        "--activations",
        "activations.npy",
        "--token-ids",
        "ids.npy",
        "--out",
        "features",
    )
    names = ("--format", "neuronpedia", "--model-id", "tiny", "--layer", "1")
    with contextlib.chdir(folder):
        assert main(["dashboard", *what, *names]) == 0
    return folder


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Page → the folder in which its blocks run one after the other, as a reader runs them."""
    made = {}

    def of(page):
        if page not in made:
            made[page] = furnished(tmp_path_factory.mktemp("page"))
        return made[page]

    return of


@pytest.fixture
def registries():
    """What pages register is forgotten afterwards."""
    known = {id(registry): dict(registry) for registry in (SUPPORTS, INFERENCES)}
    yield
    for registry in (SUPPORTS, INFERENCES):
        before = known[id(registry)]
        registry.clear()
        registry.update(before)


@pytest.mark.parametrize("block", PYTHON)
def test_python_of_the_pages_runs(block, folders, registries, monkeypatch):
    monkeypatch.chdir(folders(block.page))
    code = compile(block.text, block.place, "exec")
    if any(name.startswith(COMPILED) for name in re.findall(r"^(?:import|from) ([\w.]+)", block.text, re.M)):
        return
    for module in uses(block, ELSEWHERE):
        pytest.importorskip(module, reason=f"{module} is not installed: make test-saelens")
    # What a page has made earlier.
    names = {
        "__name__": "__main__",
        "activations": np.load("activations.npy"),
        "h": torch.load("activations.pt", weights_only=True),
        "sae": load("sae.safetensors"),
    }
    exec(code, names)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_notebooks_run(path, tmp_path, registries, monkeypatch):
    """The code cells in order, in this process: plain Python needs no Jupyter to be run, and the

    kernel's packages would double what the tests install."""
    import matplotlib

    matplotlib.use("agg")
    monkeypatch.chdir(furnished(tmp_path))
    names = {"__name__": "__main__", "__builtins__": builtins}
    for number, cell in enumerate(json.loads(path.read_text(encoding="utf-8"))["cells"]):
        if cell["cell_type"] == "code":
            exec(compile("".join(cell["source"]), f"{path.name}, cell {number}", "exec"), names)
    assert names["frontier"] and (tmp_path / "sae.safetensors").is_file()


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_notebooks_are_valid_and_small(path):
    nbformat = pytest.importorskip("nbformat")
    nbformat.validate(nbformat.read(path, 4))
    assert path.stat().st_size < 100_000
