"""Test that whatever clients send is answered, blames them, and leaves the server going."""

from __future__ import annotations

import base64
import hmac
import io
import json
import logging
import socket
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlencode

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from websockets.exceptions import ConnectionClosed, InvalidStatus, WebSocketException
from websockets.sync.client import connect

from metered_sync.local import LocalCloud
from tests.support.raw_client import OPTIONS, Raw, raw


def fuzz(examples: int) -> settings:
    """Return the settings for so many examples; twenty times as many with the profile explore."""
    return settings(
        max_examples=examples * settings.default.max_examples // 100,
        derandomize=settings.default.derandomize,
        database=None,
        deadline=None,
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    )


@pytest.fixture(scope="module")
def target() -> Iterator[LocalCloud]:
    with LocalCloud(limits=False) as cloud:
        yield cloud


@pytest.fixture
def unharmed(
    target: LocalCloud, log: io.StringIO, caplog: pytest.LogCaptureFixture
) -> Iterator[LocalCloud]:
    """A cloud of which it is checked afterwards that it still serves, and logged no trouble."""
    yield target
    with raw(target) as client:
        assert client.ask(type="publish", channel="x", data=1, requestId="1")["type"] == "ack"
    status, _ = exchange(target, "GET", "/v1/usage", {"Authorization": bearer(target)}, b"")
    assert status == 200
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert target.key_secret not in log.getvalue()


def bearer(cloud: LocalCloud) -> str:
    return f"Bearer {cloud.key_id}:{cloud.key_secret}"


FIELDS = (
    "peerId channels permissions expiresInSec metadata peerMetadata data from expiryInSeconds label"
)


# --- the socket ---

scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=20)
    | st.sampled_from(["x", "*", "a/**", "_system/x", "\ud800", "\x00", "me", "x" * 300])
)
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
    ),
    max_leaves=8,
)
types = st.sampled_from(["subscribe", "unsubscribe", "publish", "send", "ping"])
names = st.sampled_from(["type", "requestId", "channel", "to", "data", "includeSenderMetadata"])
valid = st.fixed_dictionaries(
    {"type": types},
    optional={
        "requestId": st.sampled_from(["1", "x" * 128]),
        "channel": st.sampled_from(["x", "a/b", "a/*", "**"]),
        "to": st.sampled_from(["me", "nobody"]),
        "data": values,
        "includeSenderMetadata": st.booleans(),
    },
)
mutated = st.builds(
    lambda frame, changes: {**frame, **changes}, valid, st.dictionaries(names, values, max_size=2)
).map(json.dumps)


@st.composite
def damaged(draw: st.DrawFn) -> str:
    """A frame with a piece cut out, doubled or replaced."""
    text = draw(mutated)
    start = draw(st.integers(0, len(text)))
    end = draw(st.integers(start, len(text)))
    return text[:start] + draw(st.text(max_size=5) | st.just(text[start:end] * 2)) + text[end:]


sendable = (mutated | damaged() | st.text()).map(
    lambda text: text.encode("utf-8", "replace").decode()
) | st.binary()


@fuzz(150)
@given(st.lists(sendable, min_size=1, max_size=10))
def test_frames(unharmed: LocalCloud, sent: list[str | bytes]) -> None:
    with raw(unharmed, "me", peer_metadata={"m": 1}) as client:
        for frame in sent:
            client.connection.send(frame)
        client.send(type="ping", requestId="the end")
        while (received := client.receive()) != {"type": "pong", "requestId": "the end"}:
            assert received["type"] in ("ack", "error", "pong", "presence", "message", "direct")
            assert received.get("code") != "internal_error"


@fuzz(80)
@given(st.binary(min_size=1, max_size=200), st.booleans())
def test_bytes_that_are_no_frames(unharmed: LocalCloud, sent: bytes, masked: bool) -> None:
    """Below the library that clients use: reserved bits, wrong lengths, control frames."""
    url = f"{unharmed.url}/v1?key={unharmed.publishable_key}"
    with connect(url, **OPTIONS) as connection:
        Raw(connection)
        if masked and len(sent) > 1:
            sent = sent[:1] + bytes((sent[1] | 0x80,)) + sent[2:]
        connection.socket.sendall(sent)
        try:
            connection.socket.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # the server has closed already
        with pytest.raises(ConnectionClosed):
            while True:
                connection.recv(timeout=20)


@fuzz(150)
@given(
    st.dictionaries(st.sampled_from(["key", "token", "x"]), st.text(max_size=80), max_size=3),
    st.sampled_from(["", "https://x", "null", "\x7f"]),
)
def test_upgrades(unharmed: LocalCloud, query: dict[str, str], origin: str) -> None:
    fields = {
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA==",
        "Origin": origin,
    }
    head = f"GET /v1?{urlencode(query, errors='surrogatepass')} HTTP/1.1\r\nHost: x\r\n"
    head += "".join(f"{name}: {value}\r\n" for name, value in fields.items()) + "\r\n"
    with socket.create_connection(("127.0.0.1", unharmed.port), timeout=5) as connection:
        connection.sendall(head.encode())
        assert int(connection.recv(100).split()[1]) in (101, 400, 401)


