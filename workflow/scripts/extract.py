"""Extract one shard for those layers of a model that do not have it yet."""

from pathlib import Path
from typing import Any

import job

from expander_sae.errors import UserError
from expander_sae.stages import lineage
from expander_sae.storage.seals import read_sealed_json


def is_done(path: Path, expected: dict[str, Any]) -> bool:
    """Whether this very shard is there, whole."""
    from expander_sae.activations.shards import Shard, stored_in

    try:
        about = Shard(path).about
    except UserError:
        return False
    return all({**about, "stored": stored_in(about)}.get(key) == value for key, value in expected.items())


def main(spec: dict[str, Any], model: Path, tokens: Path, out: list[Path]) -> bool:
    from expander_sae.activations.extraction import extract_shard
    from expander_sae.activations.tokens import TokenTable

    split, shard, size = spec["split"], spec["shard"], spec["shard_tokens"]
    expected = {key: spec[key] for key in ("model", "split", "shard", "shard_tokens")}
    expected |= {
        "model_sha256": read_sealed_json(model, ("sha256",), "model record")["sha256"],
        "tokens_sha256": TokenTable(tokens).sha256(split, shard * size, (shard + 1) * size),
        "lineage": lineage("extraction"),
        "stored": spec.get("stored", "float32"),
    }
    # 15 of results/{model}/{corpus}/layer15/shards/train-00000.parquet.
    layers = {int(path.parent.parent.name.removeprefix("layer")): path for path in out}
    missing = {at: path for at, path in layers.items() if not is_done(path, expected | {"layer": at})}
    if missing:
        told = split, shard, size, missing, job.device(), job.batch_tokens()
        extract_shard(model, tokens, *told, stored=expected["stored"])
    return bool(missing)


if __name__ == "__main__":
    job.run(main, "extraction")
