"""The registry of inferences, against the pursuits that it names."""

from __future__ import annotations

import pytest
import torch

from expander_sae.errors import UserError
from expander_sae.masks.recipe import MaskRecipe
from expander_sae.model.autoencoder import SparseAutoencoder
from expander_sae.pursuit.block_omp import block_omp
from expander_sae.pursuit.inference import INFERENCES, inferences, rounds_of
from expander_sae.rng import torch_generator

K = 6


def autoencoder(backend: str = "torch") -> SparseAutoencoder:
    made = SparseAutoencoder(24, 96, K, MaskRecipe("expander", 24, 96, 5, 0).generate(), backend=backend)
    made.initialise(torch_generator(0, "initialisation"))
    with torch.no_grad():
        made.b_dec.normal_(generator=torch_generator(0, "b_dec"))
    return made


def activations() -> torch.Tensor:
    return torch.randn(40, 24, generator=torch_generator(1, "h")) + 2


PLAIN = [name for name, known in INFERENCES.items() if not known.counts]


@pytest.mark.parametrize("name", [*PLAIN, "block_omp_1", "block_omp_3", "block_omp_6", "block_omp_64"])
def test_codes_have_at_most_k_features_and_rebuild(name: str) -> None:
    sae, h = autoencoder(), activations()
    code = inferences(name)(sae, h)
    assert code.index.shape == (40, K)
    if name != "encoder":  # whose columns are not orthogonal, so that it can overshoot
        error = (h - sae.decode(code)).norm(dim=1)
        assert (error < (h - sae.b_dec).norm(dim=1)).all()


@pytest.mark.parametrize("block", [1, 2, 6, 64])
def test_block_omp_is_that_of_the_centred_activations(block: int) -> None:
    sae, h = autoencoder(), activations()
    expected = block_omp(sae.dictionary(), h - sae.b_dec.detach(), K, min(block, K), "signed")
    found = inferences(f"block_omp_{block}")(sae, h)
    assert torch.equal(found.index, expected.index)
    torch.testing.assert_close(found.value, expected.value)


def test_one_column_a_round_is_omp() -> None:
    sae, h = autoencoder(), activations()
    one, omp = inferences("block_omp_1")(sae, h), inferences("omp")(sae, h)
    assert torch.equal(one.index, omp.index) and torch.equal(one.value, omp.value)
    two = inferences("block_omp_2")(sae, h)
    assert not torch.equal(two.index, omp.index)


def test_selection_is_signed() -> None:
    """The first column taken has the largest correlation, never the most negative one."""
    sae, h = autoencoder(), activations()
    correlation = sae.dictionary().correlate(h - sae.b_dec.detach())
    best = correlation.argmax(dim=1)
    assert (best != correlation.abs().argmax(dim=1)).any()
    assert torch.equal(inferences("omp")(sae, h).index[:, 0], best)
    for name in ("niht", "cosamp"):
        assert (inferences(name)(sae, h).value >= 0).all()


@pytest.mark.parametrize("name", ["lasso", "block_omp", "block_omp_0", "block_omp_", "block_omp_2x", "OMP"])
def test_unknown_names_are_refused(name: str) -> None:
    with pytest.raises(UserError, match=rf"inference: found '{name}', expected one of encoder, omp, niht"):
        inferences(name)


def test_rounds_are_those_that_choose_k_columns() -> None:
    names = ("omp", "block_omp_1", "block_omp_16", "block_omp_48", "block_omp_64", "encoder", "niht")
    assert [rounds_of(name, 64) for name in names] == [64, 64, 4, 2, 1, None, None]
