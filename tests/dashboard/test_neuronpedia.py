"""Batches for Neuronpedia. tests/interop/test_saedashboard.py compares them with SAEDashboard's own."""

import json

import numpy as np
import pytest
import torch

from expander_sae import load
from expander_sae.activations.language_model import LanguageModel
from expander_sae.activations.pool import Pool
from expander_sae.cli.main import main
from expander_sae.dashboard import neuronpedia
from expander_sae.dashboard.sources import find_sources
from expander_sae.model.autoencoder import SparseAutoencoder
from expander_sae.rng import torch_generator
from expander_sae.training.run_folder import WEIGHTS
from tests.dashboard.conftest import DEAD, DOCUMENT, MASSIVE, TOKENS, K, N
from tests.tiny_models import WIDTH

pytestmark = pytest.mark.xdist_group("dashboard")

BATCH = {"model_id": str, "layer": int, "sae_set": str, "sae_id_suffix": type(None), "features": list}
FEATURE = {"feature_index": int, "frac_nonzero": float, "activations": [dict]}
FEATURE |= {"n_prompts_total": int, "n_tokens_in_prompt": int, "dataset": str}
FEATURE |= {f"neuron_alignment_{part}": [float] for part in ("values", "l1")}
FEATURE |= {"neuron_alignment_indices": [int], "decoder_weights_dist": [float], "vector": [float]}
for _kind in ("neurons", "features"):
    FEATURE |= {f"correlated_{_kind}_indices": [int]}
    FEATURE |= {f"correlated_{_kind}_{part}": [float] for part in ("l1", "pearson")}
for _end in ("neg", "pos"):
    FEATURE |= {f"{_end}_str": [str], f"{_end}_values": [float]}
for _name in ("freq", "logits"):
    FEATURE |= {f"{_name}_hist_data_bar_heights": [int], f"{_name}_hist_data_bar_values": [float]}
EXAMPLE = {"bin_min": float, "bin_max": float, "bin_contains": float, "qualifying_token_index": int}
EXAMPLE |= {"tokens": [str], "values": [float]}
"""Keys of the format and their types: its classes take no other key, and lists stand for lists of a type."""


def assert_typed(record, types):
    assert record.keys() == types.keys()
    for key, kind in types.items():
        found = record[key]
        if isinstance(kind, list):
            assert isinstance(found, list) and {type(value) for value in found} <= set(kind), key
        else:
            assert type(found) is kind, key


@pytest.fixture(scope="module")
def exported(run, tmp_path_factory):
    """The batches of the run, 16 features a file, and the folder."""
    folder = tmp_path_factory.mktemp("batches")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(neuronpedia, "AT_ONCE", 16)
        assert main(["dashboard", str(run), "--format", "neuronpedia", "--out", str(folder)]) == 0
    return [json.loads((folder / f"batch-{number}.json").read_text()) for number in range(3)], folder


@pytest.fixture(scope="module")
def features(exported):
    return [feature for batch in exported[0] for feature in batch["features"]]


@pytest.fixture(scope="module")
def dense(run):
    """(activations [encoded, m], which rows these are, codes [tokens, N], 0 where not positive)."""
    pool = Pool.open(run.parents[2] / "pool" / "test.json")
    h = torch.from_numpy(np.array(pool.activations))
    code = load(run).encode(h)
    written = torch.zeros(TOKENS, N).scatter(1, code.index, code.value.clamp(min=0)).double().numpy()
    written[MASSIVE] = 0
    rows = np.delete(np.arange(TOKENS), MASSIVE)
    return h.double().numpy()[rows], rows, written


def test_every_batch_has_the_keys_and_types_of_the_format(exported):
    batches, folder = exported
    assert sorted(path.name for path in folder.iterdir()) == ["batch-0.json", "batch-1.json", "batch-2.json"]
    for batch in batches:
        assert_typed(batch, BATCH)
        for feature in batch["features"]:
            assert_typed(feature, FEATURE)
            for example in feature["activations"]:
                assert_typed(example, EXAMPLE)
                assert len(example["tokens"]) == len(example["values"])
    assert [feature["feature_index"] for batch in batches for feature in batch["features"]] == list(range(N))
    named = (batches[0]["model_id"], batches[0]["layer"], batches[0]["sae_set"])
    assert named == ("tiny", 1, f"expander-tied-n{N}-d5-k{K}")