headers = st.fixed_dictionaries(
    {}, optional=dict.fromkeys(("alg", "typ", "b64", "crit", "x"), values)
)
claims = st.fixed_dictionaries(
    {},
    optional={
        name: values | st.sampled_from([2_000_000_000, 10**400, ["**"], {"iceServers": 7}])
        for name in (*["sub", "exp", "iat", "nbf", "aud", "iss", "jti"], *FIELDS.split())
    },
)


@fuzz(200)
@given(headers, claims, st.booleans())
def test_tokens(
    unharmed: LocalCloud, header: dict[str, Any], payload: dict[str, Any], signed: bool
) -> None:
    header = {"alg": "HS256", "kid": unharmed.key_id, **header}
    payload = {"sub": "me", "exp": 2_000_000_000, **payload}
    token = ".".join(encoded(json.dumps(part).encode()) for part in (header, payload))
    secret = unharmed.key_secret if signed else "another"
    token += "." + encoded(hmac.digest(secret.encode(), token.encode(), "sha256"))
    error: WebSocketException | None = None
    try:
        with raw(unharmed, token=token) as client:
            assert signed
            assert client.silent()
    except (InvalidStatus, ConnectionClosed) as refused:
        error = refused
    if isinstance(error, InvalidStatus):
        assert error.response.status_code == 401
    elif isinstance(error, ConnectionClosed):
        assert error.rcvd is not None
        assert error.rcvd.code in (4001, 4002)


def encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


# --- REST ---


def exchange(
    cloud: LocalCloud, method: str, target: str, fields: dict[str, str], body: bytes
) -> tuple[int, bytes]:
    """Send a request as it is, and return the status and all that was answered."""
    head = f"{method} {target} HTTP/1.1\r\nHost: x\r\n"
    if fields.get("Content-Length") == "7":
        body = body[:7].ljust(7)
    fields = {"Connection": "close", "Content-Length": str(len(body)), **fields}
    head += "".join(f"{name}: {value}\r\n" for name, value in fields.items()) + "\r\n"
    received = b""
    with socket.create_connection(("127.0.0.1", cloud.port), timeout=10) as connection:
        try:
            connection.sendall(head.encode("utf-8", "surrogatepass") + body)
            while data := connection.recv(4096):
                received += data
        except ConnectionResetError:
            pass  # refused before it had read everything
    received = received.removeprefix(b"HTTP/1.1 100 Continue\r\n\r\n")
    assert received.startswith(b"HTTP/1."), received
    return int(received.split()[1]), received


WORDS = (
    "v1 api v2 turn tokens channels peers publish usage credential credentials project local sfu "
    "a%2Fb %FF %00 % .. . * é _system%2Fx"
)
segments = st.sampled_from(["", "x" * 300, *WORDS.split()]) | st.text(
    st.characters(min_codepoint=33, max_codepoint=126, exclude_characters="#?"), max_size=6
)
paths = st.lists(segments, max_size=6).map(lambda parts: "/" + "/".join(parts))
known = st.sampled_from(
    [
        "/v1/tokens",
        "/v1/usage",
        "/v1/channels/a%2Fb/peers",
        "/v1/channels/a/b/publish",
        "/v1/peers/me",
        "/api/v1/turn/credential?secretKey={secret}",
        "/api/v1/turn/credentials?apiKey={api}",
        "/api/v2/turn/credentials?secretKey={secret}&page=7",
        "/api/v2/turn/project/local/credential?projectApiKey={api}",
    ]
)
methods = st.sampled_from(["GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "HEAD", "BREW", "x"])
bodies = st.binary(max_size=60) | st.builds(
    lambda body: json.dumps(body).encode(),
    values
    | st.dictionaries(
        st.sampled_from(FIELDS.split()),
        values | st.sampled_from(["x", ["x"], ["**"], ["publish"], {"x": 1}, 60, 1e999]),
        max_size=6,
    ),
)
extra = st.dictionaries(
    st.sampled_from(["Content-Type", "Content-Encoding", "Expect", "Content-Length", "Upgrade"]),
    st.sampled_from(["gzip", "br", "application/json", "100-continue", "7", "-1", "é"]),
    max_size=2,
)
secrets = st.just(None) | st.text(st.characters(min_codepoint=32, max_codepoint=0x2FF), max_size=30)


@fuzz(400)
@given(methods, paths | known, extra, bodies, st.booleans(), secrets)
def test_calls(
    unharmed: LocalCloud,
    method: str,
    path: str,
    fields: dict[str, Any],
    body: bytes,
    right: bool,
    secret: str | None,
) -> None:
    for name, key in (("secret", unharmed.turn_secret_key), ("api", unharmed.turn_api_key)):
        path = path.replace(f"{{{name}}}", key)
    if right:
        fields = {**fields, "Authorization": bearer(unharmed)}
    elif secret is not None:
        fields = {**fields, "Authorization": f"Bearer {unharmed.key_id}:{secret}"}
    status, answer = exchange(unharmed, method, path, fields, body)
    assert status < 500, answer
