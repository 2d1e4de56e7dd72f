import json

import pytest
import torch

import expander_sae


@pytest.mark.parametrize(
    "arguments", [("saelens",), ("saelens", "--compact"), ("sparsify",), ("dictionary_learning",)]
)
def test_an_exported_folder_loads_as_the_same_autoencoder(
    command, tmp_path, weights, autoencoder, activations, arguments
):
    file, array = activations
    out = tmp_path / "out"
    done = command("export", weights, "--out", out, "--activations", file, "--json", "--format", *arguments)
    assert done.code == 0, done.err
    assert 0 <= done.json["fidelity"]["exact_share"] <= 1
    assert done.json["bytes"] == sum(path.stat().st_size for path in out.iterdir())
    h = torch.from_numpy(array)
    torch.testing.assert_close(expander_sae.load(out)(h)[0], autoencoder(h)[0], rtol=1e-4, atol=1e-4)
    # What is loaded from there is a weights argument like any other.
    assert command("inspect", out, "--json").json["shape"]["n"] == autoencoder.n


def test_names_reach_the_folder(command, tmp_path, weights):
    names = ("--model-name", "mine", "--hook-name", "blocks.3.hook_resid_post")
    names = (*names, "--context-size", "64", "--no-prepend-bos")
    done = command("export", weights, "--out", tmp_path / "out", "--format", "saelens", *names)
    assert done.code == 0 and "not measured" in done.out
    metadata = json.loads((tmp_path / "out" / "cfg.json").read_text())["metadata"]
    assert (metadata["model_name"], metadata["hook_name"]) == ("mine", "blocks.3.hook_resid_post")
    assert (metadata["context_size"], metadata["prepend_bos"]) == (64, False)


def test_options_of_another_format_are_refused(command, tmp_path, weights):
    done = command("export", weights, "--out", tmp_path / "out", "--format", "sparsify", "--compact")
    assert (done.code, done.err) == (1, "error: --compact: found --format sparsify, expected saelens\n")
    assert not (tmp_path / "out").exists()


def test_a_folder_that_cannot_be_written_is_said_before_anything_is_read(
    command, tmp_path, weights, activations, monkeypatch
):
    def reading(*_):
        pytest.fail("the weights were read")

    (tmp_path / "file").write_text("as it was")
    monkeypatch.setattr("expander_sae.cli.data.load_weights", reading)
    for out, said in (
        (tmp_path / "file", "which is a file; expected a folder to write"),
        (tmp_path / "file" / "out", "cannot be written"),
        (tmp_path, "which has the weights; expected a folder of its own"),
    ):
        before = sorted(tmp_path.rglob("*"))
        done = command("export", tmp_path, "--out", out, "--format", "saelens")
        assert done.code == 1 and str(out) in done.err and said in done.err
        assert sorted(tmp_path.rglob("*")) == before
    assert (tmp_path / "file").read_text() == "as it was"


def test_weights_in_fewer_bits(command, tmp_path, weights, autoencoder, activations):
    file, array = activations
    out = tmp_path / "int4"
    done = command("export", weights, "--out", out, "--format", "native", "--precision", "int4", "--json")
    assert done.code == 0, done.err
    assert (done.json["precision"], done.json["fidelity"]) == ("int4", None)
    stored = autoencoder.stored("int4")
    assert torch.equal(expander_sae.load(out).values, stored.values)
    shown = command("inspect", out, "--json").json
    assert shown["precision"] == "int4" and shown["storage"]["storage_bits_per_value"] == 4
    assert "int4, 4 bits a value" in command("inspect", out).out
    measured = command("eval", out, file)
    assert "weights in int4" in measured.out
    found = command("eval", out, file, "--json").json
    expected = expander_sae.evaluate(stored, array)["relative_error"]
    assert found["inference"]["encoder"]["relative_error"] == pytest.approx(expected)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("saelens", "--precision", "int8"), "--precision: found --format saelens, expected native"),
        (
            ("native", "--precision", "int3"),
            "precision: found 'int3', expected one of float32, bfloat16, int8",
        ),
    ],
)
def test_precisions_that_cannot_be_are_refused(command, tmp_path, weights, options, message):
    done = command("export", weights, "--out", tmp_path / "out", "--format", *options)
    assert done.code == 1 and done.err.startswith(f"error: {message}")
    assert not (tmp_path / "out").exists()


def test_weights_are_not_written_over_themselves(command, tmp_path, weights):
    before = weights.read_bytes()
    inside = weights.with_name("weights.safetensors")
    inside.write_bytes(before)
    done = command("export", inside, "--out", inside.parent, "--format", "native", "--precision", "int8")
    assert done.code == 1 and "which has the weights" in done.err
    assert inside.read_bytes() == before
