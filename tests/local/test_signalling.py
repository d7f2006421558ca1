"""Test the connections of the messaging server, as any client sees them."""

from __future__ import annotations

import json
import math
import time
from dataclasses import replace
from typing import Any

import jwt
import pytest
import requests
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from metered_sync import mint_token
from metered_sync.local import LocalCloud
from metered_sync.local.keys import PublishableKey
from metered_sync.wire.timings import DEFAULT_TIMINGS
from tests.support.raw_client import OPTIONS, Raw, closed_with, deaf, raw


def test_welcome(shared_cloud: LocalCloud) -> None:
    with raw(shared_cloud) as anonymous, raw(shared_cloud, "me", metadata={"x": 1}) as named:
        assert anonymous.welcome["type"] == "welcome"
        assert anonymous.welcome["expiresAt"] is None
        assert len(anonymous.welcome["peerId"]) == 36
        assert abs(anonymous.welcome["serverTime"] - time.time()) < 5
        assert anonymous.welcome["maxMessageSize"] == 65536
        assert "metadata" not in anonymous.welcome
        assert (named.welcome["peerId"], named.welcome["metadata"]) == ("me", {"x": 1})
        assert named.welcome["expiresAt"] > time.time()


def test_what_is_refused_before_the_upgrade(shared_cloud: LocalCloud) -> None:
    for query, error in (("", "unauthorized"), ("?token=garbage", "invalid_token")):
        url = f"{shared_cloud.url}/v1{query}"
        with pytest.raises(InvalidStatus) as caught, connect(url, **OPTIONS):
            pass
        response = caught.value.response
        assert response.status_code == 401
        assert json.loads(response.body or b"")["error"] == error
    answer = requests.get(f"{shared_cloud.http_url}/v1", timeout=20)
    assert answer.status_code == 426
    assert requests.get(f"{shared_cloud.http_url}/elsewhere", timeout=20).status_code == 404


def test_a_token_wins_over_a_key(shared_cloud: LocalCloud) -> None:
    token = mint_token(shared_cloud.key_id, shared_cloud.key_secret, peer_id="both")
    url = f"{shared_cloud.url}/v1?key={shared_cloud.publishable_key}&token={token}"
    with connect(url, **OPTIONS) as connection:
        assert Raw(connection).welcome["peerId"] == "both"


def test_origins() -> None:
    key = PublishableKey("pk_live_x", allowed_origins=("https://good",))
    assert "pk_live_x" not in repr(key)
    with LocalCloud() as cloud:
        assert cloud._servers is not None
        cloud._servers.signalling.keys.add(key)
        url = f"{cloud.url}/v1?key=pk_live_x"
        for origin in (None, "https://good"):  # none at all: not a browser
            with connect(url, **OPTIONS, origin=origin) as connection:
                assert Raw(connection).welcome
        with pytest.raises(InvalidStatus) as caught, connect(url, **OPTIONS, origin="https://bad"):
            pass
        assert json.loads(caught.value.response.body or b"")["error"] == "origin_not_allowed"


def test_going_away_comes_before_the_close() -> None:
    with LocalCloud() as cloud, raw(cloud) as client:
        cloud.close()
        assert client.receive() == {"type": "going_away", "retryAfterMs": 1000}
        with pytest.raises(ConnectionClosed) as caught:
            client.receive()
        assert caught.value.rcvd is not None
        assert caught.value.rcvd.code == 1001


def test_a_client_that_does_not_read_is_cut_off_and_holds_up_nobody(
    shared_cloud: LocalCloud,
) -> None:
    with (
        deaf(shared_cloud, "flood"),
        raw(shared_cloud) as quick,
        raw(shared_cloud) as sender,
    ):
        (there,) = quick.ask(type="subscribe", channel="flood")["joined"]
        data = "x" * 60_000
        for number in range(1000):  # 60 MB; the slow one's buffers hold less
            sender.send(type="publish", channel="flood", data=[number, data])
            received = quick.receive()
            if received["type"] == "presence":
                assert received["left"] == [there]
                break
            assert received["data"][0] == number
        else:
            pytest.fail("still connected")


# --- who may connect ---


