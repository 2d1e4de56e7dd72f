"""Folders of other libraries, written and read without these libraries."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import expander_sae
from expander_sae.errors import UserError
from expander_sae.interop import dictionary_learning, saelens, sparsify
from expander_sae.interop.dense import pruned
from expander_sae.interop.fidelity import fidelity
from tests.interop.problems import K, M, N, activations, reference, small

MODULES = (saelens, sparsify, dictionary_learning)


def matrices(module: ModuleType, folder: Path) -> tuple[torch.Tensor, ...]:
    """(W_enc [m, n], W_dec [n, m], b_enc, b_dec) as the other library would read them."""
    if module is dictionary_learning:
        t = torch.load(folder / "ae.pt", weights_only=True)
        assert int(t["k"]) == K and t["k"].dtype == torch.int32
        return t["encoder.weight"].T, t["decoder.weight"].T, t["encoder.bias"], t["b_dec"]
    if module is sparsify:
        t = load_file(folder / "sae.safetensors")
        return t["encoder.weight"].T, t["W_dec"], t["encoder.bias"], t["b_dec"]
    t = load_file(folder / "sae_weights.safetensors")
    return t["W_enc"], t["W_dec"], t["b_enc"], t["b_dec"]


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.__name__.split(".")[-1])
@pytest.mark.parametrize("family", ["expander", "bernoulli", "dense"])
@pytest.mark.parametrize("encoder", ["tied", "independent"])
def test_their_arithmetic_gives_our_reconstruction_where_kept_values_are_positive(
    module: Any, family: str, encoder: str, tmp_path: Path
) -> None:
    sae, h = small(family, encoder, norm_limit=None), activations()
    measured = module.export(sae, tmp_path / "out", h, say=False)
    w_enc, w_dec, b_enc, b_dec = matrices(module, tmp_path / "out")
    assert w_enc.shape == (M, N) and w_dec.shape == (N, M)
    value, index = ((h - b_dec) @ w_enc + b_enc).topk(K, dim=1)
    theirs = torch.zeros(len(h), N).scatter(1, index, value.relu()) @ w_dec + b_dec
    positive = (value > 0).all(dim=1)
    ours = sae.decode(sae.encode(h))
    error = (theirs - ours).norm(dim=1) / h.norm(dim=1)
    assert error[positive].max() < 1e-5
    assert 0 < int((~positive).sum()) < len(h), "both kinds of token are met"
    assert error[~positive].median() > 1e-3, "ReLU does change the others"
    assert measured.exact_share == pytest.approx(float(positive.double().mean()))
    assert measured.nonpositive_share == pytest.approx(float((value <= 0).double().mean()))
    dense, _ = reference(sae, h, relu=True)
    assert torch.allclose(theirs.double(), dense, atol=1e-5)


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.__name__.split(".")[-1])
@pytest.mark.parametrize(
    ("family", "encoder"),
    [("expander", "tied"), ("bernoulli", "own_support"), ("expander", "full"), ("dense", "tied")],
)
def test_a_round_trip_comes_back_onto_the_mask(
    module: Any, family: str, encoder: str, tmp_path: Path
) -> None:
    sae, h = small(family, encoder, norm_limit=7.5, spec={"layer": 3, "model": "tiny"}), activations()
    module.export(sae, tmp_path, say=False)
    again = expander_sae.load(tmp_path)
    assert again.about == sae.about and again.encoder_kind == encoder
    if sae.mask is None:
        assert again.mask is None
    else:
        assert again.mask is not None and again.mask.sha256 == sae.mask.sha256
    found, expected = again.encode(h).index.sort(1).values, sae.encode(h).index.sort(1).values
    assert torch.equal(found, expected), "backends may order the places differently"
    assert torch.allclose(again.decode(again.encode(h)), sae.decode(sae.encode(h)), atol=1e-5)


def test_the_compact_saelens_folder_holds_values_and_a_recipe(tmp_path: Path) -> None:
    for encoder in ("tied", "independent"):
        sae, h = small("bernoulli", encoder, norm_limit=7.5), activations()
        folder = tmp_path / encoder
        saelens.export(sae, folder, h, compact=True, say=False)
        stored = load_file(folder / "sae_weights.safetensors")
        assert stored["values"].shape == sae.values.shape
        assert not any(tensor.shape in ((N, M), (M, N)) for tensor in stored.values())
        config = json.loads((folder / "cfg.json").read_text())
        assert config["architecture"] == "expander_topk" and config["mask"]["recipe"]["family"] == "bernoulli"
        again = expander_sae.load(folder)
        assert torch.allclose(again.decode(again.encode(h)), sae.decode(sae.encode(h)), atol=1e-5)
    with pytest.raises(UserError, match="compact: found dense columns, expected columns on a mask"):
        saelens.export(small("dense"), tmp_path / "dense", compact=True)


def test_the_exporter_says_what_differs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    h = activations()
    limit = float(h.norm(dim=1).quantile(0.75))
    sae = small(norm_limit=limit, spec={"layer": 3, "model": "tiny"})
    saelens.export(sae, tmp_path, h, model_name="theirs", context_size=64)
    said = capsys.readouterr().out
    config = json.loads((tmp_path / "cfg.json").read_text())
    measured = config["metadata"]["expander_sae"]["fidelity"]
    kept = h[h.norm(dim=1) <= limit]
    _, positive = reference(sae, kept, relu=True)
    assert measured["encoded_share"] == pytest.approx(len(kept) / len(h))
    assert measured["exact_share"] == pytest.approx(float(positive.double().mean()))
    assert f"{measured['exact_share']:.2%}" in said and "25.00% of the tokens exceed norm_limit" in said
    metadata = config["metadata"]
    assert metadata["hook_name"] == "blocks.3.hook_resid_post" and metadata["model_name"] == "theirs"
    assert metadata["context_size"] == 64 and metadata["sae_lens_version"].split(".")[0] == "6"
    saelens.export(sae, tmp_path)
    assert "was not measured" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("spec", "given", "expected"),
    [
        ({}, {}, {}),
        ({"layer": 3, "model": "tiny", "corpus": "text"}, {}, {"hook_name": "blocks.3.hook_resid_post"}),
        (
            {"layer": 0, "model": "pythia-160m", "corpus": "pile"},
            {},
            {
                "hook_name": "blocks.0.hook_resid_post",
                "model_name": "EleutherAI/pythia-160m",
                "context_size": 128,
            },
        ),
        ({"model": "pythia-160m-3fa2c1", "corpus": "pile-3fa2c1"}, {}, {}),
        ({"model": "smollm2-135m-instruct"}, {}, {}),
        (
            {"model": "pythia-160m", "corpus": "pile"},
            {"model_name": "mine", "context_size": 64, "prepend_bos": False},
            {"model_name": "mine", "context_size": 64, "prepend_bos": False},
        ),
    ],
)
def test_metadata_holds_what_is_known_and_nothing_else(
    spec: dict[str, Any], given: dict[str, Any], expected: dict[str, Any], tmp_path: Path
) -> None:
    for compact in (False, True):
        saelens.export(small(spec=spec), tmp_path, compact=compact, say=False, **given)
        metadata = json.loads((tmp_path / "cfg.json").read_text())["metadata"]
        always = {"sae_lens_version", "sae_lens_training_version", "model_from_pretrained_kwargs"}
        assert {key: metadata[key] for key in metadata.keys() - always - {"expander_sae"}} == expected


def foreign(folder: Path, config: dict[str, Any], norms: torch.Tensor) -> dict[str, torch.Tensor]:
    """A SAELens folder that we did not write, with decoder rows of these norms."""
    sae = small("dense", "independent")
    w = sae.dictionary().columns(torch.arange(N))
    tensors = {
        "W_enc": sae._encoder_on(sae.dictionary()).columns(torch.arange(N)).T.contiguous().detach(),
        "W_dec": (w * norms[:, None]).contiguous(),
        "b_enc": sae.b_enc.detach(),
        "b_dec": sae.b_dec.detach(),
    }
    folder.mkdir(exist_ok=True)
    save_file(tensors, folder / "sae_weights.safetensors")
    base = {"architecture": "topk", "d_in": M, "d_sae": N, "k": K, "normalize_activations": "none"}
    (folder / "cfg.json").write_text(json.dumps(base | config))
    return tensors


@pytest.mark.parametrize("subtract", [True, False])
@pytest.mark.parametrize("rescale", [True, False])
def test_foreign_topk_folders_are_imported_by_their_own_arithmetic(
    subtract: bool, rescale: bool, tmp_path: Path
) -> None:
    norms = torch.linspace(0.5, 3.0, N)
    config = {"apply_b_dec_to_input": subtract, "rescale_acts_by_decoder_norm": rescale}
    t = foreign(tmp_path, config, norms)
    h = activations()
    pre = (h - t["b_dec"] * subtract) @ t["W_enc"] + t["b_enc"]
    pre = pre * norms if rescale else pre
    value, index = pre.topk(K, dim=1)
    code = torch.zeros_like(pre).scatter(1, index, value.relu())
    expected = (code / norms if rescale else code) @ t["W_dec"] + t["b_dec"]
    sae = saelens.load(tmp_path)
    assert sae.mask is None and sae.k == K
    assert torch.allclose(sae.decode(sae.encode(h)), expected, atol=1e-4)
    assert expander_sae.evaluate(sae, h, inference="omp")["relative_error"] < 1
    assert fidelity(sae, h).exact_share == pytest.approx(float((value > 0).all(1).double().mean()))


def test_a_folder_from_before_saelens_6_is_read(tmp_path: Path) -> None:
    old = {
        "architecture": "standard",
        "activation_fn_str": "topk",
        "activation_fn_kwargs": {"k": K},
        "k": None,
    }
    foreign(tmp_path, old, torch.ones(N))
    path = tmp_path / "cfg.json"
    path.write_text(json.dumps({k: v for k, v in json.loads(path.read_text()).items() if k != "k"}))
    assert saelens.load(tmp_path).k == K


def test_what_cannot_be_imported_is_named(tmp_path: Path) -> None:
    for config, norms, message in (
        ({"architecture": "temporal"}, torch.ones(N), "architecture 'temporal', expected one of topk, "),
        ({"architecture": "jumprelu"}, torch.ones(N), "no tensor threshold, found W_dec"),
        ({"architecture": "gated"}, torch.ones(N), "no tensor b_gate, found W_dec"),
        ({"normalize_activations": "layer_norm"}, torch.ones(N), "normalize_activations 'layer_norm'"),
        ({"reshape_activations": "hook_z"}, torch.ones(N), "reshape_activations 'hook_z'"),
        ({"k": None}, torch.ones(N), "k None, expected a whole number"),
        (
            {"rescale_acts_by_decoder_norm": True},
            (torch.arange(N) > 1).float(),
            "2 decoder columns of zeros, expected none where their norms divide",
        ),
    ):
        foreign(tmp_path, config, norms)
        with pytest.raises(UserError, match=message):
            saelens.load(tmp_path)
    with pytest.raises(UserError, match="found none of"):
        (tmp_path / "empty").mkdir()
        expander_sae.load(tmp_path / "empty")
    with pytest.raises(UserError, match="no such file"):
        expander_sae.load(tmp_path / "nowhere")
    (tmp_path / "half").mkdir()
    save_file({"W_enc": torch.zeros(M, N)}, tmp_path / "half" / "sae_weights.safetensors")
    (tmp_path / "half" / "cfg.json").write_text(json.dumps({"architecture": "topk", "k": K}))
    with pytest.raises(UserError, match="no tensor W_dec, found W_enc"):
        expander_sae.load(tmp_path / "half")


def test_an_altered_export_is_refused(tmp_path: Path) -> None:
    sae = small()
    saelens.export(sae, tmp_path, say=False)
    path = tmp_path / "sae_weights.safetensors"
    stored = load_file(path)
    stored["W_dec"][0, (stored["W_dec"][0] == 0).nonzero()[0]] = 1e-3
    save_file(stored, path)
    with pytest.raises(UserError, match="1 entries outside the recorded mask are not 0"):
        saelens.load(tmp_path)


def test_no_code_of_a_pickle_is_run(tmp_path: Path) -> None:
    class Payload:
        def __reduce__(self) -> Any:
            return (Path(tmp_path / "ran").touch, ())

    (tmp_path / "ae.pt").write_bytes(pickle.dumps({"encoder.weight": Payload()}, protocol=2))
    with pytest.raises(UserError, match=r"ae\.pt: not a file of plain tensors"):
        dictionary_learning.load(tmp_path)
    assert not (tmp_path / "ran").exists()


def test_ties_are_counted() -> None:
    sae, h = small("dense"), activations(50)
    assert fidelity(sae, h).near_tie_share < 0.1
    with torch.no_grad():
        sae.values[N // 2 :] = sae.values[: N // 2]
        sae.b_enc[N // 2 :] = sae.b_enc[: N // 2]
    sae.k = 3  # features come in equal pairs, so that the third and the fourth are always equal
    assert fidelity(sae, h).near_tie_share == 1.0
    sae.k = N
    assert fidelity(sae, h).near_tie_share == 0.0, "nothing is left to be mixed up with"


@pytest.mark.parametrize("encoder", ["tied", "independent"])
def test_a_dense_autoencoder_is_pruned_to_its_largest_entries(encoder: str, tmp_path: Path) -> None:
    sae, h = small("dense", encoder, norm_limit=7.5), activations()
    whole = pruned(sae, M)
    assert torch.allclose(whole.decode(whole.encode(h)), sae.decode(sae.encode(h)), atol=1e-5)
    smaller = pruned(sae, 5)
    w = sae.dictionary().columns(torch.arange(N)).detach()
    cut = torch.where(w.abs() >= w.abs().sort(dim=1, descending=True).values[:, 4:5], w, 0.0)
    kept = smaller.dictionary().columns(torch.arange(N))
    assert torch.allclose(kept, cut / cut.norm(dim=1, keepdim=True), atol=1e-6)
    again = expander_sae.load(smaller.save(tmp_path / "pruned.safetensors"))
    assert torch.equal(again.values, smaller.values) and again.about == sae.about
    saelens.export(smaller, tmp_path / "out", say=False)
    dense = expander_sae.load(tmp_path / "out")
    assert torch.allclose(dense.decode(dense.encode(h)), smaller.decode(smaller.encode(h)), atol=1e-5)
    with pytest.raises(UserError, match="found a learned mask"):
        saelens.export(smaller, tmp_path / "compact", compact=True)
