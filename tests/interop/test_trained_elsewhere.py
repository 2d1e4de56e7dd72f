"""Every architecture, trained by its own library on a language model's activations, against that library.

`make test-saelens` installs them apart; elsewhere this is skipped. The model is that of the default study.
"""

from __future__ import annotations

import inspect
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

import expander_sae
from expander_sae.activations.language_model import LanguageModel
from expander_sae.activations.weights import materialise
from expander_sae.study.presets import MODELS
from tests.interop import trained_elsewhere
from tests.interop.trained_elsewhere import Run, Training, agreement, frontier, numbers

pytestmark = [pytest.mark.saelens, pytest.mark.slow]

for _name in ("sae_lens", "sparsify", "dictionary_learning"):
    pytest.importorskip(_name, reason=f"{_name} is not installed: make test-saelens")

MODEL, LAYER, CONTEXT = "smollm2-135m-instruct", 15, 128
TOKENS, TRAINED, N, K = 2000, 1000, 768, 16
DICTIONARY_LEARNING = ("Standard", "StandardTrainerAprilUpdate", "GatedSAE", "JumpRelu", "TopK", "BatchTopK")
NAMES = [
    *(f"SAELens {name}" for name in trained_elsewhere.SAELENS),
    "Gemma Scope npz",
    "sparsify",
    *(f"dictionary_learning {name}" for name in (*DICTIONARY_LEARNING, "MatryoshkaBatchTopK")),
]


@pytest.fixture(scope="module")
def h(tmp_path_factory: pytest.TempPathFactory) -> Tensor:
    """The residual stream after the layer, [TOKENS + TRAINED or more, m], of whole documents."""
    folder = tmp_path_factory.mktemp("model")
    spec = {**MODELS[MODEL], "name": MODEL, "label": MODEL}
    materialise(spec, folder / "weights", folder / "model.json")
    model = LanguageModel.load(folder / "model.json")
    tokenizer = model.tokenizer  # made anew each time
    texts = {inspect.getdoc(getattr(np, name)) or "" for name in dir(np)}
    cut = [tokenizer(text)["input_ids"][:CONTEXT] for text in sorted(texts)]
    ids = torch.tensor([document for document in cut if len(document) == CONTEXT])
    ids = ids[: -(-(TOKENS + TRAINED) // CONTEXT)]
    return torch.cat([model.residual(part, [LAYER])[LAYER] for part in ids.split(8)]).flatten(0, 1)


@pytest.fixture(scope="module")
def made(h: Tensor, tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, Run]]:
    training = Training.on(h[TOKENS:], N, K, steps=30)
    found = trained_elsewhere.everything(training, tmp_path_factory.mktemp("trained"))
    return {name: (path, run) for name, path, run in found}


def test_these_activations_are_no_normal_ones(h: Tensor) -> None:
    norms = h[:TOKENS].norm(dim=1)
    assert norms.max() > 50 * norms.median()
    usual = h[:TOKENS][norms < 10 * norms.median()]
    assert usual.mean(dim=0).norm() > 0.5 * norms.median() and len(usual) < TOKENS


def test_every_architecture_is_here(made: dict[str, tuple[Path, Run]]) -> None:
    assert list(made) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_an_import_is_what_its_library_computes(
    name: str, made: dict[str, tuple[Path, Run]], h: Tensor
) -> None:
    found = agreement(*made[name], h[:TOKENS])
    # A score that is at the bar in one order of summation can be below it in another.
    assert found.same + found.ties == TOKENS and found.ties <= 2
    assert found.largest < 1e-5
    assert numbers(made[name][1], h[:TOKENS])["relative_error"] < 0.8, "it has learned something"


def test_the_page_has_the_numbers_of_evaluate_and_of_their_libraries(
    made: dict[str, tuple[Path, Run]], h: Tensor, tmp_path: Path
) -> None:
    paths = [path for path, _ in made.values()]
    pages = frontier(paths, h[:TOKENS], tmp_path, "--inference", "encoder")
    for page, (name, (path, run)) in zip(pages, made.items(), strict=True):
        ours, theirs = page["metrics"]["encoder"], numbers(run, h[:TOKENS])
        evaluated = expander_sae.evaluate(expander_sae.load(path), h[:TOKENS])
        assert evaluated.pop("encoded_share") == page["encoded_share"] == 1, name
        assert {key: ours[key] for key in evaluated} == evaluated, name
        assert ours == pytest.approx(theirs, abs=1e-5 if agreement(path, run, h).same == len(h) else 1e-3), (
            name
        )


def test_omp_on_their_decoders_has_the_numbers_of_evaluate(
    made: dict[str, tuple[Path, Run]], h: Tensor, tmp_path: Path
) -> None:
    few = h[:200]
    paths = [made[name][0] for name in ("SAELens topk", "SAELens standard", "sparsify")]
    for page, path in zip(frontier(paths, few, tmp_path, "--inference", "omp"), paths, strict=True):
        evaluated = expander_sae.evaluate(expander_sae.load(path), few, "omp")
        encoded = expander_sae.evaluate(expander_sae.load(path), few, "encoder")
        assert page["metrics"]["omp"] == {key: evaluated[key] for key in evaluated if key != "encoded_share"}
        assert evaluated["relative_error"] < encoded["relative_error"]
        assert 0 < evaluated["l0"] <= round(encoded["l0"]), "at no more features"
