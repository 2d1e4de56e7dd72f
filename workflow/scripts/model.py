"""Put a model's weights where later jobs load them, and describe them."""

from pathlib import Path
from typing import Any

import job


def main(spec: dict[str, Any], out: Path) -> None:
    from expander_sae.activations.weights import materialise

    materialise(spec, out.parent / "weights", out)


if __name__ == "__main__":
    job.run(main, "model")
