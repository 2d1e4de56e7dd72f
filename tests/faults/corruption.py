"""Flipped, missing and added bytes: found before use, in a message that names the file."""

from __future__ import annotations

import random
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.faults.tally import Tally
from tests.faults.tiny_study import TinyStudy, differences, snapshot

_SMALL = 4096


def readers(calm: Path) -> dict[str, tuple[Path, Callable[[Path], Any], Path]]:
    """Kind → (file, what uses it, what that is given) of a finished run."""
    from expander_sae.activations.language_model import LanguageModel
    from expander_sae.activations.pool import Pool
    from expander_sae.activations.shards import Shard
    from expander_sae.activations.tokens import TokenTable
    from expander_sae.activations.weights import read_model
    from expander_sae.masks.recipe import read_mask
    from expander_sae.measurements import tables
    from expander_sae.model.autoencoder import SparseAutoencoder
    from expander_sae.storage.safetensors_files import load_tensors
    from expander_sae.storage.seals import read_sealed_json

    def first(pattern: str) -> Path:
        return min((calm / "results").glob(pattern))

    def pool(manifest: Path) -> None:
        Pool.open(manifest)

    manifest = first("*/*/layer*/pool/test.json")
    weights = first("*/*/layer*/*/expander-tied/*_seed0/weights.safetensors")
    checkpoint = calm / "checkpoint.safetensors"
    _write_checkpoint(checkpoint)
    alone: dict[str, tuple[Path, Callable[[Path], Any]]] = {
        "shard": (first("*/*/layer*/shards/test-00000.parquet"), Shard),
        "tokens": (first("*/*/tokens.parquet"), TokenTable),
        "mask": (first("masks/*.json"), read_mask),
        "weights": (weights, SparseAutoencoder.load),
        "checkpoint": (checkpoint, load_tensors),
        "run.json": (weights.with_name("run.json"), lambda path: read_sealed_json(path, (), "run record")),
        "model.json": (first("*/model.json"), read_model),
        "metrics": (calm / "results/metrics.parquet", tables.read_metrics),
        "documents": (calm / "results/documents.parquet", tables.read_documents),
    }
    found = {kind: (path, read, path) for kind, (path, read) in alone.items()}
    found["pool.json"] = (manifest, pool, manifest)
    found["pool.f32"] = (manifest.with_suffix(".f32"), pool, manifest)
    found["pool index"] = (manifest.with_suffix(".tokens.safetensors"), pool, manifest)
    model = Path(read_model(first("*/model.json"))["path"])
    copy = calm / "model"
    shutil.copytree(model, copy, dirs_exist_ok=True)
    record = calm / "model.json"
    _write_model_record(copy, record)
    found["language model"] = (copy / "model.safetensors", LanguageModel.load, record)
    return found


def _write_checkpoint(path: Path) -> None:
    import torch

    from expander_sae.model.autoencoder import SparseAutoencoder
    from expander_sae.storage.safetensors_files import save_tensors
    from expander_sae.study.recipes import RECIPES
    from expander_sae.training.step import TrainingState

    state = TrainingState.start(SparseAutoencoder(8, 12, 2), RECIPES["standard"], 0)
    state.log = torch.rand(2, 5).tolist()
    save_tensors(state.tensors(), path, {"fingerprint": "0" * 64})


def _write_model_record(folder: Path, path: Path) -> None:
    from expander_sae.activations.weights import materialise
    from tests.tiny_models import tiny_spec

    materialise(tiny_spec(folder), folder, path)


def damaged(whole: bytes, draw: random.Random, most: int) -> list[tuple[str, bytes]]:
    """Every flip and truncation of a small file, `most` of a large one; and bytes added at the end."""
    places = range(len(whole)) if len(whole) <= max(most, _SMALL) else draw.sample(range(len(whole)), most)
    cuts = range(len(whole)) if len(whole) <= _SMALL else draw.sample(range(len(whole)), most // 4)
    found = [
        (f"byte {place}", whole[:place] + bytes([whole[place] ^ draw.randrange(1, 256)]) + whole[place + 1 :])
        for place in places
    ]
    found += [(f"cut at {cut}", whole[:cut]) for cut in cuts]
    return [*found, ("a byte more", whole + b"\0"), ("twice", whole + whole)]


def corrupt_files(calm: Path, most: int, seed: int) -> dict[str, Any]:
    """Damage each kind of file and use it: each time a `UserError` that names it."""
    from expander_sae.errors import UserError

    tally = Tally("damaged files")
    draw = random.Random(seed)
    for kind, (path, use, given) in readers(calm).items():
        whole = path.read_bytes()
        use(given)
        # Loading a language model takes long, but not where its files are refused.
        for what, content in damaged(whole, draw, most):
            path.write_bytes(content)
            try:
                use(given)
                tally.fault(False, f"{kind}: {what} went unnoticed")
            except UserError as error:
                named = path.name in str(error) or given.name in str(error)
                tally.fault(named, f"{kind}: {what}: not named in {error}")
            except Exception as error:
                tally.fault(False, f"{kind}: {what}: {type(error).__name__}: {error}")
        path.write_bytes(whole)
        use(given)
    return tally.as_dict()


def corrupt_results(
    study: TinyStudy, calm: Path, scratch: Path, expected: dict[str, str], trials: int, draw: random.Random
) -> Tally:
    """Damage a file of a finished run and do every job again.

    A job makes its own file again, or names the file that it cannot use; once that is removed, as the
    message says, everything ends as if nothing had happened.
    """
    tally = Tally("damaged results")
    for trial in range(trials):
        folder = scratch / f"damaged-{trial}"
        shutil.copytree(calm / "results", folder / "results")
        path = folder / draw.choice(sorted(expected))
        whole = path.read_bytes()
        if draw.random() < 0.3:
            path.write_bytes(whole[: draw.randrange(len(whole))])
        else:
            place = draw.randrange(len(whole))
            path.write_bytes(
                whole[:place] + bytes([whole[place] ^ draw.randrange(1, 256)]) + whole[place + 1 :]
            )
        survived, what = False, ""
        for _ in range(4):
            last = study.run_all(folder)[-1]
            if last.code == 0:
                survived = True
                break
            found = re.match(r"error: (results/\S+?):", last.output)
            what = f"{path.relative_to(folder)}: exit code {last.code}, {last.output[-400:]}"
            if last.code != 2 or not found or "Traceback" in last.output:
                break
            (folder / found[1]).unlink()
        tally.fault(survived, what)
        tally.result(*differences(expected, snapshot(folder)))
        shutil.rmtree(folder)
    return tally
