"""The Python of the documentation, run as it stands: pages, the notebook, the quick start."""

import builtins
import json
import re

import numpy as np
import pytest
import torch

from expander_sae import load, mask_families
from expander_sae.inference import INFERENCES
from tests.cli.conftest import make_weights
from tests.docs.blocks import ROOT, blocks

ELSEWHERE = ("sae_lens", "sae_bench", "sparsify", "dictionary_learning", "huggingface_hub", "wandb")
"""Libraries that some blocks use and that need not be installed; those blocks are skipped without them."""

PYTHON = [pytest.param(block, id=block.place) for block in blocks("python")]
NOTEBOOKS = sorted((ROOT / "docs" / "notebooks").glob("*.ipynb"))


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder with the activations that pages name; what they register is forgotten afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(mask_families, "FAMILIES", mask_families.FAMILIES)
    families, inferences = dict(mask_families.FAMILIES), dict(INFERENCES)
    array = np.random.default_rng(0).standard_normal((300, 24)).astype(np.float32)
    np.save("activations.npy", array)
    torch.save(torch.from_numpy(array), "activations.pt")
    make_weights(tmp_path / "sae.safetensors")
    yield tmp_path
    for registry, before in ((mask_families.FAMILIES, families), (INFERENCES, inferences)):
        registry.clear()
        registry.update(before)


@pytest.mark.parametrize("block", PYTHON)
def test_python_of_the_pages_runs(block, place):
    if "expander_sae.interop.hub" in block.text:
        pytest.skip("needs the Hub; tests/cli/test_hub.py has a stand-in for it")
    for module in re.findall(r"^(?:import|from) (\w+)", block.text, re.MULTILINE):
        if module in ELSEWHERE:
            pytest.importorskip(module, reason=f"{module} is not installed")
    # What a page has made earlier.
    names = {
        "__name__": "__main__",
        "h": torch.load("activations.pt", weights_only=True),
        "sae": load("sae.safetensors"),
    }
    exec(compile(block.text, block.place, "exec"), names)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_notebooks_run(path, place, monkeypatch):
    """The code cells in order, in this process: plain Python needs no Jupyter to be run, and the

    kernel's packages would double what the tests install."""
    import matplotlib

    matplotlib.use("agg")
    names = {"__name__": "__main__", "__builtins__": builtins}
    for number, cell in enumerate(json.loads(path.read_text(encoding="utf-8"))["cells"]):
        if cell["cell_type"] == "code":
            exec(compile("".join(cell["source"]), f"{path.name}, cell {number}", "exec"), names)
    assert names["frontier"] and (place / "sae.safetensors").is_file()


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_notebooks_are_valid_and_small(path):
    nbformat = pytest.importorskip("nbformat")
    nbformat.validate(nbformat.read(path, 4))
    assert path.stat().st_size < 100_000
