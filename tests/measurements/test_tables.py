"""Tables: one order of rows, one order of bytes, and files that are not tables are named."""

import random

import pandas as pd
import pyarrow.parquet as pq
import pytest

from expander_sae.errors import UserError
from expander_sae.measurements import tables
from expander_sae.study.run import RUN_COLUMNS


def run(seed, d=7):
    values = [
        "model",
        "corpus",
        15,
        "standard",
        "expander",
        "tied",
        64,
        512,
        d,
        8,
        "float32",
        "encoder",
        1000,
        10,
        seed,
    ]
    return dict(zip(tables.RUN_COLUMNS, values, strict=True))


def metrics(seed):
    return [
        {**run(seed), "inference": inference, "split": "test", "metric": metric, "value": seed + 0.25}
        for inference in ("encoder", "omp")
        for metric in ("relative_error", "l0")
    ]


def documents(seed):
    return [
        {
            **run(seed),
            "inference": "omp",
            "split": "ce",
            "metric": "ce",
            "document": document,
            "sum": 1.5,
            "count": 3,
        }
        for document in range(4)
    ]


def test_the_study_and_the_tables_agree_on_what_tells_runs_apart():
    assert tuple(tables.RUN_COLUMNS) == tuple(RUN_COLUMNS)


def test_a_table_without_codes_by_a_pursuit_has_no_column_of_them(tmp_path):
    """So that the bytes of tables stay that were written before there was one."""
    tables.write_metrics(metrics(0), tmp_path / "a.parquet")
    tables.write_metrics([row | {"codes": "omp"} for row in metrics(1)], tmp_path / "b.parquet")
    tables.collect_metrics([tmp_path / "a.parquet", tmp_path / "b.parquet"], tmp_path / "both.parquet")
    held = ["codes" in pq.read_schema(tmp_path / f"{name}.parquet").names for name in ("a", "b", "both")]
    assert held == [False, True, True]
    assert set(tables.read_metrics(tmp_path / "a.parquet")["codes"]) == {"encoder"}
    assert tables.read_metrics(tmp_path / "both.parquet").groupby("seed")["codes"].first().tolist() == [
        "encoder", "omp",
    ]  # fmt: skip


def test_the_order_of_rows_and_parts_changes_no_byte(tmp_path):
    for name, seeds in (("forth", [0, 1, 2]), ("back", [2, 1, 0])):
        parts = []
        for seed in seeds:
            rows = metrics(seed)
            random.Random(name).shuffle(rows)
            parts.append(tmp_path / f"{name}{seed}.parquet")
            tables.write_metrics(rows, parts[-1])
        tables.collect_metrics(parts, tmp_path / f"{name}.parquet")
    assert (tmp_path / "forth.parquet").read_bytes() == (tmp_path / "back.parquet").read_bytes()
    frame = tables.read_metrics(tmp_path / "forth.parquet")
    assert list(frame) == list(tables.METRICS) and len(frame) == 12
    assert frame["seed"].tolist() == [0] * 4 + [1] * 4 + [2] * 4


def test_documents_come_back_as_written(tmp_path):
    tables.write_documents(documents(0), tmp_path / "a.parquet")
    frame = tables.read_documents(tmp_path / "a.parquet")
    pd.testing.assert_frame_equal(frame, pd.DataFrame(documents(0)), check_dtype=False)


def test_nothing_collected_is_an_empty_table(tmp_path):
    tables.collect_metrics([], tmp_path / "none.parquet")
    assert list(tables.read_metrics(tmp_path / "none.parquet")) == list(tables.METRICS)


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_a_number_that_is_not_finite_is_a_defect(tmp_path, number):
    with pytest.raises(ValueError, match=r"relative_error has value .*, expected a finite number"):
        tables.write_metrics([{**metrics(0)[0], "value": number}], tmp_path / "a.parquet")
    with pytest.raises(ValueError, match="has sum"):
        tables.write_documents([{**documents(0)[0], "sum": number}], tmp_path / "a.parquet")
    assert not (tmp_path / "a.parquet").exists()


def test_a_row_in_two_parts_is_refused(tmp_path):
    tables.write_metrics(metrics(0), tmp_path / "a.parquet")
    with pytest.raises(UserError, match="two inputs hold a row for"):
        tables.collect_metrics([tmp_path / "a.parquet"] * 2, tmp_path / "out.parquet")
    assert not (tmp_path / "out.parquet").exists()


def test_a_missing_truncated_or_foreign_file_is_named(tmp_path):
    path = tmp_path / "broken.parquet"
    with pytest.raises(UserError, match=r"broken\.parquet: no such file"):
        tables.read_metrics(path)
    tables.write_metrics(metrics(0), path)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(UserError, match=r"broken\.parquet: altered or cut short"):
        tables.read_metrics(path)
    tables.write_documents(documents(0), path)
    with pytest.raises(UserError, match=r"broken\.parquet: column 'count' is int64, expected no such column"):
        tables.read_metrics(path)
    tables.write_metrics(metrics(0), path)
    pq.write_table(pq.read_table(path).drop_columns(["value"]).replace_schema_metadata(None), path)
    with pytest.raises(UserError, match="column 'value' is missing, expected double"):
        tables.read_metrics(path)


def test_a_table_that_went_through_pandas_is_still_one(tmp_path):
    tables.write_metrics(metrics(0), tmp_path / "a.parquet")
    frame = tables.read_metrics(tmp_path / "a.parquet")
    frame[[*reversed(frame.columns)]].to_parquet(tmp_path / "b.parquet")
    pd.testing.assert_frame_equal(tables.read_metrics(tmp_path / "b.parquet"), frame)


def test_a_row_with_other_columns_is_a_defect(tmp_path):
    with pytest.raises(ValueError, match="expected"):
        tables.write_metrics([{"model": "x"}], tmp_path / "a.parquet")


def test_no_altered_byte_goes_unnoticed(tmp_path):
    path = tmp_path / "a.parquet"
    tables.write_metrics(metrics(0), path)
    whole = path.read_bytes()
    for place in range(0, len(whole), 7):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0x10]) + whole[place + 1 :])
        with pytest.raises(UserError, match=r"a\.parquet: "):
            tables.read_metrics(path)


def test_tables_from_before_there_was_a_precision_are_of_float32(tmp_path):
    tables.write_metrics(metrics(3), tmp_path / "new.parquet")
    new = tables.read_metrics(tmp_path / "new.parquet")
    columns = {name: kind for name, kind in tables.METRICS.items() if name != "precision"}
    rows = [{name: row[name] for name in columns} for row in metrics(3)]
    tables._write(tables._from_rows(rows, columns), columns, tmp_path / "old.parquet")
    assert "precision" not in pq.read_table(tmp_path / "old.parquet").column_names
    pd.testing.assert_frame_equal(tables.read_metrics(tmp_path / "old.parquet"), new)
    rounded = [row | {"precision": "int8"} for row in metrics(3)]
    tables.write_metrics(rounded, tmp_path / "int8.parquet")
    tables.collect_metrics([tmp_path / "old.parquet", tmp_path / "int8.parquet"], tmp_path / "all.parquet")
    assert tables.read_metrics(tmp_path / "all.parquet")["precision"].value_counts().to_dict() == {
        "float32": 4, "int8": 4,
    }  # fmt: skip
