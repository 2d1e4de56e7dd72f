"""Time, peak memory and disk of a million and of ten million tokens, each task in a process of its own.

    python -m benchmarks.token_scale --json benchmarks/results/scale.json

A synthetic corpus of 128 words a document, a tenth of them near-copies, and a random model of width 64.
`corpus`: from texts to the token table. `extraction`: shards of 524,288 tokens, one after the other.
`training`: n = 512, d = 7, k = 8, batches of 1,024, on these shards as they are read, each token once. Rows
of other tasks in the file are kept.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from importlib import import_module
from pathlib import Path
from typing import Any

from benchmarks.scale import Row, peak_mb, save

SIZES = (1_000_000, 10_000_000)
WIDTH, DEPTH, LAYER, VOCABULARY, CONTEXT = 64, 1, 0, 8192, 128
SHARD, BUFFER, BATCH = 1 << 19, 1 << 17, 1024
_NEEDED_SHARD = 1 << 16


def write_texts(path: Path, tokens: int) -> None:
    """Documents of 128 words with more tokens than all splits want; every tenth is two thirds of another."""
    draw = random.Random(0)
    words = [f"w{number:x}" for number in range(VOCABULARY - 1)]
    earlier: list[list[str]] = []
    with path.open("w") as lines:
        for number in range(round(1.6 * (tokens + 20 * _NEEDED_SHARD) / CONTEXT)):
            text = draw.choices(words, k=CONTEXT)
            if number % 10 == 9:
                text[: 2 * CONTEXT // 3] = draw.choice(earlier)[: 2 * CONTEXT // 3]
            earlier = [*earlier[-999:], text]
            lines.write(json.dumps({"text": " ".join(text)}) + "\n")


def write_model(folder: Path) -> Path:
    """model.json of a random model with a token for each word."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    from expander_sae.activations.weights import materialise
    from expander_sae.rng import torch_generator

    config = LlamaConfig(
        hidden_size=WIDTH,
        num_hidden_layers=DEPTH,
        vocab_size=VOCABULARY,
        num_attention_heads=4,
        intermediate_size=2 * WIDTH,
        tie_word_embeddings=True,
    )
    model, generator = LlamaForCausalLM(config), torch_generator(0, "benchmark")
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(0.2 * torch.randn(parameter.shape, generator=generator))
    model.save_pretrained(folder / "weights")
    vocabulary = {"<unk>": 0, **{f"w{number:x}": number + 1 for number in range(VOCABULARY - 1)}}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>").save_pretrained(folder / "weights")
    spec = {"name": "random", "label": "random", "source": "folder", "location": str(folder / "weights")}
    spec |= {"revision": None, "width": WIDTH, "depth": DEPTH, "dtype": "float32", "trust_remote_code": False}
    materialise(spec, folder / "weights", folder / "model.json")
    return folder / "model.json"


def corpus(folder: Path, tokens: int) -> None:
    from expander_sae.activations.corpus import write_tokens

    spec = {"name": "words", "label": "words", "source": "files", "location": str(folder / "texts.jsonl")}
    spec |= {"revision": None, "subset": None, "split": "train", "column": "text", "licence": "none"}
    spec |= {"context": CONTEXT, "min_tokens": 4, "max_overlap": 0.2, "data_seed": 0}
    needs = {"train": tokens, "test": 4096, "ce": 8, "shard": _NEEDED_SHARD}
    write_tokens(spec, needs, folder / "model.json", folder / "tokens.parquet", folder / "corpus.json")


def extraction(folder: Path, tokens: int) -> None:
    from expander_sae.activations.extraction import extract_shard

    for shard in range(-(-tokens // SHARD)):
        out = {LAYER: folder / "shards" / f"train-{shard:05d}.parquet"}
        extract_shard(folder / "model.json", folder / "tokens.parquet", "train", shard, SHARD, out)


def training(folder: Path, tokens: int) -> None:
    from expander_sae.activations.shard_list import list_shards
    from expander_sae.masks.recipe import write_mask
    from expander_sae.study.recipes import resolve
    from expander_sae.study.run import Run
    from expander_sae.training.run_folder import RunFiles, train_runs

    label, recipe = resolve("tuned", {"stream": BUFFER, "batch_size": BATCH})
    sizes = {"m": WIDTH, "n": 8 * WIDTH, "d": 7}
    write_mask({"family": "expander", **sizes, "seed": 0}, folder / "mask.json")
    steps = tokens // BATCH
    run = Run(
        "random", "words", LAYER, label, "expander", "tied", *sizes.values(), 8, tokens, steps, 0, recipe
    )
    list_shards(sorted((folder / "shards").glob("train-*")), "train", folder / "train.shards.json", {})
    train_runs([RunFiles(run, folder / "run", folder / "mask.json")], folder / "train.shards.json")


TASKS = {"corpus": corpus, "extraction": extraction, "training": training}


def _measured(name: str, folder: Path, tokens: int) -> Row:
    """The row of a task that runs here."""
    for module in (
        "activations.extraction",
        "training.run_folder",
    ):  # before the memory that they take is read
        import_module(f"expander_sae.{module}")
    base, start, spent = peak_mb(), time.perf_counter(), time.process_time()
    TASKS[name](folder, tokens)
    seconds, spent = time.perf_counter() - start, time.process_time() - spent
    written = sum(path.stat().st_size for path in folder.glob("shards/*"))
    others = sum(path.stat().st_size for path in folder.glob("*.f32"))
    row = {"task": name, "tokens": tokens, "peak_mb": peak_mb(), "imports_mb": base, "seconds": seconds}
    row |= {"cpu_seconds": spent}
    return row | {"activation_bytes": written + others}


def rows_of(tokens: int, names: list[str]) -> list[Row]:
    """The rows of these tasks at one size; each is printed as it comes."""
    found = []
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        write_texts(folder / "texts.jsonl", tokens)
        write_model(folder)
        for name in names:
            command = [sys.executable, "-m", "benchmarks.token_scale", "--task", name, "--folder", made]
            done = subprocess.run(
                [*command, "--tokens", str(tokens)], check=True, stdout=subprocess.PIPE, text=True
            )
            found.append(json.loads(done.stdout))
            print(found[-1], flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--task", choices=TASKS, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--tokens", type=int, nargs="+", default=SIZES, help="sizes (default: %(default)s)")
    parser.add_argument("--tasks", choices=TASKS, nargs="+", default=[*TASKS], help="each needs those before")
    parser.add_argument("--json", type=Path, help="file to write the rows to, beside those of other tasks")
    options = parser.parse_args()
    if options.task:
        print(json.dumps(_measured(options.task, options.folder, options.tokens[0])))
        return
    rows: list[dict[str, Any]] = [row for tokens in options.tokens for row in rows_of(tokens, options.tasks)]
    if options.json:
        save(rows, options.json)


if __name__ == "__main__":
    main()
