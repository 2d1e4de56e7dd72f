"""What a job costs beside the fitted tasks, and the ceiling that their inner loop is compared with."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from statistics import median

import numpy as np
import torch

from benchmarks import extraction
from expander_sae.activations.batching import batches
from expander_sae.activations.language_model import LanguageModel
from expander_sae.activations.pool import Pool, build_pool
from expander_sae.activations.shards import Rows, write_shard
from expander_sae.activations.tokens import TokenTable
from expander_sae.activations.weights import read_model
from expander_sae.cost.time_model import CPU_FILE
from expander_sae.evaluation.cross_entropy import spliced_sums
from expander_sae.machine.device import THREAD_VARIABLES
from expander_sae.machine.provenance import hardware
from expander_sae.masks.recipe import MaskRecipe
from expander_sae.stages import lineage
from expander_sae.storage.files import read_json
from expander_sae.study.recipes import RECIPES
from expander_sae.training.normalisation import normalisation

_LANES = 64  # 256 bytes in float32

_START = """
import torch
from expander_sae.training import run_folder
from expander_sae.model.autoencoder import SparseAutoencoder
from expander_sae.masks.recipe import MaskRecipe
from expander_sae.study.recipes import RECIPES
from expander_sae.training.step import TrainingState, train_step
model = SparseAutoencoder(64, 256, 8, MaskRecipe("expander", 64, 256, 4, 0).generate())
model.initialise(torch.Generator().manual_seed(0))
train_step(TrainingState.start(model, RECIPES["standard"], 0), torch.randn(64, 64), RECIPES["standard"])
"""
_START_MODEL = """
from transformers import AutoModelForCausalLM
from expander_sae.activations import extraction
from expander_sae.evaluation import runs
"""


def load_average() -> list[float] | None:
    """Processes that wanted to run in the last 1, 5 and 15 minutes."""
    try:
        return [round(value, 2) for value in os.getloadavg()]
    except (OSError, AttributeError):
        return None


def cores() -> int:
    """Cores that this process may use."""
    return int(hardware()["cores"])


def seconds(call: Callable[[], object], repeats: int = 3) -> float:
    """Median of a few calls."""
    taken = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        taken.append(time.perf_counter() - start)
    return median(taken)


def gather_flops(m: int = 576) -> float | None:
    """Operations a second of multiply-adds on gathered rows of 256 bytes, one thread, panel [m, 64] in L2.

    The fastest of some widths and repeats, so that the sums' own start and end weigh little. None
    without numba.
    """
    if find_spec("numba") is None:
        return None
    from numba import njit

    from expander_sae.kernels.numba_loops import score_block

    @njit(nogil=True)
    def sweep(values, rows, bias, panel, scores, maxima):  # type: ignore[no-untyped-def] # noqa: ANN001, ANN202
        score_block(values, rows, bias, panel, 0, rows.shape[0], scores, maxima, 0)

    random = np.random.default_rng(0)
    panel = random.standard_normal((m, _LANES), dtype=np.float32)
    best = 0.0
    for width in (32, 128, 512):
        n = (1 << 17) // width
        rows = random.integers(m, size=(n, width), dtype=np.int32)
        values = random.standard_normal((n, width), dtype=np.float32)
        arrays = values, rows, np.zeros(n, np.float32), panel
        scores, maxima = np.empty((n, _LANES), np.float32), np.empty((1, _LANES), np.float32)
        sweep(*arrays, scores, maxima)
        for _ in range(30):
            start = time.perf_counter()
            sweep(*arrays, scores, maxima)
            best = max(best, 2 * n * width * _LANES / (time.perf_counter() - start))
    return best


def constants(quick: bool) -> dict[str, float]:
    """`Machine.jobs`: measured where that takes seconds, else as shipped; all as shipped if `quick`.

    Not measured are corpus and corpus_token, which depend on the source, convert, layer_call and
    tables.
    """
    known: dict[str, float] = read_json(CPU_FILE)["jobs"]
    if quick:
        return known
    found = {"start": _process(_START), "start_model": _process(_START_MODEL)}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        found |= _pool_rates(folder)
        found |= _model_rates(folder)
    found["mask_entry"] = seconds(lambda: MaskRecipe("expander", 576, 4608, 100, 0).generate()) / 460_800
    return {**known, **found}


def _process(code: str) -> float:
    threads = dict.fromkeys(THREAD_VARIABLES, "1")
    run = [sys.executable, "-c", code]
    return seconds(lambda: subprocess.run(run, check=True, env={**os.environ, **threads}))


def _pool_rates(folder: Path, tokens: int = 16_384, m: int = 576) -> dict[str, float]:
    """shard_bytes, pool_bytes, read_bytes: from one shard of random activations."""
    shard, raw, manifest = folder / "train-00000.parquet", folder / "train.f32", folder / "train.json"
    number = np.arange(tokens, dtype=np.int32)
    activation = np.random.default_rng(0).standard_normal((tokens, m), dtype=np.float32)
    rows = Rows(number // 128, (number % 128).astype(np.int16), number, activation)
    about = {"model": "none", "model_sha256": "", "layer": 0, "split": "train", "shard": 0}
    about |= {"shard_tokens": tokens, "lineage": lineage("extraction")}

    def read() -> None:
        normalisation(Pool.open(manifest), tokens, RECIPES["standard"])

    size = tokens * m * 4
    return {
        "shard_bytes": size / seconds(lambda: write_shard(shard, rows, about)),
        "pool_bytes": size / seconds(lambda: build_pool([shard], "train", raw, manifest)),
        "read_bytes": size / seconds(read),
    }


def _model_rates(folder: Path, tokens: int = 1024) -> dict[str, float]:
    """load, forward_float32, logits: of the embedded language model; nothing where it is not installed.

    Parameters are those of the cost model, so that its estimates hold for this model.
    """
    from expander_sae.cost.memory_estimate import VOCABULARIES, ModelSize

    file = extraction.model_file(folder)
    record = read_model(file)
    if record["name"] != extraction.EMBEDDED:
        return {}
    size = ModelSize(record["width"], record["depth"], VOCABULARIES[record["name"]], record["dtype"])
    loading = seconds(lambda: LanguageModel.load(file))
    model = LanguageModel.load(file)
    extraction.write_random_tokens(folder / "tokens.parquet", tokens, model.vocabulary)
    given = TokenTable(folder / "tokens.parquet").read("train", 0, tokens)
    ready = list(batches(given.document, given.token_id, extraction.BATCH_TOKENS))
    layer = size.depth - 1

    def forward() -> None:
        for batch in ready:
            model.residual(batch.ids, [layer])

    forward()
    rate = 2 * size.depth * size.layer * tokens / seconds(forward)
    pool = _sequences(folder, given.document, given.token_id, size.width)
    hidden = torch.randn(tokens, size.width)
    documents = int(given.document[-1])  # the last one may be cut

    def splice() -> None:
        spliced_sums(model, pool, hidden[: int((given.document < documents).sum())], layer, documents)

    splice()
    heads = int((given.document < documents).sum()) * size.vocabulary
    return {"load": loading / size.parameters, "forward_float32": rate, "logits": heads / seconds(splice)}


def _sequences(folder: Path, document: np.ndarray, token_id: np.ndarray, m: int) -> Pool:
    """A pool of these documents with random activations."""
    shard, manifest = folder / "ce-00000.parquet", folder / "ce.json"
    tokens = len(document)
    activation = np.random.default_rng(0).standard_normal((tokens, m), dtype=np.float32)
    about = {"model": "none", "model_sha256": "", "layer": 0, "split": "ce", "shard": 0}
    about |= {"shard_tokens": tokens, "lineage": lineage("extraction")}
    write_shard(shard, Rows(document, np.zeros(tokens, np.int16), token_id, activation), about)
    build_pool([shard], "ce", folder / "ce.f32", manifest)
    return Pool.open(manifest)
