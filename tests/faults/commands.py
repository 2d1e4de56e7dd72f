"""Bad command lines, of the workflow's scripts and of ``expander-sae``, each in a child.

Fine are our message without a traceback, and exit code 0 with every promised output there and whole.
"""

from __future__ import annotations

import contextlib
import json
import random
import re
import shutil
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

from tests.faults import generators
from tests.faults.inputs import limit_memory
from tests.faults.processes import run
from tests.faults.tally import Tally
from tests.faults.tiny_study import TinyStudy

_BROKEN = 71
"""Exit code of a child that ended well without its output."""
_OUTPUTS = ("--out", "--data", "--record", "--metrics", "--documents")
_OUTSIDE = re.compile(r'"((?:/|\.\.|~)[^"]*)"')
# Nothing is to be written outside of the scratch folder, whichever option gets the text.
_TEXTS = ("/dev/null/x", *(text for text in generators.NASTY_TEXT if not text.startswith(("/", "..", "~"))))
_NUMBERS = (0, -1, 1, 2, 7, 0.5, -0.0, 1e-320, 1e9, 2**63, 10**30, 10**400, "inf", "nan", "1e3", "0x10", "")

TRAIN = "train activations.npy --n 32 --d 4 --k 3 --steps 20 --out made.safetensors"
CLI = tuple(
    line.split()
    for line in (
        f"{TRAIN} --held-out 16 --csv made.csv --set batch_size=16 --seed 3",
        f"{TRAIN} --support bernoulli --encoder independent --checkpoint made.checkpoint --json",
        "train activations.npy --support dense --n 24 --k 3 --steps 10 --tokens 40 --out made.safetensors",
        "eval weights.safetensors activations.npy --inference encoder omp --tokens 32",
        "eval weights.safetensors activations.npy --backend torch --device cpu --json",
        "omp weights.safetensors activations.npy --out made.safetensors --k 2",
        "omp weights.safetensors activations.npy --out made.parquet --inference encoder --json",
        "inspect weights.safetensors --json",
        "inspect weights.safetensors --activations activations.npy --tokens 48",
        "export weights.safetensors --format saelens --out made --model-name x --hook-name y",
        "export weights.safetensors --format saelens --compact --out made",
        "export weights.safetensors --format sparsify --out made --activations activations.npy",
        "export weights.safetensors --format dictionary_learning --out made --json",
    )
)


def bad_scripts(study: TinyStudy, calm: Path, folder: Path, count: int, draw: random.Random) -> Tally:
    """Command lines of the workflow's scripts, in a finished run whose outputs of that job are removed."""
    tally = Tally("bad input: command line")
    shutil.copytree(calm, folder)
    jobs = [job for job in study.jobs if job.stage != "collect"]
    while tally.tried < count:
        job = draw.choice(jobs)
        script, *given = job.arguments
        rest = _mutated(given, draw)
        if rest == given:
            continue
        for path in _promised(given):
            (folder / path).unlink(missing_ok=True)
        work = study.work(type(job)(job.stage, (script, *rest)))
        promised = _promised(rest)

        def checked(work: Callable[[], None] = work, promised: list[str] = promised) -> None:
            work()
            _require(promised)

        _try(tally, f"{job.stage} {rest}", checked, folder)
        shutil.copytree(calm / "results", folder / "results", dirs_exist_ok=True)
    shutil.rmtree(folder)
    return tally


def bad_cli(calm: Path, folder: Path, count: int, draw: random.Random) -> Tally:
    """Command lines of ``expander-sae`` on 64 activations and the weights of a tiny run."""
    import numpy as np

    tally = Tally("bad input: expander-sae")
    weights = min((calm / "results").glob("*/*/layer*/*/expander-tied/*_seed0/weights.safetensors"))
    activations = np.random.default_rng(0).standard_normal((64, 16), dtype=np.float32)
    for number, given in enumerate(CLI):
        _inputs(folder, weights, activations)
        ended = run(_cli(given), folder, timeout=60)
        if ended.code:
            raise RuntimeError(f"{number} {given}: {ended.output}")
    while tally.tried < count:
        given = draw.choice(CLI)
        rest = _mutated(given, draw)
        if rest == given:
            continue
        _inputs(folder, weights, activations)
        _try(tally, f"expander-sae {rest}", _cli(rest), folder)
    return tally


def _inputs(folder: Path, weights: Path, activations: Any) -> None:
    """A folder with the inputs alone."""
    import numpy as np

    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    shutil.copy(weights, folder / "weights.safetensors")
    np.save(folder / "activations.npy", activations)


