"""Decoder columns of other norms than 1: the foreign selection, and its reconstruction, to the last bit."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import pytest
import torch

import expander_sae
from expander_sae.errors import UserError
from expander_sae.interop import dictionary_learning, saelens, sparsify
from expander_sae.interop.dense import pruned
from expander_sae.interop.fidelity import fidelity
from expander_sae.interop.saebench import SAEBenchAutoencoder
from expander_sae.rng import torch_generator
from tests.interop.problems import K, M, N, activations
from tests.interop.test_foreign_keys import EACH, put, theirs

DECODERS = {saelens: "W_dec", sparsify: "W_dec", dictionary_learning: "decoder.weight"}
NAMES = {
    saelens: ("W_enc", "b_enc"),
    sparsify: ("encoder.weight", "encoder.bias"),
    dictionary_learning: ("encoder.weight", "encoder.bias"),
}
NEARLY_ONE = 1 + 0.01 * (torch.rand(N, generator=torch_generator(7, "norms")) - 0.5)


def foreign(module: ModuleType, folder: Path, norms: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """A folder whose decoder columns have these norms: (W_enc [m, n], b_enc, W_dec [n, m], b_dec)."""
    config = {"rescale_acts_by_decoder_norm": False} if module is saelens else {}
    tensors, name = theirs(module, folder, **config), DECODERS[module]
    shape = norms[None] if module is dictionary_learning else norms[:, None]
    tensors[name] = tensors[name] * shape
    put(module, folder, tensors)
    encoder, b_enc = (tensors[name] for name in NAMES[module])
    decoder = tensors[name].T if module is dictionary_learning else tensors[name]
    return (encoder if module is saelens else encoder.T), b_enc, decoder, tensors["b_dec"]


def computed(parts: tuple[torch.Tensor, ...], h: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(code [B, n], ĥ) by the library's arithmetic, in float64."""
    w_enc, b_enc, w_dec, b_dec = (part.double() for part in parts)
    value, index = ((h.double() - b_dec) @ w_enc + b_enc).topk(K, dim=1)
    code = torch.zeros(len(h), N).double().scatter(1, index, value.relu())
    return code, code @ w_dec + b_dec


def selected(code: expander_sae.SparseCode) -> torch.Tensor:
    """bool [B, n]: which features a code holds."""
    held = torch.zeros(len(code.index), N + 1).scatter(1, code.index + 1, 1.0)
    return held[:, 1:].bool()


@EACH
@pytest.mark.parametrize("norms", [NEARLY_ONE, torch.linspace(0.2, 5.0, N)], ids=["nearly one", "any"])
def test_the_selection_and_the_reconstruction_are_the_foreign_ones(
    module: ModuleType, norms: torch.Tensor, tmp_path: Path
) -> None:
    parts, h = foreign(module, tmp_path, norms), activations(2000)
    theirs_code, rebuilt = computed(parts, h)
    w_enc, b_enc, w_dec, b_dec = parts
    assert (theirs_code > 0).sum(dim=1).min() < K, "the ReLU of the library is seen"
    folded, _ = computed((w_enc * norms, b_enc * norms, w_dec, b_dec), h)
    assert not torch.equal(folded > 0, theirs_code > 0), "norms that are folded in select otherwise"
    sae = expander_sae.load(tmp_path)
    code = sae.encode(h)
    assert torch.equal(selected(code), theirs_code > 0)
    assert torch.allclose(sae.decode(code).double(), rebuilt, atol=1e-4)
    assert torch.allclose(sae.dictionary().norms(), torch.ones(N), atol=1e-6)
    assert 0 < fidelity(sae, h).exact_share < 1


@EACH
def test_what_was_imported_goes_out_and_comes_back(module: ModuleType, tmp_path: Path) -> None:
    h = activations()
    _, rebuilt = computed(foreign(module, tmp_path / "in", torch.linspace(0.2, 5.0, N)), h)
    sae = expander_sae.load(tmp_path / "in")
    native = expander_sae.load(sae.save(tmp_path / "sae.safetensors"))
    assert sae.gains is not None and native.gains is not None and torch.equal(native.gains, sae.gains)
    assert torch.equal(native.decode(native.encode(h)), sae.decode(sae.encode(h)))
    for other in (saelens, sparsify, dictionary_learning):
        other.export(sae, tmp_path / other.CONFIG.replace("json", other.WEIGHTS), say=False)
        again = expander_sae.load(tmp_path / other.CONFIG.replace("json", other.WEIGHTS))
        assert torch.allclose(again.decode(again.encode(h)).double(), rebuilt, atol=1e-4)
    whole = pruned(sae, M)
    assert torch.allclose(whole.decode(whole.encode(h)).double(), rebuilt, atol=1e-4)
    bench = SAEBenchAutoencoder(sae, "tiny", 0)
    assert bench.check_decoder_norms() and torch.allclose(bench(h).double(), rebuilt, atol=1e-4)


