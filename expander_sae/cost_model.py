"""How long a task takes on a machine, from its shape and fitted coefficients. Standard library only.

    t = r · (a + b·n·B + c·n·d·B + e·B·k·d)

with n features, d stored entries a column (m for a dense dictionary), k active features and a batch
of B samples. a: what a call costs at any size; b: selection among the scores; c: the scores
themselves, one multiply-add each; e: work on the kept columns. r is 1, and k for orthogonal
matching pursuit, whose coefficients are those of one round.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from expander_sae.errors import UserError
from expander_sae.files import read_json

TASKS = ("encode_topk", "train_step", "omp")
COEFFICIENTS = ("a", "b", "c", "e")
DENSE = "dense"
"""The name under which dense dictionaries stand among the backends."""

CPU_FILE = Path(__file__).with_name("cost_coefficients.json")
GPU_FILE = Path(__file__).with_name("cost_estimates_gpu.json")


@dataclass(frozen=True)
class Shape:
    """n features, d stored entries a column (m where dense), k active features, B samples a call."""

    n: int
    d: int
    k: int
    batch: int


def terms(task: str, shape: Shape) -> tuple[float, float, float, float]:
    """What each coefficient is multiplied by."""
    rounds = float(shape.k if task == "omp" else 1)
    scored = rounds * shape.n * shape.batch
    return rounds, scored, scored * shape.d, rounds * shape.batch * shape.k * shape.d


@dataclass(frozen=True)
class Machine:
    """One kind of hardware: fitted coefficients of the tasks, and what the rest of a job costs.

    tasks: task → backend → {a, b, c, e} in seconds. jobs: the constants named in `JOB_CONSTANTS`.
    measured: False where the numbers come from a roofline.
    """

    device: str
    measured: bool
    cores: int
    tasks: dict[str, dict[str, dict[str, Any]]]
    jobs: dict[str, float]

    @classmethod
    def read(cls, path: str | Path) -> Machine:
        """The machine that `benchmarks.fit` wrote; `UserError` names what is missing or wrong."""
        record = read_json(path)
        try:
            machine = cls(
                str(record["device"]),
                bool(record["measured"]),
                int(record["cores"]),
                {task: dict(record["tasks"][task]) for task in TASKS},
                {name: float(record["jobs"][name]) for name in JOB_CONSTANTS},
            )
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(
                f"{path}: found no usable {error}, expected what benchmarks.fit --json writes"
            ) from None
        for task, fitted in machine.tasks.items():
            if DENSE not in fitted or len(fitted) < 2:
                raise UserError(f"{path}: tasks.{task}: found {sorted(fitted)}, expected dense and another")
            for backend, found in fitted.items():
                if not isinstance(found, dict) or any(
                    not isinstance(found.get(name), int | float) or found[name] < 0 for name in COEFFICIENTS
                ):
                    raise UserError(
                        f"{path}: tasks.{task}.{backend}: expected numbers a, b, c, e of at least 0"
                    )
        return machine

    def backend(self, asked: str) -> str:
        """The sparse backend that `compute.backend` means here: `asked`, or the fastest if unknown."""
        sparse = [name for name in self.tasks["train_step"] if name != DENSE]
        if asked in sparse:
            return asked
        common = Shape(4608, 7, 64, 256)
        return min(sparse, key=lambda name: self.seconds("train_step", name, common))

    def seconds(self, task: str, backend: str, shape: Shape) -> float:
        """Predicted seconds of one call."""
        fitted = self.tasks[task][backend]
        parts = terms(task, shape)
        return sum(float(fitted[name]) * part for name, part in zip(COEFFICIENTS, parts, strict=True))


JOB_CONSTANTS = {
    "start": "s until a job that trains has imported and compiled what it needs",
    "start_model": "s the same, where a language model is used",
    "load": "s to load a language model, per parameter",
    "convert": "s to write a packaged model as safetensors, per parameter",
    "forward_float32": "floating-point operations a second of the language model's decoder layers",
    "forward_bfloat16": "the same in bfloat16",
    "logits": "logits a second: the head, and the losses from its output",
    "layer_call": "s that a decoder layer takes at least, per call",
    "corpus": "s to read the first document",
    "corpus_token": "s to read, compare and tokenise, per token kept",
    "shard_bytes": "bytes a second written as shards",
    "pool_bytes": "bytes a second joined into a pool",
    "read_bytes": "bytes a second of a pool checked and averaged before a training",
    "mask_entry": "s to generate a mask, per entry",
    "tables": "s of tables and figure, per run",
}
"""Constants of `Machine.jobs`, with their units."""
