"""Small language models that each break one property of `language_model_checks`, or only look odd.

A fault is a function that changes a sound model. The fault campaign draws its strength; the tests use 1.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from expander_sae.activations.language_model import LanguageModel
from expander_sae.rng import torch_generator

WIDTH, DEPTH, VOCABULARY, LIMIT = 8, 3, 40, 24


class Layer(nn.Module):
    """h + W · causal mean(h), with room for what a fault adds."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.mix = nn.Linear(width, width, bias=False)
        self.added: list[Callable[[Tensor, SimpleNamespace], Tensor]] = []
        self.formed: Callable[[Tensor], Any] = lambda hidden: hidden

    def forward(self, hidden: Tensor, seen: Any = None) -> Any:
        count = torch.arange(1, hidden.shape[1] + 1, dtype=hidden.dtype)
        mixed = torch.tanh(self.mix(hidden.cumsum(dim=1) / count[:, None]))
        for add in self.added:
            mixed = mixed + add(hidden, seen)
        return self.formed(hidden + mixed)


class Fake(nn.Module):
    """Embeds, runs its layers, and has a head; `main_input` is how layers are called."""

    def __init__(self, width: int = WIDTH, depth: int = DEPTH, seed: int = 0) -> None:
        super().__init__()
        sizes = {"vocab_size": VOCABULARY, "hidden_size": width, "num_hidden_layers": depth}
        self.config = SimpleNamespace(**sizes, pad_token_id=0)
        self.config.get_text_config = lambda: self.config
        self.embedding = nn.Embedding(VOCABULARY, width)
        self.layers = nn.ModuleList(Layer(width) for _ in range(depth))
        self.head = nn.Linear(width, VOCABULARY, bias=False)
        generator = torch_generator(seed, "fake model")
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=generator) / width**0.5)
        self.call: Callable[[nn.Module, Any, Any], Any] = lambda layer, hidden, seen: layer(hidden, seen)
        self.read: Callable[[Any, Tensor], Tensor] = lambda output, hidden: (
            output[0] if isinstance(output, tuple | list) else output
        )
        self.logits: Callable[[Tensor], Any] = lambda logits: logits

    def get_input_embeddings(self) -> nn.Embedding:
        return self.embedding

    def forward(self, input_ids: Tensor, use_cache: bool) -> SimpleNamespace:
        seen = SimpleNamespace(ids=input_ids, embedded=self.embedding(input_ids), shared={})
        hidden = seen.embedded
        for layer in self.layers:
            hidden = self.read(self.call(layer, hidden, seen), hidden)
        return SimpleNamespace(logits=self.logits(self.head(hidden)))


def language_model(model: Fake, name: str = "fake") -> LanguageModel:
    """The model as the project uses it."""
    about = {"width": model.config.hidden_size, "depth": model.config.num_hidden_layers, "sha256": ""}
    record = {"name": name, "label": name, "dtype": "float32", **about}
    return LanguageModel(model.eval().requires_grad_(False), record, torch.device("cpu"))


def _adds(at: int, add: Callable[[Tensor, SimpleNamespace], Tensor]) -> Callable[[Fake], None]:
    def change(model: Fake) -> None:
        model.layers[at].added.append(add)  # type: ignore[union-attr, operator]

    return change


def _forms(formed: Callable[[Tensor], Any]) -> Callable[[Fake], None]:
    def change(model: Fake) -> None:
        for layer in model.layers:
            layer.formed = formed  # type: ignore[assignment]

    return change


def documents(
    vocabulary: int, seed: int = 0, lengths: Sequence[int] = (6, 2, 9, 1, 9, 4)
) -> tuple[Any, list[Tensor]]:
    """(what `spliced_sums` asks of a pool of random documents, their ids)."""
    generator = torch_generator(seed, "fake documents")
    found = [torch.randint(1, vocabulary, (length,), generator=generator) for length in lengths]
    numbers = np.repeat(np.arange(len(found), dtype=np.int32), lengths)
    token_id = torch.cat(found).numpy().astype(np.int32)
    return SimpleNamespace(document=numbers, token_id=token_id, m=WIDTH, path="fake pool"), found


def losses_one_by_one(
    model: LanguageModel, texts: Sequence[Tensor], replacement: Tensor, layer: int
) -> list[float]:
    """Sums of next-token losses by an ordinary forward pass of each document, with a hook that replaces the
    layer's output by rows of `replacement`."""
    sums, start = [], 0
    for ids in texts:
        hidden = replacement[None, start : start + len(ids)]
        start += len(ids)

        def hook(module: nn.Module, inputs: Any, output: Any, hidden: Tensor = hidden) -> Any:
            if hasattr(output, "_replace"):
                return output._replace(hidden=hidden.contiguous())
            if isinstance(output, tuple | list):
                return type(output)([hidden.to(output[0].dtype), *output[1:]])
            return hidden.to(output.dtype).contiguous()

        handle = model.layers[layer].register_forward_hook(hook)
        logits = model.module(input_ids=ids[None], use_cache=False).logits[0, :-1].double()
        handle.remove()
        sums.append(functional.cross_entropy(logits, ids[1:], reduction="sum").item())
    return sums


