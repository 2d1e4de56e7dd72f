"""Draw a corpus and tokenise it."""

from pathlib import Path
from typing import Any

import job


def main(spec: dict[str, Any], needs: dict[str, Any], model: Path, out: Path, record: Path) -> None:
    from expander_sae.activations.corpus import write_tokens

    write_tokens(spec, needs, model, out, record)


if __name__ == "__main__":
    job.run(main, "corpus")
