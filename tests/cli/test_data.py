import pickle
import tracemalloc

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import save_file
from torch.utils._python_dispatch import TorchDispatchMode

from expander_sae.activations.pool import build_pool
from expander_sae.activations.shards import Rows, write_shard
from expander_sae.cli.data import read_activations
from expander_sae.errors import UserError
from expander_sae.stages import lineage
from tests.cli.conftest import M

ARRAY = np.arange(48, dtype=np.float32).reshape(12, 4)


def shard(folder, split, number, array):
    tokens = len(array)
    rows = Rows(
        np.zeros(tokens, np.int32), np.arange(tokens, dtype=np.int16), np.zeros(tokens, np.int32), array
    )
    write_shard(folder / f"{split}-{number:05d}.parquet", rows, {"split": split})


def test_every_kind_of_file_gives_the_same_tensor(tmp_path):
    np.save(tmp_path / "a.npy", ARRAY)
    save_file({"x": torch.from_numpy(ARRAY), "bias": torch.zeros(3)}, tmp_path / "a.safetensors")
    torch.save(torch.from_numpy(ARRAY), tmp_path / "a.pt")
    (tmp_path / "shards").mkdir()
    shard(tmp_path / "shards", "train", 0, ARRAY[:7])
    shard(tmp_path / "shards", "train", 1, ARRAY[7:])
    shard(tmp_path / "shards", "test", 0, -ARRAY)
    for name in ("a.npy", "a.safetensors", "a.pt", "shards"):
        found = read_activations(tmp_path / name, m=4)
        assert found.dtype == np.float32
        np.testing.assert_array_equal(found, ARRAY, err_msg=name)
    np.testing.assert_array_equal(read_activations(tmp_path / "shards", split="test"), -ARRAY)
    np.testing.assert_array_equal(read_activations(tmp_path / "a.npy", tokens=5), ARRAY[:5])


def test_sequences_are_rows_and_bfloat16_is_widened(tmp_path):
    tensor = torch.from_numpy(ARRAY).reshape(3, 4, 4).bfloat16()
    save_file({"x": tensor}, tmp_path / "a.safetensors")
    np.testing.assert_array_equal(read_activations(tmp_path / "a.safetensors"), ARRAY)


class Harmful:
    """Unpickling it makes a file."""

    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return (open, (str(self.target), "w"))


@pytest.mark.parametrize("suffix", ["pt", "npy"])
def test_a_file_that_could_run_code_is_refused_and_runs_none(tmp_path, suffix):
    target, file = tmp_path / "ran", tmp_path / f"a.{suffix}"
    if suffix == "pt":
        torch.save({"x": Harmful(target)}, file)
    else:
        np.save(file, np.array([Harmful(target)], dtype=object), allow_pickle=True)
    assert pickle  # the danger is pickle's
    with pytest.raises(UserError, match=str(file)):
        read_activations(file)
    assert not target.exists()


@pytest.mark.parametrize(
    ("array", "options", "said"),
    [
        (ARRAY, {"m": 5}, "width 4, expected m = 5"),
        (ARRAY, {"tokens": 13}, "12 rows, expected at least --tokens 13"),
        (ARRAY[0], {}, r"expected numbers of shape \[N, m\]"),
        (ARRAY[:0], {}, "at least one row"),
        (np.where(ARRAY == 29, np.nan, ARRAY), {}, "row 7 has a value that is not finite"),
        (ARRAY.astype(complex), {}, "complex"),
    ],
)
def test_what_is_wrong_with_a_tensor_is_said(tmp_path, array, options, said):
    np.save(tmp_path / "a.npy", array)
    with pytest.raises(UserError, match=said):
        read_activations(tmp_path / "a.npy", **options)


def test_two_columns_of_one_name_are_refused(tmp_path):
    kind = pa.list_(pa.float32(), 4)
    columns = [pa.array(array.tolist(), kind) for array in (ARRAY, -ARRAY)]
    pq.write_table(pa.table(columns, names=["activation", "activation"]), tmp_path / "a.parquet")
    with pytest.raises(UserError, match=r"a\.parquet: found 2 columns 'activation', expected one"):
        read_activations(tmp_path / "a.parquet")


def test_several_tensors_need_a_name(tmp_path):
    save_file({"x": torch.zeros(2, 4), "y": torch.ones(2, 4)}, tmp_path / "a.safetensors")
    with pytest.raises(UserError, match=r"2 matrices \(x, y\), expected one or --tensor NAME"):
        read_activations(tmp_path / "a.safetensors")
    assert read_activations(tmp_path / "a.safetensors", tensor="y").sum() == 8
    with pytest.raises(UserError, match="no such matrix, found x, y"):
        read_activations(tmp_path / "a.safetensors", tensor="z")


@pytest.mark.parametrize("name", ["a.npy", "a.safetensors", "a.pt", "a.parquet"])
def test_a_damaged_file_is_named(tmp_path, name):
    (tmp_path / name).write_bytes(b"not that")
    with pytest.raises(UserError, match=name):
        read_activations(tmp_path / name)


