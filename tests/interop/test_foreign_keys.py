"""Everything in a foreign folder is applied, known to change nothing, or refused by name."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import expander_sae
from expander_sae.errors import UserError
from expander_sae.interop import dictionary_learning, saelens, sparsify
from tests.interop.problems import K, M, N, activations, small

MODULES = (saelens, sparsify, dictionary_learning)
EACH = pytest.mark.parametrize("module", MODULES, ids=lambda module: module.__name__.split(".")[-1])

Tensors = dict[str, torch.Tensor]


def tensors_of(module: ModuleType, folder: Path) -> Tensors:
    path = folder / module.WEIGHTS
    return torch.load(path, weights_only=True) if module is dictionary_learning else load_file(path)


def put(module: ModuleType, folder: Path, tensors: Tensors) -> None:
    path = folder / module.WEIGHTS
    torch.save(tensors, path) if module is dictionary_learning else save_file(tensors, path)


def theirs(module: ModuleType, folder: Path, *removed: str, **config: Any) -> Tensors:
    """A folder as the library writes one, without our record, with changed keys; its tensors."""
    module.export(small("dense", "independent"), folder, say=False)
    path = folder / module.CONFIG
    found = json.loads(path.read_text())
    found.pop("expander_sae", None)
    found.get("metadata", {}).pop("expander_sae", None)
    found |= config
    path.write_text(json.dumps({key: value for key, value in found.items() if key not in removed}))
    return tensors_of(module, folder)


@EACH
def test_a_key_that_nobody_knows_is_refused_by_name(module: ModuleType, tmp_path: Path) -> None:
    theirs(module, tmp_path)
    expander_sae.load(tmp_path)
    theirs(module, tmp_path, some_new_switch=0.5)
    with pytest.raises(UserError, match=rf"{module.CONFIG}: some_new_switch 0\.5, expected no such key"):
        expander_sae.load(tmp_path)


@EACH
@pytest.mark.parametrize("name", ["W_skip", "threshold_of_each", "finetuning_scaling_factor"])
def test_a_tensor_that_nobody_knows_is_refused_by_name(module: ModuleType, name: str, tmp_path: Path) -> None:
    put(module, tmp_path, theirs(module, tmp_path) | {name: torch.full((N,), 2.0)})
    with pytest.raises(UserError, match=rf"{module.WEIGHTS}: tensor {name}, expected .* and no other"):
        expander_sae.load(tmp_path)


@EACH
def test_values_that_are_no_numbers_are_refused_by_name(module: ModuleType, tmp_path: Path) -> None:
    whole = theirs(module, tmp_path)
    for broken, message in (
        (torch.full((M,), float("nan")), "b_dec has values that are NaN or infinite"),
        (torch.full((M,), float("inf")), "b_dec has values that are NaN or infinite"),
        (torch.ones(M, dtype=torch.int8), r"b_dec of torch\.int8, expected floating-point numbers"),
    ):
        put(module, tmp_path, whole | {"b_dec": broken})
        with pytest.raises(UserError, match=message):
            expander_sae.load(tmp_path)


@pytest.mark.parametrize(
    ("module", "config", "message"),
    [
        (saelens, {"d_in": M + 1}, f"d_in {M + 1}, expected {M}, which the tensors have"),
        (saelens, {"d_sae": 1}, f"d_sae 1, expected {N}, which the tensors have"),
        (saelens, {"normalize_activations": "expected_average_only_in"}, "normalize_activations 'expected_a"),
        (saelens, {"normalize_activations": True}, "normalize_activations True, expected 'none' or False"),
        (saelens, {"apply_b_dec_to_input": "no"}, "apply_b_dec_to_input 'no', expected true or false"),
        (saelens, {"rescale_acts_by_decoder_norm": 1}, "rescale_acts_by_decoder_norm 1, expected true or"),
        (saelens, {"dtype": "int8"}, "dtype 'int8', expected float64, float32, bfloat16 or float16"),
        (
            saelens,
            {"metadata": {"hook_name": "a", "hook_name_out": "b"}},
            "hook_name_out 'b', expected hook_name 'a'",
        ),
        (saelens, {"hook_name_out": "b"}, "hook_name_out 'b', expected hook_name"),
        (sparsify, {"d_in": M + 1}, f"d_in {M + 1}, expected {M}, which the tensors have"),
        (sparsify, {"num_latents": 1}, f"num_latents 1, expected {N}, which the tensors have"),
        (sparsify, {"skip_connection": True}, "skip_connection True, expected False"),
        (
            dictionary_learning,
            {"trainer": {"dict_class": "AutoEncoderTopK", "dict_size": 1}},
            f"dict_size 1, expected {N}, which the tensors have",
        ),
        (
            dictionary_learning,
            {"trainer": {"trainer_class": "TrainerOfAnother"}},
            "trainer_class 'TrainerOfAnother', expected 'TopKTrainer' or",
        ),
        (
            dictionary_learning,
            {"trainer": {"own_fractions": [0.5]}},
            r"own_fractions \[0\.5\], expected no such key",
        ),
        (dictionary_learning, {"buffer": {"io": "in_and_out"}}, "io 'in_and_out', expected 'in' or 'out'"),
        (dictionary_learning, {"buffer": {"scale": 2}}, "scale 2, expected no such key"),
    ],
)
def test_what_changes_the_function_and_cannot_be_represented_is_named(
    module: ModuleType, config: dict[str, Any], message: str, tmp_path: Path
) -> None:
    theirs(module, tmp_path, **config)
    with pytest.raises(UserError, match=message):
        expander_sae.load(tmp_path)


@pytest.mark.parametrize(
    ("module", "config"),
    [
        (saelens, {"normalize_activations": False, "use_sparse_activations": True, "device": "cuda"}),
        (saelens, {"metadata": {"hook_name": "a", "hook_name_out": "a", "own": [1, 2]}}),
        (sparsify, {"multi_topk": True, "normalize_decoder": False, "num_latents": 0}),
        (dictionary_learning, {"buffer": {"io": "out", "ctx_len": 128}}),
        (dictionary_learning, {"trainer": {"lr": 1e-3, "norm_factor": 3.0, "threshold_beta": 0.9}}),
    ],
)
def test_what_changes_nothing_is_taken(module: ModuleType, config: dict[str, Any], tmp_path: Path) -> None:
    theirs(module, tmp_path / "plain")
    theirs(module, tmp_path / "more", **config)
    h = activations()
    expected, found = (expander_sae.load(tmp_path / name).encode(h) for name in ("plain", "more"))
    assert torch.equal(found.index, expected.index) and torch.equal(found.value, expected.value)


@pytest.mark.parametrize("rounded", ["bfloat16", "float16", "torch.float32", None])
@pytest.mark.parametrize("compact", [False, True])
def test_weights_are_rounded_as_saelens_rounds_them(
    rounded: str | None, compact: bool, tmp_path: Path
) -> None:
    """Its loader casts every tensor to the dtype of cfg.json."""
    sae = small("expander", "independent")
    saelens.export(sae, tmp_path, compact=compact, say=False)
    path = tmp_path / "cfg.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"dtype": rounded}))
    found = expander_sae.load(tmp_path)
    dtype = getattr(torch, (rounded or "float32").removeprefix("torch."))
    assert torch.equal(found.b_dec, sae.b_dec.to(dtype).float())
    assert torch.equal(found.b_dec, sae.b_dec) == (dtype == torch.float32)


@pytest.mark.parametrize("encoder", ["tied", "independent"])
def test_a_compact_folder_that_does_not_subtract_its_bias(encoder: str, tmp_path: Path) -> None:
    sae, h = small("expander", encoder), activations()
    saelens.export(sae, tmp_path, compact=True, say=False)
    path = tmp_path / "cfg.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"apply_b_dec_to_input": False}))
    e = sae._encoder_on(sae.dictionary()).columns(torch.arange(N)).detach()
    value, _ = (h @ e.T + sae.b_enc.detach()).topk(K, dim=1)
    found = expander_sae.load(tmp_path).encode(h)
    assert torch.allclose(found.value.sort(1).values, value.sort(1).values, atol=1e-5)


@pytest.mark.parametrize(
    ("old", "message"),
    [
        ({"architecture": "gated"}, "architecture 'gated', expected 'topk'"),
        ({"hook_name": "blocks.0.attn.hook_z"}, "reshape_activations 'hook_z', expected 'none'"),
        ({"hook_point": "blocks.0.attn.hook_z"}, "reshape_activations 'hook_z', expected 'none'"),
        ({"activation_fn_kwargs": {"k": K, "postact_fn": "tanh"}}, "postact_fn 'tanh', expected no such key"),
    ],
)
def test_a_folder_from_before_saelens_6_is_refused_where_it_computes_otherwise(
    old: dict[str, Any], message: str, tmp_path: Path
) -> None:
    base = {"architecture": "standard", "activation_fn_str": "topk", "activation_fn_kwargs": {"k": K}}
    theirs(saelens, tmp_path, "k", "metadata", **base, hook_name="blocks.3.hook_resid_post")
    loaded = expander_sae.load(tmp_path)
    assert loaded.k == K and loaded.about["metadata"] == {"hook_name": "blocks.3.hook_resid_post"}
    theirs(saelens, tmp_path, "k", "metadata", "reshape_activations", **base | old)
    with pytest.raises(UserError, match=message):
        expander_sae.load(tmp_path)


def test_k_and_architecture_are_those_that_its_version_of_saelens_reads(tmp_path: Path) -> None:
    old = {"activation_fn_str": "topk", "activation_fn_kwargs": {"k": 2}, "k": 3}
    theirs(saelens, tmp_path, "metadata", **old)
    assert expander_sae.load(tmp_path).k == 2, "before version 6 the options of the activation counted"
    theirs(saelens, tmp_path, **old)
    assert expander_sae.load(tmp_path).k == 3
    theirs(saelens, tmp_path, architecture="standard", **old)
    assert expander_sae.load(tmp_path).counts_vary, "from version 6 on the options do not count"


def test_k_of_dictionary_learning_may_stand_in_its_configuration_alone(tmp_path: Path) -> None:
    whole = theirs(dictionary_learning, tmp_path)
    without = {name: tensor for name, tensor in whole.items() if name != "k"}
    put(dictionary_learning, tmp_path, without)
    h = activations()
    assert expander_sae.load(tmp_path).k == K
    trainer = {"dict_class": "AutoEncoderTopK", "k": 2}
    (tmp_path / "config.json").write_text(json.dumps({"trainer": trainer}))
    assert expander_sae.load(tmp_path).encode(h).index.shape == (len(h), 2)
    # Where both have one the library takes that of the tensors.
    put(dictionary_learning, tmp_path, whole)
    assert expander_sae.load(tmp_path).k == K
    put(dictionary_learning, tmp_path, without)
    (tmp_path / "config.json").write_text(json.dumps({"trainer": {}}))
    with pytest.raises(UserError, match=r"config\.json: k None, expected a whole number"):
        expander_sae.load(tmp_path)
    put(dictionary_learning, tmp_path, whole | {"k": torch.tensor(2.5)})
    with pytest.raises(UserError, match=r"ae\.pt: k tensor\(2\.5000\), expected one whole number"):
        expander_sae.load(tmp_path)


def test_tensors_of_a_pickle_that_hold_no_plain_numbers_are_named(tmp_path: Path) -> None:
    whole: dict[Any, Any] = dict(theirs(dictionary_learning, tmp_path))
    (tmp_path / "config.json").unlink()
    for broken, message in (
        ({"encoder.weight": whole["encoder.weight"].to_sparse()}, r"encoder\.weight: .* layout sparse_coo"),
        ({"b_dec": torch.zeros(M, device="meta")}, r"b_dec: found a tensor on the device meta"),
        ({"k": torch.tensor(float("nan"))}, r"k tensor\(nan\), expected one whole number"),
        ({"k": torch.tensor(float("inf"))}, r"k tensor\(inf\), expected one whole number"),
        ({"k": torch.tensor(2j)}, r"k: found torch\.complex64, expected real numbers"),
        ({"threshold": torch.zeros(2, device="meta")}, r"threshold: found a tensor on the device meta"),
        ({3: torch.zeros(2)}, r"tensor 3, expected .* and no other"),
    ):
        put(dictionary_learning, tmp_path, whole | broken)
        with pytest.raises(UserError, match=message):
            expander_sae.load(tmp_path)
    torch.save({0: torch.zeros(2)}, tmp_path / "ae.pt")
    with pytest.raises(UserError, match=r"no tensor b_dec, found 0"):
        expander_sae.load(tmp_path)


def test_a_folder_of_two_libraries_is_no_guess(tmp_path: Path) -> None:
    saelens.export(small(), tmp_path, say=False)
    dictionary_learning.export(small("dense"), tmp_path, say=False)
    with pytest.raises(UserError, match=r"found sae_weights\.safetensors and ae\.pt, expected one of them"):
        expander_sae.load(tmp_path)
