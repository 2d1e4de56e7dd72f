"""The same autoencoders measured by SAEBench and by us: its core evaluation, and its sparse probes.

    make saebench  # or, in SAEBench's environment:
    python -m tests.interop.saebench_agreement results/MODEL/model.json results/…/pool/test.json RUN_FOLDER…

Needs sae-bench. SAEBench's own entry points run: they read the model, the sequences and the labelled
activations from a temporary folder, and what is compared stands in the JSON files that they write.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import tempfile
from collections import defaultdict
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

import expander_sae
from expander_sae.activations.label_table import FAMILIES, LabelTable
from expander_sae.activations.language_model import LanguageModel
from expander_sae.activations.pool import Pool
from expander_sae.evaluation.cross_entropy import recovered
from expander_sae.evaluation.feature_values import FeatureValues
from expander_sae.evaluation.label_families import Documents, Family, family_of
from expander_sae.evaluation.probing import SIZES, probes
from expander_sae.evaluation.subject import encoded
from expander_sae.interop.saebench import SAEBenchAutoencoder
from expander_sae.model.dictionary import SparseCode
from tests.interop.saelens_agreement import BATCH, entropy, of_tokens, residual, sequences, spliced

MOST = 500
"""Tokens that a probe of SAEBench's is fitted on with the label, and as many without it."""

Autoencoders = Mapping[str, expander_sae.SparseAutoencoder]


def wrapped(saes: Autoencoders, model: LanguageModel, layer: int) -> list[tuple[str, Any]]:
    """(name, autoencoder) as SAEBench takes them, and the model's folder where TransformerLens finds it."""
    from transformer_lens.supported_models import OFFICIAL_MODEL_NAMES  # it takes no other name

    name = str(model.record["name"])
    Path(name).symlink_to(Path(model.record["path"]).resolve(), target_is_directory=True)
    OFFICIAL_MODEL_NAMES.append(name)
    return [(key, SAEBenchAutoencoder(sae, name, layer)) for key, sae in saes.items()]


def prepare() -> None:
    """What SAEBench 0.6.0 needs here: no questions to the Hub, and shapes that its type checks accept."""
    os.environ["HF_HUB_OFFLINE"] = "1"
    # They expect as many activations of one class as of the two of a probe, and refuse every probe.
    os.environ["JAXTYPING_DISABLE"] = "1"
    from sae_lens.training import activations_store

    # It asks the Hub which tokenizer made a dataset, also of a dataset in a folder.
    activations_store.validate_pretokenized_dataset_tokenizer = lambda **_: None


def core(saes: list[tuple[str, Any]], ids: Tensor, out: str) -> dict[str, dict[str, float]]:
    """Name → SAEBench's core metrics on sequences int64 [S, T], from the files that it writes."""
    from sae_bench.evals.core.main import multiple_evals

    Path(out).mkdir()
    pd.DataFrame({"tokens": list(ids.numpy())}).to_parquet(f"{out}/train.parquet")
    multiple_evals(
        saes,
        n_eval_reconstruction_batches=len(ids) // BATCH,
        n_eval_sparsity_variance_batches=len(ids) // BATCH,
        eval_batch_size_prompts=BATCH,
        compute_featurewise_density_statistics=True,  # without both, 0.6.0 writes no file
        compute_featurewise_weight_based_metrics=True,
        exclude_special_tokens_from_reconstruction=True,
        dataset=out,
        context_size=ids.shape[1],
        output_folder=f"{out}_results",
        device="cpu",
    )
    return {name: _flat(Path(f"{out}_results") / f"{name}_custom_sae_eval_results.json") for name, _ in saes}


def _flat(path: Path) -> dict[str, float]:
    groups = json.loads(path.read_text())["eval_result_metrics"]
    return {key: value for group in groups.values() for key, value in group.items()}


def our_core(
    saes: Autoencoders, model: LanguageModel, ids: Tensor, layer: int, special: int
) -> dict[str, dict[str, float]]:
    """Name → ours by SAEBench's definitions, and our own, on the same sequences int64 [S, T].

    Where sequences begin with the special token, it is spliced as it is and what it predicts is left out.
    Our own pass tokens over the norm limit through, where these are others.
    """
    hidden = residual(model, ids, layer)
    kept, skip = ids != special, bool((ids == special).any())
    zero, clean = (entropy(model, ids, part, layer, skip) for part in (torch.zeros_like(hidden), hidden))
    found = {}
    for name, sae in saes.items():
        rebuilt, limit = spliced(sae, hidden, kept), sae.encoded(hidden.reshape(-1, sae.m)).reshape(ids.shape)
        measured = of_tokens(sae, hidden[kept])
        found[name] = {
            "ce_loss_score": recovered(zero, entropy(model, ids, rebuilt, layer, skip), clean),
            "l0": measured["l0"],
            "cossim": measured["cossim"],
            **by_their_formulas(hidden[kept], rebuilt[kept], int(kept[:BATCH].sum())),
            "R²": measured["explained_variance"],
        }
        if not torch.equal(limit, kept):
            passed = entropy(model, ids, spliced(sae, hidden, limit), layer, skip)
            inside = of_tokens(sae, hidden[limit])
            own = {"CE recovered": recovered(zero, passed, clean), "R²": inside["explained_variance"]}
            found[name] |= {f"{key}, {int((~limit).sum())} passed through": own[key] for key in own}
    return found


