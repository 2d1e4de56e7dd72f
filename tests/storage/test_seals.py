"""Seals: equal bytes for equal content, and no changed, missing or added byte goes unnoticed."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pyarrow.parquet as pq
import pytest
import safetensors.torch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from expander_sae.activations.shards import Rows, Shard, write_shard
from expander_sae.activations.splits import SPLITS
from expander_sae.activations.tokens import TokenizedDocument, TokenTable, write_token_table
from expander_sae.errors import UserError
from expander_sae.measurements import tables
from expander_sae.storage.files import atomic_path, canonical_json
from expander_sae.storage.safetensors_files import load_tensors, save_tensors
from expander_sae.storage.seals import KEY, UNSEALED, check_seal, read_sealed_json, seal, write_sealed_json


def _json(path: Path) -> None:
    write_sealed_json(path, {"z": 1, "a": [1.5, None]})


def _tensors(path: Path) -> None:
    save_tensors({"b": torch.arange(9.0), "a": torch.arange(4)}, path, {"fingerprint": "x"})


def _shard(path: Path) -> None:
    part = np.arange(6)
    activation = np.arange(18, dtype="f4").reshape(6, 3)
    write_shard(path, Rows(part.astype("i4"), part.astype("i2"), part.astype("i4"), activation), {"layer": 1})


def _tokens(path: Path) -> None:
    write_token_table(path, {split: [TokenizedDocument(i, [5, 6, 7 + i])] for i, split in enumerate(SPLITS)})


def _table(path: Path) -> None:
    row = {name: "x" if str(kind) == "string" else 1 for name, kind in tables.METRICS.items()}
    tables.write_metrics([row], path)


KINDS: dict[str, tuple[Callable[[Path], None], Callable[[Path], object]]] = {
    "a.json": (_json, lambda path: read_sealed_json(path, ("z",), "file")),
    "a.safetensors": (_tensors, load_tensors),
    "shard.parquet": (_shard, Shard),
    "tokens.parquet": (_tokens, TokenTable),
    "metrics.parquet": (_table, tables.read_metrics),
}


@pytest.mark.parametrize("name", KINDS)
def test_equal_content_gives_equal_bytes(tmp_path: Path, name: str) -> None:
    write, read = KINDS[name]
    for folder in ("a", "b"):
        write(tmp_path / folder / name)
    assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    assert check_seal(tmp_path / "a" / name)
    read(tmp_path / "a" / name)


@pytest.mark.parametrize("name", KINDS)
def test_every_changed_missing_or_added_byte_is_named(tmp_path: Path, name: str) -> None:
    write, read = KINDS[name]
    path = tmp_path / name
    write(path)
    whole = path.read_bytes()
    draw = random.Random(0)
    damaged = [whole[:place] for place in range(0, len(whole), 50)] + [whole + b" ", whole + whole[-1:]]
    for place in range(0, len(whole), 1 if len(whole) < 1000 else 7):
        damaged.append(whole[:place] + bytes([whole[place] ^ draw.randrange(1, 256)]) + whole[place + 1 :])
    for content in damaged:
        path.write_bytes(content)
        with pytest.raises(UserError, match=rf"{name}: "):
            read(path)


def test_files_of_before_there_were_seals_are_read(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"z": 1}')
    assert read_sealed_json(tmp_path / "a.json", ("z",), "file") == {"z": 1}
    header = {"expander_sae": canonical_json({"format": "x"})}
    safetensors.torch.save_file({"a": torch.arange(3)}, tmp_path / "a.safetensors", header)
    assert load_tensors(tmp_path / "a.safetensors")[1] == {"format": "x"}
    _table(tmp_path / "a.parquet")
    table = pq.read_table(tmp_path / "a.parquet").replace_schema_metadata(None)
    pq.write_table(table, tmp_path / "old.parquet", store_schema=False)
    assert not check_seal(tmp_path / "old.parquet")
    assert len(tables.read_metrics(tmp_path / "old.parquet")) == 1


def test_a_seal_without_its_prefix_is_no_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text(json.dumps({"z": 1, KEY: "other-sha256:" + 64 * "0"}))
    with pytest.raises(UserError, match=r"a\.json: not a whole file"):
        read_sealed_json(path, ("z",), "file")


def test_there_must_be_a_place_for_the_seal(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text(UNSEALED[:-1])
    with pytest.raises(ValueError, match="no place"):
        seal(path)


def test_what_killed_processes_left_is_removed_and_nothing_else(tmp_path: Path) -> None:
    code = (
        "import os, sys; from expander_sae.storage.files import atomic_path\n"
        "with atomic_path(sys.argv[1]) as t:\n    t.write_text('x'); os.kill(os.getpid(), 9)"
    )
    killed = subprocess.run([sys.executable, "-c", code, str(tmp_path / "a.json")], check=False)
    assert killed.returncode == -9
    [left] = tmp_path.iterdir()
    running = left.with_name(left.name.replace(left.name.split("-")[-1].split(".")[0], str(os.getppid())))
    other = tmp_path / ".b.json"
    for path in (running, other):
        path.write_text("x")
    with atomic_path(tmp_path / "a.json") as temporary:
        temporary.write_text("{}")
    assert {path.name for path in tmp_path.iterdir()} == {"a.json", running.name, other.name}


def test_a_failing_disk_names_the_file_and_not_its_temporary(tmp_path: Path) -> None:
    def full() -> None:
        raise OSError(28, "of no use to a user")

    with (
        pytest.raises(UserError, match=r"/a\.json: cannot be written \(No space left on device\)"),
        atomic_path(tmp_path / "a.json"),
    ):
        full()
    assert not list(tmp_path.iterdir())


HOSTILE = st.one_of(
    st.text(max_size=20),
    st.sampled_from(
        [
            UNSEALED,
            "expander-sae-sha256:abc",
            'x","seal":"' + UNSEALED + '"}',
            '{"seal":"' + UNSEALED,
            '\n  "seal": "' + UNSEALED + '"\n',
            '{\\"seal\\":\\"' + UNSEALED,
            ',\\"seal\\":\\"' + UNSEALED,
            "\x18\x04seal\x18\x54" + UNSEALED,
            "large " * 30_000,
        ]
    ),
)
METADATA = st.dictionaries(
    st.one_of(HOSTILE.filter(lambda text: len(text) < 200), st.just(KEY), st.just("about")),
    st.recursive(HOSTILE, lambda inner: st.dictionaries(st.sampled_from([KEY, "a"]), inner, max_size=2)),
    max_size=4,
)


def _write_old(tensors: dict[str, torch.Tensor], path: Path, about: dict[str, object]) -> None:
    """As tensors were written when the seal came after `about`."""
    entry = canonical_json({"about": about, KEY: UNSEALED})
    safetensors.torch.save_file(tensors, path, {"expander_sae.sealed": entry})
    seal(path)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(METADATA, st.floats(0, 1, exclude_max=True), st.integers(1, 255), st.booleans())
def test_no_metadata_is_taken_for_the_seal(
    about: dict[str, object], where: float, change: int, old: bool
) -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "a.safetensors"
        # Data that look like a seal, too.
        data = torch.frombuffer(bytearray(UNSEALED.encode()), dtype=torch.uint8)
        (_write_old if old else save_tensors)({"a": data}, path, about)
        tensors, found = load_tensors(path)
        assert found == about and torch.equal(tensors["a"], data) and check_seal(path)
        content = bytearray(path.read_bytes())
        content[int(where * len(content))] ^= change
        path.write_bytes(content)
        with pytest.raises(UserError, match=r"a\.safetensors: "):
            load_tensors(path)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(METADATA, st.floats(0, 1, exclude_max=True), st.integers(1, 255))
def test_no_value_of_a_json_file_is_taken_for_the_seal(
    value: dict[str, object], where: float, change: int
) -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "a.json"
        write_sealed_json(path, value)
        wanted = {key: part for key, part in value.items() if key != KEY}
        assert check_seal(path) and read_sealed_json(path, wanted, "file") == wanted
        content = bytearray(path.read_bytes())
        content[int(where * len(content))] ^= change
        path.write_bytes(content)
        with pytest.raises(UserError, match=r"a\.json: "):
            read_sealed_json(path, wanted, "file")


@pytest.mark.parametrize("text", [UNSEALED, "expander-sae-sha256:abc", "large " * 30_000])
def test_no_text_of_a_table_is_taken_for_the_seal(tmp_path: Path, text: str) -> None:
    row = {name: text if str(kind) == "string" else 1 for name, kind in tables.METRICS.items()}
    path = tmp_path / "metrics.parquet"
    tables.write_metrics([row], path)
    assert check_seal(path) and tables.read_metrics(path)["metric"].tolist() == [text]
    whole = path.read_bytes()
    for place in range(3, len(whole), max(len(whole) // 40, 1)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with pytest.raises(UserError, match=r"metrics\.parquet: "):
            tables.read_metrics(path)
