from inspect import signature

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from expander_sae import evaluate, load
from expander_sae.cli.main import build_parser
from expander_sae.model.dictionary import SparseCode
from expander_sae.pursuit.inference import INFERENCES, inferences
from expander_sae.storage.safetensors_files import load_tensors
from expander_sae.training.trainer import Trainer
from tests.cli.conftest import TOKENS, D, K, M, N, make_weights


def test_inspect_shows_the_shape_the_mask_and_its_checksum(command, weights, autoencoder):
    record = command("inspect", weights, "--json").json
    assert record["shape"] == {"m": M, "n": N, "d": D, "k": K}
    assert record["mask"]["recipe"] == {"family": "expander", "m": M, "n": N, "d": D, "seed": 3}
    assert record["mask"]["sha256"] == autoencoder.mask.sha256
    assert record["storage"]["storage_values_bytes"] == 4 * N * D
    assert record["compression"] == pytest.approx(M / D)
    assert 1 <= record["columns"]["flatness_mean"] <= record["columns"]["flatness_max"] <= D**0.5 + 1e-9
    lines = command("inspect", weights).out
    assert autoencoder.mask.sha256 in lines and "(verified)" in lines


def test_inspect_reads_a_run_folder_and_a_dense_dictionary(command, tmp_path):
    make_weights(tmp_path / "weights.safetensors", family="dense")
    record = command("inspect", tmp_path, "--json").json
    assert record["mask"] is None and record["compression"] == 1
    assert record["shape"]["d"] == M


def test_inspect_counts_columns_that_diverged(command, tmp_path, autoencoder, weights):
    with torch.no_grad():
        autoencoder.values[4, 0] = float("nan")
        autoencoder.values[5] = 0
    autoencoder.save(weights)
    columns = command("inspect", weights, "--json").json["columns"]
    assert (columns["not_finite"], columns["zero"]) == (1, 1)


def test_inspect_with_activations_agrees_with_the_codes(command, weights, autoencoder, activations):
    file, array = activations
    found = command("inspect", weights, "--activations", file, "--json").json["activations"]
    code = autoencoder.encode(torch.from_numpy(array))
    assert found["dead_features"] == int((code.counts(N) == 0).sum())
    assert found["negative_share"] == pytest.approx(float((code.value < 0).double().mean()))
    assert 0 <= found["collision_deficit"] < 1


def test_tokens_beyond_the_norm_limit_are_left_out(command, tmp_path, activations):
    file, array = activations
    autoencoder = make_weights(tmp_path / "weights.safetensors", norm_limit=50.0)
    record = command("eval", tmp_path / "weights.safetensors", file, "--json").json
    assert (record["tokens"], record["encoded_tokens"]) == (TOKENS, TOKENS - 1)
    h = torch.from_numpy(array[1:])
    error = ((h - autoencoder(h)[0]).norm(dim=1) / h.norm(dim=1)).detach()
    assert record["inference"]["encoder"]["relative_error"] == pytest.approx(float(error.mean()), rel=1e-5)
    done = command("omp", tmp_path / "weights.safetensors", file, "--out", tmp_path / "codes.parquet")
    assert "tokens of a norm over 50 are encoded here" in done.out
    done = command("omp", tmp_path / "weights.safetensors", file, "--out", tmp_path / "c.parquet", "--json")
    assert (done.json["tokens"], done.json["over_norm_limit"]) == (TOKENS, 1)


def test_eval_measures_each_inference(command, weights, autoencoder, activations):
    file, array = activations
    measured = command("eval", weights, file, "--inference", "encoder", "omp", "--json").json["inference"]
    h = torch.from_numpy(array)
    for name in ("encoder", "omp"):
        rebuilt = autoencoder.decode(INFERENCES[name](autoencoder, h))
        cosine = torch.nn.functional.cosine_similarity(h, rebuilt).mean()
        assert measured[name]["cosine"] == pytest.approx(float(cosine), abs=1e-5)
    assert measured["omp"]["relative_error"] < measured["encoder"]["relative_error"]
    done = command("eval", weights, file, "--inference", "telepathy")
    assert done.code == 1 and "--inference: found 'telepathy', expected one of encoder" in done.err


def test_omp_writes_the_codes_as_tensors(command, tmp_path, weights, autoencoder, activations):
    file, array = activations
    out = tmp_path / "codes.safetensors"
    record = command("omp", weights, file, "--out", out, "--k", 3, "--json").json
    tensors, about = load_tensors(out)
    autoencoder.k = 3
    code = INFERENCES["omp"](autoencoder, torch.from_numpy(array))
    assert torch.equal(tensors["index"].long(), code.index)
    torch.testing.assert_close(tensors["value"], code.value)
    assert about == {"n": N, "k": 3, "inference": "omp"}
    assert record["l0"] == pytest.approx(float((code.value != 0).sum()) / TOKENS)


