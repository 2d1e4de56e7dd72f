"""One training run on disk: from a spec, a pool and a mask to weights, log and run.json.

A run is finished when its weights carry its fingerprint; a run that was killed continues from
its last checkpoint and ends with the weights of an undisturbed run, bit for bit on one machine.
"""

from __future__ import annotations

import csv
from dataclasses import astuple
from pathlib import Path
from typing import Any

import torch

from expander_sae.activations.pool import Pool
from expander_sae.errors import UserError
from expander_sae.kernels.autograd import unit_columns
from expander_sae.masks.learned import prune
from expander_sae.masks.recipe import Mask, MaskRecipe, read_mask
from expander_sae.masks.supports import support_of
from expander_sae.model.autoencoder import SparseAutoencoder
from expander_sae.rng import torch_generator
from expander_sae.stages import lineage
from expander_sae.storage.files import atomic_path, digest, sha256_file
from expander_sae.storage.safetensors_files import load_tensors, save_tensors
from expander_sae.storage.seals import check_recorded, write_sealed_json
from expander_sae.study.recipes import Recipe
from expander_sae.training.loop import LOG_COLUMNS, Cadence, TrainingState, train
from expander_sae.training.normalisation import Normalisation, normalisation

WEIGHTS, LOG, RECORD, CHECKPOINT = "weights.safetensors", "training.csv", "run.json", "checkpoint.safetensors"


def fingerprint(
    spec: dict[str, Any], pool: Pool, mask: Mask | MaskRecipe | None, parent: str | None = None
) -> str:
    """What the weights depend on: settings, the activations used, the mask, the stage versions; and the
    fingerprint of the run that they start from, if any."""
    return digest(
        {
            "spec": spec,
            "pool": pool.prefix_digest(spec["train_tokens"]),
            "mask": None if mask is None else mask.sha256,
            "lineage": lineage("training"),
        }
        | ({} if parent is None else {"parent": parent})
    )


def _read_parent(spec: dict[str, Any], path: Path | None) -> SparseAutoencoder | None:
    """The dense autoencoder that a run with a learned mask is pruned from."""
    known = support_of(spec["support"])
    if known.parent is None:
        return None
    if path is None:
        raise UserError(f"support {known.name}: the weights of a {known.parent} run are needed")
    dense = SparseAutoencoder.load(path)
    about = dense.about
    expected = {**spec, "support": known.parent, "encoder": "tied", "d": spec["m"]}
    if about.get("spec") != expected:
        found = about.get("spec") or {}
        wrong = next((key for key in expected if found.get(key) != expected[key]), "spec")
        raise UserError(f"{path}: {wrong} = {found.get(wrong)!r}, expected {expected.get(wrong)!r}")
    return dense


def _start_pruned(
    autoencoder: SparseAutoencoder, dense: SparseAutoencoder, kept: torch.Tensor, scale: float
) -> None:
    """Start at the kept entries with unit-norm columns, and at the dense biases in units of training."""
    with torch.no_grad():
        autoencoder.values.copy_(unit_columns(kept))
        autoencoder.b_enc.copy_(dense.b_enc * scale)
        autoencoder.b_dec.copy_(dense.b_dec * scale)


def _read_support(spec: dict[str, Any], path: Path | None) -> Mask | MaskRecipe:
    asked = tuple(spec[key] for key in ("support", "m", "n", "d", "seed"))
    if support_of(spec["support"]).make is None:
        return MaskRecipe(*asked)
    if path is None:
        raise UserError(f"support {spec['support']}: a mask file is needed")
    mask = read_mask(path)
    found = astuple(mask.recipe)
    if found != asked:
        raise UserError(f"{path}: mask (family, m, n, d, seed) = {found}, expected {asked}")
    return mask


