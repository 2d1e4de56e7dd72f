"""The public API: lazy names, the trainer against the workflow's run, resume, files, measurements."""

from __future__ import annotations

import math
import runpy
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
import torch
import yaml
from torch.utils._python_dispatch import TorchDispatchMode

import expander_sae
from expander_sae.activations.pool import build_pool
from expander_sae.activations.shards import Rows, write_shard
from expander_sae.evaluation.reconstruction import BATCH
from expander_sae.masks.recipe import write_mask
from expander_sae.rng import torch_generator
from expander_sae.stages import lineage
from expander_sae.storage.safetensors_files import load_tensors, save_tensors
from expander_sae.study.config import SCHEMA
from expander_sae.study.recipes import RECIPES, resolve
from expander_sae.study.run import Run
from expander_sae.training.run_folder import RunFiles, train_runs
from expander_sae.training.step import LOG_COLUMNS

M, N, TOKENS = 12, 48, 400
SMALL: dict[str, Any] = {"batch_size": 16, "resample_every": 20}


@pytest.fixture(scope="module")
def activations() -> torch.Tensor:
    h = 30 * torch.randn(TOKENS, M, generator=torch_generator(0, "api")) + 5
    h[::50] *= 500  # massive activations
    return h


def trainer(activations: torch.Tensor, **changes: Any) -> expander_sae.Trainer:
    return expander_sae.Trainer(activations, **({"n": N, "d": 4, "k": 3} | SMALL | changes))


def parameters(autoencoder: expander_sae.SparseAutoencoder) -> list[torch.Tensor]:
    return [parameter.detach() for parameter in autoencoder.parameters()]


def test_every_public_name_is_found_and_the_import_is_free_of_torch() -> None:
    for name in expander_sae.__all__:
        assert getattr(expander_sae, name) is not None and name in dir(expander_sae)
    assert sorted(expander_sae.__all__) == sorted(expander_sae._HOME), "each name has a home"
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        expander_sae.nothing  # noqa: B018
    heavy = ["torch", "numpy", "pandas", "snakemake", "transformers"]
    check = f"import sys, expander_sae; sys.exit(bool(set({heavy}) & sys.modules.keys()))"
    assert subprocess.run([sys.executable, "-c", check], check=False).returncode == 0
    check = "import sys; from expander_sae import Trainer; sys.exit('snakemake' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", check], check=False).returncode == 0


