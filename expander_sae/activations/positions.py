"""How many positions a language model has, read from its configuration.

Imports nothing of the model's library, since planning asks too.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from expander_sae.errors import UserError

_KEYS = ("max_position_embeddings", "n_positions", "max_target_positions", "max_seq_len", "n_ctx")
"""Names that architectures give the number of positions, the most common first."""


def positions_of(config: Any) -> int | None:
    """Positions that `config.json` states; None where it states none, as of models without position
    embeddings. Where it has a part for text, as of models that also see images, that part counts."""
    if not isinstance(config, Mapping):
        return None
    parts = (config.get("text_config"), config.get("decoder"), config)
    for part in (part for part in parts if isinstance(part, Mapping)):
        for key in _KEYS:
            found = part.get(key)
            if isinstance(found, int) and not isinstance(found, bool) and found > 0:
                return found
    return None


def positions_in(folder: Path) -> int | None:
    """`positions_of` the model saved in `folder`; None where it has no readable `config.json`."""
    try:
        return positions_of(json.loads((folder / "config.json").read_text(encoding="utf-8")))
    except (OSError, ValueError, RecursionError):
        return None


def context_error(context: int, positions: int | None, model: str) -> str | None:
    """What is wrong with documents of `context` tokens for a model with these positions; None if nothing."""
    if positions is None or context <= positions:
        return None
    return f"corpus.context: found {context}, expected at most {positions} (positions of model {model})"


def check_context(context: int, record: Mapping[str, Any]) -> None:
    """Raise `UserError` where the model of a record (`read_model`) has fewer positions than `context`."""
    if wrong := context_error(context, positions_in(Path(record["path"])), record["name"]):
        raise UserError(wrong)