def by_their_formulas(hidden: Tensor, rebuilt: Tensor, batch: int) -> dict[str, float]:
    """What SAEBench 0.6.0 calls mse, explained_variance and its legacy, of tokens [N, m], `batch` a batch."""
    error = (hidden - rebuilt).square().sum(1)
    deviation = (hidden - hidden.mean(0)).square().sum(1)
    squares = hidden.square()
    # From the second moment should go the squared means; what goes is the square of its mean over dimensions.
    wrong = squares.sum(1).mean() - squares.mean() ** 2
    return {
        "mse": float(error.mean()) / batch,
        "explained_variance": 1 - float(error.mean() / wrong),
        "explained_variance_legacy": 1 - float((error / deviation).mean()),
    }


def drawn(
    documents: Documents, families: Mapping[str, Family]
) -> dict[tuple[str, int, bool], list[np.ndarray]]:
    """(family, label, half) → tokens of that half of the documents with the label, and as many others."""
    draw, found = np.random.default_rng(0), {}
    for name, family in families.items():
        for index, odd in product(range(len(family.names)), (False, True)):
            here, label = documents.odd == odd, family.label == index
            both = [draw.permutation(np.flatnonzero(here & told)) for told in (label, ~label)]
            size = min(MOST, *map(len, both))
            found[name, index, odd] = [rows[:size] for rows in both]
    return found


def write_activations(
    h: Tensor, documents: Documents, families: Mapping[str, Family], folder: Path
) -> list[str]:
    """A file for each label and half of the documents, as SAEBench keeps a dataset's; their names.

    A token is a sequence of one. Probes are fitted on one half and tested on the other.
    """
    folder.mkdir(parents=True)
    tokens, names = drawn(documents, families), []
    for family, index, odd in tokens:
        stored: dict[str, Any] = {"llm_results": {"llm_test_accuracy": {"none": -1.0}}}  # not asked for
        for split, half in (("train", odd), ("test", not odd)):
            rows = zip(("label", "rest"), tokens[family, index, half], strict=True)
            stored[split] = {told: h[torch.from_numpy(part)][:, None] for told, part in rows}
        names.append(f"{family}.{index}.{int(odd)}")
        torch.save(stored, folder / f"{names[-1]}_activations.pt")
    return names


Scores = dict[tuple[str, str, int], float]  # (autoencoder, family, size of a probe) → mean over its labels


def probing(saes: list[tuple[str, Any]], names: Sequence[str]) -> Scores:
    """SAEBench's test accuracies."""
    from sae_bench.evals.sparse_probing.eval_config import SparseProbingEvalConfig
    from sae_bench.evals.sparse_probing.main import run_eval

    config = SparseProbingEvalConfig(
        model_name=saes[0][1].cfg.model_name,
        dataset_names=list(names),
        llm_dtype="float32",
        k_values=list(SIZES),
        lower_vram_usage=True,  # no probe of all features, which takes minutes on a CPU
    )
    run_eval(config, saes, "cpu", "probing_results", artifacts_path="artifacts")
    found: dict[tuple[str, str, int], list[float]] = defaultdict(list)
    for name, _ in saes:
        told = json.loads(Path(f"probing_results/{name}_custom_sae_eval_results.json").read_text())
        for detail in told["eval_result_details"]:
            for k in SIZES:
                key = (name, detail["dataset_name"].split(".")[0], k)
                found[key].append(detail[f"sae_top_{k}_test_accuracy"])
    return {key: float(np.mean(values)) for key, values in found.items()}


def our_probing(
    saes: Autoencoders, h: Tensor, documents: Documents, families: Mapping[str, Family]
) -> tuple[Scores, Scores]:
    """Of our probes: F1 on all tokens, and accuracy on those that SAEBench's see."""
    f1: Scores = {}
    accuracy: dict[tuple[str, str, int], list[float]] = defaultdict(list)
    tokens = drawn(documents, families)
    for name, sae in saes.items():
        code = encoded(sae, h.numpy())
        values = FeatureValues.of_code(code, sae.n)
        for family in families.values():
            for k, scores in probes(values, family, documents).items():
                f1[name, family.name, k] = float(scores.mean()[0])
        for family_name, index, _ in (key for key in tokens if not key[2]):
            parts = [part for odd in (False, True) for part in tokens[family_name, index, odd]]
            rows, sizes = torch.from_numpy(np.concatenate(parts)), [len(part) for part in parts]
            few = FeatureValues.of_code(SparseCode(code.index[rows], code.value[rows]), sae.n)
            one = Family(family_name, np.repeat((0, -1, 0, -1), sizes), ("label",))
            halves = Documents(np.repeat((0, 0, 1, 1), sizes), 2)
            for k, scores in probes(few, one, halves).items():
                wrong = scores.fired + scores.has - 2 * scores.hits
                accuracy[name, family_name, k].append(1 - float(wrong.sum()) / len(rows))
    return f1, {key: float(np.mean(values)) for key, values in accuracy.items()}


