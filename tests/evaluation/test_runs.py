"""Evaluation of a run end to end on a tiny language model, and which runs a job does again."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from expander_sae.activations.extraction import extract_shard
from expander_sae.activations.language_model import LanguageModel
from expander_sae.activations.pool import Pool, build_pool
from expander_sae.activations.tokens import TokenizedDocument, write_token_table
from expander_sae.errors import UserError
from expander_sae.evaluation.cross_entropy import spliced_sums, write_baseline
from expander_sae.evaluation.runs import DOCUMENTS, METRICS, evaluate_run
from expander_sae.masks.recipe import MaskRecipe
from expander_sae.measurements import tables
from expander_sae.model.autoencoder import SparseAutoencoder
from expander_sae.pursuit.inference import inferences
from expander_sae.rng import torch_generator
from expander_sae.storage.files import write_json
from expander_sae.study.recipes import RECIPES, Recipe
from expander_sae.study.run import Evaluation, Run
from tests.tiny_models import VOCABULARY, WIDTH, tiny_model_json

sys.path.append(str(Path(__file__).parents[2] / "workflow" / "scripts"))
import pending

LAYER, SEQUENCES, LIMIT = 1, 5, 9.0
SETTINGS = Evaluation(("encoder", "omp"), ("encoder", "omp"), 30, SEQUENCES, train_cross_entropy=True)


def columns(**changes: Any) -> dict[str, Any]:
    base = {"model": "tiny", "corpus": "text", "layer": LAYER, "recipe": "standard", "support": "expander"}
    base |= {"encoder": "tied", "m": WIDTH, "n": 64, "d": 4, "k": 3, "train_tokens": 40, "steps": 1}
    return base | {"seed": 0} | changes


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model, its three pools and the model's own cross-entropies."""
    folder = tmp_path_factory.mktemp("world")
    model = tiny_model_json(folder, "llama")
    draw = np.random.default_rng(0)
    documents = {
        split: [
            TokenizedDocument(10 * place + n, draw.integers(0, VOCABULARY, length).tolist())
            for n, length in enumerate([6, 2, 9, 3, 9, 4, 8])
        ]
        for place, split in enumerate(("train", "test", "ce"))
    }
    write_token_table(folder / "tokens.parquet", documents)
    for split in documents:
        shard = folder / f"{split}-00000.parquet"
        extract_shard(model, folder / "tokens.parquet", split, 0, 64, {LAYER: shard})
        build_pool([shard], split, folder / f"{split}.f32", folder / f"{split}.json")
    recipe = Recipe(norm_limit=None, scale_to_sqrt_m=False)
    for name, seen in (("baseline", True), ("unseen", False)):
        write_baseline(
            Run(**columns(support="none", encoder="none", n=0, d=0, k=0, steps=0), recipe_settings=recipe),
            SEQUENCES,
            model_file=model,
            ce_pool=folder / "ce.json",
            train_pool=folder / "train.json",
            out_metrics=folder / f"{name}.parquet",
            out_documents=folder / f"{name}-documents.parquet",
            train_cross_entropy=seen,
        )
    return folder


def write_run(folder: Path, broken: float | None = None, **changes: Any) -> SparseAutoencoder:
    made = SparseAutoencoder(WIDTH, 64, 3, MaskRecipe("expander", WIDTH, 64, 4, 0).generate())
    made.initialise(torch_generator(0, "initialisation"))
    if broken is not None:
        with torch.no_grad():
            made.values[0, 0] = broken
    spec = columns(**changes) | {"recipe_settings": asdict(RECIPES["standard"])}
    about = {"spec": spec, "fingerprint": "0", "norm_limit": LIMIT, "scale": 1.0}
    made.save(folder / "weights.safetensors", **about)
    write_json(folder / "run.json", about)
    return made


def evaluated(world: Path, folder: Path, **settings: Any) -> tuple[pd.DataFrame, pd.DataFrame]:
    evaluate_run(
        folder,
        replace(SETTINGS, **settings),
        test_pool=world / "test.json",
        ce_pool=world / "ce.json",
        train_pool=world / "train.json",
        model_file=world / "model.json",
        baseline=world / "baseline.parquet",
    )
    return tables.read_metrics(folder / METRICS), tables.read_documents(folder / DOCUMENTS)


