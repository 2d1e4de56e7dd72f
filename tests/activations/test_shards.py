import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from expander_sae.activations import shards
from expander_sae.activations.shards import Rows, Shard, write_shard
from expander_sae.errors import UserError


def rows(count=20, m=3):
    draw = np.random.default_rng(0)
    return Rows(
        np.arange(count, dtype=np.int32) // 4,
        np.arange(count, dtype=np.int16) % 4,
        draw.integers(0, 9, count).astype(np.int32),
        draw.standard_normal((count, m)).astype(np.float32),
    )


@pytest.fixture
def path(tmp_path, monkeypatch):
    monkeypatch.setattr(shards, "ROW_GROUP", 8)
    write_shard(tmp_path / "train-00000.parquet", rows(), {"model": "tiny", "layer": 1})
    return tmp_path / "train-00000.parquet"


def test_shard_holds_the_very_bytes(path):
    shard = Shard(path)
    assert (shard.tokens, shard.m, shard.about["layer"]) == (20, 3, 1)
    groups = list(shard.row_groups())
    assert [len(group) for group in groups] == [8, 8, 4]
    for name in ("document", "position", "token_id", "activation"):
        found = np.concatenate([getattr(group, name) for group in groups])
        expected = getattr(rows(), name)
        assert found.dtype == expected.dtype
        assert found.tobytes() == expected.tobytes()


def test_columns_are_those_of_the_design(path):
    schema = pq.read_schema(path)
    assert schema.names == ["document", "position", "token_id", "activation"]
    assert schema.types == [pa.int32(), pa.int16(), pa.int32(), pa.list_(pa.float32(), 3)]


def test_same_rows_give_the_same_file(path, tmp_path):
    write_shard(tmp_path / "again.parquet", rows(), {"model": "tiny", "layer": 1})
    assert (tmp_path / "again.parquet").read_bytes() == path.read_bytes()


def test_shard_without_tokens(tmp_path):
    write_shard(tmp_path / "empty.parquet", rows(0), {})
    assert list(Shard(tmp_path / "empty.parquet").row_groups()) == []


@pytest.mark.parametrize("kept", [0, 4, 200, 0.5, -1])
def test_truncated_shard_is_named(path, kept):
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * kept) if isinstance(kept, float) else kept])
    with pytest.raises(
        UserError, match=r"train-00000\.parquet: (not a whole activation shard|altered or cut)"
    ):
        Shard(path)


def test_altered_activation_is_noticed(path):
    whole = bytearray(path.read_bytes())
    value = rows().activation[13].tobytes()
    whole[whole.index(value)] ^= 1
    path.write_bytes(whole)
    with pytest.raises(UserError, match=r"train-00000\.parquet: altered"):
        list(Shard(path).row_groups())


def test_other_parquet_file_is_no_shard(tmp_path):
    pq.write_table(pa.table({"a": [1]}), tmp_path / "other.parquet")
    with pytest.raises(UserError, match=r"other\.parquet: not a whole activation shard"):
        Shard(tmp_path / "other.parquet")


def test_a_shard_of_another_program_with_a_row_that_is_null_is_named(path):
    """Null lists have no numbers: what is left would be rows of other tokens."""
    table = pq.read_table(path)
    lists = table["activation"].to_pylist()
    lists[13] = None
    metadata = {key: value for key, value in table.schema.metadata.items() if key != b"seal"}
    changed = table.set_column(3, "activation", pa.array(lists, pa.list_(pa.float32(), 3)))
    pq.write_table(changed.replace_schema_metadata(metadata), path)
    with pytest.raises(UserError, match=r"train-00000\.parquet: column 'activation': row 13 is null"):
        list(Shard(path).row_groups())
