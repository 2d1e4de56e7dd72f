"""Runs of a study that are imported: an autoencoder from elsewhere in the files of a trained run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from expander_sae.errors import UserError
from expander_sae.interop.foreign import load_any
from expander_sae.model.autoencoder import SparseAutoencoder
from expander_sae.stages import lineage
from expander_sae.storage.files import digest, sha256_file
from expander_sae.storage.locations import named
from expander_sae.storage.seals import write_sealed_json
from expander_sae.study.imported import checksum
from expander_sae.study.run import Run
from expander_sae.training.normalisation import Normalisation
from expander_sae.training.run_folder import LOG, RECORD, WEIGHTS, finished, write_log
from expander_sae.training.training_pool import TrainingPool


@dataclass(frozen=True)
class ImportedFiles:
    """A run to import, where to, and what from: `sha256` is what planning read there."""

    run: Run
    folder: Path
    location: str
    sha256: str


def import_runs(runs: Sequence[ImportedFiles], train_pool: Path) -> bool:
    """Write the weights, the empty log and run.json of those that are not there; False where all were.

    Every format has a native form, so that what measures a run need not know where it is from. Tokens are
    passed through above the norm limit of the study's recipe, whatever limit the autoencoder came with: all
    runs of a study are measured on the same tokens. Nothing is scaled.

    Raises:
        UserError: the files changed since the study was planned, or hold no autoencoder of these sizes; a
            pool of another width or with too few tokens.
    """
    pools: dict[tuple[int, int], TrainingPool] = {}
    for run in (files.run for files in runs):
        if (run.m, run.train_tokens) not in pools:
            pools[run.m, run.train_tokens] = TrainingPool.read(train_pool, run)
    return any([_import(files, pools[files.run.m, files.run.train_tokens]) for files in runs])


def _import(files: ImportedFiles, training: TrainingPool) -> bool:
    run = files.run
    used = {"spec": run.spec, "imported": files.sha256, "pool": training.digest}
    identity = digest(used | {"lineage": lineage("training")})
    if finished(files.folder, identity):
        return False
    path = Path(named(files.location))
    if not path.exists() or checksum(path) != files.sha256:
        raise UserError(f"{files.location}: changed since the study was planned, expected it as it was then")
    autoencoder = load_any(path)
    _compare(autoencoder, run, files.location)
    _write(autoencoder, files, identity, training.scaling)
    return True


def _compare(autoencoder: SparseAutoencoder, run: Run, location: str) -> None:
    """Planning read no numbers: what it took from configurations has to be what was loaded."""
    for name in ("m", "n", "d", "k"):
        found, planned = getattr(autoencoder, name), getattr(run, name)
        if found != planned:
            raise UserError(f"{location}: {name} = {found}, expected {planned}, which its configuration says")


def _write(
    autoencoder: SparseAutoencoder, files: ImportedFiles, identity: str, scaling: Normalisation
) -> None:
    settled = {"norm_limit": scaling.norm_limit, "scale": 1.0}
    about = {"spec": files.run.spec, "fingerprint": identity} | settled
    write_log(files.folder, [])
    record = {
        "finite": all(bool(parameter.isfinite().all()) for parameter in autoencoder.parameters()),
        "log_sha256": sha256_file(files.folder / LOG),
        "kept_tokens": len(scaling.kept),
        "mask_sha256": None if autoencoder.mask is None else autoencoder.mask.sha256,
        "lineage": lineage("training"),
        "torch": torch.__version__,
        "imported": files.location,
        "imported_sha256": files.sha256,
    }
    write_sealed_json(files.folder / RECORD, about | record)
    autoencoder.about = about
    autoencoder.save(files.folder / WEIGHTS)
