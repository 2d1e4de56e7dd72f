"""Addresses of object storage: told from paths, sent and fetched whole, listed; by one in memory."""

from __future__ import annotations

import tempfile
from pathlib import Path

import fsspec
import pytest

from expander_sae.cli.main import main
from expander_sae.errors import UserError
from expander_sae.storage.files import atomic_path
from expander_sae.storage.parquet_files import open_sealed
from expander_sae.storage.remote import below, fetched, is_remote, names_in, place, sent


@pytest.mark.parametrize("text", ["s3://bucket/a.b", "gs://b", "memory://x", "file:///tmp/x"])
def test_an_address_is_told_from_a_path(text: str) -> None:
    assert is_remote(text) and place(text) == text and below(text, "y") == f"{text}/y"
    assert not is_remote(Path(text))


@pytest.mark.parametrize("text", ["a/b", "/tmp/x", "C:\\x", "a:b", "s3:", "1/s3://b"])
def test_a_path_is_one(text: str) -> None:
    assert not is_remote(text) and place(text) == Path(text)


def test_an_address_that_became_a_path_is_no_folder_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    refused = pytest.raises(UserError, match=r"s3:/bucket/x: found a path, expected an address")
    with refused, atomic_path(Path("s3://bucket/x")) as temporary:
        temporary.write_bytes(b"1")
    assert not list(tmp_path.iterdir())


def test_a_file_is_sent_whole_and_fetched_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    address = "memory://sent/whole.bin"
    with atomic_path(address) as temporary:
        temporary.write_bytes(b"123")
        assert names_in("memory://sent") == []
    assert names_in("memory://sent") == ["whole.bin"]
    with fetched(address) as copy:
        stream = copy.open("rb")
    with stream:
        assert stream.read() == b"123" and not list(tmp_path.iterdir())
    with pytest.raises(ZeroDivisionError), sent(address) as temporary:
        temporary.write_bytes(b"12")
        raise ZeroDivisionError
    assert fsspec.filesystem("memory").cat("/sent/whole.bin") == b"123" and not list(tmp_path.iterdir())


def test_what_cannot_be_reached_is_named() -> None:
    with pytest.raises(UserError, match=r"^memory://none/x\.parquet: no such file$"):
        open_sealed("memory://none/x.parquet")
    with pytest.raises(UserError, match=r"^nowhere://x/y: cannot be read \(ValueError: Protocol not known"):
        open_sealed("nowhere://x/y")
    assert names_in("memory://none") == []


def test_commands_say_what_they_read_from_there(capsys: pytest.CaptureFixture[str]) -> None:
    train = "train memory://x --n 24 --d 3 --k 3 --out w.safetensors"
    for command, said in (
        (train, "memory://x: found an address without --stream, expected a path, or --stream TOKENS"),
        ("eval w.safetensors s3://x", "found 's3://x', expected a path of this machine"),
        (f"{train} --stream 64", "memory://x: found no shard"),
    ):
        try:
            assert main(command.split()) == 1
        except SystemExit as stopped:  # of argparse
            assert stopped.code == 2
        assert said in capsys.readouterr().err
