"""Where everything is installed, a skipped test fails the run unless it needs a GPU."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.parametrize(
    ("reason", "installed", "code"),
    [
        ("needs a GPU", "1", 0),
        ("found no Chromium", "", 0),
        ("found no Chromium", "1", 1),
        ("x is not installed: make test-saelens", "1", 0),
    ],
)
@pytest.mark.parametrize(
    "where", ["pytest.skip({!r}, allow_module_level=True)", "def test_it(): pytest.skip({!r})"]
)
def test_a_skip_is_no_success_where_everything_is_installed(tmp_path, reason, installed, code, where):
    (tmp_path / "test_one.py").write_text(f"import pytest\n{where.format(reason)}\n")
    (tmp_path / "test_two.py").write_text("def test_it(): pass\n")
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-rs",
            "-p",
            "tests.conftest",
            "--rootdir",
            tmp_path,
            tmp_path,
        ],
        cwd=ROOT,
        env={**os.environ, "EXPANDER_SAE_NO_SKIPS": installed},
        capture_output=True,
        text=True,
    )
    assert done.returncode == code, done.stdout + done.stderr
    assert reason in done.stdout, "the reason is printed"
