"""Activations in files of odd shapes and kinds: the rows that were written, or the first bad one by name."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.faults.inputs import attempt
from tests.faults.tally import Tally

Case = tuple[Path, Any, "str | None"]
"""A file, the rows that are to be read of it, and what is to be said instead."""


def odd_arrays(folder: Path, count: int, seed: int) -> dict[str, Any]:
    """Files from a seeded generator, with what must come of them."""
    import numpy as np

    tally, draw = Tally("odd arrays"), random.Random(seed)
    for number in range(count):
        m, n = draw.randint(1, 6), draw.choice((1, 2, 5, 40, 1500))
        rows = np.random.default_rng(draw.randrange(2**32)).integers(-9, 9, (n, m)).astype(np.float32)
        path, expected, said = draw.choice((_lists, _lists, _tensor, _array))(folder, rows, draw)
        attempt(tally, f"array {number} {path.name} {rows.shape} {said!r}", _read(path, expected, said))
        path.unlink()
    return tally.as_dict()


def _lists(folder: Path, rows: Any, draw: random.Random) -> Case:
    """A Parquet column of lists, one of which may be null, of another length, or have a null or NaN."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    m, bad = rows.shape[1], draw.randrange(len(rows))
    inner = draw.choice((pa.float32(), pa.float64(), pa.float16(), pa.int8(), pa.int64()))
    values: list[Any] = rows.tolist() if pa.types.is_floating(inner) else rows.astype(int).tolist()
    kind = draw.choice((pa.list_(inner), pa.large_list(inner), pa.list_(inner, m)))
    how, said = draw.randrange(9), f"row {bad} "
    if how == 0:
        values[bad] = None
    elif how == 1:
        values[bad][draw.randrange(m)] = None
    elif how == 2 and pa.types.is_floating(inner):
        values[bad][draw.randrange(m)] = draw.choice((float("nan"), float("inf"), float("-inf")))
    elif how == 3 and bad and not pa.types.is_fixed_size_list(kind):
        values[bad] = values[bad] * 2 if draw.random() < 0.5 else values[bad][1:]
    elif how == 4:
        kind, values, said = (
            pa.list_(pa.list_(inner)),
            [[row] for row in values],
            "expected lists of m numbers",
        )
    else:
        said = None
    path = folder / "a.parquet"
    table = pa.table({"activation": pa.array(values, kind)})
    pq.write_table(table, path, row_group_size=draw.choice((7, 1024, 10**6)))
    return path, rows, said


def _tensor(folder: Path, rows: Any, draw: random.Random) -> Case:
    """A .pt file of a tensor of some kind, in a dict of some depth."""
    import torch

    h = torch.from_numpy(rows)
    kinds = {
        "plain": (h, None),
        "grad": (h.clone().requires_grad_(), None),
        "parameter": (torch.nn.Parameter(h), None),
        "negative": (torch._neg_view(-h), None),
        "bfloat16": (h.bfloat16(), None),
        "whole": (h.to(draw.choice((torch.int8, torch.int64))), None),
        "transposed": (h.T.contiguous().T, None),
        "sparse": (h.to_sparse(), "expected a dense one"),
        "csr": (h.to_sparse_csr(), "expected a dense one"),
        "complex": (h.to(torch.complex64), "expected real numbers"),
        "meta": (h.to("meta"), "which has no values"),
        "bool": (h > 0, "expected numbers of shape"),
        "row": (h[0], "expected"),
    }
    tensor, said = kinds[draw.choice(list(kinds))]
    stored: Any = tensor
    for _ in range(draw.randrange(3)):
        stored = {draw.choice(("acts", 3, "a.b", "")): stored, "step": 1}
    torch.save(stored, folder / "a.pt")
    return folder / "a.pt", rows, said


def _array(folder: Path, rows: Any, draw: random.Random) -> Case:
    """A .npy file in some order, number format and shape."""
    import numpy as np

    kinds = {
        "fortran": (np.asfortranarray(rows), None),
        "foreign": (rows.astype(">f4"), None),
        "double": (rows.astype(">f8"), None),
        "half": (rows.astype(np.float16), None),
        "whole": (rows.astype(np.int16), None),
        "sequences": (rows[:, None, :], None),
        "row": (rows[0], "expected numbers of shape"),
        "complex": (rows.astype(np.complex64), "expected numbers of shape"),
        "text": (rows.astype(str), "expected numbers of shape"),
        "empty": (rows[:0], "expected at least one row"),
        "flat": (rows[:, :0], "expected at least one row"),
        "named": (np.zeros((2, 2), [("x", "f4")]), "expected numbers of shape"),
    }
    array, said = kinds[draw.choice(list(kinds))]
    if array.dtype.kind == "f" and array.size and said is None and draw.random() < 0.2:
        array = array.copy()
        array.reshape(-1, array.shape[-1])[-1, 0] = np.nan
        said = f"row {len(rows) - 1} has a value that is not finite"
    np.save(folder / "a.npy", array)
    return folder / "a.npy", rows, said


def _read(path: Path, expected: Any, said: str | None) -> Callable[[], None]:
    def use() -> None:
        import numpy as np

        from expander_sae.cli.data import read_activations
        from expander_sae.errors import UserError

        try:
            found = read_activations(path)
        except UserError as error:
            if said is None or said not in str(error) or path.name not in str(error):
                raise AssertionError(f"said {error}, expected {said}") from None
            raise
        if said is not None or not np.array_equal(found, expected):
            raise AssertionError(f"read {found!r:.300}, expected {said or expected!r:.300}")

    return use
