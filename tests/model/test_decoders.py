"""Decoders made of others: each against its matrix written out in float64, its file, its training."""

from __future__ import annotations

import copy
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from expander_sae import SparseAutoencoder, UserError, block_omp, cosamp, load, niht, omp
from expander_sae.evaluation.storage import storage
from expander_sae.masks.recipe import MaskRecipe
from expander_sae.model.columns import Entries
from expander_sae.model.dictionary import DenseDictionary, Dictionary, SparseCode
from expander_sae.model.hybrid import Hybrid
from expander_sae.model.precisions import PRECISIONS
from expander_sae.model.spectral import Spectral
from expander_sae.rng import torch_generator
from expander_sae.storage.safetensors_files import load_tensors, save_tensors
from tests.model.made_decoders import (
    BACKENDS,
    KINDS,
    D,
    K,
    M,
    N,
    batch,
    close,
    made,
    matrix,
    trained,
    written,
)
from tests.training.small_data import few_directions


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("support", KINDS)
@settings(max_examples=8, deadline=None)
@given(seed=st.integers(0, 10**6), k=st.integers(1, N))
def test_it_answers_as_its_matrix_does(support: str, backend: str, seed: int, k: int) -> None:
    sae = made(support, seed, backend)
    dictionary, weight, h = sae.dictionary(), matrix(sae), batch(seed)
    assert (dictionary.m, dictionary.n, dictionary.dtype) == (M, N, torch.float64)
    scores, bias = h @ weight.T, sae.b_enc.detach()
    close(dictionary.correlate(h), scores)
    close(written(dictionary.correlate_topk(h, bias, k)), topk(scores + bias, k))
    index = torch.stack(
        [torch.randperm(N, generator=torch_generator(seed, str(row)))[:k] for row in range(7)]
    )
    index[:, ::3] = -1
    held = (index >= 0).to(torch.float64)
    close(dictionary.correlate_at(h, index, bias), (scores + bias).gather(1, index.clamp(min=0)) * held)
    code = SparseCode(index, batch(seed + 1, N)[:7].repeat(1, 4)[:, :k] * held)
    close(dictionary.synthesize(code), written(code) @ weight)
    close(dictionary.columns(index.clamp(min=0)), weight[index.clamp(min=0)])
    close(dictionary.gram(index), DenseDictionary(weight).gram(index))
    close(dictionary.norms(), torch.ones(N, dtype=torch.float64))
    close(dictionary.changed(lambda entries: -2 * entries).correlate(h), -2 * scores)


def topk(scores: Tensor, k: int) -> Tensor:
    """The k largest scores, the lowest index among equals, the rest 0."""
    best = scores.sort(dim=1, descending=True, stable=True).indices[:, :k]
    return torch.zeros_like(scores).scatter(1, best, scores.gather(1, best))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("support", KINDS)
@settings(max_examples=3, deadline=None)
@given(seed=st.integers(0, 10**6), selection=st.sampled_from(["signed", "absolute"]))
def test_pursuits_find_what_they_find_on_its_matrix(
    support: str, backend: str, seed: int, selection: str
) -> None:
    sae = made(support, seed, backend)
    h = batch(seed)
    for pursuit, most in ((omp, 6), (partial(block_omp, block=2), 6), (niht, 6), (cosamp, 3)):
        for tolerance in (0.0, 0.7):
            how: dict[str, Any] = {"k": most, "selection": selection, "tolerance": tolerance}
            found, expected = (pursuit(one, h, **how) for one in (sae.dictionary(), dense(sae)))
            close(written(found), written(expected))


def dense(sae: SparseAutoencoder) -> Dictionary:
    return DenseDictionary(matrix(sae))


