"""The weights file: what it holds, how small it is, and what cannot be written or read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import expander_sae
from expander_sae.rng import torch_generator
from expander_sae.storage.safetensors_files import load_tensors, save_tensors
from tests.users import made_up_activations, trainer


@pytest.fixture(scope="module")
def activations() -> torch.Tensor:
    return made_up_activations()


def test_about_travels_with_the_file(activations: torch.Tensor, tmp_path: Path) -> None:
    sae = trainer(activations).fit(20)
    file = sae.save(tmp_path / "sae.safetensors", source="mine")
    again = expander_sae.load(file)
    assert again.about == sae.about | {"source": "mine"}
    once_more = again.save(tmp_path / "copy.safetensors")
    assert once_more.read_bytes() == file.read_bytes()
    assert expander_sae.load(file, dtype=torch.float64).b_enc.dtype == torch.float64


def test_the_native_file_at_full_size_is_as_small_as_said(tmp_path: Path) -> None:
    m, n, d = 2048, 16384, 7
    mask = expander_sae.MaskRecipe("expander", m, n, d, seed=0).generate()
    sparse = expander_sae.SparseAutoencoder(m, n, 64, mask)
    sparse.initialise(torch_generator(0, "initialisation"))
    file = sparse.save(tmp_path / "sparse.safetensors", norm_limit=1745.3, scale=0.137)
    dense = expander_sae.SparseAutoencoder(m, n, 64).save(
        tmp_path / "dense.safetensors", norm_limit=1745.3, scale=0.137
    )
    assert m * n / sparse.values.numel() == pytest.approx(292.57, abs=0.01), "values: m/d"
    assert dense.stat().st_size / file.stat().st_size >= 250
    assert file.stat().st_size < 4 * (d * n + n + m) + 1024, "values, biases and a recipe, nothing else"
    again = expander_sae.load(file)
    assert torch.equal(again.values, sparse.values) and again.mask is not None
    assert np.array_equal(again.mask.rows, mask.rows) and again.mask.sha256 == mask.sha256
    tensors, header = load_tensors(file)
    header["mask"]["sha256"] = "0" * 64
    save_tensors(tensors, file, header)
    with pytest.raises(expander_sae.UserError, match="mask sha256 0000"):
        expander_sae.load(file)


def test_files_devices_and_types_that_cannot_be_are_named(
    activations: torch.Tensor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sae = trainer(activations).fit(5)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(expander_sae.UserError, match=r"^\.: a folder, expected the name of a file"):
        sae.save(".")
    with pytest.raises(expander_sae.UserError, match="source: found Tensor, expected a JSON value"):
        sae.save("sae.safetensors", source=torch.ones(2))
    assert not list(tmp_path.iterdir())
    file = sae.save("sae.safetensors")
    for dtype in (torch.int8, torch.complex64):
        with pytest.raises(
            expander_sae.UserError, match=f"dtype: found {dtype}, expected one of torch.float"
        ):
            expander_sae.load(file, dtype=dtype)
    missing = "cuda" if not torch.cuda.is_available() else "cuda:99"
    with pytest.raises(expander_sae.UserError, match=f"device: found '{missing}', which torch cannot use"):
        expander_sae.load(file, device=missing)
