"""The three tables: their columns, and how they are written, read and put together.

Equal rows give equal bytes: columns and rows are sorted into one order, and the files hold
neither a date nor a machine.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.compute
import pyarrow.parquet as pq
from pyarrow import csv

from expander_sae.errors import UserError
from expander_sae.storage.files import AGAIN
from expander_sae.storage.parquet_files import open_sealed, sealed_writer
from expander_sae.storage.seals import check_recorded
from expander_sae.study import run

_ARROW = {str: pa.string(), int: pa.int64()}

RUN_COLUMNS: dict[str, pa.DataType] = {name: _ARROW[kind] for name, kind in run.RUN_COLUMNS.items()}
"""What tells a run from another. Rows about the model itself hold `none` and 0."""

ABOUT = "about"
"""Key of the file metadata that says what recorded rows come from."""

_MEASURED = {"inference": pa.string(), "split": pa.string(), "metric": pa.string()}

METRICS: dict[str, pa.DataType] = {**RUN_COLUMNS, **_MEASURED, "value": pa.float64()}
"""Columns of metrics.parquet, one row a measurement."""

DOCUMENTS: dict[str, pa.DataType] = {
    **RUN_COLUMNS,
    **_MEASURED,
    "document": pa.int64(),
    "sum": pa.float64(),
    "count": pa.int64(),
}
"""Columns of documents.parquet: a metric's sum and count over the tokens of each document."""

CURVES: dict[str, pa.DataType] = {
    **RUN_COLUMNS,
    "step": pa.int64(),
    "loss": pa.float64(),
    "relative_error": pa.float64(),
    "silent_share": pa.float64(),
    "learning_rate": pa.float64(),
}
"""Columns of curves.parquet, one row a logged step: a run's columns and those of its training.csv."""

TIMINGS: dict[str, pa.DataType] = {
    "stage": pa.string(),
    "job": pa.string(),
    "seconds": pa.float64(),
    "peak_mb": pa.float64(),
    "threads": pa.int64(),
    "device": pa.string(),
}
"""Columns of timings.parquet: wall time and peak resident memory of each job."""


def _key(columns: Mapping[str, pa.DataType]) -> list[str]:
    """The columns by which rows are told apart and sorted."""
    return [name for name, kind in columns.items() if not pa.types.is_floating(kind) and name != "count"]


def _write(
    rows: pa.Table, columns: Mapping[str, pa.DataType], path: str | Path, about: str | None = None
) -> None:
    """Write a table; with `about`, text kept in the file, as small as can be, since it is kept for good."""
    rows = rows.sort_by([(name, "ascending") for name in _key(columns)])
    unsaid = [name for name in run.UNSAID if name in columns]
    rows = rows.drop_columns(
        [name for name in unsaid if set(rows[name].unique().to_pylist()) <= {run.LEFT_OUT[name]}]
    )
    options: dict[str, Any] = {"compression": "zstd", "store_schema": False, "write_page_checksum": True}
    if about is not None:
        options |= {"compression_level": 19, "write_statistics": False}
    with sealed_writer(path, rows.schema, {} if about is None else {ABOUT: about}, **options) as writer:
        writer.write_table(rows)


def _from_rows(rows: Sequence[Mapping[str, Any]], columns: Mapping[str, pa.DataType]) -> pa.Table:
    unsaid = {name: run.LEFT_OUT[name] for name in run.UNSAID if name in columns}
    rows = [unsaid | dict(row) for row in rows]
    for row in rows:
        if row.keys() != columns.keys():
            raise ValueError(f"a row has columns {sorted(row)}, expected {sorted(columns)}")
        wrong = next((name for name in ("value", "sum") if not math.isfinite(row.get(name, 0.0))), None)
        if wrong is not None:
            raise ValueError(f"a row of {row['metric']} has {wrong} {row[wrong]}, expected a finite number")
    return pa.Table.from_pylist([dict(row) for row in rows], schema=pa.schema(list(columns.items())))


def write_metrics(rows: Sequence[Mapping[str, Any]], path: str | Path) -> None:
    """Write rows with the columns METRICS; values are finite."""
    _write(_from_rows(rows, METRICS), METRICS, path)


def write_documents(rows: Sequence[Mapping[str, Any]], path: str | Path) -> None:
    """Write rows with the columns DOCUMENTS; sums are finite."""
    _write(_from_rows(rows, DOCUMENTS), DOCUMENTS, path)


def write_timings(rows: Sequence[Mapping[str, Any]], path: str | Path) -> None:
    """Write rows with the columns TIMINGS."""
    _write(_from_rows(rows, TIMINGS), TIMINGS, path)


def _read(path: str | Path, columns: Mapping[str, pa.DataType]) -> pa.Table:
    try:
        with open_sealed(path, page_checksum_verification=True) as file:
            table = file.read()
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"{path}: not a readable Parquet table ({error}); {AGAIN}") from None
    table = _completed(table, columns)
    # pandas writes strings with wide offsets: a table that went through it is still one.
    found = {
        field.name: pa.string() if pa.types.is_large_string(field.type) else field.type
        for field in table.schema
    }
    if found != dict(columns):
        wrong = sorted(name for name in {*found, *columns} if found.get(name) != columns.get(name))
        raise UserError(
            f"{path}: column {wrong[0]!r} is {found.get(wrong[0], 'missing')}, expected "
            f"{columns.get(wrong[0], 'no such column')}; {AGAIN}"
        )
    return table.select(list(columns)).cast(pa.schema(list(columns.items())))


