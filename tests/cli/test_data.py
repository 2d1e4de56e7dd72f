import pickle
import re
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
from expander_sae.cli.outputs import ACTIVATIONS, check_files
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


LISTS = pa.list_(pa.float32())


@pytest.mark.parametrize(
    ("rows", "kind", "said"),
    [
        ([[1, 2, 3, 4], None, [5, 6, 7, 8], None], LISTS, "row 1 is null, expected 4 numbers in each row"),
        ([[1, 2, 3, 4], None], pa.list_(pa.float32(), 4), "row 1 is null, expected 4 numbers in each row"),
        ([None, [1, 2]], LISTS, "row 0 is null, expected a list"),
        ([[1, 2, 3], [4, 5, 6, 7, 8, 9]], LISTS, "row 1 has 6 numbers, expected 3 numbers in each row"),
        ([[1, 2], [3, 4], [5], [6, 7, 8]], LISTS, "row 2 has 1 numbers, expected 2 numbers in each row"),
        ([[1, 2]] * 1500 + [[1, 2, 3, 4]], LISTS, "row 1500 has 4 numbers, expected 2 numbers in each row"),
        ([[1, 2], [3, None]], LISTS, "row 1 has a null among its numbers"),
        ([[1, 2], [None, 3]], pa.list_(pa.int32()), "row 1 has a null among its numbers"),
        ([[1, None], [2, 3]], pa.list_(pa.float32(), 2), "row 0 has a null among its numbers"),
        (
            [[[1, 2], [3, 4]]],
            pa.list_(LISTS),
            "holds list<element: list<element: float>>, expected lists of m numbers",
        ),
        ([1, 2, 3, 4], pa.float32(), "holds float, expected lists of m numbers"),
        ([[True, False]], pa.list_(pa.bool_()), "holds list<element: bool>, expected lists of m numbers"),
    ],
)
def test_rows_are_the_lists_of_a_column_and_nothing_else(tmp_path, rows, kind, said):
    """How many numbers there are in all says nothing of the width."""
    pq.write_table(pa.table({"activation": pa.array(rows, kind)}), tmp_path / "a.parquet")
    with pytest.raises(UserError, match=re.escape(f"a.parquet: column 'activation': {said}")):
        read_activations(tmp_path / "a.parquet")


@pytest.mark.parametrize("rows", [[[]], [[], []]])
def test_lists_without_numbers_are_no_activations(tmp_path, rows):
    pq.write_table(pa.table({"activation": pa.array(rows, LISTS)}), tmp_path / "a.parquet")
    np.save(tmp_path / "a.npy", np.zeros((len(rows), 0), np.float32))
    for name in ("a.parquet", "a.npy"):
        with pytest.raises(UserError, match=rf"{name}: shape \[{len(rows)}, 0\], expected at least one row"):
            read_activations(tmp_path / name)


def test_files_of_other_widths_name_the_file_and_its_row(tmp_path):
    for number, width in enumerate((4, 3)):
        lists = pa.array([[0.0] * 4, [0.0] * width], LISTS)
        pq.write_table(pa.table({"activation": lists}), tmp_path / f"train-{number:05d}.parquet")
    with pytest.raises(
        UserError, match=r"train-00001\.parquet: column 'activation': row 1 has 3 numbers, expected 4"
    ):
        read_activations(tmp_path)


def test_no_shard_is_skipped_and_no_split_mixed_in(tmp_path):
    """A file that is named otherwise made all splits one."""
    shard(tmp_path, "train", 0, ARRAY)
    shard(tmp_path, "test", 0, -ARRAY)
    for name in ("extra.parquet", "train-00001.PARQUET", "train-00001.parquet.gz"):
        (tmp_path / name).write_bytes((tmp_path / "train-00000.parquet").read_bytes())
        with pytest.raises(UserError, match=rf"{re.escape(name)}: found "):
            read_activations(tmp_path)
        (tmp_path / name).unlink()
    (tmp_path / ".train-00001.partial.parquet").write_bytes(b"being written")
    np.testing.assert_array_equal(read_activations(tmp_path), ARRAY)


def test_tensors_of_a_pt_file_are_read_or_refused_in_a_sentence(tmp_path):
    h = torch.from_numpy(ARRAY.copy())

    def read(stored, **options):
        torch.save(stored, tmp_path / "a.pt")
        return read_activations(tmp_path / "a.pt", **options)

    for stored in (
        h.clone().requires_grad_(),
        torch.nn.Parameter(h),
        torch._neg_view(-h),
        {"deep": {"h": h}},
    ):
        np.testing.assert_array_equal(read(stored), ARRAY)
    for name in ("0", "deep.h", "deep.1"):
        stored = {0: h, "deep": {"h": h, 1: h}, "step": 3}
        np.testing.assert_array_equal(read(stored, tensor=name), ARRAY)
    for stored, said in (
        (h.to_sparse(), "a.pt: found a tensor of layout sparse_coo, expected a dense one"),
        ({"h": h.to_sparse_csr()}, "a.pt: h: found a tensor of layout sparse_csr"),
        (h.to("meta"), "a.pt: found a tensor on the device meta"),
        (h.to(torch.complex64), "a.pt: found torch.complex64, expected real numbers"),
        (torch.nested.nested_tensor([h, h]), "a.pt: found a nested tensor, expected rows of one length"),
        ([h, h], "a.pt: holds a list, expected a tensor or a dict of tensors"),
        ({"deep": {"h": h}, "g": h}, "a.pt: 2 matrices (deep.h, g), expected one or --tensor NAME"),
    ):
        for tokens in (None, 2):
            with pytest.raises(UserError, match=re.escape(said)):
                read(stored, tokens=tokens)


@pytest.mark.parametrize("name", ["test [1]", "test*", "{x}", "it's é", "[!a]"])
def test_paths_of_any_name_are_read_and_not_written_over(tmp_path, name):
    folder = tmp_path / name
    folder.mkdir()
    shard(folder, "train", 0, ARRAY)
    np.save(tmp_path / f"{name}.npy", ARRAY)
    for path in (folder, folder / "train-00000.parquet", tmp_path / f"{name}.npy"):
        np.testing.assert_array_equal(read_activations(path), ARRAY)
        with pytest.raises(UserError, match=r"--out: found .*, which is "):
            check_files(
                {"out": path if path.is_file() else folder / "train-00000.parquet"}, {ACTIVATIONS: path}
            )
    pool = tmp_path / f"{name}.json"
    (tmp_path / f"{name}.f32").write_bytes(b"activations")
    with pytest.raises(UserError, match=r"--out: found .*, which is a file of the activations"):
        check_files({"out": tmp_path / f"{name}.f32"}, {ACTIVATIONS: pool})
