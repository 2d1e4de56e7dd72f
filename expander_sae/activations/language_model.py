"""A language model cut at a decoder layer: what is below it, and what is above it.

The residual stream of layer l is the output of decoder layer l, counted from 0.
"""

from __future__ import annotations

import string
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from expander_sae.activations.weights import check_shape, read_model, verify_weights
from expander_sae.errors import UserError, as_user_error
from expander_sae.machine.device import resolve_device


class _Reached(Exception):
    """Raised by a hook to end a forward pass at the deepest layer that is wanted."""


def tokenizer_of(record: dict[str, Any]) -> Any:
    """The tokenizer of a model record (`read_model`); the weights are not read.

    It cuts what is too long at the end: the start of a document is what near-duplicates are judged by.
    """
    from transformers import AutoTokenizer

    # The library raises dozens of kinds, as files are missing or of another form.
    with as_user_error(f"models[{record['name']}]: no readable tokenizer in {record['path']}"):
        tokenizer = AutoTokenizer.from_pretrained(
            record["path"], trust_remote_code=record["trust_remote_code"], local_files_only=True
        )
        tokens = tokenizer(string.printable, add_special_tokens=False)["input_ids"]
    if not tokens:  # of some architectures the library makes one without a vocabulary
        expected = "expected its files, such as tokenizer.json, beside the weights"
        raise UserError(f"models[{record['name']}]: no tokenizer in {record['path']}; {expected}")
    tokenizer.truncation_side = "right"
    return tokenizer


def decoder_layers(model: nn.Module, depth: int) -> nn.ModuleList:
    """The stack of `depth` decoder layers: the first of `layer_stacks`."""
    return layer_stacks(model, depth)[0]


def layer_stacks(model: nn.Module, depth: int) -> list[nn.ModuleList]:
    """Lists of `depth` modules that can be decoder layers, the likeliest first.

    Those of one type come before mixed ones, and outer ones before inner ones.
    """
    modules = sorted(model.named_modules(), key=lambda item: item[0].count("."))
    stacks = [module for _, module in modules if isinstance(module, nn.ModuleList) and len(module) == depth]
    found = [stack for stack in stacks if all(any(True for _ in layer.children()) for layer in stack)]
    if not found:
        raise UserError(
            f"models: {type(model).__name__} has no list of {depth} decoder layers; tested architectures "
            "are GPT-NeoX, Qwen2, Llama and GPT-2"
        )
    return sorted(found, key=lambda stack: len({type(layer) for layer in stack}) > 1)


