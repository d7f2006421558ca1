"""Check for the mistakes of other clients of this protocol, one test each."""

from __future__ import annotations

import dataclasses
import io
import json
import queue
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from metered_sync import (
    AckTimeoutError,
    ClosedError,
    Connected,
    Direct,
    Disconnected,
    DisconnectedError,
    Event,
    GoingAway,
    IceServer,
    Message,
    MeteredTimeoutError,
    NotConnectedError,
    Outage,
    Presence,
    PresencePeer,
    ReconnectOptions,
    ServerError,
    ServerRequestError,
    SignallingClient,
    SignallingConnectError,
    StateChange,
    TokenProviderError,
)
from metered_sync.wire.timings import DEFAULT_TIMINGS, Timings
from tests.conftest import wait_until
from tests.support.scripted_service import WELCOME, Scripted, ScriptedServer, mute, polite

FAST = ReconnectOptions(initial_delay=0.02, max_delay=0.1)
TIMINGS = dataclasses.replace(DEFAULT_TIMINGS, replay_retry=0.5, slow_floor=1.5)
QUIET = 0.5
"""Seconds in which what must not happen would have happened, many times over."""


def client(server: ScriptedServer, **options: Any) -> SignallingClient:
    if "token_provider" not in options:
        options["api_key"] = "pk_live_x"
    return SignallingClient(
        **{"url": server.url, "reconnect": FAST, "_timings": TIMINGS, **options}
    )


def refuse(code: str, kind: str, times: int = 1) -> Callable[[Scripted, dict[str, Any]], None]:
    """Answer so many frames of a type with an error, and politely otherwise."""
    left = [times]

    def answer(connection: Scripted, frame: dict[str, Any]) -> None:
        if frame["type"] == kind and left[0] > 0:
            left[0] -= 1
            connection.send(type="error", requestId=frame["requestId"], code=code)
        else:
            polite(connection, frame)

    return answer


def nothing_more(server: ScriptedServer) -> None:
    """Check that nobody connects for a while."""
    before, end = len(server.upgrades), time.monotonic() + QUIET
    while time.monotonic() < end:
        assert len(server.upgrades) == before
        time.sleep(0.01)


# --- the end --------------------------------------------------------------------------


def test_event_streams_end_after_a_terminal_close() -> None:
    with ScriptedServer() as server, client(server) as alice:
        inbox, events = alice.subscribe("c"), alice.events(Message, Disconnected)
        connection = server.accept()
        connection.send(type="message", channel="c", **{"from": "b", "data": 1})
        connection.close(4012, "suspended")
        assert [type(event) for event in _drained(events)] == [Message, Disconnected]
        assert [message.data for message in _drained(inbox)] == [1]
        for read in (events.get, inbox.get, events.get_nowait):
            with pytest.raises(DisconnectedError, match="4012"):
                read()


def _drained(reader: Any) -> list[Any]:
    """Read to the end, which must be the loss of the connection."""
    items = []
    with pytest.raises(DisconnectedError):
        for item in reader:
            items.append(item)
    return items


def test_the_end_is_told_once() -> None:
    with ScriptedServer() as server, client(server) as alice, alice.events(Event) as events:
        connection = server.accept()
        # A terminal code behind errors that mean the same, and a going_away.
        connection.send(type="error", code="account_suspended")
        connection.send(type="going_away", retryAfterMs=1)
        connection.close(4012, "suspended")
        seen = _drained(events)
        alice.close()
        assert [e for e in seen if isinstance(e, Disconnected)] == [
            Disconnected(4012, "suspended", will_reconnect=False)
        ]
        assert [e.to for e in seen if isinstance(e, StateChange)] == ["closed"]


@pytest.mark.parametrize("code", [4001, 4003, 4012, 4020])
def test_a_terminal_code_is_the_end_while_reconnecting_too(code: int) -> None:
    with (
        ScriptedServer(welcome=lambda number: None if number else WELCOME) as server,
        client(server) as alice,
        alice.events(Disconnected) as seen,
    ):
        server.accept().drop()
        server.accept().close(code, "no")
        assert [event.will_reconnect for event in _drained(seen)] == [True, False]
        assert alice.state == "closed"
        nothing_more(server)


def test_close_inside_a_disconnected_handler_stops_reconnecting() -> None:
    with ScriptedServer() as server, client(server) as alice:
        closed = threading.Event()

        @alice.on(Disconnected)
        def close(event: Disconnected) -> None:
            alice.close()
            closed.set()

        server.accept().drop()
        assert closed.wait(20)
        assert alice.state == "closed"
        nothing_more(server)


