"""Files on systems other than this one, by what is asked of the operating system."""

import os

import pytest

from expander_sae.storage import files


def test_what_is_flushed_is_open_for_writing(tmp_path, monkeypatch):
    """Windows refuses to flush a handle that only reads."""
    flushed = []

    def fsync(number):
        flushed.append(os.write(number, b""))

    monkeypatch.setattr(files.os, "fsync", fsync)
    with files.atomic_path(tmp_path / "a.txt") as temporary:
        temporary.write_text("whole")
    assert flushed == [0] and (tmp_path / "a.txt").read_text() == "whole"


def test_on_windows_no_process_is_signalled(tmp_path, monkeypatch):
    left = tmp_path / f".a.{files._HOST}-1.partial.txt"
    left.write_text("of a process that may go on")
    path = tmp_path / "a.txt"
    with monkeypatch.context() as windows:
        windows.setattr(files.os, "kill", lambda *_: pytest.fail("a signal was sent"))
        windows.setattr(files.os, "name", "nt")
        files.temporary_sibling(path)
        young = left.exists()
        os.utime(left, (0, 0))
        files.temporary_sibling(path)
        assert young and not left.exists(), "a day decides"
