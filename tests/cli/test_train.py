import csv
import sys

import numpy as np
import pytest
import torch

import expander_sae
from expander_sae.training.loggers import CsvLogger
from expander_sae.training.session import Cadence
from expander_sae.training.trainer import Trainer
from tests.cli.conftest import TOKENS, M

SHAPE = ("--n", 48, "--d", 4, "--k", 3, "--steps", 6, "--set", "batch_size=8", "--backend", "torch")


def test_it_trains_what_the_trainer_does(command, tmp_path, activations):
    file, array = activations
    out = tmp_path / "w.safetensors"
    record = command("train", file, *SHAPE, "--held-out", 20, "--out", out, "--json").json
    kept = array[: TOKENS - 20]
    same = Trainer(kept, n=48, d=4, k=3, batch_size=8, device="cpu", backend="torch").fit(6)
    trained = expander_sae.load(out)
    for name, parameter in same.named_parameters():
        assert torch.equal(parameter, dict(trained.named_parameters())[name]), name
    assert record["tokens"] == TOKENS - 20
    expected = expander_sae.evaluate(same, array[TOKENS - 20 :])
    assert record["held_out"] == pytest.approx(expected)


def test_codes_by_a_pursuit_are_what_it_is_measured_by(command, tmp_path, activations):
    file, array = activations
    out = tmp_path / "w.safetensors"
    asked = ("--codes", "omp", "--set", "pursuit_steps=4", "--log-every", 2)
    done = command("train", file, *SHAPE, *asked, "--held-out", 20, "--out", out, "--json")
    assert [line.split(":")[0] for line in done.err.splitlines()] == [
        f"step {step} of 10" for step in (2, 4, 6, 8, 10)
    ]
    held_out = array[TOKENS - 20 :]
    assert done.json["held_out"] == pytest.approx(
        expander_sae.evaluate(expander_sae.load(out), held_out, "omp")
    )
    np.save(tmp_path / "h.npy", held_out)
    measured = command("eval", out, tmp_path / "h.npy", "--json").json
    assert list(measured["inference"]) == ["omp"]


def test_rows_are_logged_as_asked(command, tmp_path, activations):
    log = tmp_path / "log.csv"
    arguments = ("--out", tmp_path / "w.safetensors", "--csv", log, "--log-every", 2)
    done = command("train", activations[0], *SHAPE, *arguments)
    rows = list(csv.DictReader(log.read_text(encoding="utf-8").splitlines()))
    assert [row["step"] for row in rows] == ["2", "4", "6"]
    assert [line.split(":")[0] for line in done.err.splitlines()] == [
        f"step {step} of 6" for step in (2, 4, 6)
    ]
    assert "48" in done.out


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (("--set", "batch_size"), "--set: found 'batch_size', expected KEY=VALUE"),
        (("--set", "colour=1"), "colour: unknown key"),
        (("--held-out", TOKENS), f"--held-out: found {TOKENS}, expected fewer than the {TOKENS} rows"),
        (("--support", "paper"), "paper"),
        (("--d", M + 1), f"d: found {M + 1}, expected 1 to m = {M}"),
        (("--device", "warp"), "--device: found 'warp'"),
        (("--out", "w.bin"), "--out: suffix '.bin', expected .safetensors"),
        (("--device", "meta"), "--device: found 'meta', expected auto, cpu, cuda or cuda:INDEX"),
        (
            ("--set", "batch_size=1.5"),
            "training.batch_size: found 1.5, expected a whole number of at least 1",
        ),
        (("--set", 'batch_size="x"'), "training.batch_size: found 'x', expected a whole number"),
        (("--set", "clip_norm=null"), "training.clip_norm: found None, expected a number above 0"),
        (("--n", 999_999_999_999), "too little memory"),
        (("--support", "dense", "--d", M, "--n", 999_999_999_999), "too little memory"),
        (("--held-out-to", "held.npy"), "--held-out-to: found no --held-out"),
        (("--held-out", 3, "--held-out-to", "held.txt"), "--held-out-to: suffix '.txt', expected .npy"),
    ],
)
def test_what_cannot_be_trained_is_said(command, tmp_path, activations, changes, said):
    done = command("train", activations[0], *SHAPE, "--out", tmp_path / "w.safetensors", *changes)
    assert done.code == 1 and done.out == ""
    assert done.err.startswith("error: ") and said in done.err
    assert not (tmp_path / "w.safetensors").exists()