def sign(cloud: LocalCloud, *, secret: str | None = None, **changes: Any) -> str:
    """Return a token; claims and headers as given, ``None`` leaves one out."""
    headers = {"kid": changes.pop("kid", cloud.key_id)}
    claims = {"sub": "p", "exp": time.time() + 60, **changes}
    return jwt.encode(
        {name: value for name, value in claims.items() if value is not None},
        cloud.key_secret if secret is None else secret,
        algorithm=changes.pop("alg", "HS256"),
        headers={name: value for name, value in headers.items() if value is not None},
    )


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"secret": "another" * 6}, 4001),
        ({"kid": "sk_id_unknown"}, 4001),
        ({"sub": None}, 4001),
        ({"sub": ""}, 4001),
        ({"sub": "é"}, 4001),
        ({"sub": "x" * 129}, 4001),
        ({"sub": 7}, 4001),
        ({"exp": None}, 4001),
        ({"exp": "soon"}, 4001),
        ({"exp": True}, 4001),
        ({"exp": math.inf}, 4001),
        ({"exp": 10**400}, 4001),
        ({"channels": "a"}, 4001),
        ({"channels": ["a"] * 101}, 4001),
        ({"permissions": ["publish"] * 17}, 4001),
        ({"metadata": {"x": "y" * 8192}}, 4001),
        ({"metadata": []}, 4001),
        ({"peerMetadata": {"x": "y" * 4096}}, 4001),
        ({"alg": "HS384"}, 4001),
        ({"exp": 1}, 4002),
        ({"exp": -1e300}, 4002),
        ({"exp": 0.5, "secret": "another" * 6}, 4001),  # forged comes before expired
    ],
)
def test_credentials_that_are_closed_after_the_upgrade(
    shared_cloud: LocalCloud, changes: dict[str, Any], code: int
) -> None:
    url = f"{shared_cloud.url}/v1?token={sign(shared_cloud, **changes)}"
    with connect(url, **OPTIONS) as connection, pytest.raises(ConnectionClosed) as caught:
        connection.recv(timeout=20)
    assert caught.value.rcvd is not None
    assert caught.value.rcvd.code == code


def test_a_token_at_all_its_caps(shared_cloud: LocalCloud) -> None:
    claims = {
        "channels": [f"{number:03}" + "x" * 253 for number in range(100)],
        "metadata": {"m": "x" * 8180},
        "peer_metadata": {"m": "\u20ac" * 1360},
    }
    with raw(shared_cloud, "p" * 128, **claims) as client:
        assert client.welcome["metadata"] == claims["metadata"]


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_a_token_that_lives_for_ever(loop: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("METERED_SYNC_LOOP", loop)
    with (
        LocalCloud() as cloud,
        raw(cloud, token=sign(cloud, exp=1e300)) as client,
        raw(cloud, token=sign(cloud, exp=10**300)) as other,
    ):
        assert client.silent()
        assert other.silent()


def test_an_unknown_key_is_closed_after_the_upgrade(shared_cloud: LocalCloud) -> None:
    for key in ("pk_live_unknown", shared_cloud.key_id, "%C3%A9%FF"):
        url = f"{shared_cloud.url}/v1?key={key}"
        with connect(url, **OPTIONS) as connection, pytest.raises(ConnectionClosed) as caught:
            connection.recv(timeout=20)
        assert caught.value.rcvd is not None
        assert caught.value.rcvd.code == 4001


@pytest.mark.parametrize("token", ["", "x", "a.b.c", "%C3%A9", "no kid"])
def test_tokens_that_are_none_get_no_upgrade(shared_cloud: LocalCloud, token: str) -> None:
    token = sign(shared_cloud, kid=None) if token == "no kid" else token
    with (
        pytest.raises(InvalidStatus) as caught,
        connect(f"{shared_cloud.url}/v1?token={token}", **OPTIONS),
    ):
        pass
    body = json.loads(caught.value.response.body or b"")
    assert (caught.value.response.status_code, body["error"]) == (401, "invalid_token")
    assert set(body) == {"error", "message"}


def test_a_handshake_that_is_none(shared_cloud: LocalCloud) -> None:
    url = f"{shared_cloud.http_url}/v1?key={shared_cloud.publishable_key}"
    upgrade = {"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Version": "13"}
    for headers in (
        {"Upgrade": "websocket"},
        upgrade,
        {**upgrade, "Sec-WebSocket-Key": "short"},
        {**upgrade, "Sec-WebSocket-Version": "99", "Sec-WebSocket-Key": "A" * 22 + "=="},
    ):
        answer = requests.get(url, headers=headers, timeout=20)
        assert (answer.status_code, answer.json()["error"]) == (400, "bad_request")


def test_a_connection_ends_with_its_token(shared_cloud: LocalCloud) -> None:
    expiry = int(time.time()) + 2
    with raw(shared_cloud, token=sign(shared_cloud, exp=expiry)) as client:
        assert client.welcome["expiresAt"] == expiry
        assert closed_with(client) == 4002
        assert -0.75 < time.time() - expiry < 5  # a quarter of a second before


# --- pings ---


def test_who_is_silent_for_two_pings_is_gone() -> None:
    with (
        LocalCloud(_timings=replace(DEFAULT_TIMINGS, server_ping=0.3)) as cloud,
        raw(cloud, "alive") as alive,
    ):
        alive.ask(type="subscribe", channel="x")
        start = time.monotonic()
        with deaf(cloud, "x"):  # its connection stands, but it answers no ping
            assert len(alive.receive()["joined"]) == 1
            assert len(alive.receive()["left"]) == 1
        assert 0.25 < time.monotonic() - start < 5
        with raw(cloud, "other") as other:  # answering pings is all it takes
            other.ask(type="subscribe", channel="x")
            assert alive.receive()["joined"] == [{"peerId": "other"}]
            with pytest.raises(TimeoutError):
                alive.connection.recv(timeout=1)
        assert alive.receive()["left"] == [{"peerId": "other"}]


def test_pings_of_a_client_are_answered(shared_cloud: LocalCloud) -> None:
    with raw(shared_cloud) as client:
        assert client.connection.ping().wait(5)
