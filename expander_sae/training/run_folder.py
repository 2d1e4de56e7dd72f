"""Training runs on disk: from runs, a pool and masks to weights, log and run.json of each.

A run is finished when its weights carry its fingerprint; a run that was killed continues from
its last checkpoint and ends with the weights of an undisturbed run, bit for bit on one machine.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from expander_sae.errors import UserError
from expander_sae.kernels.precision import products
from expander_sae.masks.learned import prune
from expander_sae.masks.recipe import Mask, MaskRecipe, read_mask
from expander_sae.masks.stored import keep
from expander_sae.masks.supports import support_of
from expander_sae.model.autoencoder import SparseAutoencoder
from expander_sae.model.precisions import stored_as
from expander_sae.pursuit.inference import ENCODER
from expander_sae.stages import lineage
from expander_sae.storage.files import atomic_path, digest, sha256_file
from expander_sae.storage.seals import check_recorded, write_sealed_json
from expander_sae.study.run import Run
from expander_sae.training.checkpoint import Checkpoint
from expander_sae.training.normalisation import Normalisation
from expander_sae.training.session import Cadence, Session, Training
from expander_sae.training.step import LOG_COLUMNS, TrainingState
from expander_sae.training.training_pool import TrainingPool

WEIGHTS, LOG, RECORD, CHECKPOINT = "weights.safetensors", "training.csv", "run.json", "checkpoint.safetensors"


@dataclass(frozen=True)
class RunFiles:
    """A run to train, where to, and what from: the file of its mask where a recipe generates it, and the
    weights of its parent: the dense run that a run of support `pruned_retuned` is pruned from, the run in
    float32 that one of another precision rounds, or the one trained with codes by its encoder that one with
    codes by a pursuit goes on from."""

    run: Run
    folder: Path
    mask: Path | None = None
    parent: Path | None = None


def fingerprint(run: Run, pool: str, support: Mask | MaskRecipe, parent: str | None = None) -> str:
    """What the weights depend on: settings, the activations used (`TrainingPool.digest`), the mask, the stage
    versions; and the fingerprint of the run that they start from, if any."""
    used = {"spec": run.spec, "pool": pool, "mask": support.sha256}
    used |= {"lineage": lineage("training")} | ({} if parent is None else {"parent": parent})
    return digest(used)


def train_runs(
    runs: Sequence[RunFiles],
    train_pool: Path,
    device: str = "cpu",
    backend: str = "auto",
    checkpoint_every: int = 500,
    side_by_side: int | None = None,
) -> bool:
    """Train or round those of the runs whose weights are not there yet; returns False where all were.

    The runs share a pool, or a list of shards where their recipe streams, its tokens, a recipe, a number of
    steps and the codes of training; `side_by_side` of them are trained at once, and None is one on a CPU and
    what finds room on a GPU (`training.session.Session`). A saved autoencoder works on activations in the
    model's own units: the recipe's scaling is folded into the biases. `about` in the weights holds the spec,
    the fingerprint and the norm above which tokens are passed through.

    Raises:
        UserError: a pool of another width or with too few tokens, a mask or a parent that does not fit.
        ValueError: the runs do not share a session.
    """
    if any(files.run.is_trained for files in runs) != all(files.run.is_trained for files in runs):
        raise ValueError("runs to train beside runs to round, expected one kind")
    if not runs[0].run.is_trained:
        return any([_round(files) for files in runs])
    shared = {(run.train_tokens, run.steps, run.recipe_settings, run.codes) for run in (f.run for f in runs)}
    if len(shared) != 1:
        raise ValueError(f"runs of {len(shared)} sessions, expected one: {shared}")
    ((_, steps, recipe, codes),) = shared
    training = TrainingPool.read(train_pool, runs[0].run)
    if wrong := next((files.run.m for files in runs if files.run.m != training.pool.m), None):
        raise UserError(f"{train_pool}: activations of width {training.pool.m}, expected m = {wrong}")
    if codes != ENCODER:
        steps, recipe = recipe.pursuit_steps, recipe.pursuing
    cadence = Cadence(checkpoint_every=checkpoint_every)
    session = Session(training.tokens(device), recipe, steps, cadence, side_by_side, codes)
    return session.train(filter(None, map(partial(_start, session, training.digest, backend), runs))) > 0


def _start(session: Session, pool: str, backend: str, files: RunFiles) -> Training | None:
    """The training of a run; None where it is finished."""
    run, folder = files.run, files.folder
    parent = _read_parent(run, files.parent)
    origin = None if parent is None else parent.about["fingerprint"]
    support: Mask | MaskRecipe
    if parent is None:
        support = _read_support(run, files.mask)
    elif run.is_pursued:
        support = parent.mask or parent.decoder.recipe
    else:
        support, _ = prune(parent.dictionary().columns(torch.arange(parent.n)), run.d, run.seed)
    identity = fingerprint(run, pool, support, origin)
    checkpoint = Checkpoint(folder / CHECKPOINT, identity, temporary=True)
    if finished(folder, identity):
        checkpoint.path.unlink(missing_ok=True)  # of a run that was killed after its last file
        return None
    autoencoder = SparseAutoencoder(run.m, run.n, run.k, support, run.encoder, backend)
    autoencoder.train_in(stored_as(run.precision))
    done = partial(_write_results, run, folder, identity, session.tokens.normalisation)
    return session.start(autoencoder, run.seed, checkpoint, parent, done=done)


def _round(files: RunFiles) -> bool:
    """Write the weights of the parent in the run's precision; False where they are there.

    No step is made: the log is that of the training that is rounded.
    """
    run, folder, parent = files.run, files.folder, _read_parent(files.run, files.parent)
    assert parent is not None and files.parent is not None
    used = {"spec": run.spec, "parent": parent.about["fingerprint"], "lineage": lineage("training")}
    identity = digest(used)
    if finished(folder, identity):
        return False
    rounded = parent.stored(stored_as(run.precision))
    settled = {name: parent.about[name] for name in ("norm_limit", "scale")}
    about = {"spec": run.spec, "fingerprint": identity} | settled
    trained = files.parent.parent
    check_recorded(trained / LOG, trained / RECORD, "log_sha256")
    with atomic_path(folder / LOG) as temporary:
        temporary.write_bytes((trained / LOG).read_bytes())
    finite = all(bool(parameter.isfinite().all()) for parameter in rounded.parameters())
    record = {"finite": finite, "log_sha256": sha256_file(folder / LOG), "lineage": lineage("training")}
    record["mask_sha256"] = None if rounded.mask is None else rounded.mask.sha256
    write_sealed_json(folder / RECORD, about | record | {"torch": torch.__version__})
    rounded.about = about
    rounded.save(folder / WEIGHTS)
    return True


def _read_parent(run: Run, path: Path | None) -> SparseAutoencoder | None:
    """The autoencoder that a run starts from or rounds."""
    if run.parent is None:
        return None
    expected = run.parent.spec
    if path is None:
        needed = f"the weights of a {run.parent.support} run"
        if run.is_trained:
            what = f"codes {run.codes}" if run.is_pursued else f"support {run.support}"
            raise UserError(f"{what}: {needed} are needed")
        raise UserError(f"precision {run.precision}: {needed} in {run.parent.precision} are needed")
    parent = SparseAutoencoder.load(path)
    found = parent.about.get("spec") or {}
    if found != expected:
        wrong = next((key for key in {**expected, **found} if found.get(key) != expected.get(key)), "spec")
        raise UserError(f"{path}: {wrong} = {found.get(wrong)!r}, expected {expected.get(wrong)!r}")
    return parent


def _read_support(run: Run, path: Path | None) -> Mask | MaskRecipe:
    asked = MaskRecipe(run.support, run.m, run.n, run.d, run.seed)
    if support_of(run.support).make is None:
        return asked
    if path is None:
        raise UserError(f"support {run.support}: a mask file is needed")
    mask = read_mask(path)
    if mask.recipe != asked:
        raise UserError(f"{path}: found {mask.recipe}, expected {asked}")
    return mask


def finished(folder: Path, identity: str) -> bool:
    """Whether a run's files are there and its weights carry this fingerprint."""
    if not all((folder / name).exists() for name in (WEIGHTS, LOG, RECORD)):
        return False
    try:
        about = SparseAutoencoder.load(folder / WEIGHTS).about
        check_recorded(folder / LOG, folder / RECORD, "log_sha256")
    except UserError:
        return False
    return about.get("fingerprint") == identity


