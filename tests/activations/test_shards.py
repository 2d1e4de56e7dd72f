import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from expander_sae.activations import shards
from expander_sae.activations.shards import Rows, Shard, shard_writer, write_shard
from expander_sae.cli.data import read_activations
from expander_sae.errors import UserError
from expander_sae.machine.piece_sizes import ROW_GROUP
from expander_sae.storage import bfloat16


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


def bits_of(values):
    """What torch rounds to."""
    return torch.from_numpy(values).bfloat16().float().numpy()


@given(hnp.arrays(np.float32, 7, elements=st.floats(-(2.0**127), 2.0**127, width=32)))
def test_rounding_to_16_bits_is_that_of_torch(values):
    found = bfloat16.widened(bfloat16.rounded(values))
    assert found.tobytes() == bits_of(values).tobytes()
    assert np.array_equal(bfloat16.widened(bfloat16.rounded(found)), found)


def test_a_shard_in_16_bits_holds_the_rounded_rows_in_half_the_bytes(tmp_path):
    half = tmp_path / "half.parquet"
    write_shard(half, rows(), {"model": "tiny", "layer": 1}, "bfloat16")
    shard = Shard(half)
    found = np.concatenate([group.activation for group in shard.row_groups()])
    assert found.tobytes() == bits_of(rows().activation).tobytes()
    assert np.abs(found - rows().activation).max() <= 2**-8 * np.abs(rows().activation).max()
    wide = rows(3000, 64)
    for name in ("float32", "bfloat16"):
        write_shard(tmp_path / f"{name}.parquet", wide, {}, name)
    sizes = [(tmp_path / f"{name}.parquet").stat().st_size for name in ("bfloat16", "float32")]
    assert sizes[0] < 0.55 * sizes[1]
    # The same content has the same name, however it is stored.
    write_shard(tmp_path / "rounded.parquet", Rows(*rows().of_tokens, found), {})
    assert Shard(tmp_path / "rounded.parquet").about["sha256"] == shard.about["sha256"]


def test_commands_read_16_bits(tmp_path):
    half = tmp_path / "half.parquet"
    write_shard(half, rows(), {"model": "tiny", "layer": 1}, "bfloat16")
    assert np.array_equal(read_activations(half, tokens=11), bits_of(rows().activation)[:11])


def test_what_16_bits_cannot_hold_is_refused(tmp_path):
    largest = Rows(*rows(1).of_tokens, np.full((1, 3), np.finfo(np.float32).max))
    with pytest.raises(UserError, match="not finite"):
        write_shard(tmp_path / "x.parquet", largest, {}, "bfloat16")
    write_shard(tmp_path / "y.parquet", rows(), {"stored": "int3"})
    with pytest.raises(UserError, match="stored: found 'int3', expected float32 or bfloat16"):
        Shard(tmp_path / "y.parquet")


@pytest.mark.parametrize("stored", ["float32", "bfloat16"])
def test_rows_written_in_parts_are_those_written_at_once(tmp_path, stored):
    """Of whole row groups and a rest; only where the metadata stand differs."""
    whole, parts = tmp_path / "whole.parquet", tmp_path / "parts.parquet"
    count, about = 2 * ROW_GROUP + 100, {"model": "tiny", "layer": 1}
    many = rows(count)
    write_shard(whole, many, about, stored)
    with shard_writer(parts, many.activation.shape[1], about, stored) as write:
        for start in range(0, count, ROW_GROUP):
            write(Rows(*(column[start : start + ROW_GROUP] for column in (*many.of_tokens, many.activation))))
    assert Shard(parts).about == Shard(whole).about
    for one, other in zip(Shard(parts).row_groups(), Shard(whole).row_groups(), strict=True):
        assert all(np.array_equal(*pair) for pair in zip(one.of_tokens, other.of_tokens, strict=True))
        assert np.array_equal(one.activation, other.activation)
    content = bytearray(parts.read_bytes())
    content[len(content) // 3] ^= 1
    parts.write_bytes(content)
    with pytest.raises(UserError, match="altered"):
        Shard(parts)


def test_a_part_that_ends_within_a_row_group_is_the_last(tmp_path):
    with (
        pytest.raises(ValueError, match="after a row group that is not full"),
        shard_writer(tmp_path / "x.parquet", rows().activation.shape[1], {}) as write,
    ):
        write(rows())
        write(rows())
    assert not (tmp_path / "x.parquet").exists()