def test_densities_and_histograms_count_the_tokens_on_which_a_feature_fires(features, dense):
    _, rows, written = dense
    for feature, values in zip(features, written[rows].T, strict=True):
        firing = values[values > 0]
        assert feature["frac_nonzero"] == len(firing) / len(rows)
        heights, edges = np.histogram(firing, 50) if len(firing) else ([], np.empty(1))
        assert feature["freq_hist_data_bar_heights"] == list(heights)
        middles = (edges[1:] + edges[:-1]) / 2
        np.testing.assert_allclose(feature["freq_hist_data_bar_values"], middles, rtol=1e-3)
    assert features[DEAD]["activations"] == [] and features[DEAD]["freq_hist_data_bar_heights"] == []


def test_examples_are_documents_with_the_feature_s_values(features, dense, data):
    _, rows, written = dense
    assert sum(len(feature["activations"]) for feature in features) > 5 * N
    for feature in features:
        values, number = written[:, feature["feature_index"]], feature["feature_index"]
        order = np.argsort(-values, kind="stable")[: min(20, int((values > 0).sum()))]
        largest = [example for example in feature["activations"] if example["bin_contains"] == -1]
        assert len(largest) == len(order), number
        for example, row in zip(largest, order, strict=True):
            first = row - row % DOCUMENT
            assert example["qualifying_token_index"] == row % DOCUMENT
            np.testing.assert_allclose(example["values"], values[first : first + DOCUMENT], rtol=1e-3)
        for example in feature["activations"][len(largest) :]:
            low, high = example["bin_min"], example["bin_max"]
            at = example["values"][example["qualifying_token_index"]]
            assert at > 0 and low * 0.999 <= at <= high * 1.001
            inside = (values[rows] > low) & (values[rows] <= high) | ((low == 0) & (values[rows] == 0))
            # The bounds have four digits.
            assert example["bin_contains"] == pytest.approx(inside.mean(), abs=1.01 / len(rows))


def test_an_example_of_a_long_document_is_a_part_of_it_around_its_token(run):
    class Long:
        path, tokens, token_id = "long", 1000, np.arange(1000)
        document = np.repeat([0, 1], 500)

    sources = find_sources(run, None, None)
    texts = neuronpedia.Texts(
        type("S", (), {"pool": Long, "text": lambda _, ids: list(map(str, ids))})(), 900
    )
    assert (texts.documents, texts.longest) == (2, 500)
    for row in (0, 50, 97, 300, 499, 500, 650, 899):
        shown = texts.context(row)
        assert shown.stop - shown.start == 128 and shown.start <= row < shown.stop
        assert Long.document[shown.start] == Long.document[shown.stop - 1] == Long.document[row]
        assert texts.words(shown)[row - shown.start] == str(row)
    assert texts.context(300) == slice(300 - 96, 300 + 32)
    assert sources.spec["layer"] == 1


def test_neurons_and_features_that_go_with_one_are_the_most_correlated(features, dense):
    h, rows, written = dense
    codes = written[rows]
    with np.errstate(invalid="ignore"):
        together = np.nan_to_num(np.corrcoef(codes.T, h.T), nan=-1)
    both = np.hstack([codes, h])
    unit = both / np.maximum(np.linalg.norm(both, axis=0), 1e-9)
    cosine = unit.T @ unit
    for number, feature in enumerate(features):
        if number == DEAD:
            assert feature["correlated_neurons_indices"] == feature["correlated_features_indices"] == []
            continue
        for kind, of in (("neurons", slice(N, None)), ("features", slice(0, N))):
            row = together[number].copy()
            row[number] = -1
            index, pearson, l1 = (
                feature[f"correlated_{kind}_{part}"] for part in ("indices", "pearson", "l1")
            )
            overlap = len(index)
            assert overlap == 3 or kind == "features"
            np.testing.assert_allclose(pearson, -np.sort(-row[of])[:overlap], atol=1e-3)
            np.testing.assert_allclose(row[of][index], pearson, atol=1e-3)
            np.testing.assert_allclose(cosine[number][of][index], l1, atol=1e-3)


