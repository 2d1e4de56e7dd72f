"""A training's state in a file, from which it goes on exactly."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from expander_sae.errors import UserError
from expander_sae.storage.safetensors_files import load_tensors, save_tensors
from expander_sae.training.step import TrainingState


@dataclass(frozen=True)
class Checkpoint:
    """Where one training, told from others by its fingerprint, keeps its state.

    A `temporary` file is the job's own, so that one of another training, or a damaged one, is ignored; one
    that a user names is not. `earlier` is the fingerprint of the training that this one goes on from, whose
    file may still lie there: it is left alone until there is something to save.
    """

    path: Path
    fingerprint: str
    temporary: bool = False
    earlier: str | None = None

    def save(self, state: TrainingState) -> None:
        """Write the state, which is the same in all processes that train together: one of them writes."""
        tensors = state.tensors()
        if state.processes.first:
            save_tensors(tensors, self.path, {"fingerprint": self.fingerprint})

    @property
    def is_mine(self) -> bool:
        """Whether the file is there and of this training; `UserError`: it is damaged."""
        return self.path.exists() and load_tensors(self.path)[1].get("fingerprint") == self.fingerprint

    def resume(self, state: TrainingState) -> None:
        """Take over what was saved, if anything was; `UserError`: it is damaged or another training's."""
        if not self.path.exists():
            return
        try:
            stored, about = load_tensors(self.path)
            if self.earlier is not None and about.get("fingerprint") == self.earlier:
                return
            if about.get("fingerprint") != self.fingerprint:
                found = "a checkpoint of other settings or activations, expected one of this training"
                raise UserError(f"{self.path}: {found}; remove it or name another file")
        except UserError:
            if self.temporary:
                return
            raise
        state.restore(stored)
