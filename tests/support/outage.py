"""Outages of the messaging service that a test begins and ends itself."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator
from typing import Any

from metered_sync.local import LocalCloud
from tests.conftest import wait_until

LONG = 600.0
"""Seconds: no test takes so long."""


@contextlib.contextmanager
def outage(cloud: LocalCloud, *clients: Any, peer_id: str | None = None) -> Iterator[None]:
    """Drop connections (all, or one peer's) and refuse new ones until the block ends.

    The block begins when ``clients`` have noticed.
    """
    cloud.faults.refuse_connections(LONG)
    try:
        cloud.faults.drop_connections(peer_id)
        for client in clients:
            wait_until(functools.partial(_is_out, client))
        yield
    finally:
        cloud.faults.refuse_connections(0)


def _is_out(client: Any) -> bool:
    return bool(client.state == "reconnecting")
