"""Generate a mask and record its checksum."""

from pathlib import Path
from typing import Any

import job


def main(spec: dict[str, Any], out: Path) -> None:
    from expander_sae.masks.recipe import write_mask

    write_mask(spec, out)


if __name__ == "__main__":
    job.run(main, "mask")
