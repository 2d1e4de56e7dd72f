"""List the shards of a split, which training that streams reads in the place of a pool."""

from pathlib import Path
from typing import Any

import job


def main(spec: dict[str, Any], shards: Path, out: Path) -> None:
    from expander_sae.activations.shard_list import list_shards

    split = spec["split"]
    suffix = "json" if spec.get("receipts") else "parquet"
    files = [shards / f"{split}-{index:05d}.{suffix}" for index in range(spec["shards"])]
    list_shards(files, split, out, spec)


if __name__ == "__main__":
    job.run(main, "pool")
