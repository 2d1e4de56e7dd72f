"""Put a model's weights where later jobs load them, and describe them."""

import argparse
import json
from pathlib import Path

import job


def main(options: argparse.Namespace) -> None:
    from expander_sae.activations.weights import materialise

    out = Path(options.out)
    materialise(json.loads(options.spec), out.parent / "weights", out)


if __name__ == "__main__":
    job.run("model", main, job.arguments("spec", "out"))
