"""A language model cut at a decoder layer: what is below it, and what is above it.

The residual stream of layer l is the output of decoder layer l, counted from 0.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from expander_sae.activations.weights import check_shape, read_model, verify_weights
from expander_sae.errors import UserError, first_line
from expander_sae.machine.device import resolve_device


class _Reached(Exception):
    """Raised by a hook to end a forward pass at the deepest layer that is wanted."""


def tokenizer_of(record: dict[str, Any]) -> Any:
    """The tokenizer of a model record (`read_model`); the weights are not read.

    It cuts what is too long at the end: the start of a document is what near-duplicates are judged by.
    """
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(
            record["path"], trust_remote_code=record["trust_remote_code"], local_files_only=True
        )
        tokens = tokenizer("a", add_special_tokens=False)["input_ids"]
    except Exception as error:  # the library raises dozens of kinds, as files are missing or of another form
        found = f"no readable tokenizer in {record['path']} ({first_line(error)})"
        raise UserError(f"models[{record['name']}]: {found}") from None
    if not tokens:  # of some architectures the library makes one without a vocabulary
        expected = "expected its files, such as tokenizer.json, beside the weights"
        raise UserError(f"models[{record['name']}]: no tokenizer in {record['path']}; {expected}")
    tokenizer.truncation_side = "right"
    return tokenizer


def decoder_layers(model: nn.Module, depth: int) -> nn.ModuleList:
    """The stack of `depth` decoder layers: the outermost list of that many modules of one type."""
    modules = sorted(model.named_modules(), key=lambda item: item[0].count("."))
    for stack in (module for _, module in modules if isinstance(module, nn.ModuleList)):
        alike = len(stack) == depth and len({type(layer) for layer in stack}) == 1
        if alike and any(True for _ in stack[0].children()):
            return stack
    raise UserError(
        f"models: {type(model).__name__} has no list of {depth} decoder layers; tested architectures are "
        "GPT-NeoX, Qwen2, Llama and GPT-2"
    )


class LanguageModel:
    """A causal language model in evaluation mode, without gradients or key-value cache.

    Batches are padded on the right. Attention is causal, so padding cannot reach the tokens before
    it and no attention mask is passed; what stands at padded positions is to be ignored.
    """

    def __init__(self, model: nn.Module, record: dict[str, Any], device: torch.device) -> None:
        self.record = record
        self.label: str = record["label"]
        self.width: int = record["width"]
        self.depth: int = record["depth"]
        self.sha256: str = record["sha256"]
        self.device = device
        self._model: Any = model
        self._layers = decoder_layers(model, self.depth)
        self._dtype = next(model.parameters()).dtype
        self._layer_returns_tuple = self._probe_output()

    @classmethod
    def load(cls, model_json: str | Path, device: str | torch.device = "cpu") -> LanguageModel:
        """Load what `materialise` described."""
        from transformers import AutoModelForCausalLM
        from transformers.utils import logging

        logging.disable_progress_bar()
        record = read_model(model_json)
        verify_weights(record, model_json)
        place = resolve_device(device, "compute.device")
        try:
            loaded: Any = AutoModelForCausalLM.from_pretrained(
                record["path"],
                dtype=getattr(torch, record["dtype"]),
                trust_remote_code=record["trust_remote_code"],
                local_files_only=True,
                use_safetensors=True,  # never a pickle
                output_loading_info=True,
            )
        except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
            found = f"cannot load the model at {record['path']} ({first_line(error)})"
            raise UserError(f"{model_json}: {found}") from None
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
        weight: Tensor = self._model.get_output_embeddings().weight
        return weight.detach()

    @property
    def vocabulary(self) -> int:
        """Number of logits of a position."""
        return int(self._model.config.get_text_config().vocab_size)

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
                found[layer] = _hidden(output).float()
                if layer == deepest:
                    raise _Reached

            return hook

        with ExitStack() as stack:
            for layer in sorted(set(layers)):
                stack.callback(self._layers[layer].register_forward_hook(keep(layer)).remove)
            with suppress(_Reached):
                self._forward(ids)
        return found

    @torch.inference_mode()
    def logits_after(self, hidden: Tensor, layer: int, ids: Tensor) -> Tensor:
        """Logits [B,T,V] when `hidden` [B,T,m] is the residual stream after `layer`.

        Only the layers above `layer`, the final norm and the head are run; `ids` int64[B,T] gives
        shape and positions.
        """
        self.check_layers([layer])
        with self._replaced(hidden.to(self.device, self._dtype), layer):
            logits: Tensor = self._forward(ids).logits
            return logits

    def _forward(self, ids: Tensor) -> Any:
        return self._model(input_ids=ids.to(self.device), use_cache=False)

    @contextmanager
    def _replaced(self, hidden: Tensor, layer: int) -> Iterator[None]:
        """Within the block the layers up to `layer` compute nothing, and `layer` returns `hidden`."""

        def pass_through(states: Tensor, *_: Any, **__: Any) -> Any:
            return (states,) if self._layer_returns_tuple else states

        def inject(*_: Any, **__: Any) -> Any:
            return (hidden,) if self._layer_returns_tuple else hidden

        replaced = list(self._layers[: layer + 1])
        try:
            for module in replaced[:-1]:
                module.forward = pass_through  # type: ignore[method-assign]
            replaced[-1].forward = inject  # type: ignore[method-assign]
            yield
        finally:
            for module in replaced:
                module.__dict__.pop("forward", None)

    @torch.inference_mode()
    def _probe_output(self) -> bool:
        """Whether a decoder layer returns a tuple, seen on one token."""
        seen: list[bool] = []

        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            seen.append(isinstance(output, tuple))
            raise _Reached

        handle = self._layers[0].register_forward_hook(hook)
        with suppress(_Reached):
            self._forward(torch.zeros(1, 1, dtype=torch.int64))
        handle.remove()
        return seen[0]


def _hidden(output: Any) -> Tensor:
    hidden: Tensor = output[0] if isinstance(output, tuple) else output
    return hidden
