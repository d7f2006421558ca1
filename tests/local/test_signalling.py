"""Test the messaging server, frame by frame, as any client sees it."""

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


def test_the_order_of_acknowledgement_snapshot_and_deltas(shared_cloud: LocalCloud) -> None:
    with raw(shared_cloud, "a", peer_metadata={"m": 1}) as a, raw(shared_cloud, "b") as b:
        a.send(type="subscribe", channel="order", requestId="1")
        assert a.receive() == {"type": "ack", "requestId": "1"}
        empty = {"type": "presence", "channel": "order", "joined": [], "left": []}
        assert a.receive() == empty
        b.send(type="subscribe", channel="order", requestId="2")
        b.send(type="send", to="a", data="after joined")
        assert b.receive() == {"type": "ack", "requestId": "2"}
        assert b.receive()["joined"] == [{"peerId": "a", "metadata": {"m": 1}}]
        assert a.receive()["joined"] == [{"peerId": "b"}]
        assert a.receive() == {"type": "direct", "from": "b", "data": "after joined"}
        # Again: acknowledged, the whole snapshot, and nobody is told anew.
        b.send(type="subscribe", channel="order", requestId="3")
        assert b.receive() == {"type": "ack", "requestId": "3"}
        assert b.receive()["joined"][0]["peerId"] == "a"
        assert a.silent()
        b.send(type="publish", channel="order", data=None, requestId="4")
        assert b.receive() == {"type": "ack", "requestId": "4"}
        assert a.receive() == {"type": "message", "channel": "order", "from": "b", "data": None}
        assert b.ask(type="unsubscribe", channel="order", requestId="5")["type"] == "ack"
        assert b.ask(type="unsubscribe", channel="order", requestId="6")["type"] == "ack"
        assert a.receive()["left"] == [{"peerId": "b"}]


def test_a_peer_with_several_sockets_is_one_member(shared_cloud: LocalCloud) -> None:
    with raw(shared_cloud, "watcher") as watcher:
        watcher.ask(type="subscribe", channel="multi")
        with raw(shared_cloud, "twin") as one:
            one.ask(type="subscribe", channel="multi")
            assert watcher.receive()["joined"] == [{"peerId": "twin"}]
            with raw(shared_cloud, "twin") as two:
                snapshot = two.ask(type="subscribe", channel="multi")
                assert [p["peerId"] for p in snapshot["joined"]] == ["watcher"]
                assert watcher.silent()
                # Direct messages go to both, publishing only past the publishing socket.
                watcher.send(type="send", to="twin", data=1)
                assert one.receive()["data"] == two.receive()["data"] == 1
                one.send(type="publish", channel="multi", data=2)
                assert two.receive()["data"] == watcher.receive()["data"] == 2
            assert watcher.silent()
        assert watcher.receive()["left"] == [{"peerId": "twin"}]


def test_sender_metadata_is_the_last_subscribers_choice(shared_cloud: LocalCloud) -> None:
    with raw(shared_cloud, "a", peer_metadata={"m": 1}) as a, raw(shared_cloud) as b:
        b.ask(type="subscribe", channel="meta", includeSenderMetadata=True)
        a.send(type="publish", channel="meta", data=1)
        assert b.receive()["fromMetadata"] == {"m": 1}
        b.ask(type="subscribe", channel="meta")
        a.send(type="publish", channel="meta", data=2)
        assert "fromMetadata" not in b.receive()
        a.send(type="send", to=b.welcome["peerId"], data=3)
        assert b.receive()["fromMetadata"] == {"m": 1}