def train_run(
    spec: dict[str, Any],
    train_pool: Path,
    mask_file: Path | None,
    folder: Path,
    device: str = "cpu",
    backend: str = "auto",
    checkpoint_every: int = 500,
    parent: Path | None = None,
) -> bool:
    """Train the run of `spec` into `folder`; returns False where its weights were already there.

    The saved autoencoder works on activations in the model's own units: the recipe's scaling is
    folded into the biases. `about` in the weights holds the spec, the fingerprint and the norm
    above which tokens are passed through. parent: weights of the dense run that a run of support
    `pruned_retuned` is pruned from.

    Raises:
        UserError: a pool of another width or with too few tokens, a mask or a parent that does not fit.
    """
    pool = Pool.open(train_pool)
    if pool.m != spec["m"]:
        raise UserError(f"{train_pool}: activations of width {pool.m}, expected m = {spec['m']}")
    if pool.tokens < spec["train_tokens"]:
        raise UserError(f"{train_pool}: {pool.tokens} tokens, expected at least {spec['train_tokens']}")
    dense = _read_parent(spec, parent)
    if dense is None:
        mask: Mask | MaskRecipe = _read_support(spec, mask_file)
        kept, origin = None, None
    else:
        mask, kept = prune(dense.dictionary().columns(torch.arange(dense.n)), spec["d"], spec["seed"])
        origin = dense.about["fingerprint"]
    identity = fingerprint(spec, pool, mask, origin)
    if _finished(folder, identity):
        (folder / CHECKPOINT).unlink(missing_ok=True)  # of a run that was killed after its last file
        return False
    recipe = Recipe(**spec["recipe_settings"])
    scaling = normalisation(pool, spec["train_tokens"], recipe)
    autoencoder = SparseAutoencoder(spec["m"], spec["n"], spec["k"], mask, spec["encoder"], backend)
    autoencoder.initialise(torch_generator(spec["seed"], "initialisation"))
    if dense is not None and kept is not None:
        _start_pruned(autoencoder, dense, kept, scaling.scale)
    elif recipe.start_at_mean:
        with torch.no_grad():
            autoencoder.b_dec.copy_(torch.from_numpy(scaling.mean) * scaling.scale)
    autoencoder.to(device)
    state = TrainingState.start(autoencoder, recipe, spec["seed"])
    _resume(state, folder / CHECKPOINT, identity)
    finite = train(
        state,
        _drawer(pool, scaling, device),
        len(scaling.kept),
        spec["steps"],
        recipe,
        Cadence(checkpoint_every=checkpoint_every),
        checkpoint=lambda now: _save_checkpoint(now, folder / CHECKPOINT, identity),
        label="{support}-{encoder} n{n} d{d} k{k} seed{seed}".format(**spec),
    )
    autoencoder.rescale(scaling.scale)
    _write_results(folder, state, spec, identity, scaling, finite, mask)
    (folder / CHECKPOINT).unlink(missing_ok=True)
    return True


def _drawer(pool: Pool, scaling: Normalisation, device: str) -> Any:
    kept = torch.from_numpy(scaling.kept)

    def draw(positions: torch.Tensor) -> torch.Tensor:
        batch = torch.from_numpy(pool.activations[kept[positions].numpy()])
        return (batch * scaling.scale).to(device)

    return draw


def _finished(folder: Path, identity: str) -> bool:
    if not all((folder / name).exists() for name in (WEIGHTS, LOG, RECORD)):
        return False
    try:
        about = SparseAutoencoder.load(folder / WEIGHTS).about
        check_recorded(folder / LOG, folder / RECORD, "log_sha256")
    except UserError:
        return False
    return about.get("fingerprint") == identity


def _save_checkpoint(state: TrainingState, path: Path, identity: str) -> None:
    save_tensors(state.tensors(), path, {"fingerprint": identity})


def _resume(state: TrainingState, path: Path, identity: str) -> None:
    """Continue from a checkpoint of this very run; another run's or a damaged one is ignored."""
    try:
        stored, about = load_tensors(path)
    except UserError:
        return
    if about.get("fingerprint") == identity:
        state.restore(stored)


def _write_results(
    folder: Path,
    state: TrainingState,
    spec: dict[str, Any],
    identity: str,
    scaling: Normalisation,
    finite: bool,
    mask: Mask | MaskRecipe,
) -> None:
    about = {"spec": spec, "fingerprint": identity, "norm_limit": scaling.norm_limit, "scale": scaling.scale}
    with (
        atomic_path(folder / LOG) as temporary,
        open(temporary, "w", newline="", encoding="utf-8") as stream,
    ):
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(LOG_COLUMNS)
        writer.writerows([int(row[0]), *(f"{value:.6g}" for value in row[1:])] for row in state.log)
    write_sealed_json(
        folder / RECORD,
        about
        | {
            "finite": finite,
            "log_sha256": sha256_file(folder / LOG),
            "kept_tokens": len(scaling.kept),
            "mask_sha256": mask.sha256,
            "lineage": lineage("training"),
            "torch": torch.__version__,
            "device": str(state.fired.device),
            "backend": _backend_name(state.autoencoder),
        },
    )
    state.autoencoder.save(folder / WEIGHTS, **about)


def _backend_name(autoencoder: SparseAutoencoder) -> str:
    backend = getattr(autoencoder.dictionary(), "backend", None)
    return "dense" if backend is None else backend.__name__.rsplit(".", 1)[-1]