def value(frame: pd.DataFrame, split: str, metric: str, inference: str = "encoder") -> float:
    keys = {"split": split, "metric": metric, "inference": inference}
    (found,) = frame[(frame[list(keys)] == pd.Series(keys)).all(axis=1)]["value"]
    return float(found)


def test_cross_entropy_on_the_documents_of_training(world: Path, tmp_path: Path) -> None:
    sae = write_run(tmp_path)
    metrics, documents = evaluated(world, tmp_path)
    own = tables.read_metrics(world / "baseline.parquet")
    own_documents = tables.read_documents(world / "baseline-documents.parquet")
    model = LanguageModel.load(world / "model.json")
    for split, pool in (("ce", "ce"), ("ce_train", "train")):
        opened = Pool.open(world / f"{pool}.json")

        def splice(h: torch.Tensor, norms: np.ndarray = opened.norms) -> torch.Tensor:
            kept = torch.from_numpy(norms[: len(h)] <= LIMIT)
            assert 0 < kept.sum() < len(h)
            return torch.where(kept[:, None], sae.decode(sae.encode(h)), h)

        numbers, sums, counts = spliced_sums(model, opened, splice, LAYER, SEQUENCES)
        assert value(metrics, split, "ce") == pytest.approx(sums.sum() / counts.sum(), rel=1e-6)
        rows = documents[(documents["split"] == split) & (documents["inference"] == "encoder")]
        assert rows["document"].tolist() == numbers.tolist()
        np.testing.assert_allclose(rows["sum"], sums, rtol=1e-6)
        zero, clean = (value(own, split, name, "none") for name in ("ce_zero", "ce_clean"))
        expected = (zero - sums.sum() / counts.sum()) / (zero - clean)
        assert value(metrics, split, "ce_recovered") == pytest.approx(expected, rel=1e-5)
        mine = own_documents[(own_documents["split"] == split) & (own_documents["metric"] == "ce_clean")]
        assert mine["document"].tolist() == numbers.tolist()
    seen = metrics[metrics["split"] == "ce_train"]
    assert sorted(seen["metric"]) == ["ce", "ce_recovered"] and set(seen["inference"]) == {"encoder"}
    own_seen = own[own["split"] == "ce_train"]
    assert sorted(own_seen["metric"]) == ["ce_clean", "ce_zero"] and set(own_seen["support"]) == {"none"}


def test_pursuits_are_measured_on_as_many_tokens_as_are_asked_for(world: Path, tmp_path: Path) -> None:
    write_run(tmp_path)
    whole = evaluated(world, tmp_path)
    few = evaluated(world, tmp_path, pursued_tokens=7)
    for frame, _ in (whole, few):
        assert value(frame, "test", "encoded_share", "omp") == value(frame, "test", "encoded_share")
    both = [documents for _, documents in (whole, few)]
    errors = [table[(table["metric"] == "relative_error") & (table["split"] == "test")] for table in both]
    counts = [rows.groupby("inference")["count"].sum() for rows in errors]
    assert counts[1]["omp"] == 7 < counts[0]["omp"] == counts[0]["encoder"] == counts[1]["encoder"]
    kept = np.arange(7) * counts[0]["omp"] // 7
    pool, sae = Pool.open(world / "test.json"), SparseAutoencoder.load(tmp_path / "weights.safetensors")
    h = torch.from_numpy(np.array(pool.activations[:30]))
    h = h[sae.encoded(h)][kept]
    error = (h - sae.decode(inferences("omp")(sae, h))).norm(dim=1) / h.norm(dim=1)
    expected = pytest.approx(float(error.double().mean()), rel=1e-6)
    assert value(few[0], "test", "relative_error", "omp") == expected