@pytest.mark.parametrize(
    ("frame", "code"),
    [
        ("nonsense", "malformed_message"),
        ("[]", "malformed_message"),
        (b"\x00binary", "malformed_message"),
        (b'{"type":"ping"}', "malformed_message"),
        ('{"type":"ping","requestId":7}', "malformed_message"),
        ('{"type":"ping","requestId":""}', "malformed_message"),
        ('{"type":"dance"}', "unknown_type"),
        ('{"type":"subscribe"}', "invalid_channel"),
        ('{"type":"subscribe","channel":7}', "invalid_channel"),
        ('{"type":"subscribe","channel":""}', "invalid_channel"),
        ('{"type":"publish","channel":"a\\u0000","data":1}', "invalid_channel"),
        ('{"type":"publish","channel":"_METERED/x"}', "channel_reserved"),
        ('{"type":"publish","channel":"c"}', "missing_data"),
        ('{"type":"publish","channel":"c","data":"\\ud800"}', "malformed_message"),
        ('{"type":"publish","channel":"c","data":1e999}', "malformed_message"),
        ('{"type":"send","data":1}', "invalid_peer_id"),
        ('{"type":"send","to":"\\u00e9","data":1}', "invalid_peer_id"),
        ('{"type":"send","to":"nobody","data":1}', "peer_not_found"),
        ('{"type":"send","to":"nobody"}', "missing_data"),
    ],
)
def test_errors_leave_the_connection_open(
    shared_cloud: LocalCloud, frame: str | bytes, code: str
) -> None:
    with raw(shared_cloud) as client:
        client.connection.send(frame)
        answer = client.receive()
        assert (answer["type"], answer["code"]) == ("error", code)
        assert "requestId" not in answer
        assert client.silent()


def test_errors_name_their_request(shared_cloud: LocalCloud) -> None:
    with raw(shared_cloud, "narrow", channels=["a/*"], permissions=["publish"]) as client:
        for fields, code in (
            ({"type": "publish", "channel": "b"}, "channel_not_authorized"),
            ({"type": "subscribe", "channel": "b"}, "action_not_permitted"),
            ({"type": "send", "to": "x"}, "action_not_permitted"),
            ({"type": "publish", "channel": "a/x"}, "missing_data"),
        ):
            answer = client.ask(**fields, requestId="r")
            assert (answer["code"], answer["requestId"]) == (code, "r")


def test_without_the_presence_permission_there_are_no_presence_frames(
    shared_cloud: LocalCloud,
) -> None:
    with (
        raw(shared_cloud, "blind", permissions=["subscribe"]) as blind,
        raw(shared_cloud, "seen") as seen,
    ):
        assert blind.ask(type="subscribe", channel="dark", requestId="1")["type"] == "ack"
        seen.send(type="subscribe", channel="dark")
        assert [p["peerId"] for p in seen.receive()["joined"]] == ["blind"]
        assert blind.silent()


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
        connection.recv(timeout=5)
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
            connection.recv(timeout=5)
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


# --- wildcard subscriptions ---


def test_a_pattern_gets_what_its_channels_get(shared_cloud: LocalCloud) -> None:
    with raw(shared_cloud) as fire, raw(shared_cloud, "d", peer_metadata={"m": 1}) as device:
        assert fire.ask(type="subscribe", channel="dev/*/ev", requestId="1")["type"] == "ack"
        for channel in ("dev/7/ev", "dev/7/8/ev", "dev/7/cmd", "dev/*/ev", "dev//ev"):
            device.send(type="publish", channel=channel, data=channel)
        assert device.silent()
        # With the concrete name; and without presence, here and there.
        for channel in ("dev/7/ev", "dev/*/ev", "dev//ev"):
            assert fire.receive() == {
                "type": "message",
                "channel": channel,
                "from": "d",
                "data": channel,
            }
        snapshot = device.ask(type="subscribe", channel="dev/7/ev")
        assert (snapshot["joined"], snapshot["left"]) == ([], [])
        # Once, however many of its subscriptions match; metadata if one of them asks.
        fire.ask(type="subscribe", channel="dev/7/ev")
        device.receive()
        fire.ask(type="subscribe", channel="dev/**", includeSenderMetadata=True, requestId="2")
        device.send(type="publish", channel="dev/7/ev", data=1)
        assert fire.receive()["fromMetadata"] == {"m": 1}
        assert fire.silent()
        for pattern in ("dev/**", "dev/*/ev", "dev/7/ev", "dev/**"):
            answer = fire.ask(type="unsubscribe", channel=pattern, requestId="3")
            assert answer["type"] == "ack"
        device.receive()
        device.send(type="publish", channel="dev/7/ev", data=1)
        assert device.silent()
        assert fire.silent()