def _completed(table: pa.Table, columns: Mapping[str, pa.DataType]) -> pa.Table:
    """The table with the columns that older tables do not have."""
    for name, value in run.LEFT_OUT.items():
        if name in columns and name not in table.column_names:
            table = table.append_column(name, pa.array([value] * len(table), columns[name]))
    return table


def completed(frame: pd.DataFrame) -> pd.DataFrame:
    """The frame with the columns of a run that older tables do not have."""
    absent = {name: value for name, value in run.LEFT_OUT.items() if name not in frame.columns}
    return frame.assign(**absent) if absent else frame


def read_metrics(path: str | Path) -> pd.DataFrame:
    """The table as a frame; raises `UserError` naming the file where it is not one."""
    return _read(path, METRICS).to_pandas()


def read_documents(path: str | Path) -> pd.DataFrame:
    """The table as a frame; raises `UserError` naming the file where it is not one."""
    return _read(path, DOCUMENTS).to_pandas()


def read_timings(path: str | Path) -> pd.DataFrame:
    """The table as a frame; raises `UserError` naming the file where it is not one."""
    return _read(path, TIMINGS).to_pandas()


def read_published(path: str | Path, columns: Sequence[str], what: str) -> pd.DataFrame:
    """A CSV file of published numbers that has `columns`; `what` names it in messages.

    Raises:
        UserError: no such file, not a CSV table, or a column is missing.
    """
    try:
        frame = pd.read_csv(path)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file, expected {what}") from None
    except ValueError as error:
        raise UserError(f"{path}: not a readable CSV table ({error})") from None
    absent = [column for column in columns if column not in frame.columns]
    if absent:
        raise UserError(f"{path}: column {absent[0]!r} is missing, expected {', '.join(columns)}")
    return frame


def collect_metrics(parts: Iterable[str | Path], out: str | Path) -> None:
    """Put per-run metrics together."""
    _collect(parts, out, METRICS)


def collect_documents(parts: Iterable[str | Path], out: str | Path) -> None:
    """Put per-run document sums together."""
    _collect(parts, out, DOCUMENTS)


def collect_curves(parts: Iterable[str | Path], out: str | Path) -> None:
    """Put per-run learning curves together."""
    _collect(parts, out, CURVES)


def read_curves(path: str | Path) -> pd.DataFrame:
    """The table as a frame; raises `UserError` naming the file where it is not one."""
    return _read(path, CURVES).to_pandas()


def write_curves(curves: Mapping[str, Mapping[str, Any]], path: str | Path, about: str | None = None) -> None:
    """Write learning curves. curves: training.csv → the columns of its run; it can lack those that older
    tables lack.

    Raises:
        UserError: a file is missing or no training.csv.
    """
    parts = [_curve(Path(file), columns) for file, columns in curves.items()]
    _write(pa.concat_tables([pa.schema(list(CURVES.items())).empty_table(), *parts]), CURVES, path, about)


def _curve(path: Path, columns: Mapping[str, Any]) -> pa.Table:
    logged = {name: kind for name, kind in CURVES.items() if name not in RUN_COLUMNS}
    options = csv.ConvertOptions(column_types=logged, include_columns=list(logged))
    record = path.with_name("run.json")
    if record.exists():
        check_recorded(path, record, "log_sha256")
    try:
        table = csv.read_csv(path, convert_options=options)
    except (pa.ArrowException, OSError, KeyError) as error:
        raise UserError(f"{path}: not a training.csv ({error}); {AGAIN}") from None
    own = run.LEFT_OUT | dict(columns)
    fixed = {name: pa.array([own[name]] * len(table), kind) for name, kind in RUN_COLUMNS.items()}
    return pa.table(fixed | {name: table[name] for name in logged}, schema=pa.schema(list(CURVES.items())))


def record(
    parts: Iterable[str | Path], table: str, run: Mapping[str, Any] | None, about: str, out: str | Path
) -> None:
    """Keep the rows of one run, or all, of some `metrics` or `documents` tables.

    Args:
        run: its columns.
        about: what the rows come from, kept in the file.
    """
    columns = {"metrics": METRICS, "documents": DOCUMENTS}[table]
    rows = pa.concat_tables([_read(part, columns) for part in parts])
    for column, value in ({} if run is None else run).items():
        rows = rows.filter(pa.compute.equal(rows[column], value))
    _write(rows, columns, out, about)


def recorded_about(path: str | Path) -> str | None:
    """The text `about` that `record` kept in a file."""
    with pq.ParquetFile(path) as file:
        found = (file.metadata.metadata or {}).get(ABOUT.encode())
    return None if found is None else found.decode()


def _collect(parts: Iterable[str | Path], out: str | Path, columns: Mapping[str, pa.DataType]) -> None:
    schema, parts = pa.schema(list(columns.items())), list(parts)
    table = pa.concat_tables([schema.empty_table(), *(_read(part, columns) for part in parts)])
    _refuse_duplicates(table, columns, parts, out)
    _write(table, columns, out)


def _refuse_duplicates(
    table: pa.Table, columns: Mapping[str, pa.DataType], parts: Sequence[str | Path], out: str | Path
) -> None:
    counts = table.group_by(_key(columns)).aggregate([([], "count_all")])
    twice = counts.filter(pa.compute.greater(counts["count_all"], 1))
    if twice.num_rows:
        row = {name: value for name, value in twice.slice(0, 1).to_pylist()[0].items() if name != "count_all"}
        key = [pa.array([value], twice.schema.field(name).type) for name, value in row.items()]
        one = pa.table(dict(zip(row, key, strict=True)))
        holders = [
            str(part)
            for part in parts
            if _read(part, columns).join(one, list(row), join_type="left semi").num_rows
        ]
        raise UserError(f"{out}: two inputs hold a row for {row}: {' and '.join(holders)}")