@pytest.mark.parametrize("support", ["expander", "dense"])
def test_the_trainer_ends_with_the_weights_of_the_workflows_run(
    activations: torch.Tensor, tmp_path: Path, support: str
) -> None:
    part = np.arange(TOKENS)
    rows = Rows(
        (part // 8).astype("i4"), (part % 8).astype("i2"), part.astype("i4"), activations.clone().numpy()
    )
    about = {"model": "tiny", "model_sha256": "0", "layer": 1, "split": "train", "shard": 0}
    write_shard(
        tmp_path / "0.parquet", rows, about | {"shard_tokens": TOKENS, "lineage": lineage("extraction")}
    )
    build_pool([tmp_path / "0.parquet"], "train", tmp_path / "p.f32", tmp_path / "p.json", {})
    write_mask({"family": "expander", "m": M, "n": N, "d": 4, "seed": 5}, tmp_path / "mask.json")
    d = M if support == "dense" else 4
    recipe = replace(RECIPES["standard"], **SMALL)
    run = Run("tiny", "text", 1, "standard", support, "tied", M, N, d, 3, TOKENS, 60, 5, recipe)
    mask = None if support == "dense" else tmp_path / "mask.json"
    train_runs([RunFiles(run, tmp_path / "run", mask)], tmp_path / "p.json")

    told: list[dict[str, float]] = []
    mine = trainer(activations, support=support, d=d, seed=5, on_log=told.append, log_every=20)
    trained = mine.fit(steps=60)
    theirs = expander_sae.load(tmp_path / "run")
    assert all(torch.equal(a, b) for a, b in zip(parameters(trained), parameters(theirs), strict=True))
    assert trained.about["norm_limit"] == theirs.about["norm_limit"] == mine.norm_limit
    of_a_study = {"model": "tiny", "corpus": "text", "layer": 1, "recipe": "standard"}
    assert trained.about["spec"] | of_a_study == theirs.about["spec"], "recorded under the workflow's names"
    assert [row["step"] for row in told] == [20, 40, 60] and told == mine.log
    assert set(told[0]) == set(LOG_COLUMNS)


def test_dtypes_arrays_and_devices_of_activations_do_not_matter(activations: torch.Tensor) -> None:
    narrow = activations.bfloat16()
    expected = parameters(trainer(narrow.float()).fit(25))
    for same in (narrow, narrow.double(), narrow.float().numpy()):
        assert all(
            torch.equal(a, b) for a, b in zip(expected, parameters(trainer(same).fit(25)), strict=True)
        )


def test_a_stopped_training_goes_on_from_its_checkpoint(activations: torch.Tensor, tmp_path: Path) -> None:
    whole = parameters(trainer(activations).fit(60))
    file = tmp_path / "checkpoint.safetensors"
    settings: dict[str, Any] = {"checkpoint": file, "checkpoint_every": 7, "log_every": 5}

    class Stopped(Exception):
        pass

    def stop(row: dict[str, float]) -> None:
        if row["step"] == 30:
            raise Stopped

    with pytest.raises(Stopped):
        trainer(activations, on_log=stop, **settings).fit(60)
    told: list[dict[str, float]] = []
    again = trainer(activations, on_log=told.append, **settings)
    assert all(torch.equal(a, b) for a, b in zip(whole, parameters(again.fit(60)), strict=True))
    assert told[0]["step"] == 30, "steps 1 to 28 were in the checkpoint"
    assert [row["step"] for row in again.log] == list(range(5, 61, 5)), "the log is whole"
    told.clear()
    assert all(torch.equal(a, b) for a, b in zip(whole, parameters(again.fit(60)), strict=True))
    assert not told, "a finished training is read, not repeated"
    with pytest.raises(expander_sae.UserError, match=r"checkpoint\.safetensors: a checkpoint of other"):
        trainer(activations, seed=1, **settings).fit(60)
    with pytest.raises(expander_sae.UserError, match="a checkpoint of other"):
        trainer(activations + 1, **settings).fit(60)


def test_wrong_arguments_are_named(activations: torch.Tensor) -> None:
    with_hole = activations.clone()
    with_hole[7, 3] = math.nan
    for changes, message in (
        ({"activations": with_hole}, "not finite in row 7"),
        ({"activations": activations[0]}, r"activations: found \[12\] of torch.float32, expected"),
        ({"activations": activations[:0]}, "activations: found no token"),
        ({"activations": activations.long()}, r"of torch.int64, expected a floating-point tensor"),
        ({"d": None}, "d: found none, expected 1 to m = 12"),
        ({"support": "dense"}, "d: found 4, expected none"),
        ({"support": "round"}, "round"),
        ({"batchsize": 3}, "training.batchsize: unknown key"),
        ({"recipe": "mine"}, "recipe: found 'mine'"),
        ({"device": "nowhere"}, "nowhere"),
        ({"k": 49}, "k: found 49"),
    ):
        with pytest.raises(expander_sae.UserError, match=message):
            trainer(**({"activations": activations} | changes)).fit(5)
    with pytest.raises(expander_sae.UserError, match="steps: found 0"):
        trainer(activations).fit(0)
    with pytest.raises(expander_sae.UserError, match="the loss was not finite at step"):
        trainer(activations, learning_rate=1e30, clip_norm=1e30, log_every=1).fit(50)


def test_evaluate_measures_what_its_words_say(activations: torch.Tensor) -> None:
    sae = trainer(activations).fit(60)
    kept = expander_sae.encoded(sae, activations)
    assert int(kept.sum()) == TOKENS - TOKENS // 50
    h = activations[kept].double()
    rebuilt = sae.decode(sae.encode(activations[kept])).double()
    found = expander_sae.evaluate(sae, activations)
    expected = {
        "relative_error": ((h - rebuilt).norm(dim=1) / h.norm(dim=1)).mean(),
        "explained_variance": 1 - (h - rebuilt).square().sum() / (h - h.mean(0)).square().sum(),
        "cosine": torch.nn.functional.cosine_similarity(h, rebuilt).mean(),
        "l0": 3.0,
        "encoded_share": kept.double().mean(),
    }
    for name, value in expected.items():
        assert found[name] == pytest.approx(float(value), rel=1e-5), name
    fired = sae.encode(activations[kept]).counts(N)
    assert found["dead_fraction"] == pytest.approx(float((fired == 0).double().mean()))
    everything = expander_sae.evaluate(sae, activations.numpy(), every_token=True)
    assert (
        everything["encoded_share"] == 1.0 and everything["explained_variance"] != found["explained_variance"]
    )
    pursued = expander_sae.evaluate(sae, activations, inference="omp")
    assert pursued["relative_error"] < found["relative_error"]
    with pytest.raises(expander_sae.UserError, match="inference: found 'guess'"):
        expander_sae.evaluate(sae, activations, inference="guess")
    with pytest.raises(expander_sae.UserError, match=r"found shape \[400, 11\], expected \[N, m = 12\]"):
        expander_sae.evaluate(sae, activations[:, 1:])


def test_codes_in_pieces_equal_codes_at_once(activations: torch.Tensor) -> None:
    sae = trainer(activations).fit(20)
    whole = sae.encode(activations)
    pieces = expander_sae.encode(sae, activations.double().numpy(), batch_size=7)
    assert torch.equal(whole.index, pieces.index) and torch.allclose(whole.value, pieces.value)
    assert torch.equal(expander_sae.decode(sae, whole), sae.decode(whole))
    assert expander_sae.encode(sae, activations[:0]).index.shape == (0, 3)
    by_name = expander_sae.encode(sae, activations, "omp")
    centred = activations - sae.b_dec.detach()
    by_hand = expander_sae.omp(sae.dictionary(), centred, 3, selection="signed")
    assert torch.equal(by_name.index, by_hand.index)


def test_about_travels_with_the_file(activations: torch.Tensor, tmp_path: Path) -> None:
    sae = trainer(activations).fit(20)
    file = expander_sae.save(sae, tmp_path / "sae.safetensors", source="mine")
    again = expander_sae.load(file)
    assert again.about == sae.about | {"source": "mine"}
    once_more = expander_sae.save(again, tmp_path / "copy.safetensors")
    assert once_more.read_bytes() == file.read_bytes()
    assert expander_sae.load(file, dtype=torch.float64).b_enc.dtype == torch.float64


def test_the_native_file_at_full_size_is_as_small_as_said(tmp_path: Path) -> None:
    m, n, d = 2048, 16384, 7
    mask = expander_sae.MaskRecipe("expander", m, n, d, seed=0).generate()
    sparse = expander_sae.SparseAutoencoder(m, n, 64, mask)
    sparse.initialise(torch_generator(0, "initialisation"))
    file = expander_sae.save(sparse, tmp_path / "sparse.safetensors", norm_limit=1745.3, scale=0.137)
    dense = expander_sae.save(
        expander_sae.SparseAutoencoder(m, n, 64),
        tmp_path / "dense.safetensors",
        norm_limit=1745.3,
        scale=0.137,
    )
    assert m * n / sparse.values.numel() == pytest.approx(292.57, abs=0.01), "values: m/d"
    assert dense.stat().st_size / file.stat().st_size >= 250
    assert file.stat().st_size < 4 * (d * n + n + m) + 1024, "values, biases and a recipe, nothing else"
    again = expander_sae.load(file)
    assert torch.equal(again.values, sparse.values) and again.mask is not None
    assert np.array_equal(again.mask.rows, mask.rows) and again.mask.sha256 == mask.sha256
    tensors, header = load_tensors(file)
    header["mask"]["sha256"] = "0" * 64
    save_tensors(tensors, file, header)
    with pytest.raises(expander_sae.UserError, match="mask sha256 0000"):
        expander_sae.load(file)


def test_the_quick_start_runs(
    activations: torch.Tensor,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    torch.save(activations, tmp_path / "activations.pt")
    monkeypatch.chdir(tmp_path)
    script = Path(expander_sae.__file__).parents[1] / "examples" / "quickstart.py"
    monkeypatch.setattr(sys, "argv", [str(script), "activations.pt"])
    names = runpy.run_path(str(script))
    assert names["sae"].n == 512 and (tmp_path / "sae.safetensors").exists()
    assert "relative_error" in capsys.readouterr().out


def test_encode_and_decode_take_what_users_have(activations: torch.Tensor) -> None:
    sae = trainer(activations).fit(20)
    h = activations[:40].bfloat16()
    expected = sae.encode(h.float())
    array = h.float().numpy()
    backwards = np.ascontiguousarray(array[::-1])[::-1]
    for same in (h, h.double(), array, array.astype(">f4"), backwards):
        code = sae.encode(same)
        assert torch.equal(code.index, expected.index) and torch.equal(code.value, expected.value)
        assert torch.equal(expander_sae.encode(sae, same).index, expected.index)
    wide = type(expected)(expected.index, expected.value.double())
    assert torch.equal(sae.decode(wide), sae.decode(expected))
    whole = sae.encode((h.float() * 10).long())
    assert torch.equal(whole.index, sae.encode((h.float() * 10).long().float()).index)
    double = sae.double()
    assert double.encode(h).value.dtype == torch.float64 and double.decode(expected).dtype == torch.float64
    with pytest.raises(expander_sae.UserError, match="activations: found list, expected a tensor"):
        sae.encode(h.tolist())  # type: ignore[arg-type]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_an_autoencoder_trained_on_a_gpu_encodes_activations_of_the_cpu(activations: torch.Tensor) -> None:
    sae = trainer(activations, device="auto").fit(20)
    assert sae.b_dec.device.type == "cuda"
    code = sae.encode(activations[:100])
    assert code.value.device.type == "cuda"
    on_cpu = type(code)(code.index.cpu(), code.value.cpu())
    torch.testing.assert_close(sae.decode(on_cpu), sae.decode(code))
    assert math.isfinite(expander_sae.evaluate(sae, activations, inference="omp")["relative_error"])


def test_arrays_in_any_order_of_memory_are_trained_on(activations: torch.Tensor) -> None:
    array = activations.numpy()
    expected = parameters(trainer(np.ascontiguousarray(array[::-1])).fit(10))
    for same in (array[::-1], np.asfortranarray(array[::-1]), array[::-1].astype(">f4")):
        assert all(
            torch.equal(a, b) for a, b in zip(expected, parameters(trainer(same).fit(10)), strict=True)
        )


@pytest.mark.parametrize("key", [field for field in asdict(RECIPES["standard"])])
def test_overrides_of_another_kind_are_named(key: str) -> None:
    for value in ("x", [1], float("nan"), -1, {}):
        with pytest.raises(expander_sae.UserError, match=rf"^training\.{key}: found .*, expected "):
            resolve("standard", {key: value})
    assert resolve("standard", asdict(RECIPES["paper"]))[1] == RECIPES["paper"]
    assert resolve("standard", {"learning_rate": 1})[1].learning_rate == 1


def test_overrides_have_the_ranges_of_the_configuration() -> None:
    """What the schema allows for `training` and what `resolve` allows are one."""
    schema = yaml.safe_load(SCHEMA.read_text(encoding="utf-8"))["properties"]["training"]["properties"]
    for key in asdict(RECIPES["standard"]):
        validator = jsonschema.Draft202012Validator(schema[key])
        for value in (None, True, False, -1, 0, 0.5, 1, 1.5, 2, 10**6, "1"):
            try:
                resolve("standard", {key: value})
                taken = True
            except expander_sae.UserError:
                taken = False
            assert taken == validator.is_valid(value), (key, value)


def test_a_code_that_names_no_feature_is_refused(activations: torch.Tensor) -> None:
    sae = trainer(activations).fit(5)
    ones = torch.ones(2, 3)
    for index, message in (
        (torch.tensor([[0, 1, N], [0, 1, 2]]), f"code.index: found {N}, expected −1"),
        (torch.tensor([[0, 1, 10_000], [0, 1, 2]]), "code.index: found 10000"),
        (torch.tensor([[0, -2, 1], [0, 1, 2]]), "code.index: found -2"),
        (torch.tensor([[0.0, 1.0, 2.0], [0, 1, 2]]), "code.index: found torch.float32, expected whole"),
        (torch.tensor([[0, 1]]), r"code: found index \[1, 2\] and value \[2, 3\], expected"),
    ):
        for call in (sae.decode, lambda code: expander_sae.decode(sae, code)):
            with pytest.raises(expander_sae.UserError, match=message):
                call(expander_sae.SparseCode(index, ones))
    edge = torch.tensor([[-1, 0, N - 1], [-1, -1, -1]])
    same = [sae.decode(expander_sae.SparseCode(index, ones * (edge >= 0))) for index in (edge, edge.int())]
    assert torch.equal(same[0], same[1]) and torch.equal(same[0][1], sae.b_dec)
    assert len(sae.decode(expander_sae.SparseCode(edge[:0], ones[:0]))) == 0


def test_activations_of_another_shape_are_refused(activations: torch.Tensor) -> None:
    sae = trainer(activations).fit(5)
    for wrong in (activations[0], activations.reshape(2, -1, M), activations[:, :1], activations[:, 1:]):
        with pytest.raises(expander_sae.UserError, match=r"activations: found shape .*, expected \["):
            sae.encode(wrong)
        for call in (sae, lambda h: expander_sae.encode(sae, h)):
            with pytest.raises(expander_sae.UserError, match="activations: found shape"):
                call(wrong)
    with pytest.raises(expander_sae.UserError, match="batch_size: found 0, expected at least 1"):
        expander_sae.encode(sae, activations, batch_size=0)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("backend", ["auto", "torch"])
@pytest.mark.parametrize("support", ["expander", "dense"])
def test_an_autoencoder_of_16_bits_does_what_one_of_32_does(
    activations: torch.Tensor, tmp_path: Path, dtype: torch.dtype, backend: str, support: str
) -> None:
    whole = trainer(activations, support=support, d=M if support == "dense" else 4).fit(60)
    file = expander_sae.save(whole, tmp_path / "sae.safetensors")
    half = expander_sae.load(file, dtype=dtype, backend=backend)
    h = activations[expander_sae.encoded(whole, activations)]
    code = half.encode(h)
    assert code.value.dtype == half.decode(code).dtype == dtype
    for inference in ("encoder", "omp", "niht", "block_omp_2"):
        assert expander_sae.encode(half, h, inference).value.dtype == dtype
        measured, expected = (expander_sae.evaluate(sae, h, inference) for sae in (half, whole))
        assert measured["relative_error"] == pytest.approx(expected["relative_error"], rel=0.02)
        assert measured["cosine"] == pytest.approx(expected["cosine"], rel=0.02)
    again = expander_sae.load(expander_sae.save(half, tmp_path / "half.safetensors"))
    assert again.b_dec.dtype == dtype and torch.equal(again.values, half.values)


def test_files_devices_and_types_that_cannot_be_are_named(
    activations: torch.Tensor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sae = trainer(activations).fit(5)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(expander_sae.UserError, match=r"^\.: a folder, expected the name of a file"):
        expander_sae.save(sae, ".")
    with pytest.raises(expander_sae.UserError, match="source: found Tensor, expected a JSON value"):
        expander_sae.save(sae, "sae.safetensors", source=torch.ones(2))
    assert not list(tmp_path.iterdir())
    file = expander_sae.save(sae, "sae.safetensors")
    for dtype in (torch.int8, torch.complex64):
        with pytest.raises(
            expander_sae.UserError, match=f"dtype: found {dtype}, expected one of torch.float"
        ):
            expander_sae.load(file, dtype=dtype)
    missing = "cuda" if not torch.cuda.is_available() else "cuda:99"
    with pytest.raises(expander_sae.UserError, match=f"device: found '{missing}', which torch cannot use"):
        expander_sae.load(file, device=missing)


def test_sizes_that_are_no_whole_numbers_are_named(activations: torch.Tensor) -> None:
    wrong: dict[str, Any] = {"n": "48", "k": 4.0, "d": 3.0, "seed": 1.5, "log_every": "1"}
    for name, value in wrong.items():
        with pytest.raises(
            expander_sae.UserError, match=f"^{name}: found {value!r}, expected a whole number"
        ):
            trainer(activations, **{name: value})
    with pytest.raises(expander_sae.UserError, match=r"steps: found 5\.0, expected a whole number"):
        trainer(activations).fit(5.0)  # type: ignore[arg-type]
    fitted = trainer(activations, n=np.int64(N), k=np.int32(3), seed=np.int64(2)).fit(5)
    same = trainer(activations, seed=2).fit(5)
    assert all(torch.equal(a, b) for a, b in zip(parameters(fitted), parameters(same), strict=True))
    assert fitted.about == same.about


@pytest.mark.parametrize("limit", [None, 100.0])
def test_measuring_holds_no_copy_of_the_activations(limit: float | None) -> None:
    tokens = 20 * BATCH
    h = torch.randn(tokens, M, generator=torch_generator(0, "memory"))
    h[7] *= 1000
    sae = expander_sae.SparseAutoencoder(M, N, 3, expander_sae.MaskRecipe("expander", M, N, 4, 0).generate())
    sae.initialise(torch_generator(0, "initialisation"))
    sae.about["norm_limit"] = limit
    largest = Largest(h)
    with largest:
        found = expander_sae.evaluate(sae, h)
    assert found["encoded_share"] == (1.0 if limit is None else 1 - 1 / tokens)
    assert 0 < largest.numbers <= 2 * BATCH * max(M, N)


class Largest(TorchDispatchMode):
    """Most numbers of a tensor that is made and is no view of the input."""

    def __init__(self, given: torch.Tensor) -> None:
        super().__init__()
        self.given, self.numbers = given.untyped_storage().data_ptr(), 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        for part in made if isinstance(made, tuple | list) else (made,):
            if isinstance(part, torch.Tensor) and part.untyped_storage().data_ptr() != self.given:
                self.numbers = max(self.numbers, part.untyped_storage().nbytes() // part.element_size())
        return made