Strong = Callable[[float], Callable[[Fake], None]]


def _unmasked(strength: float) -> Callable[[Fake], None]:
    return _adds(0, lambda h, _: strength * h.mean(dim=1, keepdim=True).expand_as(h))


def _sees_padding(strength: float) -> Callable[[Fake], None]:
    def add(h: Tensor, seen: SimpleNamespace) -> Tensor:
        return strength * (seen.ids == 0).float().mean(dim=1)[:, None, None].expand_as(h)

    return _adds(0, add)


def _normalised_over_the_batch(strength: float) -> Callable[[Fake], None]:
    return _adds(1, lambda h, _: -strength * h[:, :1].mean(dim=0, keepdim=True).expand_as(h))


def _limited_capacity(strength: float) -> Callable[[Fake], None]:
    """The expert takes the first half of all tokens of the batch that ask for it."""

    def add(h: Tensor, _: SimpleNamespace) -> Tensor:
        flat = h.reshape(-1, h.shape[-1])
        asks = flat[:, 0] > 0
        served = asks & (asks.cumsum(dim=0) <= len(flat) // 4)
        return (strength * torch.tanh(flat) * served[:, None]).reshape(h.shape)

    return _adds(0, add)


def _dynamic_length(strength: float) -> Callable[[Fake], None]:
    return _adds(0, lambda h, _: strength * h * max(0.0, h.shape[1] / LIMIT - 1))


def _random(strength: float) -> Callable[[Fake], None]:
    return _adds(0, lambda h, _: strength * torch.randn_like(h))


def _remembers(strength: float) -> Callable[[Fake], None]:
    """Counts its calls, as a cache that grows does."""
    calls: list[int] = []

    def add(h: Tensor, _: SimpleNamespace) -> Tensor:
        calls.append(1)
        return strength * h * len(calls)

    return _adds(0, add)


def _overflows(_: float) -> Callable[[Fake], None]:
    return _adds(1, lambda h, _: torch.full_like(h, torch.inf))


def _few_positions(_: float) -> Callable[[Fake], None]:
    table = nn.Embedding(LIMIT, 1)
    table.weight.data.zero_()
    return _adds(0, lambda h, _: table(torch.arange(h.shape[1]))[None].expand_as(h))


def _runs_twice(_: float) -> Callable[[Fake], None]:
    def change(model: Fake) -> None:
        model.call = lambda layer, h, seen: layer(layer(h, seen), seen)

    return change


def _transposed(_: float) -> Callable[[Fake], None]:
    def change(model: Fake) -> None:
        _forms(lambda h: h.transpose(0, 1))(model)
        model.read = lambda output, _: output.transpose(0, 1)

    return change


def _many_streams(_: float) -> Callable[[Fake], None]:
    def change(model: Fake) -> None:
        _forms(lambda h: h[:, :, None].expand(-1, -1, 4, -1))(model)
        model.read = lambda output, _: output[:, :, 0]

    return change


def _named_output(_: float) -> Callable[[Fake], None]:
    def change(model: Fake) -> None:
        _forms(lambda h: {"hidden": h})(model)
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
        inner = model.embedding.forward
        model.embedding.forward = lambda ids: inner(torch.cat([ids[:, :1], ids], dim=1))  # type: ignore

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

        _forms(formed)(model)
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


def _reads_ids_again(strength: float) -> Callable[[Fake], None]:
    return _adds(2, lambda _, seen: strength * seen.embedded)


def _shares_keys(strength: float) -> Callable[[Fake], None]:
    def change(model: Fake) -> None:
        def keep(h: Tensor, seen: SimpleNamespace) -> Tensor:
            seen.shared["keys"] = h
            return torch.zeros_like(h)

        _adds(0, keep)(model)
        _adds(2, lambda _, seen: strength * seen.shared["keys"])(model)

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
            _forms(formed)(model)

            def read(output: Any, _: Tensor) -> Tensor:
                hidden, *others = output
                assert len(others) == entries - 1
                if tensors:
                    assert all(isinstance(other, Tensor) for other in others)
                return hidden  # type: ignore[no-any-return]

            model.read = read

        return change

    return strong


class _Named(NamedTuple):
    hidden: Tensor
    other: None = None


def _named_tuple(_: float) -> Callable[[Fake], None]:
    def change(model: Fake) -> None:
        _forms(_Named)(model)
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
