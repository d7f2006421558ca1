"""Test what messaging clients may ask for, frame by frame, as any client sees it."""

from __future__ import annotations

from typing import Any

import pytest

from metered_sync.local import LocalCloud
from tests.support.raw_client import raw


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
