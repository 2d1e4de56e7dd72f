"""What SAEBench takes, without SAEBench."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from expander_sae.evaluation.label_families import Documents, Family
from expander_sae.interop.saebench import SAEBenchAutoencoder
from tests.interop.problems import K, M, N, activations, small
from tests.interop.saebench_agreement import whole_documents, write_activations


def test_its_config_takes_what_saebench_adds_and_goes_out_as_json() -> None:
    wrapped = SAEBenchAutoencoder(small("expander", "tied"), "tiny", 3)
    # As SAEBench 0.6.0 does before each evaluation.
    added: Any = wrapped.cfg
    added.metadata, added.architecture_str, added.exclude_special_tokens = object(), "topk", None
    told = json.loads(json.dumps(wrapped.cfg.to_dict()))
    assert told["activation_fn_kwargs"] == {"k": K} and "metadata" not in told
    assert (told["model_name"], told["hook_layer"], told["dtype"]) == ("tiny", 3, "float32")


@pytest.mark.parametrize("family", ["expander", "bernoulli", "dense"])
def test_it_computes_what_the_autoencoder_computes(family: str) -> None:
    sae, h = small(family, "independent"), activations()
    wrapped = SAEBenchAutoencoder(sae, "tiny", 3)
    code = wrapped.encode(h.reshape(10, 30, M))
    assert code.shape == (10, 30, N) and int((code != 0).sum(-1).max()) == K
    assert torch.allclose(wrapped(h), sae.decode(sae.encode(h)), atol=1e-5)
    assert wrapped.check_decoder_norms() and wrapped.cfg.hook_name == "blocks.3.hook_resid_post"
    assert (wrapped.cfg.d_in, wrapped.cfg.d_sae) == (M, N)
    assert wrapped.cfg.model_name == "tiny" and wrapped.cfg.model_from_pretrained_kwargs == {}
    half = wrapped.to(dtype=torch.bfloat16)
    assert half is wrapped and half.dtype == torch.bfloat16 and half.cfg.dtype == "bfloat16"
    assert half.decode(half.encode(h)).dtype == torch.bfloat16


def test_a_label_stands_against_as_many_other_tokens_on_either_half_of_the_documents(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    documents = Documents(np.repeat(np.arange(12), 10), 12)
    label = np.where(generator.random(120) < 0.9, generator.integers(0, 2, 120), -1)
    h = torch.arange(1.0, 121.0)[:, None].expand(120, M)
    names = write_activations(h, documents, {"kind": Family("kind", label, ("a", "b"))}, tmp_path / "new")
    assert names == ["kind.0.0", "kind.0.1", "kind.1.0", "kind.1.1"]
    for name in names:
        _, index, tested = name.split(".")
        found = torch.load(tmp_path / "new" / f"{name}_activations.pt")
        for split, odd in (("train", tested == "1"), ("test", tested == "0")):
            tokens = {key: (part[:, 0, 0] - 1).int().numpy() for key, part in found[split].items()}
            here = documents.odd == odd
            assert all(here[rows].all() and len(set(rows)) == len(rows) for rows in tokens.values())
            assert (label[tokens["label"]] == int(index)).all() and (
                label[tokens["rest"]] != int(index)
            ).all()
            has = int((here & (label == int(index))).sum())
            assert len(tokens["label"]) == len(tokens["rest"]) == min(has, int(here.sum()) - has)


def test_only_whole_documents_are_sequences() -> None:
    sizes = (4, 2, 4, 3, 4)
    pool: Any = SimpleNamespace(
        document=np.repeat((7, 9, 11, 20, 21), sizes), token_id=np.arange(sum(sizes), dtype=np.int32)
    )
    assert whole_documents(pool, 2, 4).tolist() == [[0, 1, 2, 3], [6, 7, 8, 9]]
    assert whole_documents(pool, 3, 4)[2].tolist() == [13, 14, 15, 16]
