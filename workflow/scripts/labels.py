"""Label the test tokens of a corpus."""

from pathlib import Path

import job


def main(model: Path, tokens: Path, origins: Path, out: Path, user: Path | None = None) -> None:
    from expander_sae.activations.label_table import write_labels

    write_labels(model, tokens, origins, out, user=user)


if __name__ == "__main__":
    job.run(main, "labels")
