"""`expander-sae train`: an autoencoder on a tensor of activations."""

from __future__ import annotations

import argparse
import json
import sys
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from expander_sae.cli.arguments import add_activations, add_compute, positive
from expander_sae.cli.terminal import Terminal, number, pairs
from expander_sae.pursuit.inference import ENCODER
from expander_sae.storage.remote import is_remote
from expander_sae.study.recipes import DEFAULT

if TYPE_CHECKING:
    import numpy as np

SUMMARY = "train an autoencoder on a tensor of activations or a folder of shards"
EXAMPLES = (
    "expander-sae train activations.npy --n 4608 --d 30 --k 64 --steps 1500 --out weights.safetensors",
    "expander-sae train shards/ --n 4608 --d 7 --k 64 --held-out 8192 --csv training.csv --out w.safetensors",
    "expander-sae train a.npy --n 99 --d 7 --k 9 --held-out 999 --held-out-to kept.npy --out w.safetensors",
    "expander-sae train s3://bucket/shards --stream 131072 --n 4608 --d 7 --k 64 --out w.safetensors",
    "expander-sae train acts.pt --support dense --n 1024 --k 32 --set learning_rate=0.05 --out w.safetensors",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add_activations(parser, remote=True)
    add("--out", type=Path, required=True, help=".safetensors file to write")
    add("--n", type=positive, required=True, help="features")
    add("--k", type=positive, required=True, help="active features a token")
    add("--d", type=positive, help="nonzeros a decoder column (needed unless all are stored)")
    streamed = (
        "read a folder of shards, here or in object storage (s3://bucket/folder), while training, "
        "TOKENS mixed at a time (131072 say), never all at once"
    )
    add("--stream", type=positive, metavar="TOKENS", help=streamed)
    add("--steps", type=positive, default=1500, help="(default: %(default)s)")
    families = "mask family, dense, pca, random or exemplars (default: %(default)s)"
    add("--support", default="expander", help=families)
    add("--encoder", default="tied", help="tied, warm_tied or independent (default: tied)")
    add("--precision", default="float32", help="train in float32, bfloat16, int8, int4, int2 or int1")
    add("--codes", default="encoder", help="then train on with codes by a pursuit, such as omp (default: no)")
    add("--recipe", default=DEFAULT, help="tuned, standard or paper (default: %(default)s)")
    add("--seed", type=int, default=0, help="(default: %(default)s)")
    add("--set", action="append", default=[], metavar="KEY=VALUE", help="change a value of the recipe")
    add("--held-out", type=positive, metavar="ROWS", help="keep the last ROWS back and measure on them")
    add(
        "--held-out-to", type=Path, metavar="FILE", help="file (.npy) for the rows that --held-out keeps back"
    )
    add("--log-every", type=positive, default=50, help="steps a row (default: %(default)s)")
    add("--csv", type=Path, help="file for the logged rows")
    add("--tensorboard", type=Path, metavar="FOLDER", help="folder for TensorBoard events")
    add("--wandb", metavar="PROJECT", help="project of Weights & Biases")
    add("--trackio", metavar="PROJECT", help="project of trackio, which keeps it on this machine")
    add("--checkpoint", type=Path, help="file to go on from where training is interrupted")
    together = "train with the other processes that torchrun or srun has started, each on its share"
    add("--data-parallel", action="store_true", help=together)
    add_compute(parser, "auto")


def run(options: argparse.Namespace, terminal: Terminal) -> None:
    import numpy as np

    from expander_sae.api import evaluate
    from expander_sae.cli.data import given_activations
    from expander_sae.machine.allocator import keep_freed_memory
    from expander_sae.machine.device import resolve_device
    from expander_sae.storage.files import atomic_path
    from expander_sae.training.loggers import together
    from expander_sae.training.trainer import Trainer

    keep_freed_memory()
    _check_outputs(options)
    device = resolve_device(options.device, "--device")
    if options.stream is None:
        kept, held_out = _parted(given_activations(options), options.held_out)
    else:
        kept, held_out = _streamed(options)
    names = ("n", "k", "d", "support", "encoder", "precision", "codes", "recipe", "seed")
    settings = {name: getattr(options, name) for name in names}
    others = {
        name: getattr(options, name) for name in ("backend", "log_every", "checkpoint", "data_parallel")
    }
    trainer = Trainer(kept, **settings, **others, device=device, **_overrides(options.set))
    if not trainer.processes.first:
        trainer.fit(options.steps)  # the first process tells and writes
        return
    with ExitStack() as stack:
        # Only now: an earlier log must not be touched for a training that cannot be.
        loggers = [stack.enter_context(logger) for logger in _loggers(options, settings)]
        steps = options.steps + (trainer.recipe.pursuit_steps if trainer.codes != ENCODER else 0)
        trainer.on_log = together(partial(_tell, terminal, steps), *loggers)
        if options.held_out_to is not None:
            with atomic_path(options.held_out_to) as temporary:
                np.save(temporary, held_out)
        autoencoder = trainer.fit(options.steps)
    autoencoder.save(options.out)
    record: dict[str, Any] = {
        "out": str(options.out),
        "held_out_to": options.held_out_to and str(options.held_out_to),
        "bytes": options.out.stat().st_size,
        "tokens": trainer.pool.tokens,
        "steps": autoencoder.about["spec"]["steps"],
        "shape": {name: getattr(autoencoder, name) for name in ("m", "n", "d", "k")},
        "norm_limit": trainer.norm_limit,
        "last": trainer.log[-1] if trainer.log else None,
        "held_out": evaluate(autoencoder, held_out, trainer.codes) if len(held_out) else None,
    }
    terminal.result(record, _lines(record))


def _streamed(options: argparse.Namespace) -> tuple[Any, Any]:
    """(the shards to train on, no rows)."""
    from expander_sae.errors import UserError
    from expander_sae.training.shard_pool import ShardPool

    if options.held_out is not None:
        raise UserError("--held-out: found it with --stream, expected shards of another split to measure on")
    return ShardPool(options.activations, options.split, options.tokens, options.stream), ()


def _parted(activations: np.ndarray, held_out: int | None) -> tuple[np.ndarray, np.ndarray]:
    """(rows to train on, the last `held_out` rows)."""
    from expander_sae.errors import UserError

    rows, back = len(activations), held_out or 0
    if back >= rows:
        raise UserError(f"--held-out: found {back}, expected fewer than the {rows} rows")
    return activations[: rows - back], activations[rows - back :]


def _check_outputs(options: argparse.Namespace) -> None:
    from expander_sae.cli.outputs import ACTIVATIONS, check_files
    from expander_sae.errors import UserError

    if options.held_out_to is not None and options.held_out is None:
        raise UserError("--held-out-to: found no --held-out, expected the number of rows to keep back")
    names = ("out", "held-out-to", "checkpoint", "csv")
    given = options.activations
    if is_remote(given) and options.stream is None:
        raise UserError(f"{given}: found an address without --stream, expected a path, or --stream TOKENS")
    files = {name: getattr(options, name.replace("-", "_")) for name in names}
    suffixes = {"out": (".safetensors",), "held-out-to": (".npy",)}
    check_files(files, {ACTIVATIONS: None if is_remote(given) else given}, suffixes, streams=("csv",))


def _overrides(given: list[str]) -> dict[str, Any]:
    """KEY=VALUE, the value as JSON: numbers, true, null."""
    from expander_sae.errors import UserError

    found = {}
    for text in given:
        key, separator, value = text.partition("=")
        try:
            found[key] = json.loads(value)
        except ValueError:
            separator = ""
        if not separator or not key.isidentifier():
            raise UserError(f"--set: found {text!r}, expected KEY=VALUE such as learning_rate=0.05")
    return found


def _loggers(options: argparse.Namespace, settings: dict[str, Any]) -> list[Any]:
    from expander_sae.training.loggers import CsvLogger, TensorBoardLogger, TrackioLogger, WandbLogger

    made: list[Any] = [TensorBoardLogger(options.tensorboard)] if options.tensorboard else []
    made += [WandbLogger(options.wandb, settings)] if options.wandb else []
    made += [TrackioLogger(options.trackio, settings)] if options.trackio else []
    made += [CsvLogger(options.csv)] if options.csv else []
    return made


def _tell(terminal: Terminal, steps: int, row: dict[str, float]) -> None:
    """A line a logged row where there is no progress bar."""
    if not sys.stderr.isatty():
        terminal.remark(
            f"step {int(row['step']):,} of {steps:,}: loss {row['loss']:.4g}, "
            f"relative error {row['relative_error']:.4f}, silent {100 * row['silent_share']:.1f} %"
        )


def _lines(record: dict[str, Any]) -> list[str]:
    steps = f"{record['steps']:,} steps" if record["steps"] else "0 steps: nobody trained it"
    rows: list[tuple[str, Any]] = [
        ("written", f"{record['out']} ({record['bytes']:,} bytes)"),
        ("shape", "m = {m:,}, n = {n:,}, d = {d:,}, k = {k:,}".format(**record["shape"])),
        ("trained on", f"{record['tokens']:,} tokens, {steps}"),
    ]
    if record["held_out_to"] is not None:
        rows.append(("kept back", record["held_out_to"]))
    if record["norm_limit"] is not None:
        rows.append(("passed through", f"tokens of norm above {record['norm_limit']:.4g}"))
    for name, value in (record["held_out"] or {}).items():
        rows.append((f"held out, {name.replace('_', ' ')}", number(value)))
    return pairs(rows)