def test_nothing_is_measured_on_training_documents_unless_asked(world: Path, tmp_path: Path) -> None:
    write_run(tmp_path)
    metrics, documents = evaluated(world, tmp_path, train_cross_entropy=False)
    assert "ce_train" not in {*metrics["split"], *documents["split"]}
    assert "ce_train" not in set(tables.read_metrics(world / "unseen.parquet")["split"])


def test_an_altered_training_pool_is_refused_by_name(world: Path, tmp_path: Path) -> None:
    write_run(tmp_path)
    raw = world / "train.f32"
    whole = raw.read_bytes()
    try:
        raw.write_bytes(bytes([whole[0] ^ 1]) + whole[1:])
        with pytest.raises(UserError, match=r"train\.f32: found sha256"):
            evaluated(world, tmp_path)
    finally:
        raw.write_bytes(whole)


def test_documents_that_training_did_not_see_are_refused(world: Path, tmp_path: Path) -> None:
    write_run(tmp_path, train_tokens=20)
    with pytest.raises(UserError, match=r"first 5 documents of .* have 29 tokens, .* train_tokens = 20"):
        evaluated(world, tmp_path)


def test_a_run_that_is_not_finite_says_so_and_no_more(world: Path, tmp_path: Path) -> None:
    write_run(tmp_path, broken=float("inf"))
    metrics, documents = evaluated(world, tmp_path)
    measured = metrics[metrics["inference"] != "none"]
    assert measured[["inference", "metric", "value"]].values.tolist() == [
        ["encoder", "diverged", 1.0],
        ["omp", "diverged", 1.0],
    ]
    assert np.isfinite(metrics["value"]).all() and documents.empty
    assert value(metrics, "none", "decoder_values", "none") == 256


def test_a_finite_run_that_diverges_keeps_its_numbers(world: Path, tmp_path: Path) -> None:
    write_run(tmp_path)
    sae = SparseAutoencoder.load(tmp_path / "weights.safetensors")
    about = sae.about
    with torch.no_grad():
        sae.b_dec += 1000
    sae.save(tmp_path / "weights.safetensors", **about)
    metrics, _ = evaluated(world, tmp_path, train_cross_entropy=False)
    assert value(metrics, "test", "diverged") == 1 and value(metrics, "test", "relative_error") > 1


def test_weights_that_no_study_trained_are_refused(world: Path, tmp_path: Path) -> None:
    made = write_run(tmp_path)
    made.save(tmp_path / "weights.safetensors", spec={"recipe": "standard"}, norm_limit=None)
    with pytest.raises(UserError, match=r"weights\.safetensors: spec\.model: missing"):
        evaluated(world, tmp_path)


def test_only_what_is_not_done_is_done(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_json(tmp_path / name / "run.json", {"fingerprint": name})

    done: list[str] = []
    pool = {"pools": [1]}

    def work(folder: Path, settings: dict[str, Any]) -> dict[str, Any]:
        done.append(folder.name)
        tables.write_metrics([], folder / "metrics.parquet")
        return {"seconds": 1}

    def measure(work: Callable[..., dict[str, Any]] = work, **settings: Any) -> list[str]:
        done.clear()
        spec = {str(tmp_path / name): settings for name in ("a", "b")}
        read = {"metrics.parquet": tables.read_metrics}
        assert pending.measure("evaluation", spec, lambda _: pool, "r.json", read, work) == bool(done)
        return list(done)

    assert measure(k=1) == ["a", "b"]
    assert measure(k=1) == []
    assert measure(k=2) == ["a", "b"], "other settings"
    write_json(tmp_path / "b" / "run.json", {"fingerprint": "retrained"})
    assert measure(k=2) == ["b"], "other weights"
    (tmp_path / "a" / "metrics.parquet").write_bytes(b"torn")
    assert measure(k=2) == ["a"], "a damaged table"

    pool["pools"] = [2]
    assert measure(k=2) == ["a", "b"], "another pool"

    def killed(folder: Path, settings: dict[str, Any]) -> dict[str, Any]:
        work(folder, settings)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        measure(killed, k=3)
    assert measure(k=2) == ["a"], "its table is no longer the one that was measured under k=2"
    assert measure(k=3) == ["a", "b"], "the one that was under way is done again"
