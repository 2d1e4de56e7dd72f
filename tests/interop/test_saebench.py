"""The object that SAEBench takes, without SAEBench."""

from __future__ import annotations

from dataclasses import asdict

import pytest
import torch

from expander_sae.interop.saebench import SAEBenchAutoencoder
from tests.interop.problems import K, M, N, activations, small


@pytest.mark.parametrize("family", ["expander", "bernoulli", "dense"])
def test_it_computes_what_the_autoencoder_computes(family: str) -> None:
    sae, h = small(family, "independent"), activations()
    wrapped = SAEBenchAutoencoder(sae, "tiny", 3)
    code = wrapped.encode(h.reshape(10, 30, M))
    assert code.shape == (10, 30, N) and int((code != 0).sum(-1).max()) == K
    assert torch.allclose(wrapped(h), sae.decode(sae.encode(h)), atol=1e-5)
    assert wrapped.check_decoder_norms() and wrapped.cfg.hook_name == "blocks.3.hook_resid_post"
    assert (wrapped.cfg.d_in, wrapped.cfg.d_sae) == (M, N)
    assert asdict(wrapped.cfg)["activation_fn_kwargs"] == {"k": K}, "SAEBench writes the config as JSON"
    assert wrapped.cfg.metadata.model_name == "tiny" and wrapped.cfg.model_from_pretrained_kwargs == {}
    half = wrapped.to(dtype=torch.bfloat16)
    assert half is wrapped and half.dtype == torch.bfloat16 and half.cfg.dtype == "bfloat16"
    assert half.decode(half.encode(h)).dtype == torch.bfloat16
