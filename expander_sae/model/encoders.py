"""The encoders that an autoencoder can have. No torch: configurations are checked with them."""

import warnings
from collections.abc import Mapping
from typing import Any

ENCODERS = ("tied", "warm_tied", "independent", "own_support", "full")
"""See `SparseAutoencoder`; the last two are for decoders on a mask only."""


def codes_of(about: Mapping[str, Any]) -> str:
    """The inference with whose codes a decoder was trained at the end, from what lies beside its weights."""
    spec = about.get("spec")
    return str(spec.get("codes", "encoder")) if isinstance(spec, Mapping) else "encoder"


def warn_if_spoilt(about: Mapping[str, Any]) -> None:
    """Say of a tied encoder whose decoder was trained with codes by a pursuit that it is of no use."""
    if (codes := codes_of(about)) != "encoder":
        found = f"a tied encoder of a decoder that was trained with codes by {codes}, which spoils it"
        warnings.warn(f"encoder: found {found}, expected inference {codes!r}", stacklevel=3)
