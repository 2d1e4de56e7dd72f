"""A language model that was tested before its first use, and the record of that beside `model.json`."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from expander_sae.activations.language_model import LanguageModel
from expander_sae.activations.language_model_checks import check_model
from expander_sae.activations.positions import check_context
from expander_sae.errors import UserError
from expander_sae.storage.seals import read_sealed_json, write_sealed_json

RECORD = "self_test.json"
"""Where the result lies, beside `model.json`."""

_VERSION = 1
"""Of the tests: raise it when a model that passed could fail, or the other way round."""


def load_checked(
    model_json: str | Path, layers: Sequence[int], tokens: int, device: str | torch.device = "cpu"
) -> LanguageModel:
    """Load what `materialise` described, tested at `layers` on documents of up to `tokens` tokens.

    The tests are those of `check_model`. Their result is kept beside `model_json`, and holds for these files,
    this software and this kind of device: layers that passed on documents as long are not tested again.

    Raises:
        UserError: the model has fewer positions, or one line with the property that does not hold.
    """
    model = LanguageModel.load(model_json, device)
    model.check_layers(layers)
    check_context(tokens, model.record)
    path, of = Path(model_json).parent / RECORD, _identity(model)
    known = _known(path, of)
    missing = [layer for layer in layers if known.get(layer, (0, False))[0] < tokens]
    if missing:
        cut = check_model(model, missing, tokens)
        known |= {layer: (tokens, layer in cut) for layer in missing}
        # Where nothing can be written, the next job tests again.
        with suppress(OSError):
            found = {str(layer): {"tokens": n, "cut": is_cut} for layer, (n, is_cut) in known.items()}
            write_sealed_json(path, {**of, "layers": found})
    model.cut = frozenset(layer for layer in layers if known[layer][1])
    return model


def _identity(model: LanguageModel) -> dict[str, Any]:
    """What a result holds for."""
    import transformers

    software = {"torch": torch.__version__, "transformers": transformers.__version__}
    return {
        "model_sha256": model.sha256,
        "device": model.device.type,
        "software": software,
        "version": _VERSION,
    }


def _known(path: Path, of: dict[str, Any]) -> dict[int, tuple[int, bool]]:
    """Layer → (tokens that it passed on, whether the model can be cut there), as recorded of the same.

    A record that is damaged, or of something else, counts as none, and is written anew.
    """
    try:
        record = read_sealed_json(path, (*of, "layers"), "self-test")
        if any(record[key] != value for key, value in of.items()):
            return {}
        return {int(at): (int(one["tokens"]), one["cut"] is True) for at, one in record["layers"].items()}
    except (UserError, AttributeError, TypeError, ValueError, KeyError):
        return {}
