"""What files hold tells them apart, and is read once."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from expander_sae.storage import content
from expander_sae.storage.content import KNOWN, contents
from expander_sae.storage.files import sha256_file


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Two files of a folder beside a study's results."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "results").mkdir()
    (tmp_path / "texts" / "more").mkdir(parents=True)
    for name, text in (("texts/a.txt", "one"), ("texts/more/b.txt", "two")):
        (tmp_path / name).write_text(text)
    return ["texts/a.txt", "texts/more/b.txt"]


def test_names_and_checksums_do_not_depend_on_time_and_place(files: list[str], tmp_path: Path) -> None:
    found = contents(files)
    assert found == [["a.txt", sha256_file(files[0])], ["more/b.txt", sha256_file(files[1])]]
    for file in files:
        os.utime(file, (0, 0))
    assert contents(files) == found
    shutil.copytree("texts", tmp_path / "elsewhere", copy_function=shutil.copy)
    assert contents([str(tmp_path / "elsewhere" / name) for name, _ in found]) == found
    assert contents(["texts/a.txt"]) == found[:1] and contents([]) == []


def test_other_content_of_the_same_size_and_time_is_seen(files: list[str]) -> None:
    found, times = contents(files), os.stat(files[0])
    Path(files[0]).write_text("eno")
    os.utime(files[0], ns=(times.st_atime_ns, times.st_mtime_ns))
    assert os.stat(files[0]).st_mtime_ns == times.st_mtime_ns
    again = contents(files)
    assert again[0] != found[0] and again[1] == found[1]


def test_what_did_not_change_is_not_read_again(files: list[str]) -> None:
    found = contents(files)
    known = json.loads(KNOWN.read_text())
    known[os.path.abspath(files[0])][-1] = "as it was remembered"
    KNOWN.write_text(json.dumps(known))
    assert contents(files) == [["a.txt", "as it was remembered"], found[1]]
    Path(files[0]).touch()
    assert contents(files) == found, "a touched file is read again"


@pytest.mark.parametrize("damaged", ["", "[]", "{", '{"texts/a.txt": 3}', None])
def test_what_is_remembered_is_no_more_than_help(damaged: str | None, files: list[str]) -> None:
    found = contents(files)
    KNOWN.unlink()
    if damaged is None:
        KNOWN.parent.rmdir()  # no study: nothing is written
    else:
        KNOWN.write_text(damaged)
    assert contents(files) == found and KNOWN.exists() == (damaged is not None)


def test_a_link_to_nothing_has_no_content(files: list[str]) -> None:
    os.symlink("nowhere", "texts/gone.txt")
    assert contents(["texts/gone.txt"]) == [["gone.txt", None]]


def test_much_to_read_is_said_of_all_files_together(
    files: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Large models lie in many files, none of which is large."""
    monkeypatch.setattr(content, "_WORTH_A_WORD", 5)
    contents(files)
    assert capsys.readouterr().err == "texts/a.txt and 1 more: reading 6e-09 GB to know the content\n"
    contents(files)
    Path(files[0]).touch()
    contents(files)
    assert not capsys.readouterr().err, "what is known is not read"
