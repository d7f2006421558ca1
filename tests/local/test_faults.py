"""Test each fault of the local cloud, as clients meet it."""

from __future__ import annotations

import math
import threading
import time
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed, WebSocketException

from metered_sync import (
    AckTimeoutError,
    ClosedError,
    Disconnected,
    GoingAway,
    MeteredError,
    Outage,
    ReconnectOptions,
    SignallingClient,
)
from metered_sync.local import LocalCloud
from tests.conftest import wait_until
from tests.support.deadlines import expired
from tests.support.raw_client import closed_with, deaf, raw

SOON = ReconnectOptions(initial_delay=0.05, max_delay=0.1)


@pytest.mark.parametrize(
    ("fault", "arguments"),
    [
        ("refuse_connections", [-1, math.nan, math.inf, True, "1", None]),
        ("hold_acks", [-0.1, math.nan, math.inf, True, "1", None]),
        ("delay", [-0.1, math.nan, math.inf, True, "1", None]),
        ("going_away", [-1, 1.5, True, "1", None]),
        ("close", [0, 999, 1004, 1005, 1006, 1015, 2000, 5000, True, 4000.5, "4000", None]),
        ("lose_media", [-0.1, 1.1, math.nan, True, "1", None]),
    ],
)
def test_bad_arguments(fault: str, arguments: list[Any]) -> None:
    cloud = LocalCloud()
    for argument in arguments:
        with pytest.raises(ValueError):
            getattr(cloud.faults, fault)(argument)


def test_faults_need_a_cloud_that_serves() -> None:
    with LocalCloud() as cloud:
        with pytest.raises(MeteredError, match="no SFU session"):
            cloud.faults.kill_sfu_session("nobody")
        cloud.faults.lose_media(0)
    for call in (
        cloud.faults.drop_connections,
        cloud.faults.going_away,
        lambda: cloud.faults.delay(0),
        lambda: cloud.faults.hold_acks(0),
        lambda: cloud.faults.refuse_connections(0),
        lambda: cloud.faults.close(4000),
    ):
        with pytest.raises(ClosedError):
            call()


def test_dropping_connections_resets_them(cloud: LocalCloud) -> None:
    with raw(cloud, "a") as a, raw(cloud, "b") as b:
        b.ask(type="subscribe", channel="x")
        a.ask(type="subscribe", channel="x")
        assert b.receive()["joined"] == [{"peerId": "a"}]
        cloud.faults.drop_connections("nobody")
        cloud.faults.drop_connections("a")
        with pytest.raises(ConnectionClosed) as caught:
            a.receive()
        assert caught.value.rcvd is None
        assert isinstance(caught.value.__cause__, ConnectionResetError)
        assert b.receive()["left"] == [{"peerId": "a"}]
        cloud.faults.drop_connections()
        assert closed_with(b) == 1006


def test_refusing_connections(cloud: LocalCloud) -> None:
    with raw(cloud) as standing:
        cloud.faults.refuse_connections(60)
        with pytest.raises((OSError, EOFError, WebSocketException)), raw(cloud):
            pass
        assert standing.silent()
        cloud.faults.refuse_connections(0)
        with raw(cloud) as again:
            assert again.silent()
        cloud.faults.refuse_connections(0.3)
        start = time.monotonic()

        def admitted() -> bool:
            try:
                with raw(cloud):
                    return True
            except (OSError, EOFError, WebSocketException):
                return False

        wait_until(admitted, 10)
        assert time.monotonic() - start > 0.25


def test_a_client_rides_out_a_refusal(cloud: LocalCloud) -> None:
    options = {**cloud.client_options(), "reconnect": SOON}
    with SignallingClient(**options) as client, client.events(Disconnected, Outage) as events:
        cloud.faults.refuse_connections(2)
        cloud.faults.drop_connections()
        assert events.get(timeout=20).code == 1006
        client.publish("x", 1, timeout=20)
        assert events.get(timeout=20).duration > 0.3


def test_going_away(cloud: LocalCloud) -> None:
    with raw(cloud) as one, raw(cloud) as two:
        cloud.faults.going_away(0)
        cloud.faults.going_away(2500)  # nobody is left to hear it
        for client in (one, two):
            assert client.receive() == {"type": "going_away", "retryAfterMs": 0}
            assert closed_with(client) == 1001
    with SignallingClient(**cloud.client_options()) as client:
        with client.events(GoingAway, Disconnected) as events:
            cloud.faults.going_away(100)
            going = events.get(timeout=20)
            assert isinstance(going, GoingAway)
            assert events.get(timeout=20).code == 1001
        client.publish("x", 1, timeout=20)  # the server is still there


@pytest.mark.parametrize("code", [1000, 1001, 1008, 1011, 1013, 4000, 4003, 4012, 4999])
def test_closing_with_a_code(shared_cloud: LocalCloud, code: int) -> None:
    with raw(shared_cloud, f"closed {code}") as client, raw(shared_cloud, "other") as other:
        client.ask(type="subscribe", channel="x")
        shared_cloud.faults.close(code, f"closed {code}")
        assert closed_with(client) == code
        assert other.silent()


def test_closing_everybody(cloud: LocalCloud) -> None:
    with raw(cloud) as one, raw(cloud, "two") as two:
        cloud.faults.close(4001)
        assert closed_with(one) == closed_with(two) == 4001


