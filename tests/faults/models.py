"""Language models of every odd kind: each is refused in a line, or its numbers are right."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch

from expander_sae.activations.extraction import residuals
from expander_sae.activations.language_model import LanguageModel
from expander_sae.activations.language_model_checks import check_model
from expander_sae.activations.tokens import TokenRange
from expander_sae.errors import UserError
from expander_sae.evaluation.cross_entropy import spliced_sums
from tests import fake_models
from tests.faults.tally import Tally
from tests.faulty_models import FAULTS
from tests.odd_models import ODD

_ERROR = 1e-2
"""Relative error from which a number counts as wrong: far more than what is taken for rounding."""


def odd_models(count: int, seed: int) -> dict[str, Any]:
    """Sound models, and models with a fault of any strength, behind layers of every form."""
    tally = Tally("odd language models")
    for number in range(count):
        draw = random.Random(f"{seed}/{number}")
        fault = draw.choice((None, *FAULTS, *FAULTS))
        form = draw.choice((None, *ODD))
        strength = 10 ** draw.uniform(-5, 1)
        what = f"model {number} ({fault}, {form}, strength {strength:.2g})"
        try:
            wrong = _case(draw, fault, form, strength)
        except Exception as error:
            wrong = f"{type(error).__name__}: {error}"[:300]
        tally.fault(not wrong, f"{what}: {wrong}")
    return tally.as_dict()


def _case(draw: random.Random, fault: str | None, form: str | None, strength: float) -> str:
    """What is wrong with the answer to one model; nothing if it is right."""
    depth, seed = draw.choice((3, 4)), draw.randrange(1 << 30)
    fake = fake_models.Fake(depth=depth, seed=seed)
    if form:
        ODD[form][0](max(strength, 0.1))(fake)
    if fault:
        FAULTS[fault][0](strength)(fake)
    tokens = draw.randrange(4, 60)
    layers = sorted(draw.sample(range(depth), draw.choice((1, 1, 2))))
    try:
        model = fake_models.language_model(fake)
        model.cut = check_model(model, layers, tokens)
    except UserError as error:
        if not fault:
            return f"a sound model is refused: {error}"
        return (
            "" if str(error).startswith("models[fake]: ") and "\n" not in str(error) else f"unclear: {error}"
        )
    lengths = [tokens, *(draw.randrange(1, tokens + 1) for _ in range(5))]
    return _wrong_numbers(model, layers, lengths, seed, draw.choice((1, 64, 512)))


def _wrong_numbers(model: LanguageModel, layers: list[int], lengths: list[int], seed: int, batch: int) -> str:
    """The first number that is not that of a forward pass of one document alone."""
    pool, texts = fake_models.documents(fake_models.VOCABULARY, seed, lengths)
    given = TokenRange(pool.document, np.zeros(len(pool.document), np.int16), pool.token_id, 0)
    found = residuals(model, given, layers, batch, "odd models")
    for layer in layers:
        expected = torch.cat([_output(model, ids, layer) for ids in texts])
        activations = torch.from_numpy(found[layer])
        if not _near(activations, expected):
            return f"layer {layer} has wrong activations"
        mean = activations.mean(dim=0).expand_as(activations)
        for name, replacement in (("own", activations), ("zero", torch.zeros_like(mean)), ("mean", mean)):
            sums = spliced_sums(model, pool, replacement, layer, len(texts))[1]
            alone = fake_models.losses_one_by_one(model, texts, replacement, layer)
            if not np.allclose(sums, alone, rtol=_ERROR, atol=_ERROR):
                return f"cross-entropies at layer {layer} with {name} are {sums}, expected {alone}"
    return ""


@torch.inference_mode()
def _output(model: LanguageModel, ids: torch.Tensor, layer: int) -> torch.Tensor:
    """What a layer gives for a document alone, [T, m]."""
    seen: list[Any] = []
    handle = model.layers[layer].register_forward_hook(lambda *call: seen.append(call[2]))
    model.module(input_ids=ids[None], use_cache=False)
    handle.remove()
    output = seen[0][0] if isinstance(seen[0], tuple | list) else seen[0]
    return output[0].float()  # type: ignore[no-any-return]


def _near(found: torch.Tensor, expected: torch.Tensor) -> bool:
    errors = (found - expected).norm(dim=1)
    return bool((errors <= _ERROR * expected.norm(dim=1).clamp(min=1e-3)).all())
