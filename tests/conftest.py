"""Settings for all tests: one thread each, since several run at once; and no skips where none may be."""

import os
from typing import Any

import pytest

from expander_sae.machine.device import THREAD_VARIABLES

for _name in THREAD_VARIABLES:
    os.environ.setdefault(_name, "1")

import torch  # noqa: E402, the thread counts come first

if not torch.cuda.is_available():
    # Before anything imports triton: its interpreter then runs the kernels on the CPU.
    os.environ.setdefault("TRITON_INTERPRET", "1")


NO_SKIPS = "EXPANDER_SAE_NO_SKIPS"
"""Set where all is installed that tests need, but for a GPU: a test that is skipped then fails the run."""


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    reporter: Any = session.config.pluginmanager.get_plugin("terminalreporter")
    # Processes of xdist report to the one that started them, which alone has seen all.
    if not os.environ.get(NO_SKIPS) or reporter is None or hasattr(session.config, "workerinput"):
        return
    reasons = {str(report.longrepr[-1]) for report in reporter.stats.get("skipped", [])}
    # What other libraries are needed for runs apart, and there it may not be skipped.
    apart = () if session.config.option.markexpr == "saelens" else ("make test-saelens",)
    if others := sorted(reason for reason in reasons if "GPU" not in reason and not reason.endswith(apart)):
        reporter.write_line(f"skipped, with {NO_SKIPS} set: {'; '.join(others)}", red=True)
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