def test_a_logger_that_is_not_installed_is_said_before_training(command, tmp_path, activations, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    done = command("train", activations[0], *SHAPE, "--out", tmp_path / "w.safetensors", "--wandb", "mine")
    assert done.code == 1 and done.err == "error: W&B: the package is not installed (pip install wandb)\n"
    monkeypatch.setitem(sys.modules, "trackio", None)
    done = command("train", activations[0], *SHAPE, "--out", tmp_path / "w.safetensors", "--trackio", "mine")
    assert done.err == "error: trackio: the package is not installed (pip install trackio)\n"


def test_an_interrupted_training_goes_on(command, tmp_path, activations):
    out, checkpoint = tmp_path / "w.safetensors", tmp_path / "c.safetensors"
    np.testing.assert_equal(checkpoint.exists(), False)
    command("train", activations[0], *SHAPE, "--out", out, "--checkpoint", checkpoint)
    first = out.read_bytes()
    out.unlink()
    done = command("train", activations[0], *SHAPE, "--out", out, "--checkpoint", checkpoint)
    assert done.code == 0 and out.read_bytes() == first
    assert "step" not in done.err  # nothing was left to do


def steps_in(log):
    return [int(row["step"]) for row in csv.DictReader(log.read_text(encoding="utf-8").splitlines())]


def test_a_log_survives_what_follows_its_training(command, tmp_path, activations):
    log = tmp_path / "log.csv"
    files = ("--out", tmp_path / "w.safetensors", "--csv", log, "--checkpoint", tmp_path / "c.safetensors")
    arguments = ("train", activations[0], *SHAPE, *files, "--log-every", 2)
    assert command(*arguments).code == 0
    first = log.read_bytes()
    assert steps_in(log) == [2, 4, 6]
    for again, code in ((arguments, 0), ((*arguments, "--d", M + 1), 1), ((*arguments, "--k", 49), 1)):
        assert command(*again).code == code
        assert log.read_bytes() == first, again
    log.unlink()
    assert command(*arguments).code == 0
    assert log.read_bytes() == first, "the checkpoint has every row"


def test_a_training_that_goes_on_has_all_rows_in_its_log(command, tmp_path, activations, monkeypatch):
    log, checkpoint = tmp_path / "log.csv", tmp_path / "c.safetensors"
    arguments = ("train", activations[0], *SHAPE, "--out", tmp_path / "w.safetensors", "--csv", log)
    arguments += ("--checkpoint", checkpoint, "--log-every", 2)
    from expander_sae.training import trainer

    monkeypatch.setattr(trainer, "Cadence", lambda log_every, _, **last: Cadence(log_every, 3, **last))

    class Stopped(Exception):
        pass

    written = CsvLogger.__call__

    def stop(logger, row):
        written(logger, row)
        if row["step"] == 4:
            raise Stopped

    with monkeypatch.context() as patch, pytest.raises(Stopped):
        patch.setattr(CsvLogger, "__call__", stop)
        command(*arguments)
    assert steps_in(log) == [2, 4] and checkpoint.exists()
    assert command(*arguments).code == 0
    assert steps_in(log) == [2, 4, 6]


def test_the_rows_kept_back_are_written(command, tmp_path, activations):
    file, array = activations
    held = tmp_path / "held_out.npy"
    arguments = ("--held-out", 20, "--held-out-to", held, "--out", tmp_path / "w.safetensors")
    record = command("train", file, *SHAPE, *arguments, "--json").json
    np.testing.assert_array_equal(np.load(held), array[-20:])
    measured = command("eval", tmp_path / "w.safetensors", held, "--json").json
    assert measured["tokens"] == 20
    found = measured["inference"]["encoder"]["relative_error"]
    assert found == pytest.approx(record["held_out"]["relative_error"], rel=1e-5)


@pytest.mark.parametrize("option", ["--out", "--held-out-to", "--checkpoint", "--csv"])
@pytest.mark.parametrize("wrong", ["a folder", "below a file", "the activations", "another's"])
def test_what_cannot_be_written_is_said_before_anything_is_read(
    command, tmp_path, activations, monkeypatch, option, wrong
):
    import expander_sae.cli.data

    suffix = ".npy" if option == "--held-out-to" else ".safetensors"
    place = tmp_path / "mine" / f"place{suffix}"
    place.parent.mkdir()
    source, outputs = activations[0], {"--out": tmp_path / "w.safetensors", option: place}
    said = str(place)
    if wrong == "a folder":
        place.mkdir()
    elif wrong == "below a file":
        (tmp_path / "mine" / "file").write_text("")
        outputs[option] = place.parent / "file" / place.name
        said = str(outputs[option])
    elif wrong == "the activations":
        source, said = place, f"{option}: found {place}, which is the activations"
        place.write_bytes(activations[0].read_bytes())
    else:
        other = "--checkpoint" if option != "--checkpoint" else "--csv"
        outputs[other], said = place, "expected a file of its own"

    def reading(*_, **__):
        pytest.fail("the activations were read")

    monkeypatch.setattr(expander_sae.cli.data, "read_activations", reading)
    given = [part for pair in outputs.items() for part in pair]
    before = sorted(tmp_path.rglob("*"))
    done = command("train", source, *SHAPE, "--held-out", 5, *given)
    assert done.code == 1 and done.err.startswith("error: ") and said in done.err
    assert sorted(tmp_path.rglob("*")) == before
