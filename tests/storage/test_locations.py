"""Which files a path, a folder or a pattern means."""

from __future__ import annotations

import os
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from expander_sae.errors import UserError
from expander_sae.storage.locations import files_of, located, named

ODD = (
    "texts [v1]",
    "texts*",
    "a?",
    "[!x]",
    "[",
    "{model}",
    "it's",
    'say "so"',
    "a  b",
    "$HOME",
    "~",
    "~root",
    "é",
    "模型",
    "-rf",
    "a;b",
    "a\nb",
    "**",
    "[[]x]",
)


def write(folder: Path, *names: str) -> list[str]:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
    return [str(folder / name) for name in names]


@pytest.mark.parametrize("name", ODD)
def test_what_exists_under_a_name_is_meant_by_it(tmp_path: Path, name: str) -> None:
    inside = write(tmp_path / name, "a [1].txt", "sub*/b.txt", "c.jsonl")
    # What the name would match if it were a pattern.
    write(tmp_path, "texts 1/no.txt", "texts v/no.txt", "texts2/no.txt", "ab/no.txt", "y/no.txt", "x/no.txt")
    write(tmp_path / name, "a 1.md", "sub2/b.md")
    folder = str(tmp_path / name)
    texts = [file for file in files_of(folder) if not file.endswith(".md")]
    assert texts == sorted(inside)
    for file in inside:
        assert located(file) == files_of(file) == [file]
    assert files_of(f"{folder}/*.txt") == [inside[0]], "the folder letter by letter, then a pattern"
    assert files_of(f"{folder}/**/*.txt") == sorted(inside[:2])
    assert files_of(f"{folder}/") == [
        os.path.join(folder, "", file[len(folder) + 1 :]) for file in files_of(folder)
    ]


def test_a_pattern_is_one_where_nothing_has_its_name(tmp_path: Path) -> None:
    write(tmp_path, "v1/a.txt", "v2/a.txt", "v3/a.txt", "v2/.hidden.txt", "v1/sub/b.txt")
    assert files_of(f"{tmp_path}/v[12]/*.txt") == [f"{tmp_path}/v1/a.txt", f"{tmp_path}/v2/a.txt"]
    assert files_of(f"{tmp_path}/v[12]") == [
        f"{tmp_path}/{name}" for name in ("v1/a.txt", "v1/sub/b.txt", "v2/a.txt")
    ]
    assert files_of(f"{tmp_path}/nothing") == files_of(f"{tmp_path}/x*") == []
    everything = files_of(f"{tmp_path}/**")
    assert len(everything) == len(set(everything)) == 4, "folders and their files both match"


def test_the_tilde_is_the_home_folder_unless_it_is_a_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home, here = tmp_path / "home [1]", tmp_path / "here"
    (file,) = write(home, "texts/a.txt")
    write(here, "b.txt")
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.chdir(here)
    assert files_of("~/texts/*.txt") == files_of("~/texts") == [file]
    assert named("~/texts") == str(home / "texts")
    write(here, "~/texts/c.txt")
    assert files_of("~/texts") == ["~/texts/c.txt"]
    assert named("~nobody-of-this-name/x") == "~nobody-of-this-name/x"


def test_linked_folders_are_entered_once_and_links_to_nothing_are_named(tmp_path: Path) -> None:
    write(tmp_path / "elsewhere", "a.txt")
    folder = tmp_path / "folder"
    write(folder, "b.txt")
    (folder / "linked").symlink_to("../elsewhere")
    (folder / "again").symlink_to(".")
    (folder / "gone.txt").symlink_to("nothing")
    assert files_of(str(folder)) == [f"{folder}/{name}" for name in ("b.txt", "gone.txt", "linked/a.txt")]
    assert files_of(str(folder / "gone.txt")) == [f"{folder}/gone.txt"]


def test_a_folder_that_cannot_be_read_is_no_empty_one() -> None:
    with TemporaryDirectory() as name:  # not below pytest's own, which only its owner may enter
        write(Path(name), "open/a.txt", "closed/b.txt")
        os.chmod(name, 0o755)
        os.chmod(f"{name}/closed", 0)
        user = os.geteuid()
        if user == 0:  # who may read everything
            os.seteuid(65534)
        try:
            with pytest.raises(UserError, match=rf"{name}/closed: Permission denied, expected a folder"):
                files_of(name)
        finally:
            os.seteuid(user)
            os.chmod(f"{name}/closed", 0o755)