@pytest.mark.parametrize("support", KINDS)
def test_equal_scores_go_to_the_lowest_feature(support: str) -> None:
    """A target that no column meets has a score of 0 everywhere."""
    sae = made(support)
    code = sae.dictionary().correlate_topk(torch.zeros(3, M, dtype=torch.float64), None, 7)
    assert code.index.sort(dim=1).values.tolist() == [[*range(7)]] * 3


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("support", KINDS)
def test_gradients_are_those_of_the_definition(support: str, backend: str) -> None:
    """Of the loss, through decoder and encoder, to every parameter that is trained."""
    sae, h = made(support, backend=backend), batch(3)
    rebuilt, code = sae.set_gradients(h)
    found = {name: p.grad for name, p in sae.named_parameters() if p.requires_grad}
    twin = {name: p.detach().clone().requires_grad_(name in found) for name, p in sae.named_parameters()}
    weight, encoder = differentiable(sae, twin)
    z = (h - twin["b_dec"]) @ encoder.T + twin["b_enc"]
    kept = torch.zeros_like(z).scatter(1, code.index, 1.0) * z
    expected = kept @ weight + twin["b_dec"]
    (expected - h).square().sum(dim=1).mean().backward()
    close(rebuilt, expected.detach())
    assert {name for name, gradient in found.items() if gradient is not None} == set(found)
    for name, gradient in found.items():
        close(gradient, twin[name].grad)


