"""Language models that each break one property of `language_model_checks`."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace

import torch
from torch import Tensor, nn

from tests.fake_models import LIMIT, Fake, Strong, adds, forms


def _unmasked(strength: float) -> Callable[[Fake], None]:
    return adds(0, lambda h, _: strength * h.mean(dim=1, keepdim=True).expand_as(h))


def _sees_padding(strength: float) -> Callable[[Fake], None]:
    def add(h: Tensor, seen: SimpleNamespace) -> Tensor:
        return strength * (seen.ids == 0).float().mean(dim=1)[:, None, None].expand_as(h)

    return adds(0, add)


def _normalised_over_the_batch(strength: float) -> Callable[[Fake], None]:
    return adds(1, lambda h, _: -strength * h[:, :1].mean(dim=0, keepdim=True).expand_as(h))


def _limited_capacity(strength: float) -> Callable[[Fake], None]:
    """The expert takes the first half of all tokens of the batch that ask for it."""

    def add(h: Tensor, _: SimpleNamespace) -> Tensor:
        flat = h.reshape(-1, h.shape[-1])
        asks = flat[:, 0] > 0
        served = asks & (asks.cumsum(dim=0) <= len(flat) // 4)
        return (strength * torch.tanh(flat) * served[:, None]).reshape(h.shape)

    return adds(0, add)


def _dynamic_length(strength: float) -> Callable[[Fake], None]:
    return adds(0, lambda h, _: strength * h * max(0.0, h.shape[1] / LIMIT - 1))


def _random(strength: float) -> Callable[[Fake], None]:
    return adds(0, lambda h, _: strength * torch.randn_like(h))


def _remembers(strength: float) -> Callable[[Fake], None]:
    """Counts its calls, as a cache that grows does."""
    calls: list[int] = []

    def add(h: Tensor, _: SimpleNamespace) -> Tensor:
        calls.append(1)
        return strength * h * len(calls)

    return adds(0, add)


def _overflows(_: float) -> Callable[[Fake], None]:
    return adds(1, lambda h, _: torch.full_like(h, torch.inf))


def _few_positions(_: float) -> Callable[[Fake], None]:
    table = nn.Embedding(LIMIT, 1)
    table.weight.data.zero_()
    return adds(0, lambda h, _: table(torch.arange(h.shape[1]))[None].expand_as(h))


def _runs_twice(_: float) -> Callable[[Fake], None]:
    def change(model: Fake) -> None:
        model.call = lambda layer, h, seen: layer(layer(h, seen), seen)

    return change


def _transposed(_: float) -> Callable[[Fake], None]:
    def change(model: Fake) -> None:
        forms(lambda h: h.transpose(0, 1))(model)
        model.read = lambda output, _: output.transpose(0, 1)

    return change


def _many_streams(_: float) -> Callable[[Fake], None]:
    def change(model: Fake) -> None:
        forms(lambda h: h[:, :, None].expand(-1, -1, 4, -1))(model)
        model.read = lambda output, _: output[:, :, 0]

    return change


def _named_output(_: float) -> Callable[[Fake], None]:
    def change(model: Fake) -> None:
        forms(lambda h: {"hidden": h})(model)
        model.read = lambda output, _: output["hidden"]

    return change


def _skips(_: float) -> Callable[[Fake], None]:
    """The last layer is for images alone."""

    def change(model: Fake) -> None:
        model.call = lambda layer, h, seen: h if layer is model.layers[-1] else layer(h, seen)

    return change


def _longer(_: float) -> Callable[[Fake], None]:
    """A token is added before the text, as a learned prompt is."""

    def change(model: Fake) -> None:
        def longer(_: nn.Module, given: tuple[Tensor]) -> Tensor:
            return torch.cat([given[0][:, :1], given[0]], dim=1)

        model.embedding.register_forward_pre_hook(longer)

    return change


def _last_logits(_: float) -> Callable[[Fake], None]:
    def change(model: Fake) -> None:
        model.logits = lambda logits: logits[:, -1:]

    return change


def _no_logits(_: float) -> Callable[[Fake], None]:
    def change(model: Fake) -> None:
        model.logits = lambda logits: None

    return change


def _unread(_: float) -> Callable[[Fake], None]:
    """What stands above reads a copy that the layer leaves elsewhere, and not its output."""

    def change(model: Fake) -> None:
        kept: list[Tensor] = []

        def formed(hidden: Tensor) -> Tensor:
            kept.append(hidden)
            return hidden.clone()

        forms(formed)(model)
        model.read = lambda output, _: kept.pop()

    return change


FAULTS: dict[str, tuple[Strong, str]] = {
    "without causal mask": (_unmasked, "changes with the tokens after it"),
    "sees padding": (_sees_padding, "changes with padding|changes with the tokens after it"),
    "normalised over the batch": (
        _normalised_over_the_batch,
        "changes with the other documents of its batch",
    ),
    "limited capacity": (_limited_capacity, "changes with"),
    "dynamic length": (_dynamic_length, "changes with the length of its document"),
    "random": (_random, "two forward passes over the same tokens"),
    "remembers": (_remembers, "two forward passes over the same tokens"),
    "overflows": (_overflows, "activations that are not finite"),
    "few positions": (_few_positions, "a forward pass over 40 tokens fails .IndexError"),
    "runs twice": (_runs_twice, "layer 1 runs 2 times in a forward pass"),
    "transposed": (_transposed, "gives .*, expected one tensor .batch, tokens, width."),
    "many streams": (_many_streams, r"gives .2, 19, 4, 8., expected one tensor"),
    "named output": (_named_output, "gives dict, expected one tensor"),
    "skips a layer": (_skips, "layer 2 of Fake does not run in a forward pass over text"),
    "a token more": (_longer, r"its logits are .2, 20, 40., expected .* of .2, 19."),
    "last logits": (_last_logits, "its logits are"),
    "no logits": (_no_logits, "its logits are None"),
    "unread": (_unread, "replacing the output of layer 1 changes no logits"),
}
"""Name → (fault, what the refusal says)."""