def _try(tally: Tally, what: str, work: Callable[[], None], folder: Path) -> None:
    def limited_work() -> None:
        limit_memory()
        work()

    ended = run(limited_work, folder, timeout=60)
    text = ended.output
    said = "error: " in text or "usage: " in text
    clear = ended.code == 0 or (ended.code in (1, 2) and said and "Traceback" not in text)
    canary = (folder / "canary").exists()
    tally.fault(clear and not canary, f"{tally.tried} {what}: code {ended.code}: {text[-900:]}"[:1800])


def _promised(arguments: list[str]) -> list[str]:
    """The files that a script's command line says it writes; the last of an option counts."""
    found = {name: value for name, value in pairwise(arguments) if name in _OUTPUTS}
    return list(found.values())


def _require(paths: list[str]) -> None:
    """End the process where one of the files is not there or does not load."""
    from expander_sae.storage.files import read_json
    from expander_sae.storage.safetensors_files import load_tensors

    for path in map(Path, paths):
        try:
            if path.suffix == ".parquet":
                _table(path)
            elif path.suffix == ".json":
                read_json(path)
            elif path.suffix == ".safetensors":
                load_tensors(path)
            elif not path.stat().st_size:
                raise ValueError("empty")
        except Exception as error:
            _broken(path, error)


def _table(path: Path) -> Any:
    import pyarrow.parquet as pq

    return pq.read_table(path, partitioning=None)


def _broken(path: Path, error: Exception) -> None:
    print(f"promised {path}: {type(error).__name__}: {error}", flush=True)
    raise SystemExit(_BROKEN)


def _cli(arguments: list[str]) -> Callable[[], None]:
    """The work of ``expander-sae ARGUMENTS``, and whether its promise was kept."""

    def work() -> None:
        from expander_sae.cli.main import build_parser, main

        code = main(arguments)  # help ends the process here, with code 0 and no promise
        if code:
            raise SystemExit(code)
        options = build_parser().parse_args(arguments)
        out = getattr(options, "out", None)
        try:
            if options.command in ("train", "export"):
                from expander_sae.api import load

                assert load(out).m == 16
            elif options.command == "omp":
                _require([str(out)])
            if getattr(options, "csv", None) is not None:
                assert options.csv.read_text().count("\n") > 1
        except Exception as error:
            _broken(out, error)

    return work


def _mutated(given: list[str], draw: random.Random) -> list[str]:
    arguments = list(given)
    for _ in range(draw.choice((1, 1, 2))):
        arguments = _changed(arguments, draw)
    return [text.replace("\0", "").replace("\ud800", "") for text in arguments]


def _changed(arguments: list[str], draw: random.Random) -> list[str]:
    arguments = list(arguments)
    place = draw.randrange(len(arguments)) if arguments else 0
    how = draw.randrange(5)
    specs = [i for i, text in enumerate(arguments) if text.startswith("{")]
    numbers = [i for i, text in enumerate(arguments) if re.fullmatch(r"-?\d+(\.\d+)?", text)]
    if not arguments or how == 0:
        arguments.insert(place, draw.choice(("--", "--absent", "-x", "--log", "--json", "", "x")))
    elif how == 1:
        del arguments[place]
    elif how == 2:
        arguments[place] = draw.choice(_TEXTS)[:1000]
    elif specs:
        place = draw.choice(specs)
        with contextlib.suppress(TypeError, ValueError):
            spec = json.loads(arguments[place])
            changed = generators.mutated(spec, draw)
            text = json.dumps(changed)[:100_000]
            known = set(_OUTSIDE.findall(json.dumps(spec)))
            if _modest(changed) and set(_OUTSIDE.findall(text)) <= known:
                arguments[place] = text
    elif numbers:
        place = draw.choice(numbers)
        steps = place and arguments[place - 1] == "--steps"
        # A billion steps are no mistake, only a long wait.
        arguments[place] = str(draw.choice(_NUMBERS[:5] if steps else _NUMBERS))
    return arguments


def _modest(value: Any) -> bool:
    """Whether a spec asks for no honest work of hours: a large number of steps is no mistake."""
    numbers = [value]
    while numbers:
        item = numbers.pop()
        if isinstance(item, dict):
            numbers += item.values()
        elif isinstance(item, list):
            numbers += item
        elif isinstance(item, int | float) and not isinstance(item, bool) and 10_000 < item < 10**12:
            return False
    return True