class LanguageModel:
    """A causal language model in evaluation mode, without gradients or key-value cache.

    Batches are padded on the right. Attention is causal, so padding cannot reach the tokens before
    it and no attention mask is passed; what stands at padded positions is to be ignored. Whether a
    model is of this kind is tested by `language_model_checks`.
    """

    def __init__(self, model: nn.Module, record: dict[str, Any], device: torch.device) -> None:
        self.record = record
        self.label: str = record["label"]
        self.width: int = record["width"]
        self.depth: int = record["depth"]
        self.sha256: str = record["sha256"]
        self.device = device
        self.module: Any = model
        self.layers, self._form = self._stack()
        self.cut: frozenset[int] = frozenset()
        """Layers above which the model reads nothing but their output, as `check_model` has seen. For any
        other layer `logits_after` runs the whole model."""

    @classmethod
    def load(cls, model_json: str | Path, device: str | torch.device = "cpu") -> LanguageModel:
        """Load what `materialise` described; `load_checked` also tests it."""
        from transformers import AutoModelForCausalLM
        from transformers.utils import logging

        logging.disable_progress_bar()
        record = read_model(model_json)
        verify_weights(record, model_json)
        place = resolve_device(device, "compute.device")
        # Whole classes cannot be built from their own configuration, or need packages that are not there.
        with as_user_error(f"{model_json}: cannot load the model at {record['path']}"):
            loaded: Any = AutoModelForCausalLM.from_pretrained(
                record["path"],
                dtype=getattr(torch, record["dtype"]),
                trust_remote_code=record["trust_remote_code"],
                local_files_only=True,
                use_safetensors=True,  # never a pickle
                output_loading_info=True,
            )
        model, loading = loaded
        if loading["missing_keys"]:  # they would be random
            raise UserError(f"{model_json}: {record['path']} has no {min(loading['missing_keys'])}")
        check_shape(model.config, record, f"models[{record['name']}]")
        return cls(model.eval().requires_grad_(False).to(place), record, place)

    @property
    def tokenizer(self) -> Any:
        return tokenizer_of(self.record)

    @property
    def unembedding(self) -> Tensor:
        """Weight of the language model's head: [V, m]."""
        weight: Tensor = self.module.get_output_embeddings().weight
        return weight.detach()

    @property
    def dtype(self) -> torch.dtype:
        """In which the model computes."""
        return self._form.dtype

    @property
    def vocabulary(self) -> int:
        """Number of logits of a position."""
        return int(self.module.config.get_text_config().vocab_size)

    @cached_property
    def token_ids(self) -> int:
        """Number of token ids that the model embeds."""
        weight = getattr(self.module.get_input_embeddings(), "weight", None)
        return self.vocabulary if weight is None else int(weight.shape[0])

    def check_layers(self, layers: Sequence[int]) -> None:
        """Raise `UserError` for a layer that the model does not have."""
        for layer in layers:
            if not 0 <= layer < self.depth:
                expected = f"expected 0 to {self.depth - 1}"
                raise UserError(f"models[{self.record['name']}].layers: found {layer}, {expected}")

    @torch.inference_mode()
    def residual(self, ids: Tensor, layers: Sequence[int]) -> dict[int, Tensor]:
        """Residual stream after each of `layers`: ids int64[B,T] → {layer: float32[B,T,m]}.

        One forward pass that stops after the deepest layer.
        """
        self.check_layers(layers)
        deepest = max(layers)
        found: dict[int, Tensor] = {}

        def keep(layer: int) -> Any:
            def hook(module: nn.Module, inputs: Any, output: Any) -> None:
                states = self._hidden(output, layer, ids)
                # A copy, since a layer above may add to its input in place.
                found[layer] = states.to(torch.float32, copy=layer != deepest)
                if layer == deepest:
                    raise _Reached

            return hook

        with ExitStack() as stack:
            for layer in sorted(set(layers)):
                stack.callback(self.layers[layer].register_forward_hook(keep(layer)).remove)
            with suppress(_Reached):
                self.forward(ids)
        if skipped := sorted(set(layers) - found.keys()):
            raise UserError(
                f"models[{self.record['name']}]: layer {skipped[0]} of {type(self.module).__name__} does not "
                "run in a forward pass over text"
            )
        return found

    @torch.inference_mode()
    def logits_after(self, hidden: Tensor, layer: int, ids: Tensor) -> Tensor:
        """Logits [B,T,V] when `hidden` [B,T,m] is the residual stream after `layer`, and `ids` int64[B,T]
        the tokens.

        Where `layer` is in `cut`, only the layers above it, the final norm and the head are run, and `ids`
        gives shape and positions. Elsewhere all layers are, since some above read more than its output.
        """
        self.check_layers([layer])
        if tuple(hidden.shape) != (*ids.shape, self.width):
            raise ValueError(f"hidden has shape {tuple(hidden.shape)}, expected {(*ids.shape, self.width)}")
        replaced = self._cut_below if layer in self.cut else self._output_replaced
        # As a layer's own output is: models reshape it, and one vector for all tokens cannot be.
        with replaced(hidden.to(self.device).contiguous(), layer, ids):
            logits: Tensor = self.forward(ids).logits
            return logits

    def forward(self, ids: Tensor) -> Any:
        """What the model itself gives for ids int64[B,T]."""
        largest = int(ids.max()) if ids.numel() else 0
        if largest >= self.token_ids:
            raise UserError(
                f"models[{self.record['name']}]: found token id {largest}, expected less than "
                f"{self.token_ids}, what the model embeds; the tokenizer is not that of the model"
            )
        return self.module(input_ids=ids.to(self.device), use_cache=False)

    def _hidden(self, output: Any, layer: int, ids: Tensor) -> Tensor:
        """The hidden states [B,T,m] in what a layer returns; `UserError` where they are of another shape."""
        hidden = output[0] if isinstance(output, tuple | list) and output else output
        expected = (*ids.shape, self.width)
        if not isinstance(hidden, Tensor) or tuple(hidden.shape) != expected:
            found = list(hidden.shape) if isinstance(hidden, Tensor) else type(hidden).__name__
            raise UserError(
                f"models[{self.record['name']}]: layer {layer} of {type(self.module).__name__} gives "
                f"{found}, expected one tensor [batch, tokens, width] = {list(expected)}"
            )
        return hidden

    @contextmanager
    def _output_replaced(self, hidden: Tensor, layer: int, ids: Tensor) -> Iterator[None]:
        """Within the block `layer` returns `hidden` in place of what it computes."""

        def replace(module: nn.Module, inputs: Any, output: Any) -> Any:
            return with_states(output, hidden.to(self._hidden(output, layer, ids).dtype))

        handle = self.layers[layer].register_forward_hook(replace)
        try:
            yield
        finally:
            handle.remove()

    @contextmanager
    def _cut_below(self, hidden: Tensor, layer: int, ids: Tensor) -> Iterator[None]:
        """Within the block the layers up to `layer` compute nothing, and `layer` returns `hidden`."""
        form = self._form
        given = hidden.to(form.dtype)

        def formed(states: Tensor) -> Any:
            return states if form.entries is None else (states, *[None] * (form.entries - 1))

        def pass_through(states: Tensor, *_: Any, **__: Any) -> Any:
            return formed(states)

        def inject(*_: Any, **__: Any) -> Any:
            return formed(given)

        replaced = list(self.layers[: layer + 1])
        try:
            for module in replaced[:-1]:
                module.forward = pass_through  # type: ignore[method-assign]
            replaced[-1].forward = inject  # type: ignore[method-assign]
            yield
        finally:
            for module in replaced:
                module.__dict__.pop("forward", None)

    @torch.inference_mode()
    def _stack(self) -> tuple[nn.ModuleList, _Form]:
        """The decoder layers, those that one token passes through, and the form of what they return."""
        seen: list[_Form] = []

        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            several = isinstance(output, tuple | list)
            dtype = getattr(output[0] if several and output else output, "dtype", torch.float32)
            seen.append(_Form(len(output) if several else None, dtype))
            raise _Reached

        for stack in layer_stacks(self.module, self.depth):
            handle = stack[0].register_forward_hook(hook)
            what = f"a forward pass of {type(self.module).__name__} over one token fails"
            try:
                with as_user_error(f"models[{self.record['name']}]: {what}"), suppress(_Reached):
                    self.forward(torch.zeros(1, 1, dtype=torch.int64))
            finally:
                handle.remove()
            if seen:
                return stack, seen[0]
        raise UserError(
            f"models[{self.record['name']}]: no list of {self.depth} layers of {type(self.module).__name__} "
            "runs in its forward pass"
        )


def with_states(output: Any, hidden: Tensor) -> Any:
    """What a decoder layer returned, with other hidden states: a tensor, or the first of a tuple or list."""
    if hasattr(output, "_replace"):  # a named tuple, which is not made from one argument
        return output._replace(**{output._fields[0]: hidden})
    return type(output)((hidden, *output[1:])) if isinstance(output, tuple | list) else hidden


@dataclass(frozen=True)
class _Form:
    """What a decoder layer returns: the hidden states' dtype, and the entries of a tuple that they are in;
    None where they stand alone."""

    entries: int | None
    dtype: torch.dtype
