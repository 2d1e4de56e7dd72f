"""Masks kept in files, so that who loads weights need not make a large one again.

A recipe says all of a mask, and these files only save time: one that is missing or does not hold what the
weights record is passed over, and the recipe makes the mask.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from expander_sae.errors import UserError
from expander_sae.masks.learned import packed
from expander_sae.masks.recipe import Mask, MaskRecipe, regenerate
from expander_sae.storage.safetensors_files import load_tensors, save_tensors

LEAST_EDGES = 1 << 20
"""Masks of fewer entries are made in less than a second and not kept."""


def file_of(sha256: str) -> str:
    """The name of a mask's file, the same whoever keeps it."""
    return f"mask-{sha256[:32]}.safetensors"


def keep(mask: Mask, folder: Path) -> None:
    """Write a large mask into `folder`, unless it lies there or in the folder above.

    One that is learned lies in the weights file itself.
    """
    if mask.learned or mask.edges < LEAST_EDGES:
        return
    path = folder / file_of(mask.sha256)
    if any(place.exists() for place in _places(folder, path.name)):
        return
    tensors = {"rows": packed(mask)}
    if not mask.regular:
        tensors["degrees"] = torch.from_numpy(mask.degrees)
    save_tensors(tensors, path, {"recipe": asdict(mask.recipe), "sha256": mask.sha256})


def kept(recipe: dict[str, Any], sha256: str, folder: Path) -> Mask | None:
    """The mask of this checksum, if it is kept in `folder` or in the folder above.

    Its rows are looked at and summed again: one that was altered counts as missing.
    """
    for path in _places(folder, file_of(sha256)):
        if not path.exists():
            continue
        try:
            tensors, about = load_tensors(path)
            rows = tensors["rows"].to(torch.int32).numpy()
            regular = np.full(len(rows), rows.shape[1], dtype=np.int32)
            degrees = tensors["degrees"].numpy() if "degrees" in tensors else regular
            mask = Mask(MaskRecipe(**recipe), rows, degrees)
            if about["recipe"] == recipe and mask.sha256 == sha256:
                return mask
        except (UserError, KeyError, TypeError, IndexError):
            continue
    return None


def kept_or_made(
    recipe: dict[str, Any], sha256: str, origin: str | Path, size: tuple[int, int, int] | None = None
) -> Mask:
    """The mask of the weights in the file `origin`; see `masks.recipe.regenerate` for `size` and errors."""
    found = kept(recipe, sha256, Path(origin).parent)
    return regenerate(recipe, sha256, origin, size) if found is None else found


def _places(folder: Path, name: str) -> tuple[Path, Path]:
    return folder / name, folder.absolute().parent / name
