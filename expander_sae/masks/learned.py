"""Masks that are learned: the largest entries of each column of a dense dictionary.

No seed regenerates such a mask, so its rows are stored with the weights.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from expander_sae.errors import UserError
from expander_sae.masks.recipe import Mask, MaskRecipe, row_index_bits, row_index_bytes
from expander_sae.storage.bit_packing import pack, unpack

SUPPORT = "pruned_retuned"


def prune(columns: Tensor, d: int, seed: int) -> tuple[Mask, Tensor]:
    """(mask, kept values [n, d]) of dense columns [n, m]: the d entries of largest magnitude of each.

    Among equal magnitudes the lower row is kept. `seed` is that of the dense run, for the mask's name.
    """
    n, m = columns.shape
    if not 1 <= d <= m:
        raise UserError(f"d: found {d}, expected 1 to m = {m}")
    order = columns.detach().abs().sort(dim=1, descending=True, stable=True).indices
    rows = order[:, :d].sort(dim=1).values
    stored = rows.cpu().numpy().astype(np.int32)
    mask = Mask(MaskRecipe(SUPPORT, m, n, d, seed), stored, np.full(n, d, dtype=np.int32))
    return mask, columns.detach().gather(1, rows)


def packed(mask: Mask, dense: bool = False) -> Tensor:
    """The rows [n, d] of a learned mask: uint16 up to m = 65,536, int32 above.

    `dense`: uint8 [bytes] instead, ⌈log₂ m⌉ bits a row without gaps.
    """
    if dense:
        return torch.from_numpy(pack(mask.rows, row_index_bits(mask.recipe.m)))
    kind = torch.uint16 if row_index_bytes(mask.recipe.m) == 2 else torch.int32
    return torch.from_numpy(mask.rows.astype(np.int64)).to(kind)


def unpacked(record: dict[str, Any], rows: Tensor, origin: str | Path) -> Mask:
    """The mask whose `packed` rows `origin` holds; `UserError` where they are not those recorded."""
    recipe = MaskRecipe(**record["recipe"])
    if rows.dtype == torch.uint8:
        found = unpack(rows.numpy(), row_index_bits(recipe.m), recipe.n * recipe.d)
        rows = torch.from_numpy(found.reshape(recipe.n, recipe.d))
    if tuple(rows.shape) != (recipe.n, recipe.d) or rows.dtype not in (torch.uint16, torch.int32):
        raise UserError(
            f"{origin}: rows of shape {list(rows.shape)} and {rows.dtype}, expected [n, d] = "
            f"[{recipe.n}, {recipe.d}] of uint16 or int32"
        )
    found = rows.to(torch.int32).numpy()
    try:
        # A checksum tells nothing of a file that somebody made up: the rows themselves are looked at.
        mask = Mask(recipe, found, np.full(recipe.n, recipe.d, dtype=np.int32))
    except UserError as error:
        raise UserError(f"{origin}: {error}") from None
    if mask.sha256 != record["sha256"]:
        raise UserError(
            f"{origin}: rows have sha256 {mask.sha256}, expected {record['sha256']}; was the file altered?"
        )
    return mask
