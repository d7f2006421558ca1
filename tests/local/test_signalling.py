"""The messaging server, frame by frame, as any client sees it."""

from __future__ import annotations

import json
import time

import pytest
import requests
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from metered_sync import mint_token
from metered_sync.local import LocalCloud
from metered_sync.local.keys import PublishableKey
from metered_sync.wire.limits import MAX_FRAME
from tests.local.raw import OPTIONS, Raw, raw


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


def test_sizes_hold_whatever_the_limits(shared_cloud: LocalCloud) -> None:
    with raw(shared_cloud) as client:
        text = json.dumps({"type": "ping", "x": ""})
        client.connection.send(text[:-2] + "x" * (MAX_FRAME - len(text)) + '"}')
        assert client.receive() == {"type": "pong"}
        client.connection.send(text[:-2] + "x" * (MAX_FRAME - len(text) + 1) + '"}')
        with pytest.raises(ConnectionClosed) as caught:
            client.receive()
        assert caught.value.rcvd is not None
        assert caught.value.rcvd.code == 1009


def test_limits(cloud: LocalCloud) -> None:
    with raw(cloud) as client:
        for number in range(100):
            client.ask(type="subscribe", channel=str(number))
        answer = client.ask(type="subscribe", channel="one too many", requestId="r")
        assert answer["code"] == "channel_limit_exceeded"
        client.ask(type="subscribe", channel="5")  # one that is held already
        with pytest.raises(ConnectionClosed) as caught:
            for _ in range(1000):
                client.ask(type="ping")
        assert caught.value.rcvd is not None
        assert caught.value.rcvd.code == 4011


def test_what_is_refused_before_the_upgrade(shared_cloud: LocalCloud) -> None:
    for query, error in (("", "unauthorized"), ("?token=garbage", "invalid_token")):
        url = f"{shared_cloud.url}/v1{query}"
        with pytest.raises(InvalidStatus) as caught, connect(url, **OPTIONS):
            pass
        response = caught.value.response
        assert response.status_code == 401
        assert json.loads(response.body or b"")["error"] == error
    answer = requests.get(f"{shared_cloud.http_url}/v1", timeout=5)
    assert answer.status_code == 426
    assert requests.get(f"{shared_cloud.http_url}/elsewhere", timeout=5).status_code == 404


def test_a_token_wins_over_a_key(shared_cloud: LocalCloud) -> None:
    token = mint_token(shared_cloud.key_id, shared_cloud.key_secret, peer_id="both")
    url = f"{shared_cloud.url}/v1?key={shared_cloud.publishable_key}&token={token}"
    with connect(url, **OPTIONS) as connection:
        assert Raw(connection).welcome["peerId"] == "both"


def test_origins() -> None:
    key = PublishableKey("pk_live_x", allowed_origins=("https://good",))
    assert "pk_live_x" not in repr(key)
    with LocalCloud() as cloud:
        assert cloud._cloud is not None
        cloud._cloud.signalling.keys.add(key)
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
    with raw(shared_cloud, "slow") as slow, raw(shared_cloud) as quick, raw(shared_cloud) as sender:
        slow.ask(type="subscribe", channel="flood")
        quick.ask(type="subscribe", channel="flood")
        data = "x" * 60_000
        for number in range(1000):  # 60 MB; the slow one's socket and outbox hold less
            sender.send(type="publish", channel="flood", data=[number, data])
            received = quick.receive()
            if received["type"] == "presence":
                assert received["left"] == [{"peerId": "slow"}]
                break
            assert received["data"][0] == number
        else:
            pytest.fail("still connected")
