"""Any autoencoders on one page, against `evaluate` and the workflow's own measurements."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import expander_sae
from expander_sae.activations.language_model import LanguageModel
from expander_sae.activations.pool import Pool
from expander_sae.cli.frontier import names
from expander_sae.evaluation.cross_entropy import recovered, spliced_sums
from expander_sae.evaluation.features import FiringSets, token_entropy
from expander_sae.evaluation.storage import storage
from expander_sae.interop import saelens
from expander_sae.rng import torch_generator
from tests.cli.conftest import TOKENS, K, M, N, make_weights
from tests.evaluation import pools
from tests.tiny_models import tiny_model_json


@pytest.fixture
def folders(tmp_path):
    """A sparse one of ours, a JumpReLU folder and a TopK folder of SAELens."""
    ours = make_weights(tmp_path / "weights.safetensors", norm_limit=50.0)
    dense = make_weights(tmp_path / "dense.safetensors", family="dense")
    saelens.export(dense, tmp_path / "topk", say=False)
    jump = expander_sae.SparseAutoencoder(M, N, N, None, "independent", "torch")
    jump.initialise(torch_generator(5, "jump"))
    jump.thresholds = torch.full((N,), 1.5)
    saelens.export(jump, tmp_path / "jump", say=False)
    return {"weights.safetensors": ours, "jump": jump, "topk": dense}


def test_the_numbers_are_those_of_evaluate(command, tmp_path, folders, activations):
    file, array = activations
    paths = [tmp_path / name for name in folders]
    done = command("frontier", *paths, "--activations", file, "--out", tmp_path / "page.pdf", "--json")
    record = done.json
    assert [one["name"] for one in record["autoencoders"]] == list(folders)
    assert (tmp_path / "page.pdf").read_bytes().startswith(b"%PDF") and record["tokens"] == TOKENS
    for found, path in zip(record["autoencoders"], paths, strict=True):
        sae = expander_sae.load(path)
        assert found["bytes"] == storage(sae)["storage_total_bytes"] and found["n"] == N
        for inference in ("encoder", "omp"):
            expected = expander_sae.evaluate(sae, array, inference)
            assert found["encoded_share"] == expected.pop("encoded_share")
            own = found["metrics"][inference]
            assert {name: own[name] for name in expected} == expected
            evaluated = command("eval", path, file, "--inference", inference, "--json").json
            assert evaluated["inference"][inference] == expected
        kept = sae.encoded(array)
        sets = FiringSets.of([sae.encode(array[kept.numpy()])], N)
        frequent = float((sets.counts > 0.1 * int(kept.sum())).mean())
        assert found["metrics"]["encoder"]["frequent_fraction"] == frequent
        mean = expander_sae.evaluate(sae, array)["l0"]
        assert found["k"] == (round(mean) if path.name == "jump" else K)
    page = (tmp_path / "page.pdf").read_bytes()
    command("frontier", *paths, "--activations", file, "--out", tmp_path / "page.pdf")
    assert (tmp_path / "page.pdf").read_bytes() == page
    lines = command("frontier", *paths, "--activations", file, "--out", tmp_path / "page.png").out
    assert "relative error" in lines and "jump" in lines and (tmp_path / "page.png").is_file()


def test_a_pool_and_a_model_show_tokens_and_cross_entropy(command, tmp_path):
    pool_path = pools.write_pool(tmp_path / "pool", "ce")
    pools.write_run(tmp_path / "run")
    model_path = tiny_model_json(tmp_path / "model")
    arguments = ("frontier", tmp_path / "run", "--activations", pool_path, "--out", tmp_path / "page.png")
    with_model = ("--model", model_path, "--sequences", 5, "--json")
    (found,) = command(*arguments, *with_model).json["autoencoders"]
    sae, pool = expander_sae.load(tmp_path / "run"), Pool.open(pool_path)
    kept = sae.encoded(pool.activations).numpy()
    code = sae.encode(np.array(pool.activations)[kept])
    entropy = token_entropy(FiringSets.of([code], sae.n), pool.token_id[kept])
    assert found["metrics"]["encoder"]["token_entropy"] == pytest.approx(float(np.nanmean(entropy)))
    model, hidden = LanguageModel.load(model_path), torch.from_numpy(np.array(pool.activations[:50]))
    for inference in ("encoder", "omp"):
        rebuilt = hidden.clone()
        inside = torch.from_numpy(kept[:50])
        rebuilt[inside] = sae.decode(expander_sae.infer(sae, hidden[inside], inference))
        losses = []
        for states in (torch.zeros_like(hidden), rebuilt, hidden):
            _, sums, counts = spliced_sums(model, pool, states, 1, 5)
            losses.append(float(sums.sum() / counts.sum()))
        assert found["metrics"][inference]["ce_recovered"] == pytest.approx(recovered(*losses), abs=1e-6)


def test_what_cannot_be_drawn_is_named(command, tmp_path, weights, activations):
    file, array = activations
    np.save(tmp_path / "wide.npy", array.repeat(2, axis=1))
    for arguments, message in (
        (("--activations", tmp_path / "wide.npy"), f"found m = {M}, expected {2 * M}, the width of"),
        ((), "--activations: found none, expected a file"),
        (("--activations", file, "--inference", "telepathy"), "--inference: found 'telepathy'"),
        (("--activations", file, "--model", tmp_path / "model.json"), "expected a pool's manifest"),
        (
            ("--activations", file, "--out", tmp_path / "page.svg"),
            "--out: suffix '.svg', expected .pdf or .png",
        ),
    ):
        out = () if "--out" in arguments else ("--out", tmp_path / "page.pdf")
        done = command("frontier", weights, *arguments, *out)
        assert done.code == 1 and message in done.err, done.err


def test_names_are_as_short_as_they_can_be(tmp_path):
    paths = [tmp_path / part for part in ("a/sae", "b/sae", "c")]
    assert names(paths) == ["a/sae", "b/sae", "c"]
