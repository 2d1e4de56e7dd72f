"""The object that SAEBench takes, without SAEBench."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch

from expander_sae.interop.saebench import SAEBenchAutoencoder
from tests.interop.problems import K, M, N, activations, small


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
