import base64
import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from expander_sae import load
from expander_sae.activations.language_model import LanguageModel, tokenizer_of
from expander_sae.activations.pool import Pool
from expander_sae.activations.weights import read_model
from expander_sae.cli.main import main
from expander_sae.dashboard.collect import LOGITS, Limits, collect
from expander_sae.dashboard.sources import find_sources
from expander_sae.errors import UserError
from expander_sae.interop import saelens
from expander_sae.model.autoencoder import SparseAutoencoder
from expander_sae.pursuit.inference import INFERENCES
from expander_sae.training.run_folder import WEIGHTS
from expander_sae.training.trainer import Trainer
from tests.cli.conftest import make_weights
from tests.dashboard.conftest import DEAD, MASSIVE, TOKENS, D, N

pytestmark = pytest.mark.xdist_group("dashboard")


def unpacked(stored):
    kinds = {"Uint16Array": "<u2", "Uint32Array": "<u4", "Int16Array": "<i2", "Float32Array": "<f4"}
    return np.frombuffer(base64.b64decode(stored["data"]), kinds[stored["type"]])


def dense_code(code):
    """[tokens, n] of a code as the page stores it."""
    starts, token, value, largest = (unpacked(code[name]) for name in ("starts", "token", "value", "largest"))
    feature = np.repeat(np.arange(len(starts) - 1), np.diff(starts.astype(int)))
    written = np.zeros((TOKENS, len(starts) - 1))
    written[token, feature] = value * largest[feature] / 32767
    return written


@pytest.fixture(scope="module")
def loaded(run):
    layer = run.parents[2]
    return SparseAutoencoder.load(run / WEIGHTS), Pool.open(layer / "pool" / "test.json"), layer.parents[1]