def probing_table(saes: Autoencoders, given: list[tuple[str, Any]], pool: Pool, labels: Path) -> list[str]:
    """Rows of Markdown: each score of each autoencoder."""
    kept = np.flatnonzero(next(iter(saes.values())).encoded(pool.activations, pool.norms).numpy())
    table = LabelTable.read(labels)
    table.check(pool.document, pool.position, pool.token_id)
    h, documents = torch.from_numpy(pool.activations[kept]), Documents.of(pool.document[kept])
    named = [family_of(name, table.columns[column][kept], documents) for name, column in FAMILIES.items()]
    families = {family.name: family for family in named if family.names}
    folder = Path("artifacts/sparse_probing") / given[0][1].cfg.model_name / given[0][1].cfg.hook_name
    with contextlib.redirect_stdout(io.StringIO()):
        theirs = probing(given, write_activations(h, documents, families, folder))
    f1, accuracy = our_probing(saes, h, documents, families)
    scores = {"SAEBench's accuracy": theirs, "our accuracy": accuracy, "our F1": f1}
    lines = [f"| labels | k | score | {' | '.join(saes)} |", "|---" * (len(saes) + 3) + "|"]
    groups = {f"{name} ({len(family.names)})": [name] for name, family in families.items()}
    for (group, part), k, told in product([*groups.items(), ("mean", [*families])], SIZES, scores):
        cells = [f"{np.mean([scores[told][name, family, k] for family in part]):.4f}" for name in saes]
        lines.append("| " + " | ".join((group, str(k), told, *cells)) + " |")
    return [f"probing: {len(kept)} tokens of {documents.count} documents", *lines]


def whole_documents(pool: Pool, count: int, length: int) -> Tensor:
    """int64 [count, length]: the pool's first documents of so many tokens."""
    documents = Documents.of(pool.document)
    full = np.flatnonzero(np.bincount(documents.index) == length)[:count]
    ids = pool.token_id[np.isin(documents.index, full)].astype(np.int64)
    return torch.from_numpy(ids).reshape(count, length)


def core_table(mine: dict[str, dict[str, float]], theirs: dict[str, dict[str, float]]) -> list[str]:
    """Rows of Markdown: what both measured, and what only we did."""
    lines = ["| autoencoder | metric | SAEBench | ours | difference |", "|---|---|---|---|---|"]
    for name, found in mine.items():
        for metric, value in found.items():
            told = theirs[name].get(metric)
            other = ("", "") if told is None else (f"{told:.6f}", f"{abs(value - told):.1e}")
            lines.append(f"| {name} | {metric} | {other[0]} | {value:.6f} | {other[1]} |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("model", type=Path, help="model.json of a finished run")
    parser.add_argument("corpus", type=Path, help="its folder of the corpus: with labels.parquet and layer*/")
    parser.add_argument("runs", type=Path, nargs="+", help="folders with weights, of one layer")
    parser.add_argument("--sequences", type=int, default=8, help="a multiple of 8")
    parser.add_argument("--length", type=int, default=128, help="tokens of a sequence")
    parser.add_argument("--only", choices=("core", "probing"))
    options = parser.parse_args()
    saes = {f"{run.parent.name} {run.name}": expander_sae.load(run) for run in options.runs}
    model = LanguageModel.load(options.model.resolve())
    layer = next(iter(saes.values())).about["spec"]["layer"]
    corpus = options.corpus.resolve()
    packages = ("sae-bench", "sae-lens", "transformer-lens", "transformers", "torch", "numpy", "scikit-learn")
    print("SAEBench:", ", ".join(f"{name} {version(name)}" for name in packages))
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        given = wrapped(saes, model, layer)
        if options.only != "probing":
            pool, special = Pool.open(corpus / f"layer{layer}/pool/ce.json"), model.tokenizer.bos_token_id
            stream = sequences(pool, special, options.sequences, options.length)
            documents = whole_documents(pool, options.sequences, options.length)
            for name, ids in (("behind a special token", stream), ("documents as they are", documents)):
                theirs = core(given, ids, name.split()[0])
                mine = our_core(saes, model, ids, layer, special)
                print(f"core, {name}: {ids.shape[0]} sequences of {ids.shape[1]} tokens")
                print("\n".join(core_table(mine, theirs)), flush=True)
        if options.only != "core":
            test = Pool.open(corpus / f"layer{layer}/pool/test.json")
            print("\n".join(probing_table(saes, given, test, corpus / "labels.parquet")))


if __name__ == "__main__":
    prepare()
    main()
