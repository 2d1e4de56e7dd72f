"""Language models that only look odd: their numbers are right."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from tests.fake_models import WIDTH, Fake, Layer, Strong, adds, forms


def _reads_ids_again(strength: float) -> Callable[[Fake], None]:
    return adds(2, lambda _, seen: strength * seen.embedded)


def _shares_keys(strength: float) -> Callable[[Fake], None]:
    def change(model: Fake) -> None:
        def keep(h: Tensor, seen: SimpleNamespace) -> Tensor:
            seen.shared["keys"] = h
            return torch.zeros_like(h)

        adds(0, keep)(model)
        adds(2, lambda _, seen: strength * seen.shared["keys"])(model)

    return change


def _by_keyword(_: float) -> Callable[[Fake], None]:
    def change(model: Fake) -> None:
        model.call = lambda layer, h, seen: layer(seen=seen, hidden=h)

    return change


def _tuple_with(entries: int, tensors: bool, kind: type = tuple) -> Strong:
    def strong(_: float) -> Callable[[Fake], None]:
        def formed(h: Tensor) -> Any:
            return kind([h, *(h.sum() if tensors else None for _ in range(entries - 1))])

        def change(model: Fake) -> None:
            forms(formed)(model)

            def read(output: Any, _: Tensor) -> Tensor:
                hidden: Tensor = output[0]
                others = output[1:]
                assert len(others) == entries - 1
                if tensors:
                    assert all(isinstance(other, Tensor) for other in others)
                return hidden

            model.read = read

        return change

    return strong


class _Named(NamedTuple):
    hidden: Tensor
    other: None = None


def _named_tuple(_: float) -> Callable[[Fake], None]:
    def change(model: Fake) -> None:
        forms(_Named)(model)
        model.read = lambda output, _: output.hidden

    return change


def _views_its_input(_: float) -> Callable[[Fake], None]:
    """The layers reshape what they are given without a copy, as one vector for all tokens cannot be."""

    def change(model: Fake) -> None:
        model.call = lambda layer, h, seen: layer(h.view(-1).view(h.shape), seen)

    return change


def _in_place(_: float) -> Callable[[Fake], None]:
    def change(model: Fake) -> None:
        def call(layer: Any, h: Tensor, seen: Any) -> Tensor:
            output = layer(h, seen)
            h += output - h
            return h

        model.call = call

    return change


def _another_dtype(_: float) -> Callable[[Fake], None]:
    """The layers compute in float64 above an embedding in float32."""

    def change(model: Fake) -> None:
        model.layers.double()
        model.head.double()
        model.call = lambda layer, h, seen: layer(h.double(), seen)
        model.logits = lambda logits: logits.float()

    return change


def _another_stack(_: float) -> Callable[[Fake], None]:
    """A list of as many layers that text does not pass through, as of a tower for images."""

    def change(model: Fake) -> None:
        layers = model.layers
        del model.layers
        model.images = nn.ModuleList(Layer(WIDTH) for _ in layers)
        model.layers = layers

    return change


def _mixed_stack(_: float) -> Callable[[Fake], None]:
    class Other(Layer):
        pass

    def change(model: Fake) -> None:
        model.layers[1].__class__ = Other

    return change


ODD: dict[str, tuple[Strong, bool]] = {
    "reads ids again": (_reads_ids_again, False),
    "shares keys": (_shares_keys, False),
    "called by keyword": (_by_keyword, False),
    "pair": (_tuple_with(2, False), True),
    "list of three": (_tuple_with(3, False, list), True),
    "tuple of tensors": (_tuple_with(3, True), False),
    "named tuple": (_named_tuple, False),
    "views its input": (_views_its_input, True),
    "in place": (_in_place, True),
    "another dtype": (_another_dtype, True),
    "another stack": (_another_stack, True),
    "mixed stack": (_mixed_stack, True),
}
"""Name → (change, whether the model can be cut). The numbers of these are right."""
