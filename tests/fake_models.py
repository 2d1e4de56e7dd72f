"""A small sound language model, which others change, and its losses by ordinary forward passes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

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


def adds(at: int, add: Callable[[Tensor, SimpleNamespace], Tensor]) -> Callable[[Fake], None]:
    """Add something to what a layer gives."""

    def change(model: Fake) -> None:
        model.layers[at].added.append(add)  # type: ignore[union-attr, operator]

    return change


def forms(formed: Callable[[Tensor], Any]) -> Callable[[Fake], None]:
    """Give what all layers give another form."""

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
"""A change of a sound model, of the strength given: the fault campaign draws it, the tests use 1."""
