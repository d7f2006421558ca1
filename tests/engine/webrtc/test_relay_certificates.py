"""Reach TURN servers over TLS whose certificates are signed by an authority of one's own."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme

from metered_sync import NegotiationFailedError
from metered_sync.engine.webrtc.peer_connection import (
    bound_gathering,
    close_quietly,
    peer_connection,
    trust_relays,
)
from metered_sync.wire.events import IceServer

# (Of handshakes that fail; Python 3.10's own.)
pytestmark = pytest.mark.filterwarnings("ignore:unclosed transport <asyncio.sslproto")
ALLOCATE = b"\x00\x03"
"""The type of a request for a relayed address (RFC 8656, 18.1)."""


@contextlib.contextmanager
def turn_server(context: ssl.SSLContext) -> Iterator[tuple[IceServer, list[bytes]]]:
    """Take connections over TLS, and note what comes first; answer nothing."""
    came: list[bytes] = []

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = listening.accept()
                wrapped = contextlib.suppress(OSError)
                with client, wrapped, context.wrap_socket(client, server_side=True) as secure:
                    came.append(secure.recv(2))

    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        port = listening.getsockname()[1]
        yield IceServer((f"turns:localhost:{port}?transport=tcp",), "user", "password"), came
        listening.shutdown(socket.SHUT_RDWR)
        thread.join(20)


def gather(server: IceServer, ca_file: str | None) -> None:
    async def run() -> None:
        pc = peer_connection([server])
        pc.createDataChannel("x")
        bound_gathering(pc, 1.0)
        trust_relays(pc, ca_file, "a test")
        await asyncio.wait_for(pc.setLocalDescription(await pc.createOffer()), 20)
        await close_quietly(pc, 5)

    asyncio.run(run())


@pytest.fixture(autouse=True)
def no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)


def test_the_relay_of_an_authority_of_ones_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    with turn_server(context) as (server, came):
        gather(server, None)
        assert came == []
        gather(server, str(tmp_path / "ca.pem"))
        assert came == [ALLOCATE]
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "ca.pem"))
        gather(server, None)
        assert came == [ALLOCATE] * 2
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "none.pem"))
        with pytest.raises(NegotiationFailedError, match=r"REQUESTS_CA_BUNDLE=.*no such file"):
            gather(server, None)
