"""Tensors worked out once from a tensor that stays, and forgotten with it."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Hashable
from typing import Any, TypeVar

from torch import Tensor

T = TypeVar("T")


class PerTensor:
    """A memory of what was derived from a tensor, by the tensor's identity.

    Nothing keeps the source alive; an entry goes when its source does, and is worked out anew
    where the source was written to (its version counter has moved).
    """

    def __init__(self) -> None:
        self._held: dict[int, tuple[weakref.ref[Tensor], int, dict[Hashable, Any]]] = {}

    def get(self, source: Tensor, key: Hashable, make: Callable[[], T]) -> T:
        """What `make` returned when it was first called for this source and key."""
        if source.is_inference():  # such tensors do not say when they are written to
            return make()
        name = id(source)
        entry = self._held.get(name)
        if entry is None or entry[0]() is not source or entry[1] != source._version:
            forget = weakref.ref(source, lambda gone: self._forget(name, gone))
            entry = (forget, source._version, {})
            self._held[name] = entry
        if key not in entry[2]:
            entry[2][key] = make()
        return entry[2][key]

    def _forget(self, name: int, gone: weakref.ref[Tensor]) -> None:
        entry = self._held.get(name)
        if entry is not None and entry[0] is gone:
            del self._held[name]

    def __len__(self) -> int:
        return len(self._held)
