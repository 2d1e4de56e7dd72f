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
from tests.interop.saelens_agreement import BATCH, entropy, of_tokens, residual, sequences, spliced

MOST = 500
"""Tokens that a probe of SAEBench's is fitted on with the label, and as many without it."""

Autoencoders = Mapping[str, expander_sae.SparseAutoencoder]


def wrapped(saes: Autoencoders, model: LanguageModel, layer: int) -> list[tuple[str, Any]]:
    """(name, autoencoder) as SAEBench takes them. Its folder of the model is `model.name` where it runs."""
    name = register(model)
    return [(key, SAEBenchAutoencoder(sae, name, layer)) for key, sae in saes.items()]


def register(model: LanguageModel) -> str:
    """Make the model's folder one that TransformerLens loads; it has a list of names, and takes no other."""
    from transformer_lens.supported_models import OFFICIAL_MODEL_NAMES

    name = str(model.record["name"])
    if not Path(name).exists():
        Path(name).symlink_to(Path(model.record["path"]).resolve(), target_is_directory=True)
    if name not in OFFICIAL_MODEL_NAMES:
        OFFICIAL_MODEL_NAMES.append(name)
    return name


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


def write_activations(
    h: Tensor, documents: Documents, families: Mapping[str, Family], folder: Path
) -> list[str]:
    """A file for each label and half of the documents, as SAEBench keeps a dataset's; their names.

    A token is a sequence of one. The label stands against as many other tokens, in both directions, and
    probes are fitted on one half and tested on the other.
    """
    folder.mkdir(parents=True)
    draw, names = np.random.default_rng(0), []
    for family in families.values():
        for index in range(len(family.names)):
            classes: list[dict[str, Tensor]] = []
            for half in (False, True):
                here = documents.odd == half
                label = family.label == index
                has, lacks = np.flatnonzero(here & label), np.flatnonzero(here & ~label)
                size = min(len(has), len(lacks), MOST)
                drawn = {"label": draw.permutation(has)[:size], "rest": draw.permutation(lacks)[:size]}
                classes.append({name: h[torch.from_numpy(rows)][:, None] for name, rows in drawn.items()})
            for half, other in ((0, 1), (1, 0)):
                names.append(f"{family.name}.{index}.{half}")
                stored = {"train": classes[half], "test": classes[other]}
                stored["llm_results"] = {"llm_test_accuracy": {"none": -1.0}}  # not asked for
                torch.save(stored, folder / f"{names[-1]}_activations.pt")
    return names


Scores = dict[tuple[str, str, int], float]
"""(autoencoder, family, features of a probe) → mean over the labels of the family."""


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
) -> Scores:
    """Our F1 on the other half of the documents."""
    found: Scores = {}
    for name, sae in saes.items():
        values = FeatureValues.of_code(encoded(sae, h.numpy()), sae.n)
        for family in families.values():
            for k, scores in probes(values, family, documents).items():
                found[name, family.name, k] = float(scores.mean()[0])
    return found


def probing_table(saes: Autoencoders, given: list[tuple[str, Any]], pool: Pool, labels: Path) -> list[str]:
    """Rows of Markdown: SAEBench's accuracy / our F1 of each autoencoder, and whether they rank alike."""
    kept = np.flatnonzero(next(iter(saes.values())).encoded(pool.activations, pool.norms).numpy())
    table = LabelTable.read(labels)
    table.check(pool.document, pool.position, pool.token_id)
    h, documents = torch.from_numpy(pool.activations[kept]), Documents.of(pool.document[kept])
    named = [family_of(name, table.columns[column][kept], documents) for name, column in FAMILIES.items()]
    families = {family.name: family for family in named if family.names}
    folder = Path("artifacts/sparse_probing") / given[0][1].cfg.model_name / given[0][1].cfg.hook_name
    with contextlib.redirect_stdout(io.StringIO()):
        theirs = probing(given, write_activations(h, documents, families, folder))
    mine = our_probing(saes, h, documents, families)
    lines = [f"| labels | k | {' | '.join(saes)} | same ranking |", "|---" * (len(saes) + 3) + "|"]
    for family in families.values():
        for k in SIZES:
            both = [[found[name, family.name, k] for name in saes] for found in (theirs, mine)]
            cells = [f"{accuracy:.3f} / {f1:.3f}" for accuracy, f1 in zip(*both, strict=True)]
            alike = "yes" if len({tuple(np.argsort(row)) for row in both}) == 1 else "no"
            told = f"{family.name} ({len(family.names)})"
            lines.append("| " + " | ".join((told, str(k), *cells, alike)) + " |")
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
            cells = (" ", f"{value:.6f}", " ")
            if told is not None:
                cells = (f"{told:.6f}", cells[1], f"{abs(value - told):.1e}")
            lines.append("| " + " | ".join((name, metric, *cells)) + " |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("model", type=Path, help="model.json of a finished run")
    parser.add_argument("corpus", type=Path, help="its folder of the corpus: with labels.parquet and layer*/")
    parser.add_argument("runs", type=Path, nargs="+", help="folders with weights, of one layer")
    parser.add_argument("--sequences", type=int, default=16, help="a multiple of 8")
    parser.add_argument("--length", type=int, default=128, help="tokens of a sequence")
    parser.add_argument("--only", choices=("core", "probing"))
    options = parser.parse_args()
    saes = {f"{run.parent.name} {run.name}": expander_sae.load(run) for run in options.runs}
    model = LanguageModel.load(options.model.resolve())
    layer = next(iter(saes.values())).about["spec"]["layer"]
    corpus = options.corpus.resolve()
    pool = Pool.open(corpus / f"layer{layer}/pool/ce.json")
    special = model.tokenizer.bos_token_id
    packages = ("sae-bench", "sae-lens", "transformer-lens", "transformers", "torch", "numpy", "scikit-learn")
    print("SAEBench:", ", ".join(f"{name} {version(name)}" for name in packages))
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        given = wrapped(saes, model, layer)
        if options.only != "probing":
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
