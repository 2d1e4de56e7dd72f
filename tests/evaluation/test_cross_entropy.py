import math
from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from torch.nn import functional

from expander_sae.activations.extraction import extract_shard
from expander_sae.activations.language_model import LanguageModel, decoder_layers
from expander_sae.activations.language_model_checks import check_model
from expander_sae.activations.pool import Pool, build_pool
from expander_sae.activations.tokens import TokenizedDocument, write_token_table
from expander_sae.errors import UserError
from expander_sae.evaluation import cross_entropy
from expander_sae.evaluation.cross_entropy import recovered, spliced_sums, write_baseline
from expander_sae.study.recipes import Recipe
from expander_sae.study.run import Run
from expander_sae.training.normalisation import normalisation
from tests import fake_models
from tests.odd_models import ODD
from tests.tiny_models import ARCHITECTURES, DEPTH, VOCABULARY, WIDTH, tiny_model, tiny_model_json

LAYER, SEQUENCES = 1, 5
RUN = Run(
    **dict.fromkeys(("corpus", "recipe", "support", "encoder"), "none"),
    **dict.fromkeys(("n", "d", "k", "steps", "seed"), 0),
    **{"model": "tiny", "layer": LAYER, "m": WIDTH, "train_tokens": 20},
    recipe_settings=Recipe(norm_limit=1.2),
)


def measure(run, folder, out):
    """Write the baseline of a `make`d model into `out`."""
    write_baseline(
        run,
        SEQUENCES,
        model_file=folder / "model.json",
        ce_pool=folder / "ce.json",
        train_pool=folder / "train.json",
        out_metrics=out / "metrics.parquet",
        out_documents=out / "documents.parquet",
    )


def make(folder, architecture):
    """A tiny model and its train and ce pools; 7 documents a split."""
    path = tiny_model_json(folder, architecture)
    draw = np.random.default_rng(0)
    documents = {
        split: [
            TokenizedDocument(10 * place + n, draw.integers(0, VOCABULARY, length).tolist())
            for n, length in enumerate([6, 2, 9, 1, 9, 4, 3])
        ]
        for place, split in enumerate(("train", "test", "ce"))
    }
    write_token_table(folder / "tokens.parquet", documents)
    for split in ("train", "ce"):
        shard = folder / f"{split}-00000.parquet"
        extract_shard(path, folder / "tokens.parquet", split, 0, 64, {LAYER: shard})
        build_pool([shard], split, folder / f"{split}.f32", folder / f"{split}.json")
    return folder, documents["ce"][:SEQUENCES]


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    return make(tmp_path_factory.mktemp("llama"), "llama")


def losses_one_by_one(plain, documents, replacement):
    """Sums by an ordinary forward pass of each document with a hook that replaces the output."""
    sums, start = [], 0
    for document in documents:
        ids = torch.tensor([document.token_ids])
        hidden = replacement[None, start : start + ids.shape[1]]
        start += ids.shape[1]

        def hook(module, inputs, output, hidden=hidden):
            return (hidden, *output[1:]) if isinstance(output, tuple) else hidden

        handle = decoder_layers(plain, DEPTH)[LAYER].register_forward_hook(hook)
        with torch.no_grad():
            logits = plain(input_ids=ids).logits[0, :-1].double()
        handle.remove()
        sums.append(functional.cross_entropy(logits, ids[0, 1:], reduction="sum").item())
    return sums


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("logits_at_once", [1, 20 * VOCABULARY, 1 << 26])
def test_sums_equal_a_full_forward_pass(tmp_path, monkeypatch, architecture, logits_at_once):
    monkeypatch.setattr(cross_entropy, "LOGITS", logits_at_once)
    monkeypatch.setattr(cross_entropy, "_ROWS", 4)
    folder, documents = make(tmp_path, architecture)
    model, pool = LanguageModel.load(folder / "model.json"), Pool.open(folder / "ce.json")
    rows = sum(len(document.token_ids) for document in documents)
    replacement = torch.randn(rows, WIDTH, generator=torch.Generator().manual_seed(0))
    numbers, sums, counts = spliced_sums(model, pool, replacement, LAYER, SEQUENCES)
    assert numbers.tolist() == [document.number for document in documents]
    assert counts.tolist() == [len(document.token_ids) - 1 for document in documents]
    assert sums.dtype == np.float64
    np.testing.assert_allclose(
        sums, losses_one_by_one(tiny_model(architecture), documents, replacement), rtol=1e-5
    )


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_one_vector_at_every_token_costs_one_document(tmp_path, monkeypatch, architecture):
    folder, documents = make(tmp_path, architecture)
    model, pool = LanguageModel.load(folder / "model.json"), Pool.open(folder / "ce.json")
    model.cut = frozenset({LAYER})
    tokens, run = [], LanguageModel.logits_after

    def counted(model, hidden, layer, ids):
        tokens.append(ids.numel())
        return run(model, hidden, layer, ids)

    monkeypatch.setattr(LanguageModel, "logits_after", counted)
    vector = torch.randn(WIDTH, generator=torch.Generator().manual_seed(1))
    replacement = vector.expand(sum(len(document.token_ids) for document in documents), WIDTH)
    sums = spliced_sums(model, pool, replacement, LAYER, SEQUENCES)[1]
    expected = losses_one_by_one(tiny_model(architecture), documents, replacement)
    np.testing.assert_allclose(sums, expected, rtol=1e-5)
    assert tokens == [max(len(document.token_ids) for document in documents)]