@pytest.mark.parametrize(
    ("granted", "pattern", "code"),
    [
        ("a/*", "a/*", None),
        ("a/**", "a/*/b", None),
        ("**", "**", None),
        ("a/*", "a/**", "channel_not_authorized"),
        ("a/*", "*", "channel_not_authorized"),
        ("a/b", "a/*", "channel_not_authorized"),
        ("**", "_system/*", "channel_reserved"),
    ],
)
def test_which_patterns_are_allowed(
    shared_cloud: LocalCloud, granted: str, pattern: str, code: str | None
) -> None:
    with raw(shared_cloud, "narrow", channels=[granted]) as client:
        answer = client.ask(type="subscribe", channel=pattern, requestId="r")
        assert answer.get("code") == code


def test_a_pattern_delivers_nothing_that_the_token_does_not_cover(
    shared_cloud: LocalCloud,
) -> None:
    with raw(shared_cloud, "narrow", channels=["a/*"]) as narrow, raw(shared_cloud) as sender:
        narrow.ask(type="subscribe", channel="a/*", requestId="1")
        sender.send(type="publish", channel="a/b/c", data=1)
        sender.send(type="publish", channel="b", data=1)
        assert sender.silent()
        assert narrow.silent()


# --- order, and what else the protocol leaves open ---


def test_a_message_to_oneself_comes_before_its_acknowledgement(shared_cloud: LocalCloud) -> None:
    with raw(shared_cloud, "self") as client:
        client.send(type="send", to="self", data=1, requestId="1")
        assert client.receive() == {"type": "direct", "from": "self", "data": 1}
        assert client.receive() == {"type": "ack", "requestId": "1"}


def test_checks_come_in_the_protocols_order(shared_cloud: LocalCloud) -> None:
    order = (
        ({"type": "dance", "requestId": "r"}, "unknown_type"),
        ({"type": "publish", "requestId": 7}, "malformed_message"),
        ({"type": "publish", "channel": ""}, "invalid_channel"),
        ({"type": "publish", "channel": "_system/b"}, "channel_reserved"),
        ({"type": "publish", "channel": "b"}, "action_not_permitted"),
    )
    with raw(shared_cloud, "p", channels=["a"], permissions=["subscribe"]) as client:
        for fields, code in order:
            assert client.ask(**fields)["code"] == code
    with raw(shared_cloud, "p", channels=["a"]) as client:
        assert client.ask(type="publish", channel="b")["code"] == "channel_not_authorized"
        assert client.ask(type="publish", channel="a")["code"] == "missing_data"
        assert client.ask(type="publish", channel="a", data=None, requestId="r")["type"] == "ack"


@pytest.mark.parametrize("request_id", [7, "", "x" * 129, "é" * 65, "a\x00", None, [], {}])
def test_request_ids_that_are_none(shared_cloud: LocalCloud, request_id: Any) -> None:
    with raw(shared_cloud) as client:
        answer = client.ask(type="ping", requestId=request_id)
        if request_id is None:
            assert answer == {"type": "pong"}
        else:
            assert answer["code"] == "malformed_message"
            assert "requestId" not in answer


def test_leaving_shows_metadata_and_is_immediate(shared_cloud: LocalCloud) -> None:
    with raw(shared_cloud, "watcher") as watcher:
        watcher.ask(type="subscribe", channel="leaving")
        with raw(shared_cloud, "p", peer_metadata={"m": 1}) as p:
            p.ask(type="subscribe", channel="leaving")
            assert watcher.receive()["joined"] == [{"peerId": "p", "metadata": {"m": 1}}]
        assert watcher.receive() == {
            "type": "presence",
            "channel": "leaving",
            "joined": [],
            "left": [{"peerId": "p", "metadata": {"m": 1}}],
        }


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
