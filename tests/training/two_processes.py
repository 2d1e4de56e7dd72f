"""Run by `test_data_parallel.py` in several processes: trains as `settings.json` of a folder says."""

from __future__ import annotations

import json
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.distributed as collective

from expander_sae.masks.recipe import MaskRecipe
from expander_sae.model.autoencoder import SparseAutoencoder
from expander_sae.rng import torch_generator
from expander_sae.storage.safetensors_files import save_tensors
from expander_sae.study.recipes import RECIPES
from expander_sae.training.checkpoint import Checkpoint
from expander_sae.training.data_parallel import Processes, joined
from expander_sae.training.normalisation import KeptTokens, normalisation
from expander_sae.training.rounds import Round
from expander_sae.training.session import Cadence, Session
from expander_sae.training.step import TrainingState
from expander_sae.training.tensor_pool import TensorPool

M, N, D, K, STEPS = 64, 512, 7, 8, 200
RECIPE = replace(RECIPES["tuned"], batch_size=64, resample_every=75, resample_min_fires=25)


def trained(
    processes: Processes, dtype: str, checkpoint: Checkpoint | None = None, stop: int = STEPS
) -> TrainingState:
    """The state after STEPS steps, or at `stop`, where the training is cut off; resampled at 75 and 150."""
    kind = getattr(torch, dtype)
    generator = torch_generator(1, "pool")
    codes, columns = (torch.randn(size, M, generator=generator, dtype=torch.float64) for size in (2000, M))
    pool = TensorPool((codes.relu() @ columns).to(kind))
    tokens = KeptTokens(pool.activations, normalisation(pool, pool.tokens, RECIPE), dtype=kind)
    mask = MaskRecipe("expander", M, N, D, 0)
    autoencoder = SparseAutoencoder(M, N, K, mask, "tied", dtype=kind)
    cadence = Cadence(log_every=50, checkpoint_every=60)
    session = Session(tokens, RECIPE, STEPS, cadence, processes=processes)
    training = session.start(autoencoder, seed=0, checkpoint=checkpoint)
    together = Round([training.state], tokens, RECIPE)
    while training.state.step < stop:
        session._advance([training], together)
    return training.state


class Counted:
    """Counts the values that collectives are given."""

    def __init__(self) -> None:
        self.values: Counter[str] = Counter()
        for name in ("all_reduce", "all_gather"):
            setattr(collective, name, self._counting(name, getattr(collective, name)))

    def _counting(self, name: str, call: Any) -> Any:
        def counting(*arguments: Any) -> Any:
            self.values[name] += arguments[-1].numel()
            return call(*arguments)

        return counting


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    processes, _ = joined("cpu")
    counted, record = Counted(), {}
    for dtype in ("float32", "float64"):
        for name, stop in (("whole", STEPS), ("cut", 130), ("resumed", STEPS)):
            path = folder / f"{dtype}-{'whole' if name == 'whole' else 'cut'}.checkpoint"
            counted.values.clear()
            state = trained(processes, dtype, Checkpoint(path, "same"), stop)
            record[f"{dtype}-{name}"] = dict(counted.values)
            tensors = state.tensors()
            save_tensors(tensors, folder / f"{dtype}-{name}-{processes.rank}.safetensors", {})
    (folder / f"record-{processes.rank}.json").write_text(json.dumps(record))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
