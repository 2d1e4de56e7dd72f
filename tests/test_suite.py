"""What the suite itself relies on."""

import os

import pytest


@pytest.mark.xdist_group("suite")
def test_groups_reach_the_scheduler(request):
    """Some pairs of pytest and pytest-xdist ignore them, and every worker then makes a shared fixture."""
    if os.environ.get("PYTEST_XDIST_WORKER") and request.config.getvalue("loadgroup"):
        assert request.node.nodeid.endswith("@suite")
