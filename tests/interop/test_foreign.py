"""Folders that cannot be imported: what is wrong is named, and nothing is taken for what it is not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import expander_sae
from expander_sae.errors import UserError
from expander_sae.interop import dictionary_learning, saelens, sparsify
from tests.interop.problems import M, N, small

MODULES = (saelens, sparsify, dictionary_learning)


def edited(path: Path, **changes: Any) -> None:
    """Change entries of a JSON file; `...` removes one."""
    config = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({key: value for key, value in config.items() if value is not ...}))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"k": ...}, "cfg.json: k None, expected a whole number"),
        ({"k": None}, "cfg.json: k None, expected a whole number"),
        ({"k": True}, "cfg.json: k True, expected a whole number"),
        ({"k": 0}, "k 0, expected 1 to n = 48"),
        ({"k": N + 1}, "k 49, expected 1 to n = 48"),
        ({"signed": True}, "cfg.json: signed True, expected False"),
        ({"activation": "groupmax"}, "cfg.json: activation 'groupmax', expected 'topk'"),
        ({"transcode": True}, "cfg.json: transcode True, expected False"),
        ({"expander_sae": []}, "the record of the mask is damaged"),
        ({"expander_sae": {"encoder": "tied", "mask": [1]}}, "the record of the mask is damaged"),
        (
            {"expander_sae": {"encoder": "tied", "mask": None, "about": 3}},
            "the record of the mask is damaged",
        ),
    ],
)
def test_a_sparsify_folder_that_is_not_ours_is_named(
    changes: dict[str, Any], message: str, tmp_path: Path
) -> None:
    sparsify.export(small(), tmp_path, say=False)
    edited(tmp_path / "cfg.json", **changes)
    with pytest.raises(UserError, match=message):
        sparsify.load(tmp_path)


@pytest.mark.parametrize("name", ["saelens", "sparsify", "dictionary_learning"])
def test_a_configuration_must_be_a_mapping(name: str, tmp_path: Path) -> None:
    module: Any = {module.__name__.split(".")[-1]: module for module in MODULES}[name]
    module.export(small(), tmp_path, say=False)
    (tmp_path / module.CONFIG).write_text("[1]")
    with pytest.raises(UserError, match=rf"{module.CONFIG}: found list, expected a mapping"):
        module.load(tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mask": ...}, "cfg.json: mask None, expected a mapping"),
        ({"mask": {"recipe": {}}}, "cfg.json: sha256 None, expected a text"),
        ({"mask": {"recipe": {}, "sha256": ""}}, "cfg.json: mask recipe {}, expected the keys"),
        ({"encoder": ...}, "cfg.json: encoder None, expected a text"),
        ({"encoder": "full"}, "cfg.json: encoder 'full', expected one of tied, warm_tied, independent"),
        ({"d_in": ...}, "cfg.json: d_in None, expected a whole number"),
        ({"d_sae": 2 * N}, "cfg.json: d_in 16, d_sae 96, expected those of the biases"),
        ({"k": N + 1}, "cfg.json: k: found 49, expected 1 to n = 48"),
        ({"norm_limit": "no"}, "cfg.json: norm_limit 'no', expected a number or null"),
        ({"metadata": "no"}, "cfg.json: metadata 'no', expected a mapping"),
        ({"metadata": {"expander_sae": 1}}, "cfg.json: expander_sae 1, expected a mapping"),
        ({"metadata": {"expander_sae": {"about": 1}}}, "cfg.json: about 1, expected a mapping"),
    ],
)
def test_a_compact_folder_that_is_not_ours_is_named(
    changes: dict[str, Any], message: str, tmp_path: Path
) -> None:
    saelens.export(small(), tmp_path, compact=True, say=False)
    edited(tmp_path / "cfg.json", **changes)
    with pytest.raises(UserError, match=message):
        saelens.load(tmp_path)


def test_a_compact_recipe_is_compared_with_the_tensors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saelens.export(small(), tmp_path, compact=True, say=False)
    config = json.loads((tmp_path / "cfg.json").read_text())
    config["mask"]["recipe"]["n"] = 4_000_000
    edited(tmp_path / "cfg.json", **config)
    monkeypatch.setattr(expander_sae.MaskRecipe, "generate", lambda *_: pytest.fail("a mask was made"))
    with pytest.raises(UserError, match=r"cfg.json: a mask of m = 16, n = 4000000, d = 5 beside tensors"):
        saelens.load(tmp_path)


def test_shapes_that_do_not_belong_together_are_named(tmp_path: Path) -> None:
    for compact, name, message in (
        (True, "values", r"m = 16, n = 48, d = 5 beside tensors of .* and 5 decoder values"),
        (True, "encoder_values", r"encoder_values of shape \[1, 5\], expected \[48, 5\]"),
        (False, "W_dec", r"encoder of shape \[48, 16\] beside a decoder of \[1, 16\]"),
        (False, "W_enc", r"encoder of shape \[48, 1\] beside a decoder of \[48, 16\]"),
        (False, "b_dec", r"b_dec of shape \[1\] beside"),
        (False, "b_enc", r"b_enc of shape \[1\] beside"),
    ):
        saelens.export(small(encoder="independent"), tmp_path, compact=compact, say=False)
        path = tmp_path / "sae_weights.safetensors"
        stored = load_file(path)
        save_file(stored | {name: stored[name][:1].clone()}, path)
        with pytest.raises(UserError, match=message):
            saelens.load(tmp_path)


def test_a_limit_that_saelens_scaled_is_the_one_in_use(tmp_path: Path) -> None:
    saelens.export(small(norm_limit=7.5), tmp_path, compact=True, say=False)
    edited(tmp_path / "cfg.json", norm_limit=2.5)
    assert saelens.load(tmp_path).about == {"norm_limit": 2.5}


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.__name__.split(".")[-1])
def test_activations_of_another_kind_are_named_before_anything_is_written(
    module: Any, tmp_path: Path
) -> None:
    for given, message in (
        (torch.zeros(5, M + 1), r"activations: found shape \[5, 17\], expected \[N, m = 16\]"),
        (torch.zeros(M), r"activations: found shape \[16\], expected"),
        ([[0.0] * M], "activations: found list, expected a tensor or a numpy array"),
    ):
        with pytest.raises(UserError, match=message):
            module.export(small(), tmp_path / "out", given, say=False)
    assert not (tmp_path / "out").exists()


def dictionary(folder: Path, config: Any, threshold: float | None) -> None:
    """A folder of dictionary_learning that we did not write."""
    dictionary_learning.export(small("dense"), folder, say=False)
    stored = torch.load(folder / "ae.pt", weights_only=True)
    stored.pop("threshold")
    torch.save(
        stored | ({} if threshold is None else {"threshold": torch.tensor(threshold)}), folder / "ae.pt"
    )
    (folder / "config.json").unlink()
    if config is not None:
        (folder / "config.json").write_text(json.dumps(config))


@pytest.mark.parametrize(
    ("config", "threshold", "message"),
    [
        (
            {"trainer": {"dict_class": "IdentityDict"}},
            0.5,
            "dict_class 'IdentityDict', expected one of AutoEnc",
        ),
        ({"trainer": {"dict_class": "BatchTopKSAE"}}, None, "no tensor threshold"),
        ({"trainer": {"dict_class": "BatchTopKSAE"}}, 0.5, None),
        ({"trainer": {"trainer_class": "BatchTopKTrainer"}}, -1.0, None),
        ({"trainer": {}}, 0.5, r"ae\.pt: a threshold of 0\.5 and no class, expected config\.json"),
        ({}, 0.0, r"ae\.pt: a threshold of 0 and no class"),
        (None, 0.5, r"ae\.pt: a threshold of 0\.5 and no class, .* a BatchTopKSAE has the same tensors"),
        ({"trainer": 3}, -1.0, r"config\.json: trainer 3, expected a mapping"),
        (None, -1.0, None),
        (None, None, None),
        ({"trainer": {"dict_class": "AutoEncoderTopK"}}, 0.5, None),
    ],
)
def test_a_threshold_without_a_class_is_no_guess(
    config: Any, threshold: float | None, message: str | None, tmp_path: Path
) -> None:
    dictionary(tmp_path, config, threshold)
    if message is None:
        found = expander_sae.load(tmp_path)
        assert found.about == {"imported": "dictionary_learning"}
        assert found.counts_vary == ("BatchTopK" in str(config))
    else:
        with pytest.raises(UserError, match=message):
            expander_sae.load(tmp_path)


def test_a_file_of_other_things_than_tensors_is_named(tmp_path: Path) -> None:
    for stored, message in (
        ([torch.zeros(3)], "no tensor b_dec"),
        ({"k": 4}, "no tensor b_dec"),
        (torch.zeros(3), "no tensor b_dec"),
    ):
        torch.save(stored, tmp_path / "ae.pt")
        with pytest.raises(UserError, match=message):
            dictionary_learning.load(tmp_path)
    for content in (b"", b"PK", b"\x80\x02]q\x00.", b"garbage"):
        (tmp_path / "ae.pt").write_bytes(content)
        with pytest.raises(UserError, match=r"ae\.pt: "):
            dictionary_learning.load(tmp_path)
