"""What must be true of a language model for its numbers to mean what they say, tested on random tokens.

`residual` and `logits_after` take for granted that a layer's output is one tensor [B, T, m], that a
token's activation depends on the tokens before it and on nothing else of its batch, and that replacing
a layer's output is all that splicing does. Models break each of these: encoders see later tokens, rotary
embeddings of dynamic length and experts of limited capacity see the batch, layers share keys and values
or read token ids again. So each is tested against forward passes of the model's own, with plain hooks,
before anything is extracted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn

from expander_sae.activations.language_model import LanguageModel, with_states
from expander_sae.errors import UserError, explained, first_line
from expander_sae.rng import torch_generator

_SHORT = 19
"""Tokens of the short probe: a prime, so that no dimension is taken for another."""
_BATCH, _ROWS = 512, 16
"""Padded tokens and documents of the probe that is a batch, at most; but two documents at least."""
_DRAWS = 2
"""A property is broken if it is for so many draws of ids. Rounding can send one token to another expert."""
_NO_EFFECT = 1e-9
"""The relative change of the logits up to which a replaced output counts as unread."""
_TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 0.1}
"""The largest relative error that counts as rounding, by the dtype of the model. In float32 it is 1.5e-6 in
SmolLM2-135M."""


class _Broken(Exception):
    """A property does not hold; the message says which one, of which layer, and what was seen."""


def check_model(model: LanguageModel, layers: Sequence[int], tokens: int) -> frozenset[int]:
    """Test a model at these layers, on documents of up to `tokens` tokens.

    Returns:
        Those of `layers` above which the model reads nothing but their output, so that `logits_after` need
        not run what is below (`LanguageModel.cut`).

    Raises:
        UserError: one line with the model, the layer and the property that does not hold.
    """
    model.check_layers(layers)
    for draw in range(_DRAWS):
        try:
            return _Probe(model, sorted(set(layers)), max(tokens, 2), draw).run()
        except _Broken as broken:
            problem = broken
        except Exception as error:
            if explained(error):
                raise
            problem = _Broken(f"a forward pass over {tokens} tokens fails ({first_line(error)})")
    name = f"models[{model.record['name']}]"
    raise UserError(f"{name}: {type(model.module).__name__} cannot be used: {problem}") from None


class _Probe:
    """One draw of ids, and the model's answers to them."""

    def __init__(self, model: LanguageModel, layers: list[int], tokens: int, draw: int) -> None:
        self.model, self.layers, self.tokens = model, layers, tokens
        self.tolerance = _TOLERANCE.get(model.dtype, 1e-4)
        self._generator = torch_generator(draw, "language model checks")
        self._ids = _ordinary_ids(model)

    def run(self) -> frozenset[int]:
        self.form()
        for length in sorted({min(_SHORT, self.tokens), self.tokens}):
            self.batch(length)
        return frozenset(layer for layer in self.layers if self.splice(layer))

    def draw(self, rows: int, length: int) -> Tensor:
        """Random ids int64[rows, length]."""
        place = torch.randint(len(self._ids), (rows, length), generator=self._generator)
        return self._ids[place]

    def form(self) -> None:
        """Each layer runs once and gives one finite tensor [B, T, m]; `residual` finds it, twice the same."""
        ids = self.draw(2, min(_SHORT, self.tokens))
        outputs, logits = _traced(self.model, ids, self.layers)
        for layer in self.layers:
            if len(outputs[layer]) != 1:
                raise _Broken(
                    f"layer {layer} runs {len(outputs[layer])} times in a forward pass, expected once"
                )
        if logits is None or logits.ndim != 3 or logits.shape[:2] != ids.shape:
            found = None if logits is None else list(logits.shape)
            raise _Broken(
                f"its logits are {found}, expected [batch, tokens, vocabulary] of {list(ids.shape)}"
            )
        for _ in range(2):
            found_states = self.model.residual(ids, self.layers)
            for layer in self.layers:
                _finite(found_states[layer], f"layer {layer} has activations")
                same = f"two forward passes over the same tokens give layer {layer} other activations"
                self.compare(found_states[layer], outputs[layer][0], same, self.tolerance / 10)

    def batch(self, length: int) -> None:
        """A token's activation depends on the tokens before it and on nothing else in its batch.

        Seen at the deepest layer too, since cross-entropies depend on all of them.
        """
        layers = sorted({*self.layers, self.model.depth - 1})
        part, rows = max(1, length // 2), max(2, min(_BATCH // length, _ROWS))
        ids = self.draw(1, length)
        changed = torch.cat([ids[:, :part], self.draw(1, length - part)], dim=1)
        padded = torch.cat([ids[:, :part], torch.zeros(1, length - part, dtype=torch.int64)], dim=1)
        # Last, where experts of limited capacity are taken by what stands before: text, and mostly padding.
        others = self.draw(rows - 2, length)
        others[(rows - 2) // 2 :, 1:] = 0
        full = torch.cat([others, padded, ids])
        alone, later = (self.model.residual(given, layers) for given in (ids, changed))
        together, short = self.model.residual(full, layers), self.model.residual(ids[:, :part], layers)
        where = f"of a document of {length} tokens"
        for layer in layers:
            what = f"a token's activation at layer {layer}"
            whole, begun = alone[layer][0], alone[layer][0, :part]
            _finite(whole, f"layer {layer} has activations")
            self.compare(later[layer][0, :part], begun, f"{what} changes with the tokens after it, {where}")
            length_seen = f"{what} changes with the length of its document, {part} or {length} tokens"
            self.compare(short[layer][0], begun, length_seen)
            company = f"{what} changes with the other documents of its batch, {where}"
            self.compare(together[layer][-1], whole, company)
            self.compare(together[layer][-2, :part], begun, f"{what} changes with padding, {where}")

    def splice(self, layer: int) -> bool:
        """Splicing at a layer is a forward pass with its output replaced; whether what lies below can be left
        out of it."""
        model, ids = self.model, self.draw(2, min(_SHORT, self.tokens))
        own = model.residual(ids, [layer])[layer]
        mean = own.reshape(-1, model.width).mean(dim=0)
        constants = [torch.zeros_like(mean), mean]
        given = [own, *(vector.expand_as(own) for vector in constants)]
        expected = [_replaced(model, ids, layer, hidden) for hidden in given]
        expected[0] = torch.as_tensor(_traced(model, ids, [])[1])
        if _relative_error(expected[1], expected[0]) <= _NO_EFFECT:
            raise _Broken(f"replacing the output of layer {layer} changes no logits")

        def spliced() -> None:
            for hidden, logits in zip(given, expected, strict=True):
                self.compare(model.logits_after(hidden, layer, ids), logits, _SPLICED[hidden is own])

        def from_above() -> None:
            # As for cross-entropies: one document of any ids stands for all.
            nothing = torch.zeros_like(ids[:1])
            for vector, logits in zip(constants, expected[1:], strict=True):
                found = model.logits_after(vector.expand_as(own[:1]), layer, nothing)
                self.compare(found.expand_as(logits), logits, _SPLICED[False])

        before = model.cut
        try:
            model.cut = before | {layer}
            if _holds(spliced) and _holds(from_above):
                return True
            model.cut = before - {layer}
            spliced()
        except _Broken as broken:
            raise _Broken(f"layer {layer}: {broken}") from None
        finally:
            model.cut = before
        return False

    def compare(self, found: Tensor, expected: Tensor, what: str, tolerance: float | None = None) -> None:
        """Raise `_Broken` where two tensors [..., m] differ by more than rounding at some token."""
        error = _relative_error(found, expected)
        if not error <= (self.tolerance if tolerance is None else tolerance):
            raise _Broken(f"{what} (relative error {error:.2g})")


_SPLICED = {
    True: "splicing a layer's own output does not give the model's logits",
    False: "splicing a constant does not equal a forward pass with the layer's output replaced",
}


def _holds(test: Callable[[], None]) -> bool:
    """Whether a test neither finds anything broken nor fails, as a cut model can in any way."""
    try:
        test()
    except Exception as error:
        if not isinstance(error, _Broken) and explained(error) and not isinstance(error, UserError):
            raise  # too little memory
        return False
    return True


def _ordinary_ids(model: LanguageModel) -> Tensor:
    """The token ids int64[·] that stand for text and not for an image, a pad or an end."""
    named: set[int] = set()
    config = model.module.config
    for part in (config, config.get_text_config()):
        for key, value in vars(part).items():
            if key.endswith(("_token_id", "_token_index")):
                named.update(value if isinstance(value, list) else [value])
    count = min(model.vocabulary, model.token_ids)
    ordinary = [token for token in range(count) if token not in named]
    return torch.tensor(ordinary or range(count))


@torch.inference_mode()
def _traced(
    model: LanguageModel, ids: Tensor, layers: Iterable[int]
) -> tuple[dict[int, list[Tensor]], Tensor | None]:
    """What each layer gives, in the order of its calls, and the logits of a plain forward pass."""
    found: dict[int, list[Tensor]] = {layer: [] for layer in layers}

    def keep(layer: int) -> Any:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            states = output[0] if isinstance(output, tuple | list) else output
            found[layer].append(states.clone() if isinstance(states, Tensor) else states)

        return hook

    with ExitStack() as stack:
        for layer in found:
            stack.callback(model.layers[layer].register_forward_hook(keep(layer)).remove)
        logits = getattr(model.forward(ids), "logits", None)
    return found, logits if isinstance(logits, Tensor) else None


@torch.inference_mode()
def _replaced(model: LanguageModel, ids: Tensor, layer: int, hidden: Tensor) -> Tensor:
    """Logits of a forward pass over the true ids with `hidden` [B,T,m] in place of a layer's output."""

    def replace(module: nn.Module, inputs: Any, output: Any) -> Any:
        states = output[0] if isinstance(output, tuple | list) else output
        return with_states(output, hidden.to(states.dtype).contiguous())

    handle = model.layers[layer].register_forward_hook(replace)
    try:
        logits: Tensor = model.forward(ids).logits
        return logits
    finally:
        handle.remove()


def _finite(states: Tensor, what: str) -> None:
    if not bool(states.isfinite().all()):
        raise _Broken(f"{what} that are not finite")


def _relative_error(found: Tensor, expected: Tensor) -> float:
    """Largest error of a token's vector, relative to its norm, or to a thousandth of the largest norm."""
    norms = expected.float().norm(dim=-1)
    errors = (found.float() - expected.float()).norm(dim=-1) / norms.clamp(
        min=1e-3 * float(norms.max()) + 1e-30
    )
    return float(errors.max())