def test_closing_while_reconnecting_stops_it() -> None:
    with ScriptedServer(status=lambda number: 503 if number else None) as server:
        with client(server) as alice:
            server.accept().drop()
            wait_until(lambda: len(server.upgrades) > 2)
            assert alice.state == "reconnecting"
        nothing_more(server)


def test_codes_are_plain_numbers() -> None:
    # (Not those of the socket's library, which show as something else.)
    with ScriptedServer() as server, client(server) as alice, alice.events(Disconnected) as seen:
        server.accept().drop()
        server.accept().close(1001, "restart")
        assert [repr(seen.get(timeout=20).code) for _ in range(2)] == ["1006", "1001"]


def test_a_client_whose_subscribe_failed_gives_its_socket_back() -> None:
    with ScriptedServer(refuse("channel_not_authorized", "subscribe")) as server:
        alice = client(server)
        alice.connect()
        connection = server.accept()
        with pytest.raises(ServerRequestError):
            alice.subscribe("c")
        alice.close()
        assert connection.ended() == (1000, "client requested close")


# --- connecting -----------------------------------------------------------------------


def test_a_first_connection_that_fails_leaves_nothing_reconnecting() -> None:
    with ScriptedServer(welcome=lambda number: None) as server:
        alice = client(server)
        for code in (1011, 4010):
            errors: queue.Queue[SignallingConnectError] = queue.Queue()
            thread = threading.Thread(target=lambda errors=errors: errors.put(_refused(alice)))
            thread.start()
            server.accept().close(code, "no")
            thread.join()
            assert errors.get().close_code == code
            assert alice.state == "idle"
        nothing_more(server)
        alice.close()


def _refused(alice: SignallingClient) -> SignallingConnectError:
    with pytest.raises(SignallingConnectError) as caught:
        alice.connect()
    return caught.value


def test_a_server_without_a_welcome_is_left() -> None:
    with ScriptedServer(welcome=lambda number: None) as server:
        alice = client(server, _timings=dataclasses.replace(DEFAULT_TIMINGS, welcome=1.0))
        error = _refused(alice)
        assert (error.close_code, error.close_reason) == (1006, "no welcome")
        assert server.accept().ended() == (1000, "no welcome")
        # The caller's deadline, when it is earlier, leaves no socket behind either.
        with pytest.raises(MeteredTimeoutError):
            alice.connect(timeout=0.5)
        server.accept().ended()
        nothing_more(server)
        assert alice.state == "idle"


def test_a_late_welcome_is_no_connection() -> None:
    with ScriptedServer(welcome=lambda number: None) as server:
        alice = client(server)
        with pytest.raises(MeteredTimeoutError):
            alice.connect(timeout=0.5)
        connection = server.accept()
        try:
            connection.send(**WELCOME)
        except OSError:
            pass
        connection.ended()
        assert (alice.state, alice.peer_id) == ("idle", None)