def test_parquet_codes_rebuild_the_same_activations(command, tmp_path, weights, autoencoder, activations):
    file, array = activations
    assert command("omp", weights, file, "--out", tmp_path / "c.parquet", "--inference", "encoder").code == 0
    rows = pq.read_table(tmp_path / "c.parquet").to_pylist()
    assert len(rows) == TOKENS
    index, value = torch.full((TOKENS, K), -1), torch.zeros(TOKENS, K)
    for token, row in enumerate(rows):
        index[token, : len(row["feature"])] = torch.tensor(row["feature"])
        value[token, : len(row["value"])] = torch.tensor(row["value"])
    expected, _ = autoencoder(torch.from_numpy(array))
    torch.testing.assert_close(autoencoder.decode(SparseCode(index, value)), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("option", "value"), [("--out", "codes.csv"), ("--k", N + 1), ("--inference", "x")])
def test_omp_says_what_it_cannot_do(command, tmp_path, weights, activations, option, value):
    arguments = {"--out": tmp_path / "c.parquet", option: value}
    done = command("omp", weights, activations[0], *(part for pair in arguments.items() for part in pair))
    assert done.code == 1 and done.err.splitlines()[-1].startswith(f"error: {option}: ")


def test_activations_of_another_width_are_named(command, tmp_path, weights):
    np.save(tmp_path / "other.npy", np.ones((3, M + 1), np.float32))
    done = command("eval", weights, tmp_path / "other.npy")
    assert done.err.splitlines()[-1] == (
        f"error: {tmp_path / 'other.npy'}: activations of width {M + 1}, expected m = {M}"
    )


def test_bench_times_every_task_of_both_dictionaries(command):
    shape = ("--m", 16, "--n", 32, "--d", 4, "--k", 2, "--batch", 8, "--omp-batch", 4, "--repeats", 1)
    record = command("bench", *shape, "--backend", "torch", "--json").json
    assert {(row["task"], row["support"]) for row in record["rows"]} == {
        (task, support) for task in ("encode", "training step", "omp") for support in ("expander", "dense")
    }
    assert all(row["milliseconds"] > 0 for row in record["rows"])
    alone = command("bench", *shape, "--backend", "torch", "--no-dense").out
    assert "expander" in alone and "dense" not in alone


@pytest.mark.parametrize("name", ["niht", "cosamp", "block_omp_2"])
def test_every_inference_is_known_by_its_name(command, tmp_path, weights, autoencoder, activations, name):
    file, array = activations
    measured = command("eval", weights, file, "--inference", name, "--json").json["inference"][name]
    assert measured == pytest.approx(
        {key: evaluate(autoencoder, array, name)[key] for key in measured}, rel=1e-6
    )
    out = tmp_path / "codes.safetensors"
    assert command("omp", weights, file, "--out", out, "--inference", name).code == 0
    expected = inferences(name)(autoencoder, torch.from_numpy(array))
    assert torch.equal(load_tensors(out)[0]["index"].long(), expected.index)


def no_reading(monkeypatch):
    import expander_sae.cli.data

    for name in ("read_activations", "load_weights"):
        monkeypatch.setattr(expander_sae.cli.data, name, lambda *_, **__: pytest.fail("something was read"))


@pytest.mark.parametrize(
    "wrong", ["the weights", "those of a folder", "the activations", "a shard", "a pool's index", "a folder"]
)
def test_omp_overwrites_nothing_that_it_reads(command, tmp_path, weights, activations, monkeypatch, wrong):
    no_reading(monkeypatch)
    given, file = weights, tmp_path / "shards"
    file.mkdir()
    out = file / "part-00000.parquet"
    if wrong == "the weights":
        out = tmp_path / "again" / ".." / weights.name
        (tmp_path / "again").mkdir()
    elif wrong == "those of a folder":
        given, out = weights.parent, weights
    elif wrong == "the activations":
        file = out = tmp_path / "activations.safetensors"
    elif wrong == "a pool's index":
        file, out = tmp_path / "test.json", tmp_path / "test.tokens.safetensors"
        file.write_text("{}")
    if wrong == "a folder":
        out = out.with_name("folder.parquet")
        out.mkdir()
    elif not out.exists():
        out.write_bytes(b"as it was")
    before = out.read_bytes() if out.is_file() else None
    done = command("omp", given, file, "--out", out)
    assert done.code == 1 and done.err.startswith("error: ") and str(out) in done.err
    assert wrong == "a folder" or "expected a file of its own" in done.err
    assert before is None or out.read_bytes() == before


