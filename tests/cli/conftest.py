import json
from dataclasses import dataclass

import numpy as np
import pytest
import torch

from expander_sae.cli.main import main
from expander_sae.masks.recipe import MaskRecipe
from expander_sae.model.autoencoder import SparseAutoencoder
from expander_sae.rng import torch_generator

M, N, D, K, TOKENS = 24, 96, 5, 6, 60


@dataclass
class Outcome:
    code: int
    out: str
    err: str

    @property
    def json(self):
        """stdout must be one JSON value and nothing else."""
        return json.loads(self.out, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))


@pytest.fixture
def command(capsys):
    """Run `expander-sae` in this process."""

    def run(*arguments):
        capsys.readouterr()
        try:
            code = main([str(part) for part in arguments])
        except SystemExit as stop:
            code = stop.code
        return Outcome(code, *capsys.readouterr())

    return run


def make_weights(path, norm_limit=None, family="expander"):
    mask = None if family == "dense" else MaskRecipe(family, M, N, D, 3).generate()
    autoencoder = SparseAutoencoder(M, N, K, mask, "tied", "torch")
    autoencoder.initialise(torch_generator(0, "initialisation"))
    with torch.no_grad():
        autoencoder.b_dec.normal_(generator=torch_generator(1, "test"))
    autoencoder.save(path, norm_limit=norm_limit)
    return autoencoder


@pytest.fixture
def autoencoder(tmp_path):
    return make_weights(tmp_path / "weights.safetensors")


@pytest.fixture
def weights(tmp_path, autoencoder):
    return tmp_path / "weights.safetensors"


@pytest.fixture
def activations(tmp_path):
    """(file, array): 60 tokens, the first of them 100 times as long as the others."""
    array = np.random.default_rng(0).standard_normal((TOKENS, M)).astype(np.float32)
    array[0] *= 100
    np.save(tmp_path / "activations.npy", array)
    return tmp_path / "activations.npy", array
