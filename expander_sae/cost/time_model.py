"""How long a task takes on a machine, from its shape and fitted coefficients. Standard library only.

    t = r · (a + b·n·B + c·n·d·B + e·B·k·d + f·n·d + g·B·k + h·B·m + p·n·d·B·m)

with n features, d stored entries a column (m for a dense dictionary), k active features and a batch
of B samples of m coordinates. a: what a call costs at any size; b: selection among the scores; c: the
scores themselves, one multiply-add each; e: work on the kept columns; f: on all values, whatever the
batch (norms, clipping, Adam); g: on the kept places; h: on the samples themselves; p: gathers get dearer
as the samples that they read from leave the near caches. r is 1, and k for orthogonal matching pursuit,
whose coefficients are those of one round. The numba backend scores tiles of 64 samples: in b, c and p its
B is a multiple of that.

Autoencoders whose steps are one round on a GPU (`training/rounds.py`) pay a once between them.

Dense dictionaries differ in two tasks. A training step takes the whole product over all features
again where gathering the kept columns would cost more (`kernels/dense.py`): c then counts every such
pass and e the gathers that remain. Coefficients with `passes` are those of a step that takes so many
products and gathers nothing, as on a GPU. A pursuit by the Gram matrix (`kernels/dense_omp.py`) takes
f·n·m·(n + B) once and e·n·B·k² in all. Neither gathers to score, so p is 0.

Columns that several matrices compute (a hybrid, a basis) take the time of all. A pursuit has no Gram matrix
of them: it goes through dense columns beside others in every round, as an encoder does, and through a basis
once. Rounds of several columns of numba take an encoder's pass each, and one refit in all, B·(u·k³ + v·k²·d).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from expander_sae.errors import UserError
from expander_sae.machine.piece_sizes import GEMM_KEPT, LANES
from expander_sae.masks.shapes import Piece
from expander_sae.pursuit.inference import ENCODER, rounds_of
from expander_sae.storage.files import read_json

TASKS = ("encode_topk", "train_step", "omp")
COEFFICIENTS = ("a", "b", "c", "e", "f", "g", "h", "p")
_OPTIONAL = ("f", "g", "h", "p")  # 0 where a file does not say
_TILE = {"numba": LANES}
_REFIT = {"numba": (1.4e-10, 3.6e-10)}
"""u and v, in seconds, from d = 7 and 30 at k = 64 on an AMD EPYC (docs/howto/inference.md)."""
DENSE = "dense"
"""The name under which dense dictionaries stand among the backends."""

CPU_FILE = Path(__file__).with_name("coefficients.json")
GPU_FILE = Path(__file__).with_name("coefficients_gpu.json")


@dataclass(frozen=True)
class Shape:
    """n features, d stored entries a column (m where dense), k active features, B samples of m a call."""

    m: int
    n: int
    d: int
    k: int
    batch: int


def terms(
    task: str, shape: Shape, backend: str = "torch", passes_given: float | None = None
) -> tuple[float, ...]:
    """What each coefficient is multiplied by; `passes_given`: see `passes` above."""
    m, n, d, k, batch = shape.m, shape.n, shape.d, shape.k, shape.batch
    rounds = float(k if task == "omp" else 1)
    tile = _TILE.get(backend, 1)
    scored = rounds * n * (-(-batch // tile) * tile)
    passes, gathers, values = 1.0, rounds * batch * k * d, rounds * n * d
    if passes_given is not None:
        passes, gathers = passes_given, 0.0
    elif d == m and task == "train_step":
        passes, gathers = (5.0, 0.0) if n <= GEMM_KEPT * k else (1.0, 4 * gathers)
    elif d == m and task == "omp":
        gathers, values = float(n) * batch * k * k, float(n) * m * (n + batch)
    places, samples, spread = rounds * batch * k, rounds * batch * m, 0.0 if d == m else scored * d * m
    return rounds, scored, passes * scored * d, gathers, values, places, samples, spread


@dataclass(frozen=True)
class Machine:
    """One kind of hardware: fitted coefficients of the tasks, and what the rest of a job costs.

    `tasks` has task → backend → coefficients in seconds, and `jobs` the constants named in `JOB_CONSTANTS`;
    what of them is `estimated`, from a roofline or the hardware's data sheet, is named: tasks, and "jobs".
    """

    device: str
    cores: int
    tasks: dict[str, dict[str, dict[str, Any]]]
    jobs: dict[str, float]
    estimated: tuple[str, ...] = ()

    @classmethod
    def read(cls, path: str | Path) -> Machine:
        """The machine that `benchmarks.fit` wrote; `UserError` names what is missing or wrong."""
        record = read_json(path)
        try:
            machine = cls(
                str(record["device"]),
                int(record["cores"]),
                {task: dict(record["tasks"][task]) for task in TASKS},
                {name: float(record["jobs"][name]) for name in JOB_CONSTANTS},
                tuple(map(str, record.get("estimated", ()))),
            )
        except (KeyError, TypeError, ValueError) as error:
            expected = "expected what benchmarks.fit --json writes"
            raise UserError(f"{path}: found no usable {error}, {expected}") from None
        for task, fitted in machine.tasks.items():
            if DENSE not in fitted or len(fitted) < 2:
                raise UserError(f"{path}: tasks.{task}: found {sorted(fitted)}, expected dense and another")
            for backend, found in fitted.items():
                given = {**dict.fromkeys(_OPTIONAL, 0), **found} if isinstance(found, dict) else {}
                numbers = [given.get(name) for name in COEFFICIENTS]
                if not all(isinstance(number, int | float) and number >= 0 for number in numbers):
                    expected = f"expected numbers {', '.join(COEFFICIENTS)} of at least 0"
                    raise UserError(f"{path}: tasks.{task}.{backend}: {expected}")
        return machine

    def backend(self, asked: str) -> str:
        """The sparse backend that `compute.backend` means here: `asked`, or the fastest if unknown."""
        sparse = [name for name in self.tasks["train_step"] if name != DENSE]
        if asked in sparse:
            return asked
        common = Shape(576, 4608, 7, 64, 256)
        return min(sparse, key=lambda name: self.seconds("train_step", name, common))

    def seconds(self, task: str, backend: str, shape: Shape) -> float:
        fitted = self.tasks[task][backend]
        parts = terms(task, shape, backend, fitted.get("passes"))
        return sum(float(fitted.get(name, 0)) * part for name, part in zip(COEFFICIENTS, parts, strict=True))

    def together(self, task: str, backend: str, pieces: Sequence[Piece], k: int, batch: int) -> float:
        """Seconds of a call that goes once through these matrices; `backend` is that of the sparse ones."""
        seconds = 0.0
        for piece in pieces:
            columns = DENSE if piece.d == piece.m else backend
            seconds += self.seconds(task, columns, Shape(piece.m, piece.n, piece.d, k, batch))
        return seconds

    def coding(
        self, inference: str, backend: str, pieces: Sequence[Piece], k: int, batch: int
    ) -> float | None:
        """Seconds of a call that codes `batch` samples; None of a pursuit that the model does not know."""
        if inference == ENCODER:
            return self.together("encode_topk", backend, pieces, k, batch)
        rounds, (*dense, columns) = rounds_of(inference, k), pieces
        if rounds == k:
            seconds = self.together("omp", backend, (columns,), k, batch)
        elif rounds is None or backend not in _REFIT or columns.d == columns.m:
            return None
        else:
            u, v = _REFIT[backend]
            seconds = rounds * self.together("encode_topk", backend, (columns,), k, batch)
            seconds += batch * k * k * (u * k + v * columns.d)
        for piece in dense:
            passes = 1 if piece.basis else rounds
            seconds += passes * self.together("encode_topk", backend, (piece,), k, batch)
        return seconds


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
