"""Train those runs of a setting that are not trained yet, each from its checkpoint if it has one."""

import argparse
import json
from pathlib import Path

import job

from expander_sae.files import read_json, sha256_file, write_json


def main(options: argparse.Namespace) -> None:
    from expander_sae.runs import train_run

    spec, out = json.loads(options.spec), Path(options.out)
    masks = options.masks or [None] * len(spec["seeds"])
    trained = {}
    for seed, mask in zip(spec["seeds"], masks, strict=True):
        folder = out.parent.with_name(f"{out.parent.name}_seed{seed}")
        train_run(
            {**spec["run"], "seed": seed},
            Path(options.pool),
            mask,
            folder,
            job.device(),
            job.backend(),
        )
        trained[folder.name] = {
            "fingerprint": read_json(folder / "run.json")["fingerprint"],
            "weights_sha256": sha256_file(folder / "weights.safetensors"),
        }
    write_json(out, trained)


if __name__ == "__main__":
    job.run("training", main, job.arguments("spec", "pool", "out", lists=("masks",)))
