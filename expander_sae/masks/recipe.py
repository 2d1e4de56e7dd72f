"""Masks: which rows each decoder column may use.

A mask is a recipe. `generate` gives the same rows bit for bit on every platform, so a mask costs a few bytes
on disk whatever its size, and a checksum tells whether it was regenerated rightly.
"""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from expander_sae.errors import UserError
from expander_sae.masks.supports import BUILT_IN, family, learned
from expander_sae.rng import Integers
from expander_sae.stages import lineage
from expander_sae.storage.bit_packing import packed_bytes
from expander_sae.storage.seals import read_sealed_json, write_sealed_json


@dataclass(frozen=True)
class MaskRecipe:
    """All that a mask depends on: family, shape (m rows, n columns, d nonzeros a column), seed.

    Examples:
        >>> mask = MaskRecipe("expander", m=8, n=16, d=2, seed=0).generate()
        >>> mask.rows[:2].tolist()  # of the first two columns, the same on every machine
        [[2, 5], [0, 4]]
        >>> mask.edges, mask.uncovered_rows()
        (32, 0)
    """

    family: str
    m: int
    n: int
    d: int
    seed: int

    @property
    def recipe(self) -> MaskRecipe:
        """Of a support without a mask, which is told by its recipe alone."""
        return self

    @property
    def sha256(self) -> None:
        """There is no mask to check."""

    def generate(self, purpose: str = "mask") -> Mask:
        """Build the mask. O(d·n) memory.

        Args:
            purpose: another one gives an independent mask of the same recipe, such as ``encoder_mask``.

        Raises:
            UserError: unknown family, or a shape that the family cannot have.
        """
        known = family(self.family)
        if not 1 <= self.d <= self.m:
            raise UserError(f"d: found {self.d}, expected 1 to m = {self.m}")
        if self.n < 2:
            raise UserError(f"n: found {self.n}, expected at least 2")
        stream = Integers(self.seed, f"{purpose}/{self.family}/{self.m}/{self.n}/{self.d}")
        known.check(self.m, self.n, self.d)
        rows, degrees = known.function()(self.m, self.n, self.d, stream)
        return Mask(self, rows, degrees)


@dataclass(frozen=True, eq=False)
class Mask:
    """Rows of each column.

    Args:
        rows: int32 [n, w], ascending in each column; places beyond a column's degree hold 0.
        degrees: int32 [n], at most w; all equal to d but for irregular families.

    Raises:
        UserError: other shapes, a row outside 0 to m − 1, or a column that is not strictly ascending.
            Kernels read and write memory at these rows without looking.
    """

    recipe: MaskRecipe
    rows: np.ndarray
    degrees: np.ndarray

    def __post_init__(self) -> None:
        if (flaw := self._flaw()) is not None:
            raise UserError(f"mask {self.recipe.family}: {flaw}")

    def _flaw(self) -> str | None:
        rows, degrees, n, m = self.rows, self.degrees, self.recipe.n, self.recipe.m
        if rows.ndim != 2 or len(rows) != n or rows.shape[1] < 1 or degrees.shape != (n,):
            found = f"rows of shape {list(rows.shape)}, degrees of {list(degrees.shape)}"
            return f"found {found}, expected [n, w] and [n] with n = {n}"
        if not all(np.issubdtype(array.dtype, np.integer) for array in (rows, degrees)):
            return f"found rows of {rows.dtype} and degrees of {degrees.dtype}, expected int32"
        if (low := int(degrees.min())) < 0 or (high := int(degrees.max())) > rows.shape[1]:
            return f"found degree {low if low < 0 else high}, expected 0 to w = {rows.shape[1]}"
        if (low := int(rows.min())) < 0 or (high := int(rows.max())) >= m:
            return f"found row {low if low < 0 else high}, expected 0 to m − 1 = {m - 1}"
        ascends = rows[:, 1:] > rows[:, :-1]
        if not self.regular:
            ascends |= ~self.valid()[:, 1:]
        if not ascends.all():
            return f"rows of column {int((~ascends).any(axis=1).argmax())}, expected strictly ascending ones"
        return None

    @property
    def width(self) -> int:
        return int(self.rows.shape[1])

    @property
    def regular(self) -> bool:
        return bool((self.degrees == self.width).all())

    @property
    def learned(self) -> bool:
        """Whether no recipe generates it, so that its rows are stored with the weights."""
        return learned(self.recipe.family)

    @property
    def edges(self) -> int:
        """Number of true entries, d·n for every family here."""
        return int(self.degrees.sum())

    def valid(self) -> np.ndarray:
        """bool [n, w]: which places of `rows` are true entries."""
        return np.arange(self.width)[None, :] < self.degrees[:, None]

    def row_degrees(self) -> np.ndarray:
        """int64 [m]: how many columns use each row."""
        return np.bincount(self.rows[self.valid()], minlength=self.recipe.m)

    def uncovered_rows(self) -> int:
        """Rows that no column can write."""
        return int((self.row_degrees() == 0).sum())

    @property
    def row_bytes(self) -> int:
        """Bytes of explicit row indices, and of column degrees where these differ."""
        return (self.edges + (0 if self.regular else self.recipe.n)) * row_index_bytes(self.recipe.m)

    @property
    def packed_row_bytes(self) -> int:
        """The same with as many bits for each number as it needs, without gaps."""
        degrees = 0 if self.regular else self.recipe.n
        return packed_bytes(self.edges + degrees, row_index_bits(self.recipe.m))

    @property
    def sha256(self) -> str:
        """Checksum of the degrees and the true rows, as little-endian int32."""
        content = hashlib.sha256(self.degrees.astype("<i4").tobytes())
        true = self.rows if self.regular else self.rows[self.valid()]
        content.update(np.ascontiguousarray(true, "<i4").data)
        return content.hexdigest()


