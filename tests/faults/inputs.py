"""Thousands of bad configurations and files: each ends in a clear error or a correct result."""

from __future__ import annotations

import contextlib
import json
import os
import random
import re
import resource
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tests.faults import generators
from tests.faults.corruption import readers
from tests.faults.tally import Tally
from tests.faults.tiny_study import configuration

_SECONDS = 20
_PATH = re.compile(r"results(/[A-Za-z0-9][A-Za-z0-9._-]*)+")


class Hang(Exception):
    """A case took too long."""


@contextlib.contextmanager
def limited(seconds: float = _SECONDS) -> Iterator[None]:
    def ring(number: int, frame: Any) -> None:
        raise Hang

    signal.signal(signal.SIGPROF, ring)  # time on the processor: a machine may be busy
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)


def limit_memory(gigabytes: int = 6) -> None:
    """Let a request for too much memory fail, and not take the machine with it."""
    resource.setrlimit(resource.RLIMIT_AS, (gigabytes << 30, gigabytes << 30))


def attempt(tally: Tally, what: str, use: Callable[[], None]) -> None:
    """One bad input: fine are our error with a text, too little memory, or no complaint at all."""
    from expander_sae.errors import explained

    try:
        with limited():
            use()
        tally.fault(not os.path.exists("canary"), f"{what}: a command or a pickle was executed")
    except Hang:
        tally.fault(False, f"{what}: no end after {_SECONDS} s")
    except Exception as error:
        clear = explained(error)
        kind = f"{type(error).__name__}: {error}"[:300]
        tally.fault(bool(clear), f"{what}: {kind}")


def bad_configs(folder: Path, count: int, seed: int) -> dict[str, Any]:
    """Configurations: `load_config` and the planning of the runs."""
    import yaml

    from expander_sae.study.study import Study, load_config
    from tests.faults.tiny_study import ROOT

    limit_memory()
    tally, draw = Tally("bad input: config"), random.Random(seed)
    bases = [
        configuration(folder),
        *(yaml.safe_load(p.read_text()) for p in sorted(ROOT.glob("configs/*.yaml"))),
    ]
    bases = [base for base in bases if isinstance(base, dict)]
    path = folder / "bad.yaml"
    for number in range(count):
        changes = draw.choice((1, 1, 1, 2, 5))
        config = generators.mutated(
            bases[number % len(bases)] if draw.random() < 0.5 else bases[0], draw, changes
        )
        as_text = draw.random() < 0.2

        def use(config: Any = config, as_text: bool = as_text) -> None:
            if as_text:
                path.write_bytes(generators.raw_bytes(draw, yaml.safe_dump(bases[0]).encode()))
            study = Study(load_config(path if as_text else config))
            for planned in study.runs[:200]:
                if not _PATH.fullmatch(planned.path) or ".." in planned.path.split("/"):
                    raise AssertionError(f"path {planned.path!r} leaves the results")

        attempt(tally, f"config {number} {_short(config)}", use)
    return tally.as_dict()


def _short(value: Any) -> str:
    with contextlib.suppress(Exception):
        return repr(value)[:400]
    return "?"


def bad_files(calm: Path, kind: str, count: int, seed: int) -> dict[str, Any]:
    """Shards, masks or weights: their readers, on bytes and on well-formed files of bad content."""
    limit_memory()
    tally, draw = Tally(f"bad input: {kind}"), random.Random(seed)
    path, use, _ = readers(calm)[kind]
    whole = path.read_bytes()
    rewrite = {"shard": _bad_shard, "mask": _bad_mask, "weights": _bad_weights}[kind]

    def consume() -> None:
        found = use(path)
        if kind == "shard":
            for _ in found.row_groups():
                pass

    for number in range(count):
        path.write_bytes(whole)
        if number % 2:
            path.write_bytes(generators.raw_bytes(draw, whole))
        else:
            rewrite(path, draw)
        attempt(tally, f"{kind} {number}", consume)
    path.write_bytes(whole)
    return tally.as_dict()


def _bad_mask(path: Path, draw: random.Random) -> None:
    """A sealed or an old mask file whose content is not what it says."""
    from expander_sae.storage.seals import KEY, write_sealed_json

    record = json.loads(path.read_text())
    record.pop(KEY, None)
    record = generators.mutated(record, draw, draw.choice((1, 2)))
    with contextlib.suppress(TypeError, ValueError):
        if draw.random() < 0.5 and isinstance(record, dict):
            write_sealed_json(path, record)
        else:
            path.write_text(json.dumps(record))


def _bad_weights(path: Path, draw: random.Random) -> None:
    """Weights of bad shapes, types and metadata, with a right seal or with none."""
    import torch

    from expander_sae.errors import UserError
    from expander_sae.storage.safetensors_files import load_tensors, save_tensors

    tensors, about = load_tensors(path)
    how = draw.randrange(4)
    if how == 0:
        header, data = generators.split_safetensors(path)
        with contextlib.suppress(TypeError, ValueError):
            path.write_bytes(generators.safetensors_bytes(generators.mutated(header, draw), data))
        return
    if how == 1:
        name = draw.choice(sorted(tensors))
        kinds = (torch.float64, torch.int64, torch.bool, torch.bfloat16, torch.float16)
        tensors[name] = draw.choice(
            (
                tensors[name][:-1],
                tensors[name].unsqueeze(0),
                torch.zeros(0),
                tensors[name].to(draw.choice(kinds)),
                torch.full_like(tensors[name], float("nan")),
            )
        )
        if draw.random() < 0.3:
            del tensors[name]
    else:
        about = generators.mutated(about, draw, how - 1)
    with contextlib.suppress(TypeError, ValueError, UserError):
        save_tensors(tensors, path, about)


def _bad_shard(path: Path, draw: random.Random) -> None:
    """Shards of bad columns, types, sizes and metadata."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    from expander_sae.activations.shards import Rows, Shard, write_shard
    from expander_sae.errors import UserError

    shard = Shard(path)
    rows = next(shard.row_groups())
    how = draw.randrange(4)
    with contextlib.suppress(TypeError, ValueError, UserError, pa.ArrowException, OverflowError):
        if how == 0:
            about = {k: v for k, v in shard.about.items() if k not in ("m", "tokens", "sha256")}
            write_shard(path, rows, generators.mutated(about, draw))
        elif how == 1:
            bad = rows.activation.copy()
            bad[draw.randrange(len(bad))] = draw.choice((np.nan, np.inf, -np.inf, 3e38))
            write_shard(path, Rows(rows.document, rows.position, rows.token_id, bad), dict(shard.about))
        else:
            table = pq.read_table(path)
            metadata = dict(table.schema.metadata or {})
            about = generators.mutated(shard.about, draw)
            metadata[b"expander_sae"] = json.dumps(about).encode()
            columns = (
                draw.sample(table.column_names, draw.randrange(1, 5)) if how == 2 else table.column_names
            )
            table = table.select(columns)
            if draw.random() < 0.3:
                name = draw.choice(columns)
                table = table.set_column(columns.index(name), name, pa.array([nasty_cell(draw)] * len(table)))
            pq.write_table(table.replace_schema_metadata(metadata), path)


def nasty_cell(draw: random.Random) -> Any:
    return draw.choice((1, 1.5, "x", None, True, [1.0], b"x"))
