"""Draw a corpus and tokenise it."""

import argparse
import json
from pathlib import Path

import job


def main(options: argparse.Namespace) -> None:
    from expander_sae.activations.corpus import write_tokens

    spec, needs = json.loads(options.spec), json.loads(options.needs)
    write_tokens(spec, needs, Path(options.model), Path(options.out), Path(options.record))


if __name__ == "__main__":
    job.run("corpus", main, job.arguments("spec", "needs", "model", "out", "record"))
