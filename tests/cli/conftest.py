"""A local cloud with the keys of development, where ``--local`` finds it."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from metered_sync.cli.dev_cloud import dev_cloud
from metered_sync.local import LocalCloud


@pytest.fixture(scope="session")
def dev_server() -> Iterator[LocalCloud]:
    """A cloud as ``serve --dev`` has it, on a port of its own, without limits."""
    with dev_cloud(limits=False) as cloud:
        yield cloud


@pytest.fixture
def dev(dev_server: LocalCloud, monkeypatch: pytest.MonkeyPatch) -> LocalCloud:
    """That cloud; nothing else is in the environment."""
    for name in list(os.environ):
        if name.startswith("METERED_") and name != "METERED_SYNC_REQUIRE_ALL":
            monkeypatch.delenv(name)
    monkeypatch.setenv("METERED_LOCAL_PORT", str(dev_server.port))
    return dev_server
