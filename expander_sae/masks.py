"""Masks: which rows each decoder column may use.

A mask is a recipe. `generate` gives the same rows bit for bit on every platform, so a mask costs
a few bytes on disk whatever its size, and a checksum tells whether it was regenerated rightly.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from expander_sae.errors import UserError
from expander_sae.files import read_json, write_json
from expander_sae.rng import Integers
from expander_sae.stages import lineage

Rows = np.ndarray


@dataclass(frozen=True)
class MaskRecipe:
    """All that a mask depends on: family, shape (m rows, n columns, d nonzeros a column), seed."""

    family: str
    m: int
    n: int
    d: int
    seed: int

    def generate(self) -> Mask:
        """Build the mask. O(d·n) memory.

        Raises:
            UserError: unknown family, or a shape that the family cannot have.
        """
        if self.family not in FAMILIES:
            raise UserError(f"mask family: found {self.family!r}, expected one of {', '.join(FAMILIES)}")
        if not 1 <= self.d <= self.m:
            raise UserError(f"d: found {self.d}, expected 1 to m = {self.m}")
        if self.n < 2:
            raise UserError(f"n: found {self.n}, expected at least 2")
        stream = Integers(self.seed, f"mask/{self.family}/{self.m}/{self.n}/{self.d}")
        rows, degrees = FAMILIES[self.family](self, stream)
        return Mask(self, rows, degrees)


@dataclass(frozen=True, eq=False)
class Mask:
    """Rows of each column.

    rows: int32 [n, w], ascending in each column; places beyond a column's degree hold 0.
    degrees: int32 [n], at most w; all equal to d but for irregular families.
    """

    recipe: MaskRecipe
    rows: np.ndarray
    degrees: np.ndarray

    @property
    def width(self) -> int:
        return int(self.rows.shape[1])

    @property
    def regular(self) -> bool:
        return bool((self.degrees == self.width).all())

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
    def sha256(self) -> str:
        """Checksum of the degrees and the true rows, as little-endian int32."""
        content = hashlib.sha256(self.degrees.astype("<i4").tobytes())
        content.update(self.rows[self.valid()].astype("<i4").tobytes())
        return content.hexdigest()


def _regular(rows: Rows) -> tuple[Rows, np.ndarray]:
    n, d = rows.shape
    return np.sort(rows, axis=1).astype(np.int32), np.full(n, d, dtype=np.int32)


def _subsets(stream: Integers, m: int, n: int, d: int) -> Rows:
    """n uniform d-subsets of range(m), by Floyd's algorithm run on all columns at once.

    Time O(n·d²) with d ≤ m/2; above, the complement is drawn.
    """
    if 2 * d > m:
        left_out = np.zeros((n, m), dtype=bool)
        np.put_along_axis(left_out, _subsets(stream, m, n, m - d), True, axis=1)
        return np.nonzero(~left_out)[1].reshape(n, d)
    chosen = np.empty((n, d), dtype=np.int32)
    for place, last in enumerate(range(m - d, m)):
        drawn = stream.below(last + 1, n).astype(np.int32)
        taken = (chosen[:, :place] == drawn[:, None]).any(axis=1)
        chosen[:, place] = np.where(taken, last, drawn)
    return chosen


def _expander(recipe: MaskRecipe, stream: Integers) -> tuple[Rows, np.ndarray]:
    """The paper's mask: each column a uniform d-subset, no row left empty.

    A row that nothing drew takes over a uniformly drawn edge of a row that has two or more.
    """
    m, n, d = recipe.m, recipe.n, recipe.d
    if d * n < m:
        raise UserError(f"d·n: found {d}·{n} = {d * n}, expected at least m = {m}, to cover every row")
    rows = _subsets(stream, m, n, d)
    degree = np.bincount(rows.ravel(), minlength=m)
    flat = rows.reshape(-1)
    for empty in np.flatnonzero(degree == 0):
        edge = int(stream.below(flat.size, 1)[0])
        while degree[flat[edge]] < 2:
            edge = int(stream.below(flat.size, 1)[0])
        degree[flat[edge]] -= 1
        degree[empty] += 1
        flat[edge] = empty
    return _regular(rows)


def _bernoulli(recipe: MaskRecipe, stream: Integers) -> tuple[Rows, np.ndarray]:
    """Random and irregular: d·n edges uniform over all m·n cells, every column at least one.

    A column that drew none takes over a uniformly drawn edge of a column that has two or more,
    on a uniform row.
    """
    m, n, d = recipe.m, recipe.n, recipe.d
    complement = 2 * d > m
    wanted = (m - d) * n if complement else d * n
    cells = np.empty(0, dtype=np.int64)
    while cells.size < wanted:
        missing = wanted - cells.size
        size = missing + missing // 4 + 16
        drawn = stream.below(n, size) * m + stream.below(m, size)
        merged = np.concatenate([cells, drawn])
        _, first = np.unique(merged, return_index=True)
        cells = merged[np.sort(first)][:wanted]
    if complement:
        absent = np.zeros(n * m, dtype=bool)
        absent[cells] = True
        cells = np.flatnonzero(~absent)
    column, row = cells // m, cells % m
    degree = np.bincount(column, minlength=n)
    for empty in np.flatnonzero(degree == 0):
        edge = int(stream.below(column.size, 1)[0])
        while degree[column[edge]] < 2:
            edge = int(stream.below(column.size, 1)[0])
        degree[column[edge]] -= 1
        degree[empty] = 1
        column[edge], row[edge] = empty, int(stream.below(m, 1)[0])
    order = np.lexsort((row, column))
    column, row = column[order], row[order]
    starts = np.concatenate([[0], np.cumsum(degree)[:-1]])
    rows = np.zeros((n, int(degree.max())), dtype=np.int32)
    rows[column, np.arange(column.size) - starts[column]] = row
    return rows, degree.astype(np.int32)


def _clustered(recipe: MaskRecipe, stream: Integers) -> tuple[Rows, np.ndarray]:
    """The published control: ⌊m/d⌋ disjoint blocks of d rows, each column takes one.

    Blocks are used equally often within one. The m mod d rows left over are written by nothing.
    """
    blocks = recipe.m // recipe.d
    block = stream.permutation(recipe.n) % blocks
    return _regular(block[:, None] * recipe.d + np.arange(recipe.d)[None, :])


def _clustered_cover(recipe: MaskRecipe, stream: Integers) -> tuple[Rows, np.ndarray]:
    """`clustered` without its confound: blocks are laid end to end and wrap round.

    Every row is covered and row degrees are equal within one.
    """
    m, n, d = recipe.m, recipe.n, recipe.d
    if d * n < m:
        raise UserError(f"d·n: found {d}·{n} = {d * n}, expected at least m = {m}, to cover every row")
    start = stream.permutation(n) * d
    return _regular((start[:, None] + np.arange(d)[None, :]) % m)


FAMILIES: dict[str, Callable[[MaskRecipe, Integers], tuple[Rows, np.ndarray]]] = {
    "expander": _expander,
    "bernoulli": _bernoulli,
    "clustered": _clustered,
    "clustered_cover": _clustered_cover,
}


def write_mask(spec: dict[str, Any], path: str | Path) -> None:
    """Generate the mask of a `MaskRecipe` given as a dict; write its recipe and checksum."""
    mask = MaskRecipe(**spec).generate()
    degrees = mask.row_degrees()
    write_json(
        path,
        {
            "recipe": spec,
            "sha256": mask.sha256,
            "edges": mask.edges,
            "width": mask.width,
            "row_degree_min": int(degrees.min()),
            "row_degree_max": int(degrees.max()),
            "uncovered_rows": mask.uncovered_rows(),
            "lineage": lineage("mask"),
        },
    )


def regenerate(recipe: dict[str, Any], sha256: str, origin: str | Path) -> Mask:
    """Generate a mask and check it against the checksum that `origin` recorded.

    Raises:
        UserError: the recipe is malformed or the checksum differs.
    """
    try:
        mask = MaskRecipe(**recipe).generate()
    except TypeError:
        expected = ", ".join(MaskRecipe.__dataclass_fields__)
        raise UserError(f"{origin}: mask recipe {recipe!r}, expected the keys {expected}") from None
    if mask.sha256 != sha256:
        raise UserError(f"{origin}: mask sha256 {sha256}, regenerated {mask.sha256}; was the file altered?")
    return mask


def read_mask(path: str | Path) -> Mask:
    """Regenerate the mask that `write_mask` recorded and verify its checksum."""
    record = read_json(path)
    if not isinstance(record, dict) or not {"recipe", "sha256"} <= record.keys():
        raise UserError(f"{path}: not a mask file, expected the keys recipe and sha256")
    return regenerate(record["recipe"], record["sha256"], path)


def describe(mask: Mask) -> dict[str, Any]:
    """The recipe as stored beside weights."""
    return {"recipe": asdict(mask.recipe), "sha256": mask.sha256}
