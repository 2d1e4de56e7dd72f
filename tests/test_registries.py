"""A new mask family, a new kind of decoder and a new pursuit: one line of a table each, from outside.

Each goes from a configuration to trained weights, their measurement and its words in figures.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from expander_sae import SparseAutoencoder, Trainer, evaluate
from expander_sae.errors import UserError
from expander_sae.evaluation.storage import storage
from expander_sae.kernels.autograd import unit_columns
from expander_sae.masks import supports
from expander_sae.masks.recipe import MaskRecipe, write_mask
from expander_sae.masks.supports import Support
from expander_sae.model.columns import Columns
from expander_sae.model.dictionary import DenseDictionary, Dictionary, SparseCode
from expander_sae.pursuit import inference
from expander_sae.pursuit.inference import Pursuit
from expander_sae.pursuit.omp import omp
from expander_sae.rng import Integers, torch_generator
from expander_sae.study.config import load_config
from expander_sae.study.run import Run
from expander_sae.study.study import Study
from expander_sae.training.run_folder import WEIGHTS, RunFiles, train_runs
from tests.evaluation.pools import write_pool

M, N, D, K = 16, 64, 4, 4


def window(m: int, n: int, d: int, stream: Integers) -> tuple[np.ndarray, np.ndarray]:
    """Each column d neighbouring rows, from a uniform start; the last rows wrap round."""
    rows = np.sort((stream.below(m, n)[:, None] + np.arange(d)) % m, axis=1)
    return rows.astype(np.int32), np.full(n, d, dtype=np.int32)


def narrow(m: int, n: int, d: int) -> None:
    if 2 * d > m:
        raise UserError(f"window: found d = {d}, expected at most m/2 = {m // 2}")


class LowRank(Columns):
    """W = colnorm(values · basis): d learned numbers a column, in a fixed random basis of R^d in R^m."""

    basis: Tensor

    def __init__(self, *support: Any, **keywords: Any) -> None:
        super().__init__(*support, **keywords)
        self.values = nn.Parameter(torch.zeros(self.n, self.d, dtype=self.dtype))
        drawn = torch.randn(self.d, self.m, generator=torch_generator(self.recipe.seed, "basis"))
        self.register_buffer("basis", drawn.to(self.dtype), persistent=False)

    @torch.no_grad()
    def initialise(self, generator: torch.Generator) -> None:
        self.values.copy_(torch.randn(self.values.shape, generator=generator))

    def dictionary(self) -> Dictionary:
        columns = self.values @ self.basis
        return DenseDictionary(columns if self.free else unit_columns(columns))

    @torch.no_grad()
    def aim(self, features: Tensor, residual: Tensor, drawn: Tensor) -> Tensor:
        seen = residual[drawn] @ self.basis.T
        self.values[features] = seen
        return seen.norm(dim=1) > 0


def threshold(dictionary: Dictionary, target: Tensor, k: int, selection: str = "signed") -> SparseCode:
    """The k best correlations of the target itself, as they are."""
    assert selection == "signed"
    return dictionary.correlate_topk(target, None, k)


@pytest.fixture
def registered() -> Iterator[None]:
    before = dict(supports.SUPPORTS), dict(inference.INFERENCES)
    supports.register(Support("window", make=window, require=narrow, control="windows: d neighbouring rows"))
    supports.register(Support("low_rank", decoder=LowRank))
    inference.register(Pursuit("threshold", threshold, everywhere=True, label="thresholding"))
    yield
    for registry, known in zip((supports.SUPPORTS, inference.INFERENCES), before, strict=True):
        registry.clear()
        registry.update(known)  # type: ignore[arg-type]


def configured(**block: Any) -> dict[str, Any]:
    model = {"name": "mine", "source": "folder", "location": "here", "width": M, "depth": 2, "layers": 1}
    return {
        "models": [model],
        "tokens": {"train": 200},
        "training": {"steps": 30, "resample_every": 10, "batch_size": 32},
        "grid": {"n": N, "d": D, "k": K},
        "runs": [{"support": ["window", "low_rank"], **block}],
        "evaluation": {"inference": ["encoder", "omp", "threshold"], "pursuits": ["niht"]},
    }


def trained(run: Run, folder: Path) -> SparseAutoencoder:
    """The weights that the workflow's job would write for a run."""
    pool = write_pool(folder / "pool", "train")
    mask = None
    if run.mask is not None:
        mask = folder / "mask.json"
        write_mask({"family": run.support, "m": M, "n": N, "d": D, "seed": run.seed}, mask)
    assert train_runs([RunFiles(run, folder / "run", mask)], pool, backend="torch")
    return SparseAutoencoder.load(folder / "run" / WEIGHTS, backend="torch")