@pytest.mark.parametrize("name", ODD)
def test_sums_of_models_that_read_more_above_a_layer_equal_a_full_forward_pass(name):
    fake = fake_models.Fake()
    ODD[name][0](1.0)(fake)
    model, pool, documents = fake_models.language_model(fake), *fake_models.documents(fake_models.VOCABULARY)
    model.cut = check_model(model, [LAYER], 9)
    rows = torch.randn(len(pool.document), pool.m, generator=torch.Generator().manual_seed(0))
    for replacement in (torch.zeros_like(rows), rows.mean(dim=0).expand_as(rows), rows):
        sums = spliced_sums(model, pool, replacement, LAYER, len(documents))[1]
        expected = fake_models.losses_one_by_one(model, documents, replacement, LAYER)
        np.testing.assert_allclose(sums, expected, rtol=1e-5, atol=1e-6)


def test_function_sees_the_activations_of_the_sequences(llama):
    folder, documents = llama
    model, pool = LanguageModel.load(folder / "model.json"), Pool.open(folder / "ce.json")
    seen = []
    given = spliced_sums(model, pool, lambda h: seen.append(h) or 2 * h, LAYER, SEQUENCES)[1]
    rows = sum(len(document.token_ids) for document in documents)
    assert torch.equal(seen[0], torch.from_numpy(np.array(pool.activations[:rows])))
    np.testing.assert_array_equal(given, spliced_sums(model, pool, 2 * seen[0], LAYER, SEQUENCES)[1])


def test_true_activations_give_the_models_own_cross_entropy(llama):
    folder, documents = llama
    plain = tiny_model("llama")
    expected = [
        functional.cross_entropy(
            plain(input_ids=ids).logits[0, :-1].detach().double(), ids[0, 1:], reduction="sum"
        ).item()
        for ids in (torch.tensor([document.token_ids]) for document in documents)
    ]
    model, pool = LanguageModel.load(folder / "model.json"), Pool.open(folder / "ce.json")
    np.testing.assert_allclose(
        spliced_sums(model, pool, lambda h: h, LAYER, SEQUENCES)[1], expected, rtol=1e-5
    )


def test_more_sequences_than_the_pool_has(llama):
    folder, _ = llama
    model, pool = LanguageModel.load(folder / "model.json"), Pool.open(folder / "ce.json")
    with pytest.raises(UserError, match=r"ce_sequences: found 7 documents .*, expected 8"):
        spliced_sums(model, pool, lambda h: h, LAYER, 8)


def test_baseline_rows(llama, tmp_path):
    folder, documents = llama
    metrics, sums = tmp_path / "metrics.parquet", tmp_path / "documents.parquet"
    measure(RUN, folder, tmp_path)
    table, by_document = pq.read_table(metrics).to_pandas(), pq.read_table(sums).to_pandas()
    names = ["ce_clean", "ce_zero", "ce_mean", "ce_zero_kept", "ce_mean_kept"]
    assert sorted(table.metric) == sorted(names)
    # A table of runs that are all read by their encoder has no column `codes`.
    columns = {name: value for name, value in RUN.columns.items() if name != "codes"}
    assert table[list(columns)].drop_duplicates().to_dict("records") == [columns]
    assert by_document.document.tolist() == [document.number for document in documents] * len(names)
    assert set(table.inference) == {"none"} and set(table.split) == {"ce"}

    pool = Pool.open(folder / "ce.json")
    rows = sum(len(document.token_ids) for document in documents)
    truth = torch.from_numpy(np.array(pool.activations[:rows]))
    found = normalisation(Pool.open(folder / "train.json"), RUN.train_tokens, RUN.recipe_settings)
    mean = torch.from_numpy(found.mean).expand_as(truth)
    passed = torch.from_numpy(pool.norms[:rows] > found.limit)[:, None]
    assert 0 < passed.sum() < rows
    expected = {
        "ce_clean": truth,
        "ce_zero": 0 * truth,
        "ce_mean": mean,
        "ce_zero_kept": truth * passed,
        "ce_mean_kept": torch.where(passed, truth, mean),
    }
    for metric, replacement in expected.items():
        one_by_one = losses_one_by_one(tiny_model("llama"), documents, replacement)
        mine = by_document[by_document.metric == metric]
        np.testing.assert_allclose(mine["sum"], one_by_one, rtol=1e-5)
        value = table.value[table.metric == metric].item()
        assert value == pytest.approx(mine["sum"].sum() / mine["count"].sum(), rel=1e-12)


def test_without_a_norm_limit_nothing_passes(llama, tmp_path):
    folder, _ = llama
    recipe = Recipe(norm_limit=None, scale_to_sqrt_m=False)
    measure(replace(RUN, recipe_settings=recipe), folder, tmp_path)
    value = pq.read_table(tmp_path / "metrics.parquet").to_pandas().set_index("metric").value
    assert value.ce_zero == value.ce_zero_kept
    assert value.ce_mean == value.ce_mean_kept


def test_recovered():
    assert recovered(10.0, 3.0, 3.0) == 1.0
    assert recovered(10.0, 10.0, 3.0) == 0.0
    assert recovered(10.0, 6.5, 3.0) == 0.5
    assert math.isclose(recovered(10.0, 12.0, 2.0), -0.25)