def test_columns_and_logit_effects_are_the_page_s(features, run, data):
    columns = load(run).dictionary().columns(torch.arange(N)).detach().double()
    unembedding = LanguageModel.load(run.parents[4] / "model.json").unembedding.double()
    effects = columns @ unembedding.T
    effects -= effects.mean(dim=1, keepdim=True)
    for feature, column, effect in zip(features, columns.numpy(), effects.numpy(), strict=True):
        index = feature["neuron_alignment_indices"]
        assert column[index].tolist() == pytest.approx(feature["neuron_alignment_values"], rel=1e-3)
        assert (column[index] == -np.sort(-column)[:3]).all()
        shares = np.abs(column[index]) / np.abs(column).sum()
        np.testing.assert_allclose(feature["neuron_alignment_l1"], shares, rtol=1e-3)
        np.testing.assert_allclose(feature["pos_values"], -np.sort(-effect)[:10], rtol=1e-3, atol=1e-5)
        np.testing.assert_allclose(feature["neg_values"], np.sort(effect)[:10], rtol=1e-3, atol=1e-5)
        assert sum(feature["logits_hist_data_bar_heights"]) == len(effect)
    words = data["logits"]["unique"]
    assert {*features[3]["pos_str"], *features[3]["neg_str"]} <= set(words) and features[3]["pos_str"][
        0
    ] in words


@pytest.fixture
def files(run, tmp_path):
    pool = Pool.open(run.parents[2] / "pool" / "test.json")
    (tmp_path / "w.safetensors").write_bytes((run / WEIGHTS).read_bytes())
    np.save(tmp_path / "h.npy", pool.activations)
    np.save(tmp_path / "ids.npy", pool.token_id)
    bare = load(run)
    bare.about = {}
    bare.save(tmp_path / "bare.safetensors")
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "batch-9.json").write_text("{}")
    return tmp_path


IDS = ("--activations", "h.npy", "--token-ids", "ids.npy")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("w.safetensors", "--activations", "h.npy"), "h.npy: found no token ids, expected --token-ids FILE"),
        (("bare.safetensors", *IDS, "--layer", "1"), "--model-id: found none in bare.safetensors"),
        (("bare.safetensors", *IDS, "--model-id", "x"), "--layer: found none in bare.safetensors"),
        (("w.safetensors", *IDS, "--out", "old"), "--out: found old/batch-9.json, expected a folder without"),
        (("w.safetensors", *IDS, "--out", "h.npy"), "--out: found h.npy, which is a file"),
        (
            ("w.safetensors", *IDS, "--format", "page", "--set", "x"),
            "--set: found --format page, expected neu",
        ),
    ],
)
def test_what_batches_cannot_be_made_of_is_said(files, monkeypatch, capsys, arguments, said):
    monkeypatch.chdir(files)
    assert main(["dashboard", "--format", "neuronpedia", "--out", "new", *arguments]) == 1
    assert said in capsys.readouterr().err and not list((files / "new").glob("*.json"))


def test_names_are_the_options_and_no_model_means_no_logit_effects(files, monkeypatch, capsys):
    monkeypatch.chdir(files)
    named = ("--model-id", "gpt2-small", "--layer", "7", "--set", "mine", "--features", "3", "--json")
    assert (
        main(["dashboard", "bare.safetensors", "--format", "neuronpedia", "--out", "new", *IDS, *named]) == 0
    )
    said = json.loads(capsys.readouterr().out)
    assert said["source"] == "gpt2-small/7-mine" and not said["logit_effects"] and said["batches"] == 1
    batch = json.loads((files / "new" / "batch-0.json").read_text())
    assert [feature["feature_index"] for feature in batch["features"]] == [0, round((N - 1) / 2), N - 1]
    assert all(
        feature["pos_str"] == feature["logits_hist_data_bar_heights"] == [] for feature in batch["features"]
    )
    assert (
        batch["features"][0]["dataset"] == "h.npy"
        and batch["features"][0]["activations"][0]["tokens"][0] == "[" + str(np.load("ids.npy")[0]) + "]"
    )


@pytest.mark.parametrize(
    ("part", "said"), [("values", "values of feature 3 that are not finite"), ("b_enc", "codes that are not")]
)
def test_numbers_that_are_not_finite_are_refused(files, run, monkeypatch, capsys, part, said):
    """Also where the model is known, and a histogram of its effects would have no range."""
    monkeypatch.chdir(files)
    # With an encoder of its own, so that a column says nothing of codes.
    sae = SparseAutoencoder(WIDTH, N, K, load("bare.safetensors").mask, "independent", "torch")
    sae.initialise(torch_generator(0, "initialisation"))
    with torch.no_grad():
        getattr(sae, part)[3] = float("nan")
    sae.save("broken.safetensors")
    options = ("--model-id", "x", "--layer", "1", "--model", str(run.parents[4] / "model.json"))
    broken = ("broken.safetensors", "--format", "neuronpedia", "--out", "new", *IDS, *options)
    assert main(["dashboard", *broken]) == 1
    assert f"broken.safetensors: found {said}" in capsys.readouterr().err