def _write_results(
    run: Run, folder: Path, identity: str, scaling: Normalisation, state: TrainingState
) -> None:
    settled: dict[str, Any] = {"norm_limit": scaling.norm_limit, "scale": scaling.scale}
    about = {"spec": run.spec, "fingerprint": identity} | settled
    write_log(folder, state.log)
    mask, backend = state.autoencoder.mask, getattr(state.autoencoder.dictionary(), "backend", None)
    result = {
        "finite": state.finite,
        "log_sha256": sha256_file(folder / LOG),
        "kept_tokens": len(scaling.kept),
        "mask_sha256": None if mask is None else mask.sha256,
        "lineage": lineage("training"),
        "torch": torch.__version__,
        "device": str(state.fired.device),
        "backend": "dense" if backend is None else backend.__name__.rsplit(".", 1)[-1],
    }
    if state.fired.is_cuda:
        result["products"] = products()
    write_sealed_json(folder / RECORD, about | result)
    if mask is not None:
        keep(mask, folder.parent)  # once for every k and precision of this seed
    state.autoencoder.save(folder / WEIGHTS, **about)
    (folder / CHECKPOINT).unlink(missing_ok=True)


def write_log(folder: Path, rows: Sequence[Sequence[float]]) -> None:
    """Write the log of a training, a row of LOG_COLUMNS each."""
    with atomic_path(folder / LOG) as temporary, open(temporary, "w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(LOG_COLUMNS)
        writer.writerows([int(row[0]), *(f"{value:.6g}" for value in row[1:])] for row in rows)
