"""The weights that a training job of a study wrote, as measurements read them."""

from __future__ import annotations

from pathlib import Path

from expander_sae.errors import UserError
from expander_sae.model.autoencoder import SparseAutoencoder
from expander_sae.study.run import Run
from expander_sae.training.run_folder import WEIGHTS


def load_trained(folder: Path, device: str, backend: str) -> tuple[SparseAutoencoder, Run]:
    """The autoencoder in a run's folder, and the run: of a training job of a study."""
    path = folder / WEIGHTS
    autoencoder = SparseAutoencoder.load(path, device, backend)
    try:
        return autoencoder, Run.from_spec(autoencoder.about.get("spec"))
    except UserError as error:
        raise UserError(f"{path}: {error}") from None


def is_finite(autoencoder: SparseAutoencoder) -> bool:
    """Whether every parameter is finite."""
    return all(bool(parameter.isfinite().all()) for parameter in autoencoder.parameters())