def test_connecting_twice_at_once_makes_one_connection() -> None:
    with ScriptedServer() as server:
        alice = client(server)
        threads = [threading.Thread(target=alice.connect) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        alice.connect()
        assert alice.state == "connected"
        assert len(server.upgrades) == 1
        alice.close()


def test_a_connect_that_was_given_up_does_not_come_back_later() -> None:
    # The token arrives when its connect() is over and another one has succeeded.
    asked, release = threading.Semaphore(0), threading.Event()
    calls: list[int] = []

    def provide() -> str:
        calls.append(1)
        first = len(calls) == 1
        asked.release()
        if first:
            release.wait(10)
        return "h.p.late" if first else "h.p.timely"

    with ScriptedServer() as server:
        alice = client(server, token_provider=provide)
        with pytest.raises(MeteredTimeoutError):
            alice.connect(timeout=0.2)
        alice.connect()
        release.set()
        connection = server.accept()
        nothing_more(server)
        assert server.upgrades == ["/v1?token=h.p.timely"]
        alice.close()
        assert connection.ended()[0] == 1000


def test_closing_while_the_token_is_fetched_makes_no_connection() -> None:
    asked, release = threading.Event(), threading.Event()

    def provide() -> str:
        asked.set()
        release.wait(10)
        return "h.p.late"

    with ScriptedServer() as server:
        alice = client(server, token_provider=provide)
        errors: queue.Queue[BaseException] = queue.Queue()

        def connect() -> None:
            try:
                alice.connect()
            except BaseException as error:
                errors.put(error)

        thread = threading.Thread(target=connect)
        thread.start()
        assert asked.wait(20)
        alice.close()
        release.set()
        thread.join(20)
        assert isinstance(errors.get_nowait(), ClosedError)
        nothing_more(server)
        assert server.upgrades == []


def test_a_second_welcome_is_ignored() -> None:
    with ScriptedServer() as server, client(server) as alice, alice.events(Event) as events:
        connection = server.accept()
        connection.send(**{**WELCOME, "peerId": "another", "maxMessageSize": 1})
        alice.publish("c", "still the same")
        assert (alice.peer_id, alice.max_message_size) == ("me", 65536)
        assert len(events) == 0


def test_what_comes_with_the_welcome_in_one_read_is_not_lost() -> None:
    with ScriptedServer(welcome=lambda number: None) as server:
        alice = client(server)
        direct, presence = alice.events(Direct), alice.events(Presence)
        thread = threading.Thread(target=alice.connect)
        thread.start()
        connection = server.accept()
        connection.say(
            json.dumps(WELCOME),
            '{"type":"direct","from":"b","data":1}',
            '{"type":"presence","channel":"c","joined":[],"left":[]}',
        )
        thread.join()
        assert direct.get(timeout=20) == Direct("b", 1)
        assert presence.get(timeout=20) == Presence("c", (), ())
        alice.close()


# --- requests -------------------------------------------------------------------------


def test_a_code_that_is_unknown_ends_its_request() -> None:
    with (
        ScriptedServer(refuse("from_the_future", "publish")) as server,
        client(server, timeout=60) as alice,
    ):
        started = time.monotonic()
        with pytest.raises(ServerRequestError) as caught:
            alice.publish("c", 1)
        assert time.monotonic() - started < 10
        assert caught.value.code == "from_the_future"
        alice.publish("c", 1)


def test_what_is_in_flight_fails_at_once_when_the_connection_drops() -> None:
    with ScriptedServer(mute) as server, client(server, timeout=60) as alice:
        connection = server.accept()
        errors: queue.Queue[BaseException] = queue.Queue()

        def publish() -> None:
            try:
                alice.publish("c", 1)
            except BaseException as error:
                errors.put(error)

        thread = threading.Thread(target=publish)
        thread.start()
        connection.expect("publish")
        started = time.monotonic()
        connection.drop()
        assert isinstance(errors.get(timeout=20), DisconnectedError)
        assert time.monotonic() - started < 5
        thread.join()


def test_errors_that_belong_to_no_request_are_events() -> None:
    with ScriptedServer() as server, client(server) as alice, alice.events(ServerError) as errors:
        connection = server.accept()
        connection.send(type="error", code="unknown_type")  # an old server's answer to a ping
        connection.send(type="error", code="over_message_quota", message="used up")
        connection.send(type="error", code="new", requestId="nobody's")
        connection.send(type="ack", requestId="nobody's")
        assert errors.get(timeout=20) == ServerError("over_message_quota", "used up")
        assert errors.get(timeout=20) == ServerError("new", None, "nobody's")
        alice.publish("c", 1)


def test_acknowledgement_and_snapshot_in_one_read() -> None:
    snapshot = {"type": "presence", "channel": "c", "joined": [{"peerId": "b"}], "left": []}
    message = {"type": "message", "channel": "c", "from": "b", "data": 1}

    def answer(connection: Scripted, frame: dict[str, Any]) -> None:
        ack = {"type": "ack", "requestId": frame["requestId"]}
        connection.say(*(json.dumps(part) for part in (ack, snapshot, message)))

    with (
        ScriptedServer(answer) as server,
        client(server) as alice,
        alice.events(Presence) as presence,
    ):
        inbox = alice.subscribe("c")
        assert presence.get(timeout=20) == Presence("c", (PresencePeer("b"),), ())
        assert inbox.get(timeout=20) == Message("c", "b", 1)


def test_presence_is_passed_on_as_it_came() -> None:
    # Snapshot and deltas, in their order, this client itself included.
    def answer(connection: Scripted, frame: dict[str, Any]) -> None:
        polite(connection, frame)
        connection.send(
            type="presence",
            channel="c",
            joined=[{"peerId": "me"}, {"peerId": "b", "metadata": {"n": 1}}],
            left=[{"peerId": "c"}, {"peerId": "d", "metadata": None}],
        )

    with (
        ScriptedServer(answer) as server,
        client(server) as alice,
        alice.events(Presence) as presence,
    ):
        alice.subscribe("c")
        assert presence.get(timeout=20) == Presence("c", (), ())
        assert presence.get(timeout=20) == Presence(
            "c",
            (PresencePeer("me"), PresencePeer("b", {"n": 1})),
            (PresencePeer("c"), PresencePeer("d")),
        )


# --- who is in a channel --------------------------------------------------------------


def presence(joined: list[str], left: list[str] | None = None) -> str:
    entries = [[{"peerId": name} for name in names] for names in (joined, left or [])]
    frame = {"type": "presence", "channel": "c", "joined": entries[0], "left": entries[1]}
    return json.dumps(frame)


def listing(*lists: str) -> Callable[[Scripted, dict[str, Any]], None]:
    """Acknowledge, and answer the n-th subscription of all with the n-th text, in one read."""
    left = list(lists)

    def answer(connection: Scripted, frame: dict[str, Any]) -> None:
        ack = json.dumps({"type": "ack", "requestId": frame["requestId"]})
        rest = [left.pop(0)] if frame["type"] == "subscribe" else []
        connection.say(ack, *rest)

    return answer


def test_the_roster_begins_with_the_snapshot_and_follows_the_changes() -> None:
    first = presence(["a", "me", "b"], ["b"])
    with (
        ScriptedServer(listing(first)) as server,
        client(server) as alice,
        alice.events(Presence) as events,
    ):
        alice.subscribe("c")
        assert alice.roster("c", timeout=20) == {"a": None, "b": None}  # without oneself
        events.get(timeout=20)
        connection = server.accept()
        for change, expected in (
            (presence(["x"], ["a"]), {"b", "x"}),
            (presence(["x", "me"]), {"b", "x"}),
            (presence([], ["nobody"]), {"b", "x"}),
            (presence([], ["b", "x"]), set()),
        ):
            connection.say(change)
            events.get(timeout=20)
            assert alice.roster("c").keys() == expected


def test_the_roster_after_a_loss_is_the_new_snapshot() -> None:
    lists = [presence(["stays", "goes"]), presence(["stays", "new"], ["stays"])]
    with (
        ScriptedServer(listing(*lists)) as server,
        client(server) as alice,
        alice.events(Presence) as events,
    ):
        alice.subscribe("c")
        events.get(timeout=20)
        server.accept().drop()
        events.get(timeout=20)
        assert alice.roster("c") == {"stays": None, "new": None}


def test_the_roster_of_one_who_is_alone_is_known_to_be_empty() -> None:
    with ScriptedServer() as server, client(server) as alice:
        alice.subscribe("c")
        assert alice.roster("c", timeout=20) == {}


def test_the_roster_does_not_take_a_late_change_for_the_snapshot() -> None:
    # Left and subscribed to again, while a change of before is still on its way.
    def answer(connection: Scripted, frame: dict[str, Any]) -> None:
        if frame["type"] == "subscribe" and len(connection.frames) > 1:
            connection.say(presence(["before"]))
            connection.send(type="ack", requestId=frame["requestId"])
        else:
            polite(connection, frame)

    with ScriptedServer(answer) as server, client(server) as alice:
        alice.subscribe("c")
        alice.unsubscribe("c")
        alice.subscribe("c")
        assert alice.roster("c") == {}
        with pytest.raises(MeteredTimeoutError):
            alice.roster("c", timeout=0.1)
        server.accept().say(presence(["b"]))
        assert alice.roster("c", timeout=20) == {"b": None}


# --- frames that are none -------------------------------------------------------------

ODD = [
    "",
    "nonsense",
    "[]",
    "null",
    '"welcome"',
    "{}",
    '{"type":7}',
    '{"type":"from_the_future","requestId":"x"}',
    '{"type":"message","channel":"c","from":"b"}',
    '{"type":"message","channel":7,"from":"b","data":1}',
    '{"type":"message","channel":"c","data":1}',
    '{"type":"direct","data":1}',
    '{"type":"presence","channel":"c","joined":[]}',
    '{"type":"presence","channel":"c","left":[],"joined":[{}]}',
    '{"type":"presence","channel":"c","left":[],"joined":{}}',
    '{"type":"ack"}',
    '{"type":"ack","requestId":7}',
    '{"type":"error"}',
    '{"type":"error","code":""}',
    '{"type":"welcome"}',
    '{"type":"message","channel":"c","from":"b","data":NaN}',
    "[" * 50_000,
    b'{"type":"message","channel":"c","from":"b","data":1}',
    b"\x00\xff",
]


def test_odd_frames_are_logged_and_harm_nothing(log: io.StringIO) -> None:
    for start in range(0, len(ODD), 8):  # (of a flood the log tells now and then)
        log.seek(0)
        log.truncate()
        check_odd_frames(ODD[start : start + 8], log)


def check_odd_frames(odd: Sequence[str], log: io.StringIO) -> None:
    with (
        ScriptedServer() as server,
        client(server) as alice,
        alice.events(Message, Direct, Presence, Disconnected) as events,
    ):
        connection = server.accept()
        for frame in odd:
            connection.say(frame)
            connection.say('{"type":"message","channel":"c","from":"b","data":null}')
            assert events.get(timeout=20) == Message("c", "b", None)
            assert ": ignored a" in log.getvalue(), frame
            log.seek(0)
            log.truncate()
        connection.say(*odd)  # and all at once
        alice.publish("c", 1)
        assert len(events) == 0


def test_metadata_that_is_no_object_counts_as_absent() -> None:
    odd: Any
    for odd in ([{"urls": "stun:x"}], "text", 7, True, None):
        welcome = {**WELCOME, "metadata": odd}
        with (
            ScriptedServer(welcome=lambda number, welcome=welcome: welcome) as server,
            client(server) as alice,
            alice.events(Message, Direct, Presence) as events,
        ):
            assert alice.ice_servers is None
            connection = server.accept()
            sender = {"from": "b", "data": 1, "fromMetadata": odd}
            connection.send(type="message", channel="c", **sender)
            connection.send(type="direct", **sender)
            member = {"peerId": "b", "metadata": odd}
            connection.send(type="presence", channel="c", joined=[member], left=[member])
            assert [events.get(timeout=20) for _ in range(3)] == [
                Message("c", "b", 1),
                Direct("b", 1),
                Presence("c", (PresencePeer("b"),), (PresencePeer("b"),)),
            ]


def test_binary_frames_are_no_sign_of_life() -> None:
    ending = threading.Event()

    def murmur(connection: Scripted) -> None:
        while not ending.wait(0.02):
            try:
                connection.say(b'{"type":"pong"}')
            except OSError:
                return

    with ScriptedServer(mute) as server, client(server, inactivity_timeout=0.4) as alice:
        connection = server.accept()
        thread = threading.Thread(target=murmur, args=(connection,))
        thread.start()
        try:
            assert connection.ended()[0] == 4000
        finally:
            ending.set()
            thread.join()
        assert alice.state in ("reconnecting", "connected")


def test_a_frame_beyond_all_bounds_ends_the_connection_not_the_client() -> None:
    with ScriptedServer() as server, client(server) as alice, alice.events(Event) as events:
        connection = server.accept()
        huge = json.dumps({"type": "direct", "from": "b", "data": "x" * (1 << 20)})
        try:
            connection.say(huge)
        except OSError:
            pass
        assert connection.ended()[0] == 1009
        gone = events.get(timeout=20)
        assert isinstance(gone, Disconnected)
        assert gone.will_reconnect
        server.accept()
        wait_until(lambda: alice.state == "connected")


# --- subscriptions over a loss --------------------------------------------------------


def test_a_subscribe_that_failed_is_not_honoured_later() -> None:
    def answer(connection: Scripted, frame: dict[str, Any]) -> None:
        if frame.get("channel") == "refused":
            connection.send(type="error", requestId=frame["requestId"], code="backend_error")
        elif frame.get("channel") != "unanswered":
            polite(connection, frame)

    with ScriptedServer(answer) as server:
        alice = client(server)
        with pytest.raises(NotConnectedError):
            alice.subscribe("too early")
        alice.connect()
        with pytest.raises(ServerRequestError):
            alice.subscribe("refused")
        with pytest.raises(AckTimeoutError):
            alice.subscribe("unanswered", timeout=0.05)
        alice.subscribe("good")
        alice.subscribe("ended").close()
        alice.publish("mark", 1)
        server.accept().drop()
        second = server.accept()
        alice.publish("mark", 2)
        assert [(f["type"], f["channel"]) for f in second.frames] == [
            ("subscribe", "good"),
            ("publish", "mark"),
        ]
        alice.close()


def test_a_repeated_subscription_that_fails_is_tried_again() -> None:
    refused = refuse("backend_error", "subscribe", times=2)
    with (
        ScriptedServer(lambda c, f: refused(c, f) if c.number else polite(c, f)) as server,
        client(server) as alice,
    ):
        inbox = alice.subscribe("c", include_sender_metadata=True)
        server.accept().drop()
        second = server.accept()
        for _ in range(3):
            assert second.expect("subscribe")["includeSenderMetadata"] is True
        second.send(type="message", channel="c", **{"from": "b", "data": "still here"})
        assert inbox.get(timeout=20).data == "still here"


def test_a_repeated_subscription_that_is_not_answered_is_tried_again() -> None:
    def answer(connection: Scripted, frame: dict[str, Any]) -> None:
        repeats = sum(f["type"] == "subscribe" for f in connection.frames)
        if connection.number == 0 or repeats > 2:
            polite(connection, frame)

    with ScriptedServer(answer) as server, client(server) as alice:
        inbox = alice.subscribe("c")
        server.accept().drop()
        second = server.accept()
        ids = {second.expect("subscribe")["requestId"] for _ in range(3)}
        assert len(ids) == 3
        second.send(type="message", channel="c", **{"from": "b", "data": 1})
        assert inbox.get(timeout=20).data == 1


def test_a_subscription_whose_repeats_all_fail_says_so_to_its_reader() -> None:
    def answer(connection: Scripted, frame: dict[str, Any]) -> None:
        if connection.number == 0 or frame.get("channel") != "c":
            polite(connection, frame)
        else:
            connection.send(type="error", requestId=frame["requestId"], code="internal_error")

    timings = dataclasses.replace(TIMINGS, replay_retry=0.05)
    with ScriptedServer(answer) as server, client(server, _timings=timings) as alice:
        inbox = alice.subscribe("c")
        server.accept().drop()
        second = server.accept()
        for _ in range(4):
            second.expect("subscribe")
        with pytest.raises(AckTimeoutError, match="subscribe again"):
            inbox.get(timeout=20)
        alice.publish("the rest", "goes on")


def test_a_loss_while_subscriptions_are_repeated_loses_none() -> None:
    def answer(connection: Scripted, frame: dict[str, Any]) -> None:
        if connection.number not in (1, 2):
            polite(connection, frame)

    with ScriptedServer(answer) as server, client(server) as alice:
        inbox = alice.subscribe("c")
        for _ in range(3):
            server.accept().drop()
        fourth = server.accept()
        assert fourth.expect("subscribe")["channel"] == "c"
        fourth.send(type="message", channel="c", **{"from": "b", "data": 1})
        assert inbox.get(timeout=20).data == 1


def test_a_subscription_that_is_refused_for_good_says_so_to_its_reader() -> None:
    refused = refuse("channel_not_authorized", "subscribe")
    with (
        ScriptedServer(lambda c, f: refused(c, f) if c.number else polite(c, f)) as server,
        client(server) as alice,
    ):
        inbox, other = alice.subscribe("a"), alice.subscribe("b")
        server.accept().drop()
        with pytest.raises(ServerRequestError, match="channel_not_authorized"):
            inbox.get(timeout=20)
        second = server.accept()
        second.send(type="message", channel="b", **{"from": "x", "data": 1})
        assert other.get(timeout=20).data == 1
        second.drop()
        third = server.accept()
        alice.publish("mark", 1)
        assert [f["channel"] for f in third.frames] == ["b", "mark"]


def test_subscriptions_are_repeated_before_anything_that_waited() -> None:
    with (
        ScriptedServer(status=lambda number: 503 if 0 < number < 4 else None) as server,
        client(server) as alice,
        alice.events(Disconnected) as lost,
    ):
        for channel in ("a", "b"):
            alice.subscribe(channel)
        server.accept().drop()
        lost.get(timeout=20)
        threads = [
            threading.Thread(target=alice.publish, args=(channel, 1)) for channel in ("a", "x")
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        kinds = [frame["type"] for frame in server.accept().frames]
        assert kinds == ["subscribe", "subscribe", "publish", "publish"]


def test_unsubscribing_during_an_outage_is_not_undone_by_it() -> None:
    with (
        ScriptedServer(status=lambda number: 503 if 0 < number < 4 else None) as server,
        client(server) as alice,
        alice.events(Disconnected) as lost,
    ):
        alice.subscribe("kept")
        inbox = alice.subscribe("left")
        server.accept().drop()
        lost.get(timeout=20)
        inbox.close()
        alice.publish("mark", 1)
        subscribed = [f["channel"] for f in server.accept().frames if f["type"] == "subscribe"]
        assert subscribed == ["kept"]


# --- reconnecting ---------------------------------------------------------------------


def test_the_count_of_attempts_starts_again_with_each_welcome() -> None:
    twice = ReconnectOptions(initial_delay=0.01, multiplier=1, max_attempts=2)
    with (
        ScriptedServer(status=lambda number: 503 if number % 2 else None) as server,
        client(server, reconnect=twice) as alice,
    ):
        for _ in range(6):  # each time one attempt is refused, and one succeeds
            server.accept().drop()
        server.accept()
        wait_until(lambda: alice.state == "connected")
        assert len(server.upgrades) == 13


def test_going_away_says_when_to_come_back() -> None:
    with (
        ScriptedServer() as server,
        client(server) as alice,
        alice.events(GoingAway, Disconnected, Outage) as events,
    ):
        for delay, floor in ((600, 0.6), (0, 0.0)):
            connection = server.accept()
            connection.send(type="going_away", retryAfterMs=delay)
            assert events.get(timeout=20) == GoingAway(delay)
            connection.close(1001, "restart")
            assert events.get(timeout=20) == Disconnected(1001, "restart", True)
            outage = events.get(timeout=20)
            assert isinstance(outage, Outage)
            assert floor - 0.05 <= outage.duration < floor + 5


def test_going_away_without_a_sensible_time_means_a_second_and_never_ages() -> None:
    timings = dataclasses.replace(TIMINGS, going_away_max=5.0)
    with (
        ScriptedServer() as server,
        client(server, _timings=timings) as alice,
        alice.events(GoingAway) as events,
    ):
        connection = server.accept()
        for odd in ("", '"soon"', "-1", "null", "1e999", "1" + "0" * 400):
            rest = f',"retryAfterMs":{odd}' if odd else ""
            connection.say(f'{{"type":"going_away"{rest}}}')
            assert events.get(timeout=20) == GoingAway(1000)
        connection.send(type="going_away", retryAfterMs=10**12)
        assert events.get(timeout=20) == GoingAway(5000)


def test_over_the_limit_comes_back_slowly() -> None:
    with ScriptedServer() as server, client(server) as alice, alice.events(Outage) as outages:
        server.accept().close(4010, "over the limit")
        assert 1.45 <= outages.get(timeout=20).duration < 5
        for _ in range(10):  # (this machine may be busy for a while)
            server.accept().close(1001, "restart")
            duration = outages.get(timeout=20).duration
            if duration < 1.45:
                break
        assert duration < 1.45


def test_over_the_limit_while_reconnecting_is_slow_too() -> None:
    with (
        ScriptedServer(welcome=lambda number: None if number == 1 else WELCOME) as server,
        client(server) as alice,
        alice.events(Outage) as outages,
    ):
        server.accept().drop()
        server.accept().close(4010, "over the limit")
        assert outages.get(timeout=20).duration >= 1.45


def test_a_refused_upgrade_while_reconnecting_asks_for_another_token() -> None:
    tokens = (f"h.p.{number}" for number in range(100))
    with (
        ScriptedServer(status=lambda number: 401 if 0 < number < 3 else None) as server,
        client(server, token_provider=lambda: next(tokens)) as alice,
    ):
        server.accept().drop()
        server.accept()
        assert server.upgrades == [f"/v1?token=h.p.{number}" for number in range(4)]
        wait_until(lambda: alice.state == "connected")


@pytest.mark.parametrize("options", [{"api_key": "pk_live_x"}, {"token_provider": "h.p.s"}])
def test_a_refused_upgrade_ends_a_client_that_has_no_other_key(options: dict[str, Any]) -> None:
    with (
        ScriptedServer(status=lambda number: 401 if number else None) as server,
        client(server, **options) as alice,
    ):
        inbox = alice.subscribe("c")
        server.accept().drop()
        with pytest.raises(DisconnectedError, match="refuses the key or token"):
            inbox.get(timeout=20)
        assert len(server.upgrades) == 2


def test_a_token_provider_that_keeps_failing_is_told_and_tried_again() -> None:
    calls: list[int] = []

    def provide() -> str:
        calls.append(1)
        if 1 < len(calls) < 6:
            raise RuntimeError("no database")
        return "h.p.s"

    with (
        ScriptedServer() as server,
        client(server, token_provider=provide) as alice,
        alice.events(TokenProviderError, Outage) as events,
    ):
        server.accept().drop()
        for failures in (3, 4):
            told = events.get(timeout=20)
            assert isinstance(told, TokenProviderError)
            assert told.consecutive_failures == failures
            assert "no database" in str(told.err)
        assert isinstance(events.get(timeout=20), Outage)
        server.accept()


def test_ice_servers_stay_when_a_reconnect_leaves_them_out() -> None:
    lists: list[Any] = [[{"urls": "stun:one"}], None, [], [{"urls": "http://wrong"}]]

    def welcome(number: int) -> dict[str, Any]:
        servers = lists[number]
        return WELCOME if servers is None else {**WELCOME, "metadata": {"iceServers": servers}}

    one = (IceServer(("stun:one",)),)
    with ScriptedServer(welcome=welcome) as server, client(server) as alice:
        assert alice.ice_servers == one
        with alice.events(Connected) as connected:
            for expected in (one, (), ()):  # left out; none on purpose; a list that is no good
                server.accept().drop()
                assert connected.get(timeout=20).ice_servers == expected
                assert alice.ice_servers == expected


def test_what_the_welcome_says_is_refreshed() -> None:
    def welcome(number: int) -> dict[str, Any]:
        return {**WELCOME, "peerId": f"me-{number}", "maxMessageSize": 100 + number}

    with ScriptedServer(welcome=welcome) as server, client(server) as alice:
        with alice.events(Connected) as connected:
            server.accept().drop()
            event = connected.get(timeout=20)
        assert (event.peer_id, event.max_message_size, event.is_reconnect) == ("me-1", 101, True)
        assert (alice.peer_id, alice.max_message_size) == ("me-1", 101)


def test_documented_intervals() -> None:
    assert (
        Timings.welcome,
        Timings.replay_retry,
        Timings.slow_floor,
        Timings.going_away_default,
        Timings.going_away_max,
        Timings.ping_floor,
    ) == (10.0, 2.0, 30.0, 1.0, 300.0, 1.0)
    assert Timings.ping_fraction == pytest.approx(1 / 3)


def test_a_channel_that_is_left_while_it_is_subscribed_to_is_left() -> None:
    with ScriptedServer(mute) as server, client(server) as alice:
        connection = server.accept()
        inboxes: list[Any] = []
        asking = threading.Thread(target=lambda: inboxes.append(alice.subscribe("c")))
        asking.start()
        first = connection.expect("subscribe")
        leaving = threading.Thread(target=lambda: alice.unsubscribe("c"))
        leaving.start()
        polite(connection, connection.expect("unsubscribe"))
        leaving.join(20)
        connection.drop()  # the subscription was not acknowledged: it is asked for again
        connection = server.accept()
        again = connection.expect("subscribe")
        assert again["channel"] == first["channel"] == "c"
        server.answer = polite
        polite(connection, again)
        assert connection.expect("unsubscribe")["channel"] == "c"
        asking.join(20)
        assert inboxes[0].ended


def test_a_channel_that_is_left_while_it_is_repeated_is_not_repeated_again() -> None:
    with ScriptedServer() as server, client(server) as alice:
        inbox = alice.subscribe("c")
        server.answer = lambda s, frame: None if frame["type"] == "subscribe" else polite(s, frame)
        with alice.events(Outage, ServerError) as events:
            server.accept().drop()
            connection = server.accept()
            connection.expect("subscribe")
            inbox.close()
            assert isinstance(events.get(timeout=20), Outage)
            kinds = [frame["type"] for frame in connection.frames]
            assert kinds.count("subscribe") == 1


@pytest.mark.parametrize("last", [b"\x88\x02\x03\xf4", b"\xf1\x01x"], ids=["close", "nonsense"])
def test_a_server_that_ends_the_connection_but_not_tcp_is_left(last: bytes) -> None:
    timings = dataclasses.replace(TIMINGS, close=0.3)
    with (
        ScriptedServer() as server,
        client(server, _timings=timings) as alice,
        alice.events(Disconnected, Outage) as events,
    ):
        connection = server.accept().connection
        with connection.protocol_mutex:  # it reads no more, and so does not end TCP
            connection.socket.sendall(last)
            assert isinstance(events.get(timeout=20), Disconnected)
            assert isinstance(events.get(timeout=20), Outage)
        alice.publish("c", 1)
