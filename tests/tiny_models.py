"""Tiny language models with random weights and a tiny tokenizer, saved as on the Hub."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from expander_sae.activations.weights import materialise
from expander_sae.rng import torch_generator

WIDTH, DEPTH, VOCABULARY, POSITIONS = 16, 3, 64, 256
ARCHITECTURES = ("gpt_neox", "qwen2", "llama", "gpt2")

_SHARED = {
    "vocab_size": VOCABULARY,
    "hidden_size": WIDTH,
    "num_hidden_layers": DEPTH,
    "num_attention_heads": 4,
    "intermediate_size": 32,
    "max_position_embeddings": POSITIONS,
    "bos_token_id": 0,
    "eos_token_id": 0,
}


def tiny_model(architecture: str) -> Any:
    """A model of 3 layers of width 16 whose weights are large enough to make every layer matter."""
    if architecture == "gpt_neox":
        model: Any = GPTNeoXForCausalLM(GPTNeoXConfig(**_SHARED))
    elif architecture == "qwen2":
        model = Qwen2ForCausalLM(Qwen2Config(**_SHARED, num_key_value_heads=2))
    elif architecture == "llama":
        model = LlamaForCausalLM(LlamaConfig(**_SHARED, num_key_value_heads=2, tie_word_embeddings=True))
    else:
        sizes = {"n_embd": WIDTH, "n_layer": DEPTH, "n_head": 4, "n_inner": 32, "n_positions": POSITIONS}
        model = GPT2LMHeadModel(GPT2Config(vocab_size=VOCABULARY, bos_token_id=0, eos_token_id=0, **sizes))
    generator = torch_generator(0, f"tiny {architecture}")
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.copy_(0.25 * noise + (1.0 if parameter.dim() == 1 else 0.0))
    return model.eval()


def tiny_tokenizer() -> PreTrainedTokenizerFast:
    """One token a character: 0 is padding and unknown, 1 to 63 are printable ASCII."""
    characters = [chr(code) for code in range(32, 32 + 2 * VOCABULARY)]
    kept = [c for c in characters if c.islower() or c in " .,()\n"][: VOCABULARY - 1]
    vocabulary = {"<unk>": 0, **{character: place for place, character in enumerate(kept, start=1)}}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>", pad_token="<unk>")


def save_tiny_model(folder: Path, architecture: str = "llama") -> Path:
    """Save model and tokenizer into `folder` and return it."""
    tiny_model(architecture).save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


def tiny_spec(folder: Path, architecture: str = "llama", **changes: Any) -> dict[str, Any]:
    """The model spec of a saved tiny model."""
    spec = {
        "name": f"tiny-{architecture}",
        "label": f"tiny-{architecture}",
        "source": "folder",
        "location": str(folder),
        "revision": None,
        "width": WIDTH,
        "depth": DEPTH,
        "dtype": "float32",
        "trust_remote_code": False,
    }
    return {**spec, **changes}


def tiny_model_json(folder: Path, architecture: str = "llama", **changes: Any) -> Path:
    """Save a tiny model below `folder` and write its `model.json` there."""
    spec = tiny_spec(save_tiny_model(folder / "weights", architecture), architecture, **changes)
    materialise(spec, folder / "weights", folder / "model.json")
    return folder / "model.json"
