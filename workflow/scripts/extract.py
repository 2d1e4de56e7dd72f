"""Extract shards for those layers of a model that do not have them yet."""

from collections import defaultdict
from pathlib import Path
from typing import Any

import job

from expander_sae.errors import UserError
from expander_sae.stages import lineage
from expander_sae.storage.remote import Place
from expander_sae.storage.seals import read_sealed_json


def is_done(path: Place, expected: dict[str, Any]) -> bool:
    """Whether this very shard is there, whole."""
    from expander_sae.activations.shards import Shard, stored_in

    try:
        about = Shard(path).about
    except UserError:
        return False
    return all({**about, "stored": stored_in(about)}.get(key) == value for key, value in expected.items())


def destination(path: Path, address: str | None) -> Place:
    """Where the shard of an output lies: there, or below an address at the same place as below results/."""
    if address is None:
        return path
    return "/".join([address, *path.with_suffix(".parquet").parts[-5:]])


def main(spec: dict[str, Any], model: Path, tokens: Path, out: list[Path]) -> bool:
    from expander_sae.activations.extraction import extract_shards
    from expander_sae.activations.receipts import write_receipt
    from expander_sae.activations.shards import about_of
    from expander_sae.activations.tokens import TokenTable

    split, size, table = spec["split"], spec["shard_tokens"], TokenTable(tokens)
    expected = {key: spec[key] for key in ("model", "split", "shard_tokens")}
    expected |= {
        "model_sha256": read_sealed_json(model, ("sha256",), "model record")["sha256"],
        "lineage": lineage("extraction"),
        "stored": spec.get("stored", "float32"),
    }
    missing: defaultdict[int, dict[int, Place]] = defaultdict(dict)
    hashes: dict[int, str] = {}
    places = {path: destination(path, spec.get("address")) for path in out}
    for path, place in places.items():
        # 15 and 3 of results/{model}/{corpus}/layer15/shards/train-00003.parquet.
        layer = int(path.parent.parent.name.removeprefix("layer"))
        shard = int(path.stem.rpartition("-")[2])
        if shard not in hashes:
            hashes[shard] = table.sha256(split, shard * size, (shard + 1) * size)
        if not is_done(place, expected | {"shard": shard, "layer": layer, "tokens_sha256": hashes[shard]}):
            missing[shard][layer] = place
    if missing:
        told = dict(missing), size, job.device(), job.batch_tokens()
        extract_shards(model, tokens, split, *told, stored=expected["stored"])
    for path, place in places.items():
        if isinstance(place, str):
            write_receipt(path, place, about_of(place))
    return bool(missing)


if __name__ == "__main__":
    job.run(main, "extraction")
