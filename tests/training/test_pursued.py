"""Training with codes by a pursuit, against a plain loop in float64; its start, re-aiming, kills and jobs."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from expander_sae.api import evaluate
from expander_sae.errors import UserError
from expander_sae.masks.recipe import MaskRecipe, write_mask
from expander_sae.model.autoencoder import SparseAutoencoder
from expander_sae.pursuit.inference import inferences
from expander_sae.rng import torch_generator
from expander_sae.study.recipes import RECIPES
from expander_sae.study.run import Run
from expander_sae.training.checkpoint import Checkpoint
from expander_sae.training.normalisation import KeptTokens, Normalisation
from expander_sae.training.run_folder import RunFiles, train_runs
from expander_sae.training.session import Session
from expander_sae.training.step import TrainingState, resample
from expander_sae.training.trainer import Trainer
from tests.training.small_data import TOKENS, activations, few_directions, write_pool
from tests.training.small_data import M as WIDTH

M, N, K, STEPS = 24, 96, 4, 100
RECIPE = replace(RECIPES["tuned"], batch_size=16, resample_every=1000, pursuit_steps=STEPS)


def tokens(data: torch.Tensor) -> KeptTokens:
    """Every row of `data` as it is."""
    as_it_is = Normalisation(math.inf, 1.0, np.zeros(data.shape[1], np.float32), np.arange(len(data)))
    return KeptTokens(data, as_it_is, dtype=data.dtype)


def autoencoder(d: int, n: int = N, encoder: str = "tied") -> SparseAutoencoder:
    mask = None if d == M else MaskRecipe("expander", M, n, d, 0).generate()
    return SparseAutoencoder(M, n, K, mask, encoder, dtype=torch.float64)


def trained(d: int, n: int = N, encoder: str = "tied") -> SparseAutoencoder:
    """A few steps with codes by the encoder: where codes by a pursuit go on."""
    made = autoencoder(d, n, encoder)
    session = Session(tokens(few_directions()), RECIPE, 30)
    session.train([session.start(made, 0)])
    return made


def pursued(
    parent: SparseAutoencoder, codes: str, encoder: str = "tied", **changes: Any
) -> SparseAutoencoder:
    made = autoencoder(parent.d, parent.n, encoder)
    session = Session(tokens(few_directions()), replace(RECIPE, **changes).pursuing, STEPS, codes=codes)
    session.train([session.start(made, 0, parent=parent)])
    return made


def plain_pursuit(columns: np.ndarray, target: np.ndarray, block: int) -> np.ndarray:
    """The code [n] of one sample: in each round the `block` largest scores, and least squares.

    A column whose score is not positive is passed over for good; without any other the sample is done.
    """
    held: list[int] = []
    tried: list[int] = []
    code = np.zeros(len(columns))
    while len(held) < K and len(tried) < len(columns):
        scores = columns @ (target - code @ columns)
        scores[tried] = -np.inf
        best = [int(j) for j in np.argsort(-scores, kind="stable")[:block]]
        chosen = [j for j in best if scores[j] > 1e-12 * np.linalg.norm(target)]
        if not chosen:
            break
        held += chosen[: K - len(held)]
        tried += best
        code[:] = 0
        code[held] = np.linalg.lstsq(columns[held].T, target, rcond=None)[0]
    return code


def plain_loop(parent: SparseAutoencoder, block: int) -> tuple[np.ndarray, np.ndarray]:
    """(columns [n, m] of unit norm, b_dec) after STEPS: Adam on the entries of the support and on b_dec."""
    everything = torch.arange(parent.n)
    v = parent.dictionary().columns(everything).numpy().copy()
    support = v != 0
    b = parent.b_dec.detach().numpy().copy()
    data, batches = few_directions().numpy(), torch_generator(0, "batches")
    moments = [[np.zeros_like(p), np.zeros_like(p)] for p in (v, b)]
    rates = (RECIPE.pursuit_rate / parent.d**0.5, RECIPE.pursuit_rate / 50 * parent.d**0.5)
    for step in range(STEPS):
        h = data[torch.randint(len(data), (16,), generator=batches).numpy()]
        norm = np.linalg.norm(v, axis=1, keepdims=True)
        w = v / norm
        x = np.stack([plain_pursuit(w, row - b, block) for row in h])
        slope = 2 * (x @ w + b - h) / len(h)
        d_w = x.T @ slope
        d_v = (d_w - w * (w * d_w).sum(axis=1, keepdims=True)) / norm * support
        gradients = [d_v, slope.sum(axis=0)]
        length = math.sqrt(sum(float((g**2).sum()) for g in gradients))
        clip = min(1.0, RECIPE.clip_norm / (length + 1e-6))
        share = 0.5 * (1 + math.cos(math.pi * step / STEPS))
        for p, g, (first, second), rate in zip((v, b), gradients, moments, rates, strict=True):
            first *= 0.9
            first += 0.1 * clip * g
            second *= 0.999
            second += 0.001 * (clip * g) ** 2
            root = np.sqrt(second / (1 - 0.999 ** (step + 1))) + 1e-8
            p -= rate * share * first / (1 - 0.9 ** (step + 1)) / root
    return v / np.linalg.norm(v, axis=1, keepdims=True), b


@pytest.mark.parametrize("codes", ["omp", "block_omp_2"])
@pytest.mark.parametrize(("d", "n"), [(5, N), (M, N), (M, 12)], ids=["sparse", "dense", "small dense"])
def test_training_equals_a_plain_loop_in_float64(codes: str, d: int, n: int) -> None:
    parent = trained(d, n)
    found = pursued(parent, codes)
    columns, bias = plain_loop(parent, 1 if codes == "omp" else 2)
    there = found.dictionary().columns(torch.arange(n)).numpy()
    for mine, plain in ((there, columns), (found.b_dec.detach().numpy(), bias)):
        assert np.linalg.norm(mine - plain) <= 1e-8 * np.linalg.norm(plain)


def test_an_encoder_of_its_own_follows_and_leaves_the_decoder_alone() -> None:
    """So that it reads the decoder in the end, as it did at the start, where a tied one is spoilt."""
    data = few_directions()
    parent = trained(5, encoder="warm_tied")
    found = pursued(parent, "omp", "warm_tied", clip_norm=1e9)

    def error(of: SparseAutoencoder, name: str = "encoder") -> float:
        return float((of.decode(inferences(name)(of, data)) - data).norm())

    assert error(found) < error(parent) and error(found, "omp") < error(parent, "omp")
    tied = autoencoder(5)
    with torch.no_grad():
        for mine, theirs in (
            (tied.values, parent.values),
            (tied.b_enc, parent.b_enc),
            (tied.b_dec, parent.b_dec),
        ):
            mine.copy_(theirs)
    alone = pursued(tied, "omp", clip_norm=1e9)
    assert torch.equal(alone.values, found.values) and torch.equal(alone.b_dec, found.b_dec)
    assert torch.equal(alone.b_enc, parent.b_enc) and not torch.equal(found.b_enc, parent.b_enc)
    assert error(found) < 0.9 * error(alone)


@pytest.mark.parametrize("codes", ["omp", "block_omp_2"])
def test_codes_that_were_trained_with_rebuild_better_than_before(codes: str) -> None:
    data = few_directions()
    parent = trained(5)
    infer = inferences(codes)

    def error(of: SparseAutoencoder) -> float:
        return float((of.decode(infer(of, data)) - data).norm())

    assert error(pursued(parent, codes)) < 0.95 * error(parent)


def test_the_start_is_where_the_parent_ended_at_unit_norm() -> None:
    parent = trained(5)
    made = autoencoder(5)
    session = Session(tokens(few_directions()), RECIPE.pursuing, STEPS, codes="omp")
    state = session.start(made, 7, parent=parent).state
    torch.testing.assert_close(made.values.norm(dim=1), torch.ones(N, dtype=torch.float64))
    everything = torch.arange(N)
    ours, theirs = (one.dictionary().columns(everything) for one in (made, parent))
    torch.testing.assert_close(ours, theirs)
    assert torch.equal(made.b_dec, parent.b_dec) and torch.equal(made.b_enc, parent.b_enc)
    assert not state.optimiser.state, "Adam starts anew"


def test_a_silent_feature_is_aimed_at_what_the_pursuit_leaves() -> None:
    """Not at what the encoder leaves, which columns that are held rebuild already."""
    data = few_directions()
    made = trained(5)
    state = TrainingState.start(made, replace(RECIPE, resample_min_fires=1), 0, "omp")
    state.fired += 1
    state.fired[3] = 0
    batch = data[:64]
    residual = batch - made.decode(inferences("omp")(made, batch))
    drawn = torch.multinomial(
        residual.square().sum(dim=1), 1, replacement=True, generator=torch_generator(0, "resampling")
    )
    before = made.values.detach().clone()
    assert resample(state, batch, replace(RECIPE, resample_min_fires=1)) == 1
    expected = residual[int(drawn), made.decoder.rows[3].long()] / 5**0.5
    torch.testing.assert_close(made.values[3].detach(), expected)
    others = torch.arange(N) != 3
    assert torch.equal(made.values[others], before[others])
    assert int(state.fired.sum()) == 0


def test_places_that_a_pursuit_leaves_empty_count_for_no_feature() -> None:
    data = torch.zeros(50, M, dtype=torch.float64)
    data[:, 0] = 1.0
    made = autoencoder(M, 12)
    session = Session(tokens(data), RECIPE.pursuing, 1, codes="omp")
    start = trained(M, 12)
    with torch.no_grad():
        start.values[5] = data[0]
        start.b_dec.zero_()
    training = session.start(made, 0, parent=start)
    session.train([training])
    assert training.state.fired.tolist() == [16 if feature == 5 else 0 for feature in range(12)]


SMALL = replace(RECIPES["tuned"], batch_size=16, resample_every=10, pursuit_steps=30)
PLANNED = Run("tiny", "text", 1, "tuned", "expander", "tied", WIDTH, 32, 3, 3, TOKENS, 20, 0, SMALL)


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pool(tmp_path_factory.mktemp("pool"))


def run_of(support: str, folder: Path, pool: Path, encoder: str = "tied") -> tuple[Run, Path]:
    """A run with codes by its encoder, trained in `folder`, and its weights."""
    d = WIDTH if support == "dense" else 3
    run = replace(PLANNED, support=support, d=d, encoder=encoder)
    mask = None
    if support != "dense":
        mask = folder / "mask.json"
        write_mask({"family": support, "m": WIDTH, "n": 32, "d": 3, "seed": 0}, mask)
    train_runs([RunFiles(run, folder / "encoder", mask)], pool)
    return run, folder / "encoder" / "weights.safetensors"


@pytest.mark.parametrize("support", ["expander", "bernoulli", "dense"])
def test_a_killed_run_ends_as_an_undisturbed_one(
    support: str, pool: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, weights = run_of(support, tmp_path, pool)
    run = replace(run, codes="omp")
    assert train_runs([RunFiles(run, tmp_path / "whole", None, weights)], pool)
    genuine, saves = Checkpoint.save, 0

    class Killed(Exception):
        pass

    def save_and_die(checkpoint: Checkpoint, state: TrainingState) -> None:
        nonlocal saves
        genuine(checkpoint, state)
        saves += 1
        if saves == 2:
            raise Killed

    monkeypatch.setattr(Checkpoint, "save", save_and_die)
    files = [RunFiles(run, tmp_path / "killed", None, weights)]
    with pytest.raises(Killed):
        train_runs(files, pool, checkpoint_every=7)
    assert train_runs(files, pool, checkpoint_every=7) and saves == 4
    for name in ("weights.safetensors", "training.csv", "run.json"):
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert not train_runs(files, pool), "it is finished"
    last = (tmp_path / "whole" / "training.csv").read_text().splitlines()[-1]
    assert last.startswith(f"{SMALL.pursuit_steps},"), "the log is that of the steps with these codes"


def test_codes_by_the_encoder_are_the_training_that_names_none(pool: Path, tmp_path: Path) -> None:
    run, weights = run_of("expander", tmp_path, pool)
    told = Run.from_spec({**run.spec, "codes": "encoder"})
    train_runs([RunFiles(told, tmp_path / "again", tmp_path / "mask.json")], pool)
    assert (tmp_path / "again" / weights.name).read_bytes() == weights.read_bytes()


def test_what_does_not_fit_is_named(pool: Path, tmp_path: Path) -> None:
    run, weights = run_of("expander", tmp_path, pool)
    pursued = replace(run, codes="omp")
    with pytest.raises(UserError, match="codes omp: the weights of a expander run are needed"):
        train_runs([RunFiles(pursued, tmp_path / "run", tmp_path / "mask.json")], pool)
    with pytest.raises(UserError, match="seed = 0, expected 1"):
        train_runs([RunFiles(replace(pursued, seed=1), tmp_path / "run", None, weights)], pool)
    with pytest.raises(ValueError, match="runs of 2 sessions"):
        files = [RunFiles(one, tmp_path / "run", None, weights) for one in (run, pursued)]
        train_runs(files, pool)


def test_a_precision_rounds_the_run_with_the_same_codes(pool: Path, tmp_path: Path) -> None:
    run, weights = run_of("expander", tmp_path, pool)
    wide = replace(run, codes="omp")
    train_runs([RunFiles(wide, tmp_path / "wide", None, weights)], pool)
    narrow = replace(wide, precision="int8")
    own = tmp_path / "wide" / weights.name
    train_runs([RunFiles(narrow, tmp_path / "narrow", None, own)], pool)
    found = SparseAutoencoder.load(tmp_path / "narrow" / weights.name)
    assert torch.equal(found.values, SparseAutoencoder.load(own).stored("int8").values)
    with pytest.warns(
        UserWarning, match="trained with codes by omp, which spoils it, expected inference 'omp'"
    ):
        found.encode(torch.zeros(1, WIDTH))


USERS: dict[str, Any] = {"n": 32, "d": 3, "k": 3, "batch_size": 16, "resample_every": 10, "pursuit_steps": 30}


def test_the_trainer_ends_with_the_weights_of_the_workflows_run(pool: Path, tmp_path: Path) -> None:
    run, weights = run_of("expander", tmp_path, pool)
    train_runs([RunFiles(replace(run, codes="omp"), tmp_path / "run", None, weights)], pool)
    theirs = SparseAutoencoder.load(tmp_path / "run" / weights.name)
    trainer = Trainer(activations(), codes="omp", log_every=5, **USERS)
    mine = trainer.fit(20)
    for name, parameter in mine.named_parameters():
        assert torch.equal(parameter, dict(theirs.named_parameters())[name]), name
    of_a_study = {"model": "tiny", "corpus": "text", "layer": 1, "recipe": "tuned"}
    assert mine.about["spec"] | of_a_study == theirs.about["spec"]
    assert [row["step"] for row in trainer.log] == list(range(5, 51, 5)), "one log of both parts"
    h = torch.from_numpy(activations())
    assert evaluate(mine, h) == evaluate(mine, h, "omp"), "read by the codes of training"


@pytest.mark.parametrize("at", [10, 20, 25, 45])
def test_a_trainer_that_was_stopped_goes_on_in_either_part(at: int, tmp_path: Path) -> None:
    settings = USERS | {"codes": "omp", "log_every": 5}
    whole = Trainer(activations(), **settings)
    expected = list(whole.fit(20).parameters())
    settings |= {"checkpoint": tmp_path / "c.safetensors", "checkpoint_every": 6}

    class Stopped(Exception):
        pass

    def stop(row: dict[str, float]) -> None:
        if row["step"] == at:
            raise Stopped

    with pytest.raises(Stopped):
        Trainer(activations(), on_log=stop, **settings).fit(20)
    again = Trainer(activations(), **settings)
    assert all(torch.equal(a, b) for a, b in zip(expected, again.fit(20).parameters(), strict=True))
    assert again.log == whole.log
    told: list[dict[str, float]] = []
    last = Trainer(activations(), on_log=told.append, **settings).fit(20)
    assert all(torch.equal(a, b) for a, b in zip(expected, last.parameters(), strict=True)) and not told
    with pytest.raises(UserError, match="a checkpoint of other settings"):
        Trainer(activations(), **settings | {"pursuit_rate": 0.2}).fit(20)


def test_what_no_training_moves_takes_no_codes_by_a_pursuit() -> None:
    with pytest.raises(UserError, match="codes: found 'omp' for a random dictionary, expected encoder"):
        Trainer(activations(), support="random", codes="omp", **USERS)
    with pytest.raises(UserError, match="inference: found 'mp', expected one of encoder, omp"):
        Trainer(activations(), codes="mp", **USERS)