def differentiable(sae: SparseAutoencoder, parameters: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """(Wᵀ, Eᵀ) [n, m] of these parameters."""

    def unit(columns: Tensor) -> Tensor:
        return columns / columns.norm(dim=1, keepdim=True)

    decoder = sae.decoder
    if isinstance(decoder, Hybrid):
        tail = decoder._parts[1].rows.long()
        sparse = torch.zeros(len(tail), M, dtype=torch.float64).scatter(1, tail, unit(parameters["values"]))
        weight = torch.cat([unit(parameters["core"]), sparse])
        return weight, weight
    assert isinstance(decoder, Entries) and decoder.rows is not None
    zeros = torch.zeros(N, decoder.rank if isinstance(decoder, Spectral) else M, dtype=torch.float64)
    inner = zeros.scatter(1, decoder.rows.long(), unit(parameters["values"]))
    if not isinstance(decoder, Spectral):
        return inner, inner
    return inner @ parameters["basis"], inner * parameters["gamma"] @ parameters["basis"]


@pytest.mark.parametrize("support", KINDS)
def test_training_lowers_the_error_and_ends_as_it_would_undisturbed(support: str, tmp_path: Path) -> None:
    log: list[dict[str, float]] = []
    whole = trained(support, learning_rate=0.03, log_every=1, on_log=log.append)
    assert log[-1]["relative_error"] < 0.9 * log[0]["relative_error"]
    half = {"learning_rate": 0.03, "checkpoint": tmp_path / "c.safetensors", "checkpoint_every": 15}

    def interrupt(row: dict[str, float]) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        trained(support, **half, log_every=20, on_log=interrupt)
    again = trained(support, **half, log_every=1, on_log=log.append)
    assert log[40]["step"] == 16, "it goes on where the checkpoint was"
    assert again.save(tmp_path / "b").read_bytes() == whole.save(tmp_path / "a").read_bytes()


@pytest.mark.parametrize("support", KINDS)
@pytest.mark.parametrize("precision", PRECISIONS)
def test_files_hold_what_storage_counts_and_load_to_the_same_codes(
    support: str, precision: str, tmp_path: Path
) -> None:
    sae = trained(support)
    sae.about = {}
    h, path = few_directions(torch.float32)[:50], tmp_path / "w.safetensors"
    fewer = sae.stored(precision)
    again = load(fewer.save(path))
    assert again.decoder.recipe == sae.decoder.recipe
    for one, other in ((fewer, again), (fewer, copy.deepcopy(again))):
        assert torch.equal(one.encode(h).value, other.encode(h).value)
        assert torch.equal(one.decode(one.encode(h)), other.decode(other.encode(h)))
    counted = storage(again)
    held = sum(tensor.numel() * tensor.element_size() for tensor in load_tensors(path)[0].values())
    assert 0 < counted["storage_total_bytes"] - held < 500, "the words of the header"
    assert path.stat().st_size < counted["storage_total_bytes"] + 1200


@pytest.mark.parametrize("support", KINDS)
def test_a_training_in_few_bits_ends_on_the_levels_that_it_saw(support: str, tmp_path: Path) -> None:
    sae, h = trained(support, precision="int4"), few_directions(torch.float32)[:50]
    again = load(sae.save(tmp_path / "w.safetensors"))
    assert again.precision == "int4"
    assert torch.equal(sae.encode(h).value, again.encode(h).value)


@pytest.mark.parametrize("support", KINDS)
@pytest.mark.parametrize("encoder", ["warm_tied", "independent", "own_support", "full"])
def test_a_free_encoder_is_refused(support: str, encoder: str) -> None:
    with pytest.raises(UserError, match=f"encoder: found '{encoder}' for {support}, expected tied"):
        SparseAutoencoder(M, N, K, MaskRecipe(support, M, N, D, 0), encoder)


@pytest.mark.parametrize(
    ("support", "d", "expected"),
    [
        ("hybrid", 1, "found d = 1 and 50 % in dense columns, so 4 dense columns of 96 and 0 nonzeros"),
        ("hybrid99", 6, "so 24 dense columns of 96 and 0 nonzeros in each other one"),
        ("spectral5", 6, "found 5 principal components, expected d = 6 to m = 24"),
        ("spectral25", 6, "found 25 principal components, expected d = 6 to m = 24"),
    ],
)
def test_a_shape_that_cannot_be_is_named(support: str, d: int, expected: str) -> None:
    with pytest.raises(UserError, match=expected):
        SparseAutoencoder(M, N, K, MaskRecipe(support, M, N, d, 0))


@pytest.mark.parametrize(
    ("support", "alter", "expected"),
    [
        ("hybrid", {"seed": 1}, "mask sha256 .*, regenerated .*; was the file altered"),
        ("hybrid", {"d": 12}, r"core of shape \[13, 24\], expected \[32, 24\]"),
        ("grown", {"m": 23}, "found row 23, expected 0 to m − 1 = 22"),
        ("spectral18", {"seed": 1}, "components of sha256 .*, drawn again .*; was the file altered"),
        ("spectral18", {"d": 5}, r"values of shape \[96, 6\], expected \[96, 5\]"),
        ("spectral18", {"family": "spectral11"}, r"basis of shape \[18, 24\], expected \[11, 24\]"),
    ],
)
def test_an_altered_file_is_refused(
    support: str, alter: dict[str, Any], expected: str, tmp_path: Path
) -> None:
    path = trained(support).save(tmp_path / "w.safetensors")
    tensors, header = load_tensors(path)
    header["mask"]["recipe"] |= alter
    save_tensors(tensors, path, header)
    with pytest.raises(UserError, match=expected):
        load(path)


def test_a_damaged_basis_or_weight_is_refused(tmp_path: Path) -> None:
    path = trained("spectral18").save(tmp_path / "w.safetensors")
    tensors, header = load_tensors(path)
    for name, change, expected in (
        ("weights", lambda weights: weights * 0, "expected at least d = 6 from 1 to 65,535"),
        ("basis", torch.ones_like, "rows of the basis depend on each other"),
    ):
        save_tensors(tensors | {name: change(tensors[name].clone())}, path, header)
        with pytest.raises(UserError, match=expected):
            load(path)


@pytest.mark.parametrize("support", KINDS)
def test_codes_by_a_pursuit_lower_its_error_and_leave_the_rest(support: str) -> None:
    """Rows, components and basis stay where the encoder's training left them."""
    before, h = trained(support), few_directions(torch.float32)[:200]
    after = trained(support, codes="omp", pursuit_steps=20)
    error = [
        float((one.decode(omp(one.dictionary(), h - one.b_dec.detach(), K)) - h).norm())
        for one in (before, after)
    ]
    assert error[1] < error[0]
    for name, held in before.decoder.state().items():
        assert torch.equal(after.decoder.state()[name], held)
    if isinstance(before.decoder, Spectral):
        assert torch.equal(after.get_parameter("basis"), before.get_parameter("basis"))
