"""Large masks in files beside the weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from expander_sae.errors import UserError
from expander_sae.masks import stored
from expander_sae.masks.recipe import Mask, MaskRecipe, describe
from expander_sae.model.autoencoder import SparseAutoencoder
from expander_sae.rng import torch_generator
from expander_sae.storage.safetensors_files import load_tensors, save_tensors

M, N, D = 12, 40, 3


@pytest.fixture(autouse=True)
def every_mask_is_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stored, "LEAST_EDGES", N * D)


def made(family: str, encoder: str = "tied") -> SparseAutoencoder:
    autoencoder = SparseAutoencoder(M, N, 4, MaskRecipe(family, M, N, D, 0), encoder)
    autoencoder.initialise(torch_generator(0, "initialisation"))
    return autoencoder


def masks_of(folder: Path) -> list[Path]:
    return sorted(folder.glob("mask-*.safetensors"))


def rows_of(autoencoder: SparseAutoencoder) -> list[np.ndarray]:
    kinds = autoencoder.mask, autoencoder.encoder_mask
    return [mask.rows for mask in kinds if mask is not None]


def none_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(MaskRecipe, "generate", lambda *_: pytest.fail("a mask was made"))


@pytest.mark.parametrize(
    ("family", "encoder", "count"),
    [("expander", "tied", 1), ("bernoulli", "warm_tied", 1), ("expander", "own_support", 2)],
)
def test_loading_makes_no_mask_again(
    family: str, encoder: str, count: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    autoencoder = made(family, encoder)
    path = autoencoder.save(tmp_path / "weights.safetensors")
    assert len(masks_of(tmp_path)) == count
    none_is_made(monkeypatch)
    again = SparseAutoencoder.load(path)
    for found, expected in zip(rows_of(again), rows_of(autoencoder), strict=True):
        assert found.dtype == np.int32 and np.array_equal(found, expected)
    assert again.mask is not None and autoencoder.mask is not None
    assert np.array_equal(again.mask.degrees, autoencoder.mask.degrees)
    assert again.save(tmp_path / "copy.safetensors").read_bytes() == path.read_bytes()


def test_one_in_the_folder_above_serves_all_below(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    autoencoder = made("expander")
    assert autoencoder.mask is not None
    stored.keep(autoencoder.mask, tmp_path)
    for name in ("k4", "k8"):
        (tmp_path / name).mkdir()
        autoencoder.save(tmp_path / name / "weights.safetensors")
        assert not masks_of(tmp_path / name)
    none_is_made(monkeypatch)
    monkeypatch.chdir(tmp_path / "k8")
    assert SparseAutoencoder.load("weights.safetensors").mask is not None


def test_small_masks_are_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stored, "LEAST_EDGES", N * D + 1)
    made("expander", "own_support").save(tmp_path / "weights.safetensors")
    assert not masks_of(tmp_path)


def other_rows(path: Path, mask: Mask) -> None:
    other = MaskRecipe("expander", M, N, D, 1).generate()
    save_tensors({"rows": stored.packed(other)}, path, describe(mask))


def rows_out_of_bounds(path: Path, mask: Mask) -> None:
    tensors, about = load_tensors(path)
    rows = tensors["rows"].int()
    rows[3, -1] = M
    save_tensors({"rows": rows}, path, about)


def another_recipe(path: Path, mask: Mask) -> None:
    tensors, about = load_tensors(path)
    save_tensors(tensors, path, about | {"recipe": about["recipe"] | {"seed": 1}})


def one_axis(path: Path, mask: Mask) -> None:
    tensors, about = load_tensors(path)
    save_tensors({"rows": tensors["rows"].flatten()}, path, about)


def no_rows(path: Path, mask: Mask) -> None:
    save_tensors({"other": load_tensors(path)[0]["rows"]}, path, load_tensors(path)[1])


def cut_short(path: Path, mask: Mask) -> None:
    path.write_bytes(path.read_bytes()[:-1])


@pytest.mark.parametrize(
    "damage", [other_rows, rows_out_of_bounds, another_recipe, one_axis, no_rows, cut_short]
)
def test_a_file_that_holds_another_mask_counts_as_missing(damage: object, tmp_path: Path) -> None:
    autoencoder = made("expander")
    path = autoencoder.save(tmp_path / "weights.safetensors")
    (file,) = masks_of(tmp_path)
    assert autoencoder.mask is not None and callable(damage)
    damage(file, autoencoder.mask)
    record = describe(autoencoder.mask)
    assert stored.kept(record["recipe"], record["sha256"], tmp_path) is None
    assert np.array_equal(rows_of(SparseAutoencoder.load(path))[0], autoencoder.mask.rows)


def test_weights_that_record_another_mask_are_refused_as_without_the_file(tmp_path: Path) -> None:
    path = made("expander").save(tmp_path / "weights.safetensors")
    tensors, header = load_tensors(path)
    header["mask"]["recipe"]["seed"] = 1
    save_tensors(tensors, path, header)
    with pytest.raises(UserError, match=r"weights\.safetensors: mask sha256 .* was the file altered"):
        SparseAutoencoder.load(path)