def test_what_was_sent_arrives_before_the_close(cloud: LocalCloud) -> None:
    with raw(cloud, "reader") as reader, raw(cloud) as sender:
        reader.ask(type="subscribe", channel="x")
        for number in range(150):
            sender.send(type="publish", channel="x", data=[number, "x" * 10_000])
        assert sender.silent()  # all of them are on their way
        closing = threading.Thread(target=cloud.faults.close, args=(4000, "reader"))
        closing.start()
        assert [reader.receive()["data"][0] for _ in range(150)] == list(range(150))
        assert closed_with(reader) == 4000
        closing.join()


def test_a_client_that_does_not_agree_to_close_is_cut_off(cloud: LocalCloud) -> None:
    with deaf(cloud, "x"), raw(cloud, "sender") as sender:
        for _ in range(120):  # more than its buffers hold: it does not even get the close frame
            sender.send(type="publish", channel="x", data="x" * 60_000)
        assert sender.silent()
        start = time.monotonic()
        cloud.faults.close(4000)
        assert time.monotonic() - start < 10


# --- acknowledgements ---


def test_holding_acknowledgements(cloud: LocalCloud) -> None:
    with raw(cloud, "a") as a, raw(cloud, "b") as b:
        b.ask(type="subscribe", channel="x", requestId="b")
        assert b.receive()["type"] == "presence"
        cloud.faults.hold_acks(60)
        a.send(type="subscribe", channel="x", requestId="1")
        a.send(type="publish", channel="x", data=1, requestId="2")
        a.send(type="send", to="b", data=2, requestId="3")
        a.send(type="publish", channel="x", requestId="4")  # an error is no acknowledgement
        a.send(type="unsubscribe", channel="x", requestId="5")
        # All of it is carried out; what others get is not held back.
        assert b.receive()["joined"] == [{"peerId": "a"}]
        assert b.receive()["data"] == 1
        assert b.receive()["data"] == 2
        assert b.receive()["left"] == [{"peerId": "a"}]
        b.send(type="send", to="a", data=3)
        assert a.receive()["code"] == "missing_data"
        assert a.receive()["data"] == 3
        assert a.silent()
        cloud.faults.hold_acks(0)
        received = [a.receive() for _ in range(5)]
        assert [frame.get("requestId") for frame in received] == ["1", None, "2", "3", "5"]
        snapshot = {"type": "presence", "channel": "x", "joined": [{"peerId": "b"}], "left": []}
        assert received[1] == snapshot  # behind its acknowledgement, as ever
        assert a.ask(type="publish", channel="x", data=1, requestId="6")["type"] == "ack"


def test_held_acknowledgements_leave_in_time(cloud: LocalCloud) -> None:
    with raw(cloud) as client:
        cloud.faults.hold_acks(60)
        cloud.faults.hold_acks(0.3)  # the latest word counts
        start = time.monotonic()
        assert client.ask(type="publish", channel="x", data=1, requestId="1")["type"] == "ack"
        assert 0.2 < time.monotonic() - start < 5


def test_held_acknowledgements_of_a_connection_that_ends(cloud: LocalCloud) -> None:
    with raw(cloud) as other:
        cloud.faults.hold_acks(60)
        with raw(cloud) as client:
            client.send(type="publish", channel="x", data=1, requestId="1")
            assert client.silent()
        cloud.faults.hold_acks(0)
        assert other.silent()


def test_a_client_meets_held_acknowledgements(cloud: LocalCloud) -> None:
    with SignallingClient(**cloud.client_options()) as client:
        cloud.faults.hold_acks(60)
        expiry = expired(
            lambda timeout: client.publish("x", 1, timeout=timeout), lambda error: error.sent
        )
        assert isinstance(expiry, AckTimeoutError)
        assert expiry.sent


# --- delay ---


def test_delaying_frames(cloud: LocalCloud) -> None:
    with raw(cloud, "a") as a, raw(cloud) as b:
        cloud.faults.delay(0.4)
        start = time.monotonic()
        for number in range(20):
            b.send(type="send", to="a", data=number)
        assert [a.receive()["data"] for _ in range(20)] == list(range(20))
        assert 0.35 < time.monotonic() - start < 5
        # Ended while some are on their way: those that follow do not overtake them.
        b.send(type="send", to="a", data=20)
        assert b.silent()
        cloud.faults.delay(0)
        b.send(type="send", to="a", data=21)
        assert [a.receive()["data"] for _ in range(2)] == [20, 21]

        def is_quick() -> bool:
            start = time.monotonic()
            assert a.silent()
            return time.monotonic() - start < 0.3

        wait_until(is_quick, 20, "nothing is delayed any more")
    with LocalCloud() as other:
        other.faults.delay(0.2)
        start = time.monotonic()
        with raw(other):  # the welcome is a frame, too
            assert time.monotonic() - start > 0.15


def test_delayed_frames_come_before_the_close(cloud: LocalCloud) -> None:
    with raw(cloud, "a") as a, raw(cloud, "b") as b:
        cloud.faults.delay(0.2)
        b.send(type="send", to="a", data=1)
        assert b.silent()
        cloud.faults.going_away(5)
        assert a.receive()["data"] == 1
        assert a.receive()["type"] == "going_away"
        assert closed_with(a) == closed_with(b) == 1001


def test_closing_the_cloud_waits_for_no_fault() -> None:
    with LocalCloud() as cloud, raw(cloud) as client:
        cloud.faults.hold_acks(60)
        cloud.faults.delay(60)
        client.send(type="publish", channel="x", data=1, requestId="1")
        client.send(type="ping")
        wait_until(lambda: not cloud._servers or cloud._servers.signalling.scheduler._late)
        start = time.monotonic()
        cloud.close()
        assert time.monotonic() - start < 10
        kinds = [client.receive()["type"] for _ in range(3)]
        assert sorted(kinds) == ["ack", "going_away", "pong"]
        assert closed_with(client) == 1001