@pytest.mark.parametrize(("name", "tokens"), [("encoder", TOKENS), ("omp", TOKENS // 2)])
def test_the_page_holds_the_codes_of_the_encoded_tokens(data, loaded, name, tokens):
    autoencoder, pool, _ = loaded
    code = INFERENCES[name](autoencoder, torch.from_numpy(np.array(pool.activations)))
    expected = np.zeros((TOKENS, N))
    np.put_along_axis(expected, code.index.clamp(min=0).numpy(), code.value.numpy(), axis=1)
    expected[MASSIVE] = 0  # its norm is beyond the limit: passed through
    expected[tokens:] = 0
    np.testing.assert_allclose(dense_code(data[name]), expected, atol=np.abs(expected).max() / 32767)
    assert data["encoded"] == TOKENS - 1 and data["omp_tokens"] == TOKENS // 2 - 1


def test_a_feature_that_never_fires_has_no_firings(data):
    counts = np.diff(unpacked(data["encoder"]["starts"]).astype(int))
    assert counts[DEAD] == 0 and (counts > 0).sum() > N // 2


def test_tokens_are_the_tokenizer_s_words(data, loaded):
    _, pool, model = loaded
    tokenizer = tokenizer_of(read_model(model / "model.json"))
    words = [data["text"]["unique"][place] for place in unpacked(data["text"]["place"])]
    assert words == [tokenizer.decode([token]) for token in pool.token_id[:TOKENS]]


def test_columns_are_the_support_by_falling_size(data, loaded):
    autoencoder, _, _ = loaded
    rows = unpacked(data["columns"]["rows"]).reshape(N, D)
    values = unpacked(data["columns"]["values"]).reshape(N, D) * data["columns"]["scale"]
    written = np.zeros((N, autoencoder.m))
    np.put_along_axis(written, rows.astype(int), values, axis=1)
    expected = autoencoder.dictionary().columns(torch.arange(N)).detach().numpy()
    np.testing.assert_allclose(written, expected, atol=1 / 32767)
    assert (np.diff(np.abs(values), axis=1) <= 0).all()
    assert [set(row) for row in rows] == [set(row) for row in autoencoder.mask.rows]


def test_logit_effects_are_the_centred_direct_path(data, loaded):
    autoencoder, _, model = loaded
    unembedding = LanguageModel.load(model / "model.json").unembedding
    effect = autoencoder.dictionary().columns(torch.arange(N)).detach() @ unembedding.T
    effect = (effect - effect.mean(dim=1, keepdim=True)).numpy()
    stored = unpacked(data["logits"]["value"]).reshape(N, 2 * LOGITS)
    ranked = np.sort(effect, axis=1)
    np.testing.assert_allclose(stored[:, :LOGITS], ranked[:, ::-1][:, :LOGITS], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(stored[:, LOGITS:], ranked[:, :LOGITS], rtol=1e-4, atol=1e-5)
    place = unpacked(data["logits"]["place"]).reshape(N, 2 * LOGITS)
    tokenizer = tokenizer_of(read_model(model / "model.json"))
    best = data["logits"]["unique"][place[3, 0]]
    assert best == tokenizer.decode([int(effect[3].argmax())])


def test_of_too_many_features_evenly_spaced_ones_are_kept(run, data):
    fewer = collect(find_sources(run, None, None), Limits(TOKENS, 8, features=10), logits=False)
    kept = unpacked(fewer["features"])
    assert len(kept) == 10 and (kept[0], kept[-1]) == (0, N - 1) and fewer["logits"] is None
    np.testing.assert_allclose(
        dense_code(fewer["encoder"]), dense_code(data["encoder"])[:, kept], rtol=1e-6, atol=1e-6
    )


def test_without_a_model_tokens_are_numbers(run, loaded, tmp_path):
    _, pool, _ = loaded
    alone = tmp_path / WEIGHTS
    alone.write_bytes((run / WEIGHTS).read_bytes())
    found = collect(find_sources(alone, pool.path, None), Limits(TOKENS, 8))
    assert found["logits"] is None
    assert found["text"]["unique"] == [f"[{token}]" for token in np.unique(pool.token_id)]
    with pytest.raises(
        UserError, match=r"no pool/test.json in the folders above it, expected --activations FILE"
    ):
        find_sources(alone, None, None)


@pytest.fixture
def files(run, loaded, tmp_path):
    """The run's weights alone, and its pool as files that a user may have."""
    _, pool, model = loaded
    (tmp_path / "w.safetensors").write_bytes((run / WEIGHTS).read_bytes())
    for name, array in (("h", pool.activations), ("ids", pool.token_id), ("documents", pool.document)):
        np.save(tmp_path / f"{name}.npy", array)
    return tmp_path, read_model(model / "model.json")["path"]


def page_of(*arguments):
    """(exit code, the data of the page that the command writes)."""
    out = Path(arguments[0]).parent / "page.html"
    code = main(["dashboard", *map(str, arguments), "--out", str(out), "--omp-tokens", str(TOKENS // 2)])
    if not out.exists():
        return code, None
    text = out.read_text(encoding="utf-8")
    return code, json.loads(
        re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.S)[1]
    )


def test_weights_and_activations_give_the_page_of_their_run(data, files):
    folder, tokenizer = files
    what = ("--activations", folder / "h.npy", "--token-ids", folder / "ids.npy")
    what += ("--documents", folder / "documents.npy", "--tokenizer", tokenizer)
    code, found = page_of(folder / "w.safetensors", *what)
    assert code == 0
    for key in ("shape", "features", "tokens", "encoded", "encoder", "omp", "columns", "text", "document"):
        assert found[key] == data[key], key
    assert found["logits"] is None


def test_activations_without_text_are_rows(data, files):
    folder, _ = files
    code, found = page_of(folder / "w.safetensors", "--activations", folder / "h.npy")
    assert code == 0 and found["encoder"] == data["encoder"]
    words = [found["text"]["unique"][place] for place in unpacked(found["text"]["place"])]
    assert words == [f"row {row}" for row in range(TOKENS)]
    assert list(unpacked(found["document"])) == list(range(TOKENS)), "nothing is known of a row's neighbours"
    fewer = page_of(folder / "w.safetensors", "--activations", folder / "h.npy", "--tokens", 30)[1]
    assert fewer["tokens"] == 30


def test_a_model_that_lies_nearby_is_not_taken_for_that_of_other_activations(files, loaded, capsys):
    folder, _ = files
    model = loaded[2] / "model.json"
    autoencoder = make_weights(folder / "other.safetensors")
    assert autoencoder.m != load(folder / "w.safetensors").m
    np.save(folder / "other.npy", np.ones((9, autoencoder.m), np.float32))
    (folder / "model.json").write_bytes(model.read_bytes())
    code, found = page_of(folder / "other.safetensors", "--activations", folder / "other.npy")
    assert code == 0 and found["logits"] is None
    given = ("--activations", folder / "other.npy", "--model", model)
    assert page_of(folder / "other.safetensors", *given)[0] == 1
    assert f"expected m = {autoencoder.m}" in capsys.readouterr().err


def test_an_imported_folder_has_a_page_too(data, files):
    folder, _ = files
    saelens.export(load(folder / "w.safetensors"), folder / "imported", say=False)
    code, found = page_of(folder / "imported", "--activations", folder / "h.npy")
    assert code == 0 and found["shape"] == data["shape"]
    half = load(folder / "w.safetensors", dtype=torch.bfloat16).save(folder / "half.safetensors")
    assert page_of(half, "--activations", folder / "h.npy")[0] == 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--token-ids", "ids.npy"), "--token-ids: found no --activations"),
        (("--activations", "h.npy", "--pool", "x.json"), "--pool: found --activations beside it"),
        (("--activations", "h.npy", "--tokenizer", "x"), "--tokenizer: found no --token-ids"),
        (("--activations", "ids.npy"), "expected numbers of shape [N, m]"),
        (("--activations", "h.npy", "--token-ids", "h.npy"), "found float32, expected a .npy of whole"),
        (
            ("--activations", "h.npy", "--documents", "few.npy"),
            f"found 3 numbers, expected one a row: {TOKENS}",
        ),
        (("--activations", "h.npy", "--documents", "none.npy"), "none.npy: no such file"),
        (("--activations", "narrow.npy"), "activations of width 3, expected m ="),
    ],
)
def test_what_a_page_cannot_be_made_of_is_said(files, monkeypatch, capsys, arguments, said):
    folder, _ = files
    monkeypatch.chdir(folder)
    np.save("few.npy", np.arange(3))
    np.save("narrow.npy", np.ones((5, 3), np.float32))
    assert page_of(folder / "w.safetensors", *arguments) == (1, None)
    assert said in capsys.readouterr().err


def test_a_page_overwrites_nothing_that_it_is_made_of(files, capsys):
    folder, _ = files
    weights, before = folder / "w.safetensors", (folder / "w.safetensors").read_bytes()
    for out in (weights, folder / "h.npy"):
        assert (
            main(["dashboard", str(weights), "--activations", str(folder / "h.npy"), "--out", str(out)]) == 1
        )
        assert f"--out: found {out}, which is the " in capsys.readouterr().err
    assert weights.read_bytes() == before


@pytest.mark.parametrize("support", ["pca", "random", "exemplars", "hybrid", "spectral8"])
def test_a_dictionary_without_a_mask_has_a_page(support, loaded, tmp_path):
    _, pool, _ = loaded
    shape = {"pca": {"n": 20}, "exemplars": {"n": 40}}.get(support, {"n": 40, "d": 4})
    sae = Trainer(np.array(pool.activations), support=support, k=4, device="cpu", **shape).fit(1)
    sae.save(tmp_path / WEIGHTS)
    page = collect(find_sources(tmp_path, pool.path, None), Limits(TOKENS, TOKENS // 2))
    assert support in page["title"] and page["columns"]["shown"] == sae.m
    rows = unpacked(page["columns"]["rows"]).reshape(sae.n, sae.m).astype(int)
    values = unpacked(page["columns"]["values"]).reshape(sae.n, sae.m) * page["columns"]["scale"]
    written = np.zeros((sae.n, sae.m))
    np.put_along_axis(written, rows, values, axis=1)
    expected = sae.dictionary().columns(torch.arange(sae.n)).numpy()
    np.testing.assert_allclose(written, expected, atol=1 / 32767)
    peaks = np.abs(expected).max(axis=1) * sae.m**0.5
    np.testing.assert_allclose(unpacked(page["flatness"]), peaks, rtol=1e-5)
