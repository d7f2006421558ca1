"""A network camera for the tests of what plays one."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.rtsp_server import RtspServer, rtsp_server


@pytest.fixture(scope="module")
def server() -> Iterator[RtspServer]:
    with rtsp_server() as server:
        yield server


@pytest.fixture
def camera(server: RtspServer) -> RtspServer:
    """A camera that works, whatever the test before has done to it."""
    if not server.alive:
        server.start()
    return server