@pytest.mark.usefixtures("registered")
@pytest.mark.parametrize("support", ["window", "low_rank"])
def test_a_line_is_enough_from_configuration_to_measurement(support: str, tmp_path: Path) -> None:
    study = Study(load_config(configured()))
    (run,) = [one for one in study.runs if one.support == support]
    assert (run.mask is None) == (support == "low_rank") and run.parent is None
    assert run.evaluation.inference == ("encoder", "omp", "threshold")
    sae = trained(run, tmp_path)
    h = torch.randn(100, M, generator=torch_generator(1, "h"))
    found = {name: evaluate(sae, h, name)["relative_error"] for name in run.evaluation.inference}
    assert found["omp"] < 1 and found["omp"] < found["encoder"] and found["omp"] < found["threshold"]
    counted = storage(sae)
    assert counted["decoder_values"] == D * N and counted["storage_values_bytes"] == 4 * D * N
    again = sae.save(tmp_path / "again.safetensors")
    assert torch.equal(SparseAutoencoder.load(again, backend="torch")(h)[0], sae(h)[0])
    size = again.stat().st_size
    assert counted["storage_total_bytes"] <= size <= counted["storage_total_bytes"] + 4000


@pytest.mark.usefixtures("registered")
@pytest.mark.parametrize("support", ["window", "low_rank"])
def test_the_trainer_takes_it_by_name(support: str) -> None:
    h = torch.randn(300, M, generator=torch_generator(2, "h"))
    first, last = (Trainer(h, support=support, n=N, d=D, k=K).fit(steps) for steps in (1, 60))
    assert evaluate(last, h)["relative_error"] < evaluate(first, h)["relative_error"]
    assert last.about["spec"]["support"] == support and last.d == D


@pytest.mark.usefixtures("registered")
def test_mistakes_with_it_are_explained_before_any_job() -> None:
    with pytest.raises(UserError, match=r"window: found d = 9, expected at most m/2 = 8"):
        load_config(configured(d=9))
    with pytest.raises(UserError, match=r"found 'windo', expected one of .* \(did you mean window\?\)"):
        load_config(configured(support="windo"))
    with pytest.raises(UserError, match=r"found 'treshold', expected .*threshold"):
        load_config(configured(inference=["treshold"]))


@pytest.mark.usefixtures("registered")
def test_gradients_of_a_new_decoder_are_those_of_its_dictionary() -> None:
    """It has no fused step, so both ways go through autograd, with its encoder tied or free."""
    h = torch.randn(20, M, generator=torch_generator(3, "h"), dtype=torch.float64)
    for encoder in ("tied", "independent"):
        sae = low_rank(encoder)
        rebuilt, _ = sae(h)
        (rebuilt - h).square().sum(1).mean().backward()
        expected = {name: parameter.grad for name, parameter in sae.named_parameters()}
        sae.set_gradients(h)
        for name, parameter in sae.named_parameters():
            torch.testing.assert_close(parameter.grad, expected[name])
        assert ("encoder" in expected) == (encoder == "independent")


def low_rank(encoder: str) -> SparseAutoencoder:
    recipe = MaskRecipe("low_rank", M, N, D, 3)
    sae = SparseAutoencoder(M, N, K, recipe, encoder, "torch", torch.float64)
    sae.initialise(torch_generator(0, "initialisation"))
    return sae


@pytest.mark.usefixtures("registered")
def test_figures_and_tables_have_words_for_it() -> None:
    assert supports.described("window").control == "windows: d neighbouring rows"
    assert supports.described("low_rank").legend == "low rank"
    assert inference.INFERENCES["threshold"].label == "thresholding"


@pytest.mark.usefixtures("registered")
def test_a_pursuit_is_called_with_the_decoder_and_centred_activations() -> None:
    sae = low_rank("tied")
    with torch.no_grad():
        sae.b_dec.fill_(0.5)
    h = torch.randn(20, M, generator=torch_generator(4, "h"), dtype=torch.float64)
    assert torch.equal(inference.inferences("omp")(sae, h).value, omp(sae.dictionary(), h - 0.5, K).value)
    code = inference.inferences("threshold")(sae, h)
    assert torch.equal(code.index, threshold(sae.dictionary(), h - 0.5, K).index)


def test_weights_of_a_kind_that_is_not_registered_are_named(registered: None, tmp_path: Path) -> None:
    path = low_rank("tied").save(tmp_path / "w.safetensors")
    del supports.SUPPORTS["low_rank"]
    with pytest.raises(
        UserError, match=r"w\.safetensors: support 'low_rank', expected one that is registered"
    ):
        SparseAutoencoder.load(path)
