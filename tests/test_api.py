"""The public API: lazy names, inference, measurements, the quick start."""

from __future__ import annotations

import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import expander_sae
from expander_sae.machine.piece_sizes import EVALUATED_TOKENS
from expander_sae.rng import torch_generator
from tests.users import TOKENS, M, N, made_up_activations, trainer


@pytest.fixture(scope="module")
def activations() -> torch.Tensor:
    return made_up_activations()


def test_every_public_name_is_found_and_the_import_is_free_of_torch() -> None:
    for name in expander_sae.__all__:
        assert getattr(expander_sae, name) is not None and name in dir(expander_sae)
    assert sorted(expander_sae.__all__) == sorted(expander_sae._HOME), "each name has a home"
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        expander_sae.nothing  # noqa: B018
    for name in ("encode", "decode", "encoded", "save"):
        with pytest.raises(AttributeError, match=rf"expander_sae\.{name} is gone: call sae\.{name}\("):
            getattr(expander_sae, name)
    heavy = ["torch", "numpy", "pandas", "snakemake", "transformers"]
    check = f"import sys, expander_sae; sys.exit(bool(set({heavy}) & sys.modules.keys()))"
    assert subprocess.run([sys.executable, "-c", check], check=False).returncode == 0
    check = "import sys; from expander_sae import Trainer; sys.exit('snakemake' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", check], check=False).returncode == 0


def test_evaluate_measures_what_its_words_say(activations: torch.Tensor) -> None:
    sae = trainer(activations).fit(60)
    kept = sae.encoded(activations)
    assert int(kept.sum()) == TOKENS - TOKENS // 50
    h = activations[kept].double()
    rebuilt = sae.decode(sae.encode(activations[kept])).double()
    found = expander_sae.evaluate(sae, activations)
    expected = {
        "relative_error": ((h - rebuilt).norm(dim=1) / h.norm(dim=1)).mean(),
        "explained_variance": 1 - (h - rebuilt).square().sum() / (h - h.mean(0)).square().sum(),
        "cosine": torch.nn.functional.cosine_similarity(h, rebuilt).mean(),
        "l0": 3.0,
        "encoded_share": kept.double().mean(),
    }
    for name, value in expected.items():
        assert found[name] == pytest.approx(float(value), rel=1e-5), name
    fired = sae.encode(activations[kept]).counts(N)
    assert found["dead_fraction"] == pytest.approx(float((fired == 0).double().mean()))
    everything = expander_sae.evaluate(sae, activations.numpy(), every_token=True)
    assert (
        everything["encoded_share"] == 1.0 and everything["explained_variance"] != found["explained_variance"]
    )
    pursued = expander_sae.evaluate(sae, activations, inference="omp")
    assert pursued["relative_error"] < found["relative_error"]
    with pytest.raises(expander_sae.UserError, match="inference: found 'guess'"):
        expander_sae.evaluate(sae, activations, inference="guess")
    with pytest.raises(expander_sae.UserError, match=r"found shape \[400, 11\], expected \[N, m = 12\]"):
        expander_sae.evaluate(sae, activations[:, 1:])


def test_codes_in_pieces_equal_codes_at_once(activations: torch.Tensor) -> None:
    sae = trainer(activations).fit(20)
    whole = sae.encode(activations)
    pieces = expander_sae.infer(sae, activations.double().numpy(), "encoder", batch_size=7)
    assert torch.equal(whole.index, pieces.index) and torch.allclose(whole.value, pieces.value)
    for inference in ("encoder", "omp"):
        assert expander_sae.infer(sae, activations[:0], inference).index.shape == (0, 3)
    with pytest.raises(expander_sae.UserError, match="batch_size: found 0, expected at least 1"):
        expander_sae.infer(sae, activations, batch_size=0)
    by_name = expander_sae.infer(sae, activations)
    centred = activations - sae.b_dec.detach()
    by_hand = expander_sae.omp(sae.dictionary(), centred, 3, selection="signed")
    assert torch.equal(by_name.index, by_hand.index)


def test_the_quick_start_runs(
    activations: torch.Tensor,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    torch.save(activations, tmp_path / "activations.pt")
    monkeypatch.chdir(tmp_path)
    script = Path(expander_sae.__file__).parents[1] / "examples" / "quickstart.py"
    monkeypatch.setattr(sys, "argv", [str(script), "activations.pt"])
    names = runpy.run_path(str(script))
    assert names["sae"].n == 512 and (tmp_path / "sae.safetensors").exists()
    assert "relative_error" in capsys.readouterr().out


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("backend", ["auto", "torch"])
@pytest.mark.parametrize("support", ["expander", "dense"])
def test_an_autoencoder_of_16_bits_does_what_one_of_32_does(
    activations: torch.Tensor, tmp_path: Path, dtype: torch.dtype, backend: str, support: str
) -> None:
    whole = trainer(activations, support=support, d=M if support == "dense" else 4).fit(60)
    file = whole.save(tmp_path / "sae.safetensors")
    half = expander_sae.load(file, dtype=dtype, backend=backend)
    h = activations[whole.encoded(activations)]
    code = half.encode(h)
    assert code.value.dtype == half.decode(code).dtype == dtype
    for inference in ("encoder", "omp", "niht", "block_omp_2"):
        assert expander_sae.infer(half, h, inference).value.dtype == dtype
        measured, expected = (expander_sae.evaluate(sae, h, inference) for sae in (half, whole))
        assert measured["relative_error"] == pytest.approx(expected["relative_error"], rel=0.02)
        assert measured["cosine"] == pytest.approx(expected["cosine"], rel=0.02)
    again = expander_sae.load(half.save(tmp_path / "half.safetensors"))
    assert again.b_dec.dtype == dtype and torch.equal(again.values, half.values)


@pytest.mark.parametrize("limit", [None, 100.0])
def test_measuring_holds_no_copy_of_the_activations(limit: float | None) -> None:
    tokens = 20 * EVALUATED_TOKENS
    h = torch.randn(tokens, M, generator=torch_generator(0, "memory"))
    h[7] *= 1000
    sae = expander_sae.SparseAutoencoder(M, N, 3, expander_sae.MaskRecipe("expander", M, N, 4, 0).generate())
    sae.initialise(torch_generator(0, "initialisation"))
    sae.about["norm_limit"] = limit
    largest = Largest(h)
    with largest:
        found = expander_sae.evaluate(sae, h)
    assert found["encoded_share"] == (1.0 if limit is None else 1 - 1 / tokens)
    assert 0 < largest.numbers <= 2 * EVALUATED_TOKENS * max(M, N)


class Largest(TorchDispatchMode):
    """Most numbers of a tensor that is made and is no view of the input."""

    def __init__(self, given: torch.Tensor) -> None:
        super().__init__()
        self.given, self.numbers = given.untyped_storage().data_ptr(), 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        for part in made if isinstance(made, tuple | list) else (made,):
            if isinstance(part, torch.Tensor) and part.untyped_storage().data_ptr() != self.given:
                self.numbers = max(self.numbers, part.untyped_storage().nbytes() // part.element_size())
        return made
