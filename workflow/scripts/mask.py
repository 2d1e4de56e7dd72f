"""Generate a mask and record its checksum."""

import argparse
import json
from pathlib import Path

import job


def main(options: argparse.Namespace) -> None:
    from expander_sae.masks.recipe import write_mask

    write_mask(json.loads(options.spec), Path(options.out))


if __name__ == "__main__":
    job.run("mask", main, job.arguments("spec", "out"))
