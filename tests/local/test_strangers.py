"""Meet what strangers do to the local cloud: no traceback in its log, nobody locked out."""

from __future__ import annotations

import io
import json
import socket
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import jwt
import pytest

from metered_sync import DisconnectedError, SignallingClient, SignallingConnectError
from metered_sync.local import LocalCloud
from tests.conftest import wait_until

UPGRADE = (
    "GET /v1{} HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n{}\r\n"
)


@contextmanager
def connected(cloud: LocalCloud) -> Iterator[socket.socket]:
    parts = urlsplit(cloud.http_url)
    with socket.create_connection((parts.hostname, parts.port), timeout=10) as client:
        yield client


def reset(client: socket.socket) -> None:
    """End a connection at once, without a good-bye."""
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()


def status(cloud: LocalCloud, query: str = "", fields: str = "") -> int:
    with connected(cloud) as client:
        client.sendall(UPGRADE.format(query, fields).encode())
        return int(client.recv(4096).split()[1])


# --- attempts to connect -----------------------------------------------------------------

STRANGERS = {
    "no credential": ("", ""),
    "a page": ("?key=guess", "Origin: https://evil.test\r\n"),
    "a page without a credential": ("", "Origin: https://evil.test\r\n"),
    "a page of a file": ("?token=x.y.z", "Origin: null\r\n"),
    "an odd origin": ("?key=guess", "Origin: http://[\r\n"),
}


@pytest.mark.parametrize("stranger", STRANGERS)
def test_no_page_can_lock_the_developer_out(cloud: LocalCloud, stranger: str) -> None:
    query, fields = STRANGERS[stranger]
    seen = [status(cloud, query, fields) for _ in range(70)]
    assert seen[-1] == 429
    with SignallingClient(**cloud.client_options()) as client:
        client.publish("room", 1)
    local = f"Origin: {cloud.http_url}\r\n"
    assert status(cloud, f"?key={cloud.publishable_key}", local) == 101


def test_those_that_show_a_key_are_limited_as_ever(cloud: LocalCloud) -> None:
    query = f"?key={cloud.publishable_key}"
    seen = [status(cloud, query) for _ in range(61)]
    assert seen[:60] == [101] * 60
    assert seen[60] == 429


# --- who goes away -----------------------------------------------------------------------


def test_half_a_body_and_gone(cloud: LocalCloud, log: io.StringIO) -> None:
    bearer = f"Authorization: Bearer {cloud.key_id}:{cloud.key_secret}\r\n"
    sfu = f"Authorization: Bearer {cloud.sfu_secret}\r\n"
    turn = f"/api/v1/turn/credential?secretKey={cloud.turn_options()['secret_key']}"
    calls = (
        ("/v1/tokens", bearer),
        ("/v1/channels/x/publish", bearer),
        (f"/api/sfu/{cloud.sfu_app_id}/session/new", sfu),
        (turn, ""),
    )
    bodies = (
        "Content-Length: 1000\r\n\r\n{",
        "Transfer-Encoding: chunked\r\n\r\n10\r\n{",
        "Content-Length: 1000\r\n\r\n",
    )
    for path, fields in calls:
        for body in bodies:
            for end in (reset, socket.socket.close):
                with connected(cloud) as client:
                    head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n{fields}"
                    client.sendall((head + body).encode())
                    time.sleep(0.01)  # so that the call is being read; earlier is no harder
                    end(client)
    assert_served(cloud, log)


def test_gone_during_the_upgrade(cloud: LocalCloud, log: io.StringIO) -> None:
    for query in ("", f"?key={cloud.publishable_key}", "?key=guess", "?token=x.y.z"):
        for end in (reset, socket.socket.close):
            for _ in range(5):
                with connected(cloud) as client:
                    client.sendall(UPGRADE.format(query, "").encode())
                    end(client)
    assert_served(cloud, log)


def assert_served(cloud: LocalCloud, log: io.StringIO) -> None:
    """Check that the cloud serves, has nobody left, and has logged no error."""
    with SignallingClient(**cloud.client_options()) as client:
        client.publish("room", 1)
    control = cloud.control_plane()
    wait_until(lambda: control.usage().concurrent_now == 0)
    control.close()
    text = log.getvalue()
    assert "Traceback" not in text
    assert "Error handling request" not in text
    assert "Unhandled" not in text


# --- tokens ------------------------------------------------------------------------------


def token(cloud: LocalCloud, **claims: Any) -> str:
    payload = {"sub": "me", "exp": int(time.time()) + 60, **claims}
    return jwt.encode(payload, cloud.key_secret, "HS256", {"kid": cloud.key_id})


@pytest.mark.parametrize("nbf", [-100, 0, None])
def test_a_token_that_is_valid_already(shared_cloud: LocalCloud, nbf: int | None) -> None:
    claims = {} if nbf is None else {"nbf": int(time.time()) + nbf}
    with SignallingClient(
        token_provider=token(shared_cloud, **claims), url=shared_cloud.url
    ) as client:
        assert client.peer_id == "me"


@pytest.mark.parametrize("nbf", [60, 1e12, "soon", True])
def test_a_token_that_is_not_valid_yet(shared_cloud: LocalCloud, nbf: Any) -> None:
    value = int(time.time()) + nbf if nbf == 60 else nbf
    client = SignallingClient(token_provider=token(shared_cloud, nbf=value), url=shared_cloud.url)
    with pytest.raises((SignallingConnectError, DisconnectedError)) as caught:
        client.connect()
    assert getattr(caught.value, "close_code", 0) == 4001
    client.close()


def test_a_long_list_of_addresses_in_one_entry(shared_cloud: LocalCloud) -> None:
    from metered_sync.wire.turn import MAX_ICE_URLS, parse_ice_servers

    urls = [f"stun:host:{number + 1}" for number in range(MAX_ICE_URLS)]
    assert len(parse_ice_servers([{"urls": urls}])[0].urls) == MAX_ICE_URLS
    many = [{"urls": [f"stun:h:{n}" for n in range(1, 200)]}]
    claims = {"metadata": {"iceServers": many}}
    assert len(json.dumps(claims)) < 8192
    with SignallingClient(
        token_provider=token(shared_cloud, **claims), url=shared_cloud.url
    ) as client:
        assert client.ice_servers is None