def test_training_mode_gives_the_same_and_its_gradient(tmp_path: Path) -> None:
    foreign(saelens, tmp_path, torch.linspace(0.2, 5.0, N))
    sae, h = expander_sae.load(tmp_path), activations(20)
    rebuilt, code = sae(h)
    assert torch.equal(code.value, sae.encode(h).value)
    assert torch.allclose(rebuilt, sae.decode(code), atol=1e-6)
    sae.set_gradients(h)
    assert sae.gains is not None and sae.b_enc.grad is not None
    step, loss = 1e-2, (rebuilt - h).square().sum(1).mean().detach()
    j = int(sae.b_enc.grad.abs().argmax())
    slope = float(sae.b_enc.grad[j])
    with torch.no_grad():
        sae.b_enc[j] -= step * slope / abs(slope)
        moved = (sae.decode(expander_sae.SparseCode(code.index, again(sae, h, code.index))) - h).square()
    assert float(loss - moved.sum(1).mean()) == pytest.approx(step * abs(slope), rel=0.1)


def again(sae: expander_sae.SparseAutoencoder, h: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    """Coefficients of a given selection, by the formula."""
    assert sae.gains is not None
    e = sae._encoder_on(sae.dictionary()).columns(torch.arange(N))
    return (((h - sae.b_dec) @ e.T + sae.b_enc) * sae.gains).gather(1, index.clamp(min=0)) * (index >= 0)


@pytest.mark.parametrize("norms", [torch.ones(N), torch.linspace(0.2, 5.0, N)], ids=["unit", "any"])
def test_factors_of_finetuning_are_applied(norms: torch.Tensor, tmp_path: Path) -> None:
    """Before SAELens 6, ĥ = (x · factor) W_dec + b_dec."""
    w_enc, b_enc, w_dec, b_dec = foreign(saelens, tmp_path, norms)
    factors = torch.linspace(-0.5, 2.0, N)
    factors[3] = 0
    base = {"architecture": "standard", "activation_fn_str": "topk", "activation_fn_kwargs": {"k": K}}
    base |= {"finetuning_scaling_factor": True, "rescale_acts_by_decoder_norm": False}
    theirs(saelens, tmp_path, "metadata", **base)
    tensors = {"W_enc": w_enc, "b_enc": b_enc, "W_dec": w_dec, "b_dec": b_dec}
    put(saelens, tmp_path, tensors | {"finetuning_scaling_factor": factors})
    h = activations()
    _, rebuilt = computed((w_enc, b_enc, w_dec * factors[:, None], b_dec), h)
    sae = expander_sae.load(tmp_path)
    assert torch.allclose(sae.decode(sae.encode(h)).double(), rebuilt, atol=1e-4)
    saelens.export(sae, tmp_path / "out", say=False)
    out = expander_sae.load(tmp_path / "out")
    assert torch.allclose(out.decode(out.encode(h)).double(), rebuilt, atol=1e-4)
    put(saelens, tmp_path, tensors)
    with pytest.raises(UserError, match="no tensor finetuning_scaling_factor"):
        expander_sae.load(tmp_path)
    put(saelens, tmp_path, tensors | {"finetuning_scaling_factor": factors[:3]})
    with pytest.raises(UserError, match=r"gains of shape \[3\] beside a decoder"):
        expander_sae.load(tmp_path)
    put(saelens, tmp_path, tensors | {"finetuning_scaling_factor": factors})
    theirs_path = tmp_path / "cfg.json"
    theirs_path.write_text(theirs_path.read_text().replace('norm": false', 'norm": true'))
    with pytest.raises(UserError, match="finetuning_scaling_factor True beside rescale_acts"):
        expander_sae.load(tmp_path)


def test_gains_are_no_part_of_a_compact_folder(tmp_path: Path) -> None:
    foreign(saelens, tmp_path, torch.linspace(0.2, 5.0, N))
    sae = pruned(expander_sae.load(tmp_path), 5)
    with pytest.raises(UserError, match="compact: found gains of another library's decoder norms"):
        saelens.export(sae, tmp_path / "out", compact=True)


@EACH
def test_an_export_that_is_no_longer_tied_has_its_own_encoder(module: ModuleType, tmp_path: Path) -> None:
    """Trained on in the other library, say: the record still says that it was tied."""
    from tests.interop.problems import small
    from tests.interop.test_foreign_keys import tensors_of

    sae, h = small("expander", "tied"), activations()
    module.export(sae, tmp_path, say=False)
    tensors, (encoder, _) = tensors_of(module, tmp_path), NAMES[module]
    tensors[encoder] = 1.5 * tensors[encoder]
    put(module, tmp_path, tensors)
    w_enc = tensors[encoder] if module is saelens else tensors[encoder].T
    decoder = tensors[DECODERS[module]]
    w_dec = decoder.T if module is dictionary_learning else decoder
    value, index = ((h - tensors["b_dec"]) @ w_enc + tensors[NAMES[module][1]]).topk(K, dim=1)
    rebuilt = torch.zeros(len(h), N).scatter(1, index, value) @ w_dec + tensors["b_dec"]
    found = expander_sae.load(tmp_path)
    assert found.mask is not None and sae.mask is not None and found.mask.sha256 == sae.mask.sha256
    assert torch.equal(found.encode(h).index.sort(1).values, index.sort(1).values)
    assert torch.allclose(found.decode(found.encode(h)), rebuilt, atol=1e-4)
