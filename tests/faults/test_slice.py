"""A little of the campaign at each run of the tests; all of it is ``python -m tests.faults``."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from pathlib import Path

import pytest

from tests.faults.commands import CLI, _mutated, _require
from tests.faults.generators import mutated, places
from tests.faults.tally import Tally, table

PARTS = (
    "config",
    "models",
    "shard",
    "mask",
    "weights",
    "paths",
    "corpora",
    "arrays",
    "commands",
    "cli",
    "kills",
    "tokens",
)


@pytest.mark.slow
def test_a_slice_of_the_campaign_holds(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "tests.faults",
        "--slice",
        "--json",
        str(tmp_path / "a.json"),
        "--only",
        *PARTS,
    ]
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=root, timeout=900)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
    found = json.loads((tmp_path / "a.json").read_text())
    assert all(tally["holds"] and tally["tried"] > 0 for tally in found)
    assert any(tally["compared"] for tally in found)


def test_a_tally_holds_only_where_everything_does() -> None:
    tally = Tally("part")
    tally.fault(True)
    tally.result([])
    assert tally.holds
    for spoil in (lambda t: t.fault(False, "x"), lambda t: t.result(["a"]), lambda t: t.result([], ["a"])):
        spoiled = Tally("part")
        spoil(spoiled)
        assert not spoiled.holds
        assert "part: FAILED" in table([spoiled])


def test_mutations_change_a_copy_and_are_those_of_the_seed() -> None:
    value = {"a": [1, {"b": 2}], "c": "x"}
    found = [mutated(value, random.Random(seed)) for seed in range(50)]
    assert value == {"a": [1, {"b": 2}], "c": "x"}
    assert sum(other != value for other in found) > 40
    assert list(map(repr, found)) == [repr(mutated(value, random.Random(seed))) for seed in range(50)]
    assert set(places(value)) == {("a",), ("a", 0), ("a", 1), ("a", 1, "b"), ("c",)}


def test_what_exit_code_0_promised_must_be_there_and_whole(tmp_path: Path) -> None:
    whole, damaged = tmp_path / "whole.json", tmp_path / "damaged.json"
    whole.write_text("{}")
    damaged.write_text("{")
    _require([str(whole)])
    for path in (damaged, tmp_path / "absent.parquet", tmp_path / "absent.f32"):
        with pytest.raises(SystemExit) as end:
            _require([str(whole), str(path)])
        assert end.value.code not in (0, 1, 2), "counts as a failure"


def test_no_bad_command_line_can_write_outside_its_folder() -> None:
    for seed in range(2000):
        draw = random.Random(seed)
        found = _mutated(draw.choice(CLI), draw)
        assert not [text for text in found if text.startswith(("/", "..", "~")) and text != "/dev/null/x"]
