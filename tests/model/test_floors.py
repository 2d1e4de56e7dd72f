"""Dictionaries that nobody trained: against float64 references, and what their files hold."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from expander_sae import SparseAutoencoder, Trainer, UserError, load, omp
from expander_sae.evaluation.storage import storage
from expander_sae.masks.recipe import MaskRecipe
from expander_sae.model.coloured import Coloured, drawn
from expander_sae.model.dictionary import DenseDictionary
from expander_sae.model.subspace_dictionary import SubspaceDictionary
from expander_sae.rng import Integers, torch_generator
from expander_sae.storage.safetensors_files import load_tensors, save_tensors
from expander_sae.study.recipes import RECIPES
from expander_sae.training.normalisation import KeptTokens, normalisation
from expander_sae.training.session import Session
from expander_sae.training.tensor_pool import TensorPool

M, N, TOKENS = 12, 96, 3000
FLOORS = {"pca": {"n": 10, "k": 5}, "random": {"n": N, "d": 1, "k": 4}, "exemplars": {"n": N, "k": 4}}


def tokens() -> np.ndarray:
    """float32 [TOKENS, M] with a covariance of falling eigenvalues and a mean; every hundredth is massive."""
    generator = torch_generator(0, "floors")
    mixed = torch.randn(TOKENS, M, generator=generator, dtype=torch.float64) * torch.logspace(0, -2, M)
    rotation = torch.linalg.qr(torch.randn(M, M, generator=generator, dtype=torch.float64))[0]
    h = (mixed @ rotation + 0.3).float().numpy()
    h[::100] *= 1000
    return h


@pytest.fixture(scope="module")
def h() -> np.ndarray:
    return tokens()


@pytest.fixture(scope="module")
def kept(h: np.ndarray) -> np.ndarray:
    """float64: the tokens that the standard recipe keeps, by its definition."""
    norms = np.linalg.norm(h.astype(np.float64), axis=1)
    return h[norms <= 10 * np.median(norms)].astype(np.float64)


def fitted(h: np.ndarray, support: str, seed: int = 0, recipe: str = "standard") -> SparseAutoencoder:
    return Trainer(h, support=support, seed=seed, recipe=recipe, device="cpu", **FLOORS[support]).fit(7)


def columns(sae: SparseAutoencoder) -> np.ndarray:
    return sae.dictionary().columns(torch.arange(sae.n)).double().numpy()


def test_principal_components_are_those_of_the_covariance(h: np.ndarray, kept: np.ndarray) -> None:
    sae = fitted(h, "pca")
    _, vectors = np.linalg.eigh(np.cov(kept.T, bias=True))
    expected, found = vectors[:, ::-1].T[:5], columns(sae)
    np.testing.assert_allclose(abs((found[:5] * expected).sum(axis=1)), 1, atol=1e-6)
    np.testing.assert_allclose(found[5:], -found[:5], atol=0)
    np.testing.assert_allclose(sae.b_dec.detach().numpy(), kept.mean(axis=0), atol=1e-6)
    assert not sae.b_enc.any()


@pytest.mark.parametrize("k", [3, 5])
def test_the_encoder_of_principal_components_keeps_the_largest_projections(h: np.ndarray, k: int) -> None:
    """All of them where k is their number; the best code of k components, by the encoder and by OMP."""
    sae = Trainer(h, support="pca", n=10, k=k, device="cpu").fit(1)
    rows = h[1:200].astype(np.float64)[np.arange(199) % 100 != 99]
    basis, mean = columns(sae)[:5], sae.b_dec.detach().double().numpy()
    projected = (rows - mean) @ basis.T
    smallest = np.argsort(-abs(projected), axis=1, kind="stable")[:, k:]
    np.put_along_axis(projected, smallest, 0.0, axis=1)
    expected = projected @ basis + mean
    activations = torch.from_numpy(rows).float()
    by_encoder = sae.decode(sae.encode(activations)).detach().double().numpy()
    np.testing.assert_allclose(by_encoder, expected, atol=1e-5)
    pursued = omp(sae.dictionary(), activations - sae.b_dec.detach(), k)
    np.testing.assert_allclose(sae.decode(pursued).detach().double().numpy(), expected, atol=1e-4)


def test_random_columns_have_the_covariance_of_the_tokens(h: np.ndarray, kept: np.ndarray) -> None:
    """Before they are brought to unit norm: of 40,000 draws, within five standard errors."""
    n = 40_000
    rank = 4
    sae = Trainer(h, support="random", n=n, d=1, k=1, device="cpu").fit(1)
    assert sae.values.shape == (M, M), "all directions where n columns of d entries have more values"
    sae = Trainer(h, support="random", n=rank * M, d=1, k=1, device="cpu").fit(1)
    assert sae.values.shape == (rank, M)
    values, vectors = np.linalg.eigh(np.cov(kept.T, bias=True))
    values, vectors = values[::-1][:rank], vectors[:, ::-1][:, :rank]
    wide = MaskRecipe("random", M, n, 1, 0)
    draws = drawn(wide)[:, :rank].astype(np.float64) / 4
    assert isinstance(sae.decoder, Coloured)
    spread = sae.values.double().numpy() * sae.decoder.spread.double().numpy()[:, None]
    written = draws @ spread
    found = written.T @ written / n
    expected = vectors @ np.diag(values) @ vectors.T
    error = math.sqrt(2 / n) * values[0]
    assert abs(found - expected).max() <= 5 * error
    recipe_draws = drawn(MaskRecipe("random", M, rank * M, 1, 0)).astype(np.float64)
    directions = recipe_draws @ spread
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    np.testing.assert_allclose(columns(sae), directions, atol=1e-6)


@pytest.mark.parametrize("d", [3, 12])
def test_random_columns_of_fewer_dimensions_answer_as_their_matrix(d: int) -> None:
    """Directions that are not orthogonal, as those of a file in few bits are not."""
    recipe = MaskRecipe("random", M, 16 + 4 * (d == 3), d, 0)
    kind = Coloured(recipe, dtype=torch.float64)
    generator = torch_generator(1, "directions")
    kind.fill(torch.randn(len(kind.values), M, generator=generator, dtype=torch.float64))
    kind.spread.copy_(torch.logspace(0, -1, len(kind.values), dtype=torch.float64))
    unit = kind.values / kind.values.norm(dim=1, keepdim=True)
    weight = torch.from_numpy(drawn(recipe)).double() @ (unit * kind.spread[:, None])
    weight /= weight.norm(dim=1, keepdim=True)
    dictionary, written = kind.dictionary(), DenseDictionary(weight)
    assert isinstance(dictionary, SubspaceDictionary) == (d < M)
    h = torch.randn(9, M, generator=generator, dtype=torch.float64)
    index = torch.tensor([[0, 5, 9], [15, -1, 3]])
    assert dictionary.backend is None
    for found, expected in (
        (dictionary.correlate(h), written.correlate(h)),
        (dictionary.columns(index.clamp(min=0)), weight[index.clamp(min=0)]),
        (dictionary.gram(index), written.gram(index)),
        (dictionary.norms(), written.norms()),
        (dictionary.correlate_at(h[:2], index), written.correlate_at(h[:2], index)),
        (dictionary.changed(lambda entries: -2 * entries).correlate(h), -2 * written.correlate(h)),
    ):
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-10)
    for k in (2, M):
        found, expected = (one.synthesize(omp(one, h, k)) for one in (dictionary, written))
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize("kind", [torch.float64, torch.float32, torch.bfloat16])
def test_random_columns_change_their_dtype(kind: torch.dtype) -> None:
    columns = Coloured(MaskRecipe("random", M, 20, 3, 0))
    columns.fill(torch.randn(len(columns.values), M, generator=torch_generator(2, "directions")))
    columns.spread.fill_(1)
    before = columns.dictionary().columns(torch.arange(20))
    after = columns.to(kind).dictionary()
    assert after.dtype == kind
    torch.testing.assert_close(after.columns(torch.arange(20)).float(), before, rtol=0, atol=0.02)
    # Products in 16 bits, widened as a pursuit does, are those of the columns.
    wide = after.changed(lambda entries: entries.double())
    index = torch.arange(20)[None]
    written = wide.columns(index[0])
    torch.testing.assert_close(wide.gram(index)[0], written @ written.T, rtol=0, atol=1e-6)


def test_draws_are_nearly_normal_and_the_same_everywhere() -> None:
    draws = Integers(0, "bell").bell(1_500_000).astype(np.float64)
    assert abs(draws.mean()) < 5 * 4 / math.sqrt(draws.size)
    assert abs(draws.var() - 16) < 5 * 16 * math.sqrt(2 / draws.size)
    kurtosis = ((draws - draws.mean()) ** 4).mean() / draws.var() ** 2
    assert abs(kurtosis - (3 - 2 / 64)) < 5 * math.sqrt(24 / draws.size), "of a sum of 64 fair bits"
    assert Integers(0, "bell").bell(8).tolist() == draws[:8].astype(int).tolist() == GOLDEN


GOLDEN = [2, 2, 4, 4, -4, -3, 1, 5]


def test_exemplars_are_the_first_kept_tokens(h: np.ndarray, kept: np.ndarray) -> None:
    rows = kept[:N] - kept.mean(axis=0)
    expected = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    np.testing.assert_allclose(columns(fitted(h, "exemplars")), expected, atol=1e-6)


def test_too_few_tokens_for_so_many_exemplars_are_named(h: np.ndarray) -> None:
    with pytest.raises(
        UserError, match=r"exemplars: found 49 kept training tokens, expected at least n = 96"
    ):
        fitted(h[1:50], "exemplars")


@pytest.mark.parametrize("support", FLOORS)
def test_two_fits_are_equal_to_the_last_bit_whatever_the_steps(
    h: np.ndarray, support: str, tmp_path: Path
) -> None:
    files = []
    for steps in (1, 500):
        sae = Trainer(h, support=support, device="cpu", **FLOORS[support]).fit(steps)
        assert sae.about["spec"]["steps"] == 0
        files.append(sae.save(tmp_path / f"{steps}.safetensors").read_bytes())
    assert files[0] == files[1]


@pytest.mark.parametrize("support", FLOORS)
def test_files_load_to_the_same_codes_and_hold_what_storage_counts(
    h: np.ndarray, support: str, tmp_path: Path
) -> None:
    sae, activations = fitted(h, support), torch.from_numpy(h[1:90])
    sae.about = {}
    again = load(sae.save(tmp_path / "w.safetensors"))
    code, other = (omp(one.dictionary(), activations - one.b_dec.detach(), 3) for one in (sae, again))
    assert torch.equal(code.index, other.index) and torch.equal(code.value, other.value)
    assert torch.equal(sae.encode(activations).value, again.encode(activations).value)
    counted, size = storage(sae), (tmp_path / "w.safetensors").stat().st_size
    vectors = {"pca": 5, "random": N // M, "exemplars": N}[support]
    spreads = vectors if support == "random" else 0
    assert counted["decoder_values"] == vectors * M + spreads and counted["encoder_values"] == 0
    assert counted["storage_total_bytes"] <= size <= counted["storage_total_bytes"] + 1000
    assert "storage_ids_bytes" not in counted, "rows of a tensor have no token ids"


def test_seeds_change_random_columns_alone(h: np.ndarray) -> None:
    for support in FLOORS:
        one, other = (columns(fitted(h, support, seed)) for seed in (0, 1))
        assert np.array_equal(one, other) == (support != "random")


def test_altered_draws_or_values_are_refused(h: np.ndarray, tmp_path: Path) -> None:
    path = fitted(h, "random").save(tmp_path / "w.safetensors")
    tensors, header = load_tensors(path)
    header["mask"]["recipe"]["seed"] = 1
    save_tensors(tensors, path, header)
    with pytest.raises(UserError, match="expected columns of the recorded seed"):
        load(path)
    header["mask"]["recipe"] |= {"seed": 0, "d": 2}
    save_tensors(tensors, path, header)
    with pytest.raises(UserError, match=r"values of shape \[8, 12\], expected \[12, 12\]"):
        load(path)


def test_they_start_at_the_mean_whatever_the_recipe(h: np.ndarray) -> None:
    sae = fitted(h, "exemplars", recipe="paper")
    np.testing.assert_allclose(sae.b_dec.detach().numpy(), h.mean(axis=0, dtype=np.float64), rtol=1e-6)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"support": "pca", "n": 9, "k": 2}, "n: found 9 for principal components, expected an even number"),
        ({"support": "pca", "n": 26, "k": 2}, "expected an even number up to 2m = 24"),
        ({"support": "pca", "n": 10, "k": 6}, "k: found 6, expected 1 to 5 for a pca dictionary"),
        ({"support": "random", "n": N, "d": 2, "k": 2, "encoder": "full"}, "expected tied"),
        ({"support": "random", "n": N, "k": 2}, "d: found none, expected 1 to m = 12"),
    ],
)
def test_what_does_not_fit_is_named(h: np.ndarray, change: dict, expected: str) -> None:
    with pytest.raises(UserError, match=expected):
        Trainer(h, device="cpu", **change).fit(1)


def test_tokens_that_are_all_alike_have_no_components() -> None:
    with pytest.raises(UserError, match="found tokens that are all alike, expected some variance"):
        fitted(np.ones((50, M), dtype=np.float32), "pca")


def test_ids_name_exemplars_where_they_are_known(h: np.ndarray, tmp_path: Path) -> None:
    """Of all tokens up to the last exemplar, passed-through ones too, and the lengths of their documents."""
    pool, recipe = TensorPool(h), RECIPES["standard"]
    ids, document = np.arange(TOKENS) * 7 % 50, np.arange(TOKENS) // 10
    known = KeptTokens(pool.activations, normalisation(pool, TOKENS, recipe), token_id=ids, document=document)
    sae = SparseAutoencoder(M, N, 4, MaskRecipe("exemplars", M, N, M, 0))
    Session(known, recipe, 0).train([Session(known, recipe, 0).start(sae, 0)])
    path = sae.save(tmp_path / "w.safetensors")
    tensors, _ = load_tensors(path)
    assert tensors["token_ids"].tolist() == ids[:97].tolist(), "token 0 is massive and no exemplar"
    assert tensors["document_lengths"].tolist() == [10] * 9 + [7]
    for one in (sae, load(path)):
        counted = storage(one)
        assert counted["storage_ids_bytes"] == 2 * 97 + 2 * 10
        assert counted["storage_ids_total_bytes"] == counted["storage_total_bytes"] - 4 * N * M
    assert counted["storage_total_bytes"] <= path.stat().st_size <= counted["storage_total_bytes"] + 1000
    wide = replace(known, token_id=ids + 70_000)
    Session(wide, recipe, 0).start(sae, 0)
    assert storage(sae)["storage_ids_bytes"] == 4 * 97 + 2 * 10


@pytest.mark.parametrize("support", FLOORS)
@pytest.mark.parametrize("precision", ["bfloat16", "int8", "int4"])
def test_floors_are_stored_in_fewer_bits(h: np.ndarray, support: str, precision: str, tmp_path: Path) -> None:
    """Each stored vector is rounded by itself; the spreads of random columns keep their digits."""
    sae = fitted(h, support)
    sae.about = {}
    fewer = sae.stored(precision)
    cosines = (columns(sae) * columns(fewer)).sum(axis=1)
    assert cosines.min() > {"bfloat16": 0.9999, "int8": 0.9999, "int4": 0.97}[precision]
    activations, path = torch.from_numpy(h[1:90]), tmp_path / "w.safetensors"
    again = load(fewer.save(path))
    assert torch.equal(fewer.encode(activations).value, again.encode(activations).value)
    assert np.array_equal(columns(fewer), columns(again))
    assert storage(fewer)["storage_total_bytes"] < storage(sae)["storage_total_bytes"]
    tensors = load_tensors(path)[0]
    held = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
    assert 0 < storage(again)["storage_total_bytes"] - held < 500, "the words of the header"
    values = sum(tensors[name].nbytes for name in ("values", "spread") if name in tensors)
    assert storage(again)["storage_values_bytes"] == values
