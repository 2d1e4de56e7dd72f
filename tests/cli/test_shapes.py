"""Rows, tensors and paths of a user's files: read as what they are, or refused by name."""

import re

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from expander_sae.cli.data import read_activations
from expander_sae.cli.outputs import ACTIVATIONS, check_files
from expander_sae.errors import UserError
from tests.cli.test_data import ARRAY, shard

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
