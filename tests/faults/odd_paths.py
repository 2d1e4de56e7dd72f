"""Folders and files of odd names: each is read as what it is, and a change in it is noticed."""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.faults.inputs import attempt
from tests.faults.tally import Tally

PIECES = (
    *(
        "a",
        "texts",
        " ",
        "  ",
        "[v1]",
        "[",
        "]",
        "[!a]",
        "[a-z]",
        "{",
        "}",
        "{model}",
        "{0}",
        "{{x}}",
        "*",
        "**",
    ),
    *(
        "?",
        "~",
        "'",
        '"',
        "`touch canary`",
        "$HOME",
        "$(touch canary)",
        ";touch canary",
        "&",
        "|",
        "#",
        "%s",
        "%j",
    ),
    *(
        "é",
        "e\u0301",
        "模型",
        "\u202e",
        "\n",
        "\t",
        "\\",
        "-rf",
        "--",
        "..x",
        ":",
        "=",
        "@",
        ",",
        "!",
        "\udcff",
    ),
    *("results", "x" * 60, "train-00000", ".parquet", ".txt", "<", ">", "(é)", "O'Neil [1]"),
)
_PATTERN = {"[v1]": "v", "[!a]": "b", "[a-z]": "q", "**": "anything", "*": "zz", "?": "y", "~": "home"}


def odd_paths(folder: Path, count: int, seed: int) -> dict[str, Any]:
    """Texts and activations below names from a seeded generator, beside what a pattern would match."""
    tally, draw = Tally("odd paths"), random.Random(seed)
    os.environ["HOME"] = str(folder / "home")
    for number in range(count):
        here = folder / f"odd-{number}"
        here.mkdir()
        top, inner = _name(draw), _name(draw)
        use = _case(here, top, inner, draw)
        attempt(tally, f"path {number} {top!r} {inner!r}", use)
        shutil.rmtree(here)
    return tally.as_dict()


def _name(draw: random.Random) -> str:
    """A file's name that is not hidden, of at most 200 bytes."""
    while True:
        name = "".join(draw.choices(PIECES, k=draw.randint(1, 4)))
        if not name.startswith(".") and len(os.fsencode(name)) <= 200:
            return name


def _decoy(name: str) -> str:
    """A name that `name` matches as a pattern, or another one."""
    for piece, match in _PATTERN.items():
        name = name.replace(piece, match)
    return name


def _case(here: Path, top: str, inner: str, draw: random.Random) -> Callable[[], None]:
    suffix = draw.choice((".txt", ".TXT", ".Txt"))
    file = here / top / inner / f"{inner}{suffix}"
    file.parent.mkdir(parents=True)
    file.write_text("the text")
    other = here / _decoy(top) / _decoy(inner) / f"{_decoy(inner)}.txt"
    if not other.parent.exists():
        other.parent.mkdir(parents=True)
        other.write_text("of another folder")
    relative = draw.random() < 0.5
    base = "" if relative else f"{here}/"
    forms = [f"{base}{top}/{inner}/{inner}{suffix}", f"{base}{top}/{inner}", f"{base}{top}/{inner}/"]
    forms += [f"{base}{top}/{inner}/*"] if other.parent != file.parent else []
    forms += [f"{base}{top}/**"] if _decoy(top) != top else []

    def use() -> None:
        os.chdir(here)
        _texts(file, draw.choice(forms))
        _files_of_programs(file.parent, inner)

    return use


def _texts(file: Path, location: str) -> None:
    """What is read, and that a change of it is another corpus."""
    from expander_sae.activations.sources import open_source
    from expander_sae.study.labels import label_corpus

    def read() -> tuple[list[str], str]:
        spec = {"name": "odd", "source": "files", "location": location, "column": "text"}
        return [document.text for document in open_source(spec).documents], label_corpus(spec)["label"]

    first, again = read(), read()
    file.write_text("something else")
    changed = read()
    if (
        (first[0], changed[0]) != (["the text"], ["something else"])
        or first != again
        or first[1] == changed[1]
    ):
        raise AssertionError(f"{location!r}: read {first}, then {changed}")


def _files_of_programs(folder: Path, name: str) -> None:
    """What the commands read and write there."""
    import numpy as np

    from expander_sae.cli.data import read_activations
    from expander_sae.cli.outputs import ACTIVATIONS, check_files
    from expander_sae.errors import UserError
    from expander_sae.storage.files import read_json, write_json

    rows = np.arange(8, dtype=np.float32).reshape(4, 2)
    np.save(folder / f"{name}.npy", rows)
    if not np.array_equal(read_activations(folder / f"{name}.npy"), rows):
        raise AssertionError(f"{name!r}: other activations")
    write_json(folder / f"{name}.json", {"name": 1})
    if read_json(folder / f"{name}.json") != {"name": 1}:
        raise AssertionError(f"{name!r}: another record")
    (folder / f"{name}.f32").write_bytes(b"rows")
    for read, out in ((f"{name}.json", f"{name}.f32"), (f"{name}.npy", f"{name}.npy")):
        try:
            check_files({"out": folder / out}, {ACTIVATIONS: folder / read})
        except UserError:
            continue
        raise AssertionError(f"{out!r} would be written over")
    left = [path.name for path in folder.iterdir() if ".partial" in path.name]
    if left or not (folder / f"{name}.json").is_file():
        raise AssertionError(f"{name!r}: left {left}")
