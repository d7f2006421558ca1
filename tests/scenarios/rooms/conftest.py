"""Give each test a room of its own."""

from __future__ import annotations

import pytest


@pytest.fixture
def room(request: pytest.FixtureRequest) -> str:
    """A channel of the test's own."""
    return f"rooms/{request.node.name}"