def test_omp_finds_out_first_that_it_cannot_write(command, tmp_path, weights, activations, monkeypatch):
    no_reading(monkeypatch)
    (tmp_path / "file").write_text("")
    out = tmp_path / "file" / "codes.parquet"
    done = command("omp", weights, activations[0], "--out", out)
    assert done.code == 1 and done.err.startswith(f"error: {out}: cannot be written")


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_weights_of_16_bits_are_weights_like_others(command, tmp_path, weights, activations, dtype):
    file, _ = activations
    half = load(weights, dtype=dtype).save(tmp_path / "half.safetensors")
    wide, narrow = (
        command("eval", path, file, "--inference", "encoder", "omp", "--json").json["inference"]
        for path in (weights, half)
    )
    for name, metrics in wide.items():
        assert narrow[name]["relative_error"] == pytest.approx(metrics["relative_error"], rel=0.02)
    for suffix in ("parquet", "safetensors"):
        assert command("omp", half, file, "--out", tmp_path / f"codes.{suffix}").code == 0
    assert command("inspect", half, "--activations", file).code == 0
    out = tmp_path / "out"
    assert command("export", half, "--format", "saelens", "--out", out, "--activations", file).code == 0


def test_training_takes_a_gpu_where_there_is_one_as_in_python(tmp_path):
    parsed = build_parser().parse_args(["train", "a.npy", "--n", "4", "--k", "2", "--out", "w.safetensors"])
    assert parsed.device == signature(Trainer).parameters["device"].default == "auto"


@pytest.mark.parametrize(
    ("support", "said"),
    [
        ("hybrid", "8 dense columns and 32 of 4 nonzeros on a fixed random mask"),
        ("spectral9", "columns of 8 nonzeros in 9 principal components"),
        ("grown", "grown, m = 24, n = 40, d = 8, seed 0"),
    ],
)
def test_decoders_of_other_kinds_go_through_every_command(command, activations, tmp_path, support, said):
    file, array = activations
    out, exported, page = (tmp_path / name for name in ("w.safetensors", "saelens", "page.html"))
    how = ("--support", support, "--n", 40, "--d", 8, "--k", 6, "--steps", 50)
    assert command("train", file, *how, "--out", out).code == 0
    sae, h = load(out), torch.from_numpy(array)
    assert said in command("inspect", out, "--activations", file).out
    found = command("eval", out, file, "--inference", "omp", "--json").json["inference"]["omp"]
    assert found["relative_error"] == pytest.approx(evaluate(sae, array, "omp")["relative_error"])
    assert command("export", out, "--format", "saelens", "--out", exported).code == 0
    rebuilt = [one.decode(one.encode(h)) for one in (sae, load(exported))]
    torch.testing.assert_close(*rebuilt, rtol=1e-4, atol=1e-4)
    refused = command("export", out, "--format", "saelens", "--compact", "--out", tmp_path / "compact")
    assert refused.code == 1 and "compact: found" in refused.err
    assert command("dashboard", out, "--activations", file, "--out", page).code == 0
    assert page.stat().st_size > 10_000


@pytest.mark.parametrize(
    ("support", "shape"),
    [("pca", ("--n", 16)), ("random", ("--n", 40, "--d", 5)), ("exemplars", ("--n", 40))],
)
def test_dictionaries_that_nobody_trained_go_through_every_command(
    command, activations, tmp_path, support, shape
):
    file, array = activations
    out, exported = tmp_path / "floor.safetensors", tmp_path / "saelens"
    trained = command(
        "train", file, "--support", support, *shape, "--k", 6, "--steps", 50, "--out", out, "--json"
    )
    assert trained.json["steps"] == 0
    told = command("train", file, "--support", support, *shape, "--k", 6, "--out", out)
    assert "0 steps: nobody trained it" in told.out
    shown = command("inspect", out, "--activations", file)
    assert f"none: a {support} dictionary" in shown.out
    record = command("inspect", out, "--json").json
    sae = load(out)
    everything = sae.dictionary().columns(torch.arange(sae.n)).double()
    peaks = everything.abs().amax(dim=1) * M**0.5 / everything.norm(dim=1)
    assert record["support"] == support and record["columns"]["zero"] == 0
    assert record["columns"]["flatness_mean"] == pytest.approx(float(peaks.mean()), rel=1e-5)
    found = command("eval", out, file, "--inference", "omp", "--json").json["inference"]["omp"]
    assert found["relative_error"] == pytest.approx(evaluate(sae, array, "omp")["relative_error"])
    assert command("export", out, "--format", "saelens", "--out", exported).code == 0
    h = torch.from_numpy(array)
    torch.testing.assert_close(load(exported).encode(h).value, sae.encode(h).value, rtol=1e-4, atol=1e-5)