def test_a_shard_folder_says_which_splits_it_has(tmp_path):
    shard(tmp_path, "test", 0, ARRAY)
    with pytest.raises(UserError, match="no shard of --split train, found test"):
        read_activations(tmp_path)
    with pytest.raises(UserError, match=r"no column 'values', found document.*say --column"):
        read_activations(tmp_path, split="test", column="values")


def test_an_altered_shard_is_refused_by_name_and_one_without_a_seal_is_read(tmp_path):
    folder = tmp_path / "shards"
    folder.mkdir()
    shard(folder, "train", 0, ARRAY)
    file = folder / "train-00000.parquet"
    whole = file.read_bytes()
    place = whole.index(ARRAY.tobytes()[:64]) + 21  # an activation that stays finite
    file.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
    for given in (folder, file):
        with pytest.raises(UserError, match=r"train-00000\.parquet: altered or cut short"):
            read_activations(given)
    file.write_bytes(whole.replace(b"expander-sae-sha256:", b"expander-sae-sha255:"))
    with pytest.raises(UserError, match=r"train-00000\.parquet: .*its seal is damaged"):
        read_activations(folder)
    column = pa.FixedSizeListArray.from_arrays(pa.array(ARRAY.reshape(-1)), 4)
    pq.write_table(pa.table({"activation": column}), tmp_path / "stranger.parquet")
    np.testing.assert_array_equal(read_activations(tmp_path / "stranger.parquet"), ARRAY)


def test_an_altered_pool_is_refused_by_name(tmp_path, command, weights):
    array = np.random.default_rng(0).standard_normal((40, M)).astype(np.float32)
    about = {"model": "tiny", "model_sha256": "0", "layer": 1, "split": "test", "shard": 0}
    part = np.arange(40)
    rows = Rows(part.astype("i4"), part.astype("i2"), part.astype("i4"), array)
    about |= {"shard_tokens": 40, "lineage": lineage("extraction")}
    write_shard(tmp_path / "0.parquet", rows, about)
    build_pool([tmp_path / "0.parquet"], "test", tmp_path / "p.f32", tmp_path / "p.json", {})
    assert command("eval", weights, tmp_path / "p.json").code == 0
    raw = bytearray((tmp_path / "p.f32").read_bytes())
    raw[1001] ^= 1
    (tmp_path / "p.f32").write_bytes(raw)
    done = command("eval", weights, tmp_path / "p.json")
    assert done.code == 1 and f"error: {tmp_path / 'p.f32'}: found sha256" in done.err


@pytest.mark.parametrize("tokens", [None, 10])
def test_no_more_is_held_than_is_asked_for(tmp_path, tokens):
    array = np.random.default_rng(0).standard_normal((5000, 4, 64)).astype(np.float32)
    rows = array.reshape(-1, 64)
    wanted = rows if tokens is None else rows[:tokens]
    half = torch.from_numpy(array).half()
    torch.save(half, tmp_path / "a.pt")
    save_file({"x": half}, tmp_path / "a.safetensors")
    column = pa.FixedSizeListArray.from_arrays(pa.array(rows.reshape(-1)), 64)
    for part in range(2):
        pq.write_table(pa.table({"activation": column}), tmp_path / f"train-{part:05d}.parquet")
    for name in ("a.pt", "a.safetensors"):
        with Converted() as converted:
            found = read_activations(tmp_path / name, tokens=tokens)
        np.testing.assert_array_equal(found, wanted.astype(np.float16).astype(np.float32))
        assert converted.numbers == -(-len(wanted) // 4) * 4 * 64, name
    for path, whole in ((tmp_path / "train-00000.parquet", rows), (tmp_path, np.concatenate([rows, rows]))):
        pool, before = pa.proxy_memory_pool(pa.default_memory_pool()), pa.default_memory_pool()
        pa.set_memory_pool(pool)
        try:
            tracemalloc.start()
            found = read_activations(path, tokens=tokens)
            peak = tracemalloc.get_traced_memory()[1] + pool.max_memory()
        finally:
            tracemalloc.stop()
            pa.set_memory_pool(before)
        np.testing.assert_array_equal(found, whole[:tokens])
        # One array of what is asked for, whether its values are finite, and pieces that are being decoded.
        assert peak <= 1.25 * found.nbytes + 0.6 * rows.nbytes, path


class Converted(TorchDispatchMode):
    """How many numbers were turned into float32."""

    numbers = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        made = func(*args, **(kwargs or {}))
        if "_to_copy" in str(func) and made.dtype == torch.float32:
            self.numbers += made.numel()
        return made


def test_files_of_an_old_torch_are_read_too(tmp_path):
    torch.save(torch.from_numpy(ARRAY), tmp_path / "a.pt", _use_new_zipfile_serialization=False)
    np.testing.assert_array_equal(read_activations(tmp_path / "a.pt", tokens=3), ARRAY[:3])