def row_index_bytes(m: int) -> int:
    """Bytes of one row index: 2 up to m = 65,536."""
    return 2 if m <= 1 << 16 else 4


def row_index_bits(m: int) -> int:
    """Bits of one row index."""
    return max(1, (m - 1).bit_length())


def write_mask(spec: dict[str, Any], path: str | Path) -> None:
    """Generate the mask of a `MaskRecipe` given as a dict; write its recipe and checksum."""
    mask = MaskRecipe(**spec).generate()
    degrees = mask.row_degrees()
    record = {"recipe": spec, "sha256": mask.sha256, "edges": mask.edges, "width": mask.width}
    record |= {"row_degree_min": int(degrees.min()), "row_degree_max": int(degrees.max())}
    record |= {"uncovered_rows": mask.uncovered_rows(), "lineage": lineage("mask")}
    write_sealed_json(path, record)


def regenerate(
    recipe: dict[str, Any], sha256: str, origin: str | Path, stored: tuple[int, int, int] | None = None
) -> Mask:
    """Generate a mask and check it against the checksum that `origin` recorded; `UserError` where it differs.

    A recipe of another size than `stored`, m, n and number of decoder values of the tensors beside it, is
    refused before anything is generated: a mask costs O(d·n) memory whatever a file of a few bytes claims.
    """
    try:
        known = MaskRecipe(**recipe)
        if stored is not None:
            _require_size(known, *stored)
        mask = known.generate()
    except UserError as error:
        raise UserError(f"{origin}: {error}") from None
    except TypeError:
        expected = ", ".join(MaskRecipe.__dataclass_fields__)
        raise UserError(f"{origin}: mask recipe {recipe!r}, expected the keys {expected}") from None
    except (ValueError, OverflowError, AttributeError) as error:
        raise UserError(f"{origin}: mask recipe {recipe!r} cannot be generated ({error})") from None
    if mask.sha256 != sha256:
        raise UserError(f"{origin}: mask sha256 {sha256}, regenerated {mask.sha256}; was the file altered?")
    return mask


def _require_size(recipe: MaskRecipe, m: int, n: int, values: int) -> None:
    # Every family here has d·n entries; one that a user has registered may have fewer.
    ours = BUILT_IN & {recipe.family, recipe.family.rstrip("0123456789")}
    if (recipe.m, recipe.n) != (m, n) or (ours and recipe.d * recipe.n > values):
        raise UserError(
            f"a mask of m = {recipe.m}, n = {recipe.n}, d = {recipe.d} beside tensors of m = {m}, "
            f"n = {n} and {values} decoder values; was the file altered?"
        )


def read_mask(path: str | Path) -> Mask:
    """Regenerate the mask that `write_mask` recorded and verify its checksum."""
    record = read_sealed_json(path, ("recipe", "sha256"), "mask file")
    return regenerate(record["recipe"], record["sha256"], path)


def describe(mask: Mask) -> dict[str, Any]:
    """The recipe as stored beside weights."""
    return {"recipe": asdict(mask.recipe), "sha256": mask.sha256}
