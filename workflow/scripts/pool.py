"""Join the shards of a split into the raw pool that training maps into memory."""

from pathlib import Path
from typing import Any

import job


def main(spec: dict[str, Any], shards: Path, data: Path, out: Path) -> None:
    from expander_sae.activations.pool import build_pool

    split = spec["split"]
    suffix = "json" if spec.get("receipts") else "parquet"
    files = [shards / f"{split}-{index:05d}.{suffix}" for index in range(spec["shards"])]
    build_pool(files, split, data, out, spec)


if __name__ == "__main__":
    job.run(main, "pool")
