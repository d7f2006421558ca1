from __future__ import annotations

import contextlib
import dataclasses
import gc
import io
import math
import queue
import socket
import ssl
import threading
import time
import warnings
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import trustme

from metered_sync import (
    AckTimeoutError,
    ClosedError,
    Connected,
    Direct,
    Disconnected,
    DisconnectedError,
    Event,
    Message,
    MeteredError,
    MeteredPeer,
    MeteredTimeoutError,
    NotConnectedError,
    Outage,
    OversizedPayloadError,
    Presence,
    ReconnectOptions,
    ServerError,
    ServerRequestError,
    SignallingClient,
    SignallingConnectError,
    StateChange,
    Subscription,
)
from metered_sync.local import LocalCloud
from metered_sync.wire.timings import DEFAULT_TIMINGS
from tests.conftest import wait_until
from tests.support.outage import outage
from tests.support.scripted_service import Scripted, ScriptedServer, mute, polite

FAST = ReconnectOptions(initial_delay=0.05, max_delay=0.2)


def client(cloud: LocalCloud, **options: Any) -> SignallingClient:
    return SignallingClient(**{**cloud.client_options(), "reconnect": FAST, **options})


def peer(cloud: LocalCloud, peer_id: str, **claims: Any) -> SignallingClient:
    return SignallingClient(**cloud.token_options(peer_id, **claims), reconnect=FAST)


# --- messages -------------------------------------------------------------------------


def test_publish_reaches_subscribers_but_not_the_publisher(shared_cloud: LocalCloud) -> None:
    with client(shared_cloud) as alice, client(shared_cloud) as bob:
        theirs, mine = alice.subscribe("room"), bob.subscribe("room")
        assert bob.publish("room", {"hello": ["wörld", None, 1.5]}) is None
        message = theirs.get(timeout=20)
        assert message == Message("room", str(bob.peer_id), {"hello": ["wörld", None, 1.5]})
        alice.publish("room", None)
        assert mine.get(timeout=20).data is None
        assert len(mine) == 0


def test_messages_arrive_in_order(shared_cloud: LocalCloud) -> None:
    with client(shared_cloud) as alice, client(shared_cloud, rate_limit=None) as bob:
        inbox = alice.subscribe("order")
        for number in range(500):
            bob.publish("order", number)
        assert [inbox.get(timeout=20).data for _ in range(500)] == list(range(500))


def test_send_reaches_one_peer(shared_cloud: LocalCloud) -> None:
    with client(shared_cloud) as alice, peer(shared_cloud, "bob", peer_metadata={"n": 1}) as bob:
        with bob.events(Direct) as inbox:
            alice.send("bob", "psst")
            assert inbox.get(timeout=20) == Direct(str(alice.peer_id), "psst")
        with alice.events(Direct) as inbox:
            bob.send(str(alice.peer_id), 7)
            assert inbox.get(timeout=20) == Direct("bob", 7, {"n": 1})
        with pytest.raises(ServerRequestError) as caught:
            alice.send("nobody", 1)
        assert caught.value.code == "peer_not_found"


def test_sender_metadata_is_there_for_those_who_ask(shared_cloud: LocalCloud) -> None:
    with (
        client(shared_cloud) as plain,
        client(shared_cloud) as curious,
        peer(shared_cloud, "eve", peer_metadata={"role": "host"}) as eve,
    ):
        without = plain.subscribe("meta")
        with_ = curious.subscribe("meta", include_sender_metadata=True)
        eve.publish("meta", 1)
        assert without.get(timeout=20).sender_metadata is None
        assert with_.get(timeout=20).sender_metadata == {"role": "host"}
        # A later reader that asks turns it on for the channel.
        plain.subscribe("meta", include_sender_metadata=True)
        eve.publish("meta", 2)
        assert without.get(timeout=20).sender_metadata == {"role": "host"}


def test_readers_of_one_channel_are_independent(shared_cloud: LocalCloud) -> None:
    with client(shared_cloud) as alice, client(shared_cloud) as bob:
        first, second = alice.subscribe("twice"), alice.subscribe("twice")
        bob.publish("twice", 1)
        assert first.get(timeout=20).data == second.get(timeout=20).data == 1
        first.close()
        bob.publish("twice", 2)
        assert second.get(timeout=20).data == 2
        with pytest.raises(ClosedError):
            first.get(timeout=20)


def test_closing_the_last_reader_unsubscribes(shared_cloud: LocalCloud) -> None:
    with client(shared_cloud) as alice, peer(shared_cloud, "watcher") as watcher:
        presence = watcher.events(Presence)
        watcher.subscribe("leave")
        assert presence.get(timeout=20) == Presence("leave", (), ())
        first, second = alice.subscribe("leave"), alice.subscribe("leave")
        assert [p.peer_id for p in presence.get(timeout=20).joined] == [alice.peer_id]
        first.close()
        second.close()
        assert [p.peer_id for p in presence.get(timeout=20).left] == [alice.peer_id]
        alice.subscribe("leave")
        assert presence.get(timeout=20).joined
        alice.unsubscribe("leave")
        assert presence.get(timeout=20).left
        alice.unsubscribe("leave")  # again: nothing to do


def test_threads_that_come_and_go_leave_what_they_want(shared_cloud: LocalCloud) -> None:
    """All on one channel: what the server believes at the end is what the last ones did."""
    channel = "to and fro"
    with (
        client(shared_cloud, rate_limit=None) as alice,
        client(shared_cloud) as bob,
        bob.subscribe(channel),
    ):
        kept: list[Subscription] = []

        def come_and_go(stay: bool) -> None:
            for _ in range(30):
                alice.subscribe(channel, timeout=20).close()
            if stay:
                kept.append(alice.subscribe(channel, timeout=20))

        for stay in (True, False):
            threads = [threading.Thread(target=come_and_go, args=(stay,)) for _ in range(4)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(60)
            wait_until(lambda stay=stay: (alice.peer_id in bob.roster(channel)) is stay)
            bob.publish(channel, stay)
            assert [reader.get(timeout=20).data for reader in kept] == [True] * len(kept)
            while kept:
                kept.pop().close()


def test_subscription_ends_its_iteration_when_the_client_closes(shared_cloud: LocalCloud) -> None:
    with client(shared_cloud) as alice, client(shared_cloud) as bob:
        inbox = alice.subscribe("iter")
        for number in range(3):
            bob.publish("iter", number)
        wait_until(lambda: len(inbox) == 3)
        alice.close()
        assert [message.data for message in inbox] == [0, 1, 2]
        with pytest.raises(ClosedError):
            inbox.get()
        with pytest.raises(ClosedError):
            inbox.get_nowait()


def test_a_full_reader_drops_and_counts(shared_cloud: LocalCloud) -> None:
    with client(shared_cloud) as alice, client(shared_cloud) as bob:
        oldest = alice.subscribe("full", maxsize=2)
        newest = alice.subscribe("full", maxsize=2, overflow="drop_newest")
        for number in range(5):
            bob.publish("full", number)
        wait_until(lambda: oldest.dropped == newest.dropped == 3)
        assert [oldest.get().data, oldest.get().data] == [3, 4]
        assert [newest.get().data, newest.get().data] == [0, 1]
        with pytest.raises(queue.Empty):
            oldest.get_nowait()


# --- errors of calls ------------------------------------------------------------------


def test_before_connecting_every_call_says_so(shared_cloud: LocalCloud) -> None:
    alice = client(shared_cloud)
    assert (alice.state, alice.peer_id) == ("idle", None)
    for call in (
        lambda: alice.publish("c", 1),
        lambda: alice.send("p", 1),
        lambda: alice.subscribe("c"),
        lambda: alice.unsubscribe("c"),
    ):
        with pytest.raises(NotConnectedError, match="connect"):
            call()


def test_after_closing_every_call_says_so(shared_cloud: LocalCloud) -> None:
    alice = client(shared_cloud)
    alice.connect()
    assert alice.state == "connected"
    alice.close()
    alice.close()
    assert alice.state == "closed"
    for call in (
        alice.connect,
        lambda: alice.publish("c", 1),
        lambda: alice.subscribe("c"),
        lambda: alice.on(Message, print),
        lambda: alice.wait_for(Message, timeout=20),
        lambda: alice.events(Message).get(timeout=20),
        lambda: alice.roster("c"),
    ):
        with pytest.raises(ClosedError):
            call()
    never = client(shared_cloud)
    never.close()
    with pytest.raises(ClosedError):
        never.connect()


def test_bad_arguments_are_told_at_the_call(shared_cloud: LocalCloud) -> None:
    with client(shared_cloud) as alice:
        for call, kind in (
            (lambda: alice.publish("", 1), ValueError),
            (lambda: alice.publish("_metered/x", 1), ValueError),
            (lambda: alice.publish(7, 1), TypeError),
            (lambda: alice.publish("c", math.nan), ValueError),
            (lambda: alice.publish("c", b"x"), TypeError),
            (lambda: alice.publish("c", 1, timeout=-1), ValueError),
            (lambda: alice.publish("c", 1, timeout=math.nan), ValueError),
            (lambda: alice.publish("c", 1, timeout=True), ValueError),
            (lambda: alice.publish("c", 1, during_outage="maybe"), ValueError),
            (lambda: alice.send("é", 1), ValueError),
            (lambda: alice.subscribe("c", maxsize=0), ValueError),
            (lambda: alice.subscribe("c", overflow="drop"), ValueError),
            (lambda: alice.on(int, print), TypeError),
            (lambda: alice.on(Message, 7), TypeError),
            (lambda: alice.events(str), TypeError),
        ):
            with pytest.raises(kind):
                call()
        alice.publish("c", 1)  # and none of it harmed the connection


def test_a_frame_too_large_is_measured_whole_and_in_bytes(shared_cloud: LocalCloud) -> None:
    with client(shared_cloud) as alice, client(shared_cloud) as bob:
        inbox = alice.subscribe("big")
        with pytest.raises(OversizedPayloadError) as caught:
            bob.publish("big", "é" * 32_760)
        assert caught.value.cap == 65536 < caught.value.size
        room = 65536 - (caught.value.size - 2 * 32_760)
        bob.publish("big", "é" * (room // 2))  # fits to the last byte
        assert len(inbox.get(timeout=20).data) == room // 2


def test_permissions_and_patterns_are_told_by_code(shared_cloud: LocalCloud) -> None:
    claims = {"channels": ["mine/*"], "permissions": ["publish"]}
    with peer(shared_cloud, "limited", **claims) as limited:
        limited.publish("mine/a", 1)
        for call, code, words in (
            (lambda: limited.publish("yours/a", 1), "channel_not_authorized", "do not cover"),
            (lambda: limited.publish("mine/a/b", 1), "channel_not_authorized", "do not cover"),
            (lambda: limited.subscribe("mine/a"), "action_not_permitted", "Subscribe permission"),
            (lambda: limited.send("x", 1), "action_not_permitted", "Send permission"),
        ):
            with pytest.raises(ServerRequestError, match=words) as caught:
                call()
            assert caught.value.code == code
            assert ("Send" in str(caught.value)) == (words == "Send permission")
        assert limited.state == "connected"
    with peer(shared_cloud, "silent", permissions=["subscribe", "send"]) as silent:
        with pytest.raises(ServerRequestError, match="needs the Publish permission"):
            silent.publish("mine/a", 1)
        with pytest.raises(ServerRequestError, match="needs the Publish permission"):
            silent.publish_nowait("mine/a", 1).result(timeout=10)
    deaf = shared_cloud.token_options("deaf", permissions=["send"])
    with (
        MeteredPeer(**deaf) as room,
        pytest.raises(ServerRequestError, match="needs the Subscribe permission"),
    ):
        room.join("mine/a")


def test_only_subscriptions_take_patterns(shared_cloud: LocalCloud) -> None:
    with (
        client(shared_cloud) as alice,
        shared_cloud.control_plane() as control,
        MeteredPeer(**shared_cloud.client_options()) as room,
    ):
        for call in (
            lambda: alice.publish("room/*", 1),
            lambda: alice.publish_nowait("**", 1),
            lambda: control.publish("room/*", 1),
            lambda: control.peers("room/*"),
            lambda: room.join("room/*"),
        ):
            with pytest.raises(ValueError, match=r"is a pattern of channels; only subscribe\(\)"):
                call()
        alice.subscribe("room/*")
        assert alice.roster("room/*") == {}
        alice.unsubscribe("room/*")


def test_after_the_end_every_call_says_to_make_a_new_one(shared_cloud: LocalCloud) -> None:
    alice, idle = client(shared_cloud), client(shared_cloud)
    alice.connect()
    alice.close()
    idle.close()
    calls: list[Callable[[SignallingClient], object]] = [
        lambda it: it.publish("c", 1),
        lambda it: it.publish_nowait("c", 1),
        lambda it: it.send("p", 1),
        lambda it: it.send_nowait("p", 1),
        lambda it: it.subscribe("c"),
        lambda it: it.unsubscribe("c"),
        lambda it: it.roster("c"),
        lambda it: it.flush(),
        lambda it: it.connect(),
    ]
    for one in (alice, idle):
        for call in calls:
            with pytest.raises(ClosedError, match="is closed; make a new one"):
                call(one)


def test_a_timeout_of_zero_polls(shared_cloud: LocalCloud) -> None:
    with client(shared_cloud) as alice:
        inbox = alice.subscribe("poll")
        started = time.monotonic()
        with pytest.raises(MeteredTimeoutError):
            inbox.get(timeout=0)
        with pytest.raises(TimeoutError):
            alice.wait_for(Message, timeout=0)
        with pytest.raises(AckTimeoutError):
            alice.publish("poll", 1, timeout=0)
        assert time.monotonic() - started < 5
        alice.publish("poll", 1)  # a forgotten request does no harm


# --- connecting -----------------------------------------------------------------------


def test_a_client_checks_what_it_is_made_with() -> None:
    for bad in ({"timeout": -1}, {"reconnect": 3}, {"url": "ws://example.com"}):
        with pytest.raises((TypeError, ValueError)):
            SignallingClient(api_key="pk_live_x", **bad)


def test_the_environment_says_where_to_connect(
    shared_cloud: LocalCloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("METERED_KEY", shared_cloud.publishable_key)
    monkeypatch.setenv("METERED_URL", shared_cloud.url)
    with SignallingClient() as alice:
        assert alice.state == "connected"
    monkeypatch.delenv("METERED_KEY")
    with SignallingClient(api_key=shared_cloud.publishable_key) as alice:
        assert alice.state == "connected"
    options = shared_cloud.token_options("ann")
    with SignallingClient(token_provider=options["token_provider"]) as ann:
        assert ann.peer_id == "ann"
    with MeteredPeer(token_provider=options["token_provider"]()) as ann:
        ann.join("room")


def test_connect_tells_what_the_welcome_said(shared_cloud: LocalCloud) -> None:
    with peer(
        shared_cloud, "sensor-7", ttl=100, metadata={"iceServers": [{"urls": "stun:x"}]}
    ) as it:
        assert it.peer_id == "sensor-7"
        assert it.max_message_size == 65536
        assert it.expires_at is not None
        assert 0 < it.expires_at - time.time() < 101
        assert it.ice_servers is not None
        assert it.ice_servers[0].urls == ("stun:x",)
        it.connect()  # again: nothing to do


def test_the_welcome_s_metadata_comes_with_the_event_but_no_credential(
    shared_cloud: LocalCloud,
) -> None:
    turn = {"urls": "turn:x", "username": "user", "credential": "hush"}
    for metadata, told in (
        ({"plan": "gold", "iceServers": [turn]}, {"plan": "gold"}),
        ({"plan": {"name": "gold"}}, {"plan": {"name": "gold"}}),
    ):
        options = shared_cloud.token_options("sensor-8", metadata=metadata)
        client = SignallingClient(**options)
        with client.events(Connected) as connected, client:
            event = connected.get(timeout=20)
        assert event.metadata == told
        assert "hush" not in repr(event)


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ({"api_key": "pk_live_unknown"}, 4001),
        ({"token_provider": "gar.ba.ge"}, 401),
        ({"api_key": "pk_live_x", "url": "ws://127.0.0.1:9"}, 1006),
    ],
)
def test_a_refused_connection_says_why(
    shared_cloud: LocalCloud, options: dict[str, Any], code: int
) -> None:
    alice = SignallingClient(**{"url": shared_cloud.url, **options})
    started = time.monotonic()
    with pytest.raises(SignallingConnectError) as caught:
        alice.connect()
    assert caught.value.close_code == code
    assert "check" in str(caught.value)
    assert "gar.ba" not in str(caught.value)
    assert "unknown" not in str(caught.value)
    assert time.monotonic() - started < 5
    assert alice.state == "idle"
    alice.close()


def test_a_server_that_is_not_a_messaging_service(shared_cloud: LocalCloud) -> None:
    from http.server import BaseHTTPRequestHandler, HTTPServer

    class NotFound(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self.send_error(404)

        def log_message(self, *args: Any) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), NotFound)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        with pytest.raises(SignallingConnectError, match="404"):
            SignallingClient(
                api_key="pk_live_x", url=f"ws://127.0.0.1:{server.server_port}"
            ).connect()
    finally:
        server.shutdown()
        server.server_close()


def test_an_expired_and_a_forged_token(shared_cloud: LocalCloud) -> None:
    import jwt

    for secret, expiry, code in (
        (shared_cloud.key_secret, time.time() - 10, 4002),
        ("x" * 40, time.time() + 100, 4001),
    ):
        token = jwt.encode(
            {"sub": "a", "exp": int(expiry)},
            secret,
            algorithm="HS256",
            headers={"kid": shared_cloud.key_id},
        )
        with pytest.raises(SignallingConnectError) as caught:
            SignallingClient(token_provider=token, url=shared_cloud.url).connect()
        assert caught.value.close_code == code


def test_a_token_provider_that_fails(shared_cloud: LocalCloud) -> None:
    def broken() -> str:
        raise RuntimeError("no database")

    release = threading.Event()

    def slow() -> str:
        release.wait(20)
        return "late"

    def wrong() -> Any:
        return None

    def quits() -> str:
        raise SystemExit(3)

    for provider, words in ((broken, "no database"), (slow, "too long"), (wrong, "NoneType"),
                            (quits, "SystemExit")):  # fmt: skip
        with pytest.raises(SignallingConnectError, match=words):
            SignallingClient(
                token_provider=provider, url=shared_cloud.url, token_provider_timeout=0.3
            ).connect()
    release.set()
    assert threading.active_count() < 50


# --- events ---------------------------------------------------------------------------


def test_presence_snapshot_comes_first_then_deltas(shared_cloud: LocalCloud) -> None:
    with peer(shared_cloud, "a", peer_metadata={"x": 1}) as a, peer(shared_cloud, "b") as b:
        a.subscribe("who")
        with b.events(Presence) as seen_by_b, a.events(Presence) as seen_by_a:
            b.subscribe("who")
            (snapshot,) = seen_by_b.get(timeout=20).joined
            assert (snapshot.peer_id, snapshot.metadata) == ("a", {"x": 1})
            (joined,) = seen_by_a.get(timeout=20).joined
            assert (joined.peer_id, joined.metadata) == ("b", None)
            b.close()
            (left,) = seen_by_a.get(timeout=20).left
            assert left.peer_id == "b"


def test_states_are_told_in_order(shared_cloud: LocalCloud) -> None:
    alice = client(shared_cloud)
    events = alice.events(StateChange, Connected, Disconnected)
    with alice:
        pass
    seen = list(events)
    assert [type(e).__name__ for e in seen] == [
        "StateChange",
        "StateChange",
        "Connected",
        "Disconnected",
        "StateChange",
    ]
    assert [e.to for e in seen if isinstance(e, StateChange)] == [
        "connecting",
        "connected",
        "closed",
    ]
    assert seen[3] == Disconnected(1000, "client requested close", False)


def test_callbacks_see_events_in_order_and_may_publish(shared_cloud: LocalCloud) -> None:
    with client(shared_cloud) as alice, client(shared_cloud) as bob:
        echoes = bob.subscribe("echo")
        alice.subscribe("call")

        @alice.on(Message)
        def answer(message: Message) -> None:
            alice.publish("echo", message.data)

        for number in range(50):
            bob.publish("call", number)
        assert [echoes.get(timeout=20).data for _ in range(50)] == list(range(50))
        alice.off(Message, answer)
        bob.publish("call", "unheard")
        with pytest.raises(MeteredTimeoutError):
            echoes.get(timeout=0.1)


def test_once_and_every_event(shared_cloud: LocalCloud) -> None:
    with client(shared_cloud) as alice, client(shared_cloud) as bob:
        once: list[object] = []
        everything: queue.Queue[Event] = queue.Queue()
        alice.once(Message, once.append)
        alice.on(Event, everything.put)
        alice.subscribe("once")
        bob.publish("once", 1)
        bob.publish("once", 2)
        while getattr(everything.get(timeout=20), "data", None) != 2:
            pass
        assert [m.data for m in once] == [1]


def test_wait_for_takes_a_condition(shared_cloud: LocalCloud) -> None:
    with client(shared_cloud) as alice, client(shared_cloud) as bob:
        alice.subscribe("wait")
        ready = threading.Event()

        def publish() -> None:
            ready.wait(5)
            while not done.is_set():
                for number in range(3):
                    bob.publish("wait", number)

        done = threading.Event()
        thread = threading.Thread(target=publish)
        thread.start()
        ready.set()
        try:
            message = alice.wait_for(Message, where=lambda m: m.data == 2, timeout=20)
        finally:
            done.set()
            thread.join()
        assert message.data == 2


# --- losing the connection ------------------------------------------------------------


def test_a_lost_connection_comes_back_with_its_subscriptions(cloud: LocalCloud) -> None:
    with client(cloud) as alice, client(cloud) as bob:
        inbox = alice.subscribe("back")
        with alice.events(Disconnected, Outage) as seen:
            cloud.faults.drop_connections(alice.peer_id)
            gone = seen.get(timeout=20)
            assert isinstance(gone, Disconnected)
            assert (gone.code, gone.will_reconnect) == (1006, True)
            outage = seen.get(timeout=20)
            assert isinstance(outage, Outage)
            assert 0 < outage.duration < 20
        assert alice.state == "connected"

        def arrived() -> bool:
            bob.publish("back", "again")
            return len(inbox) > 0

        wait_until(arrived)
        assert inbox.get().data == "again"


def test_a_publish_rides_through_an_outage(cloud: LocalCloud) -> None:
    with client(cloud) as alice, client(cloud) as bob:
        inbox = bob.subscribe("ride")
        link: Any = alice._link
        with outage(cloud, alice, peer_id=alice.peer_id):
            with pytest.raises(NotConnectedError):
                alice.publish("ride", 0, during_outage="fail")
            publishing = threading.Thread(target=alice.publish, args=("ride", 1))
            publishing.start()
            wait_until(lambda: link.outbox._queue, what="it waits")
        publishing.join(20)
        assert inbox.get(timeout=20).data == 1


@pytest.mark.parametrize("code", [4001, 4003, 4012, 4020])
def test_terminal_codes_end_everything_with_their_reason(cloud: LocalCloud, code: int) -> None:
    with client(cloud) as alice:
        inbox, events = alice.subscribe("end"), alice.events(Message)
        cloud.faults.close(code)
        for call in (
            lambda: inbox.get(timeout=20),
            lambda: events.get(timeout=20),
            lambda: alice.publish("end", 1),
            lambda: alice.publish_nowait("end", 1),
            lambda: alice.flush(),
            lambda: alice.subscribe("other"),
            lambda: alice.roster("end"),
            lambda: alice.on(Message, print),
            lambda: alice.wait_for(Message, timeout=20),
            lambda: alice.connect(),
        ):
            with pytest.raises(DisconnectedError) as caught:
                call()
            assert (caught.value.code, caught.value.reason) == (code, "closed on request")
        assert alice.state == "closed"


def test_without_reconnect_a_loss_is_the_end(cloud: LocalCloud) -> None:
    with client(cloud, reconnect=False) as alice:
        inbox = alice.subscribe("end")
        cloud.faults.drop_connections()
        with pytest.raises(DisconnectedError):
            inbox.get(timeout=20)


def test_the_budget_of_attempts_is_kept(cloud: LocalCloud) -> None:
    options = ReconnectOptions(initial_delay=0.01, max_delay=0.01, max_attempts=2)
    with client(cloud, reconnect=options) as alice:
        inbox = alice.subscribe("end")
        cloud.close()
        with pytest.raises(DisconnectedError, match="2 attempts"):
            inbox.get(timeout=20)


def test_an_attempt_that_hangs_counts_as_one(cloud: LocalCloud) -> None:
    options = ReconnectOptions(initial_delay=0.01, max_delay=0.01, max_attempts=2)
    timings = dataclasses.replace(DEFAULT_TIMINGS, open=0.2)
    with client(cloud, reconnect=options, _timings=timings) as alice:
        inbox, port = alice.subscribe("end"), cloud.port
        cloud.close()
        with (
            socket.create_server(("127.0.0.1", port)),  # accepts, and never answers
            pytest.raises(DisconnectedError, match="2 attempts"),
        ):
            inbox.get(timeout=20)


def test_without_auto_resubscribe_subscribing_again_asks_again(cloud: LocalCloud) -> None:
    with client(cloud, auto_resubscribe=False) as alice, client(cloud) as bob:
        before = alice.subscribe("again")
        with alice.events(Outage) as outages:
            cloud.faults.drop_connections(alice.peer_id)
            outages.get(timeout=20)
        bob.publish("again", "unheard")
        after = alice.subscribe("again")
        bob.publish("again", "heard")
        assert [r.get(timeout=20).data for r in (before, after)] == ["heard", "heard"]


def test_a_reader_that_is_forgotten_leaves_the_channel_to_callbacks(
    shared_cloud: LocalCloud,
) -> None:
    with client(shared_cloud) as alice, client(shared_cloud) as bob:
        seen: queue.Queue[Any] = queue.Queue()
        alice.on(Message, lambda message: seen.put(message.data))
        alice.subscribe("forgotten")  # nobody keeps it
        gc.collect()
        second = alice.subscribe("forgotten")
        second.close()
        bob.publish("forgotten", 1)
        assert seen.get(timeout=20) == 1


def test_a_reader_keeps_its_client(shared_cloud: LocalCloud) -> None:
    def listen() -> Subscription:
        alice = client(shared_cloud)
        alice.connect()
        return alice.subscribe("kept")

    inbox = listen()
    gc.collect()
    with client(shared_cloud) as bob:
        bob.publish("kept", 1)
    assert inbox.get(timeout=20).data == 1
    inbox._client.close()


def test_a_fresh_token_for_each_connection(cloud: LocalCloud) -> None:
    options = cloud.token_options("renewed", ttl=100)
    calls: list[int] = []

    def provide() -> str:
        calls.append(1)
        token: str = options["token_provider"]()
        return token

    with SignallingClient(token_provider=provide, url=cloud.url, reconnect=FAST) as alice:
        with alice.events(Connected) as seen:
            cloud.faults.close(4002)
            assert seen.get(timeout=20).is_reconnect
        assert len(calls) == 2
    with SignallingClient(
        token_provider=options["token_provider"](), url=cloud.url, reconnect=FAST
    ) as fixed:
        inbox = fixed.subscribe("x")
        cloud.faults.close(4002)
        with pytest.raises(DisconnectedError, match="token_provider"):
            inbox.get(timeout=20)


def test_a_token_that_expires_is_noticed(cloud: LocalCloud) -> None:
    with peer(cloud, "brief", ttl=2) as brief, brief.events(Disconnected, Connected) as seen:
        gone = seen.get(timeout=20)
        assert isinstance(gone, Disconnected)
        assert gone.code == 4002
        assert isinstance(seen.get(timeout=20), Connected)


def test_pacing_keeps_a_burst_below_the_services_limit(cloud: LocalCloud) -> None:
    with client(cloud) as alice, client(cloud, rate_limit=None, reconnect=False) as hasty:
        for number in range(260):
            alice.publish("burst", number, timeout=20)
        assert alice.state == "connected"
        with pytest.raises((DisconnectedError, MeteredError)):
            threads = [
                threading.Thread(target=lambda: _swallow(lambda: hasty.publish("burst", 1)))
                for _ in range(300)
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            for _ in range(300):
                hasty.publish("burst", 1)


def _swallow(call: Any) -> None:
    try:
        call()
    except MeteredError:
        pass


def test_an_idle_connection_is_kept_by_pings(cloud: LocalCloud) -> None:
    with client(cloud, inactivity_timeout=1.2) as alice:
        with pytest.raises(MeteredTimeoutError):
            alice.wait_for(Disconnected, timeout=2.5)
        assert alice.state == "connected"


def test_a_silent_connection_is_replaced() -> None:
    with ScriptedServer(mute) as server:
        options = {"api_key": "pk_live_x", "url": server.url, "reconnect": FAST}
        with (
            SignallingClient(**options, inactivity_timeout=0.3) as alice,
            alice.events(Disconnected, Connected) as seen,
        ):
            gone, back = seen.get(timeout=20), seen.get(timeout=20)
            assert isinstance(gone, Disconnected)
            assert gone.will_reconnect
            assert isinstance(back, Connected)
            assert server.accept().ended()[0] == 4000


# --- who is there ---------------------------------------------------------------------


def test_the_roster_follows_joins_leaves_and_sockets(shared_cloud: LocalCloud) -> None:
    with peer(shared_cloud, "r-1") as one, pytest.raises(KeyError, match="not subscribed"):
        one.roster("roster")
    with peer(shared_cloud, "r-2", peer_metadata={"name": "Two"}) as two:
        two.subscribe("roster")
        with peer(shared_cloud, "r-1") as one:
            one.subscribe("roster")
            assert one.roster("roster", timeout=20) == {"r-2": {"name": "Two"}}
            wait_until(lambda: two.roster("roster") == {"r-1": None})
            with peer(shared_cloud, "r-1") as again:  # another socket of the same peer
                again.subscribe("roster")
                assert again.roster("roster", timeout=20) == {"r-2": {"name": "Two"}}
                assert one.roster("roster") == {"r-2": {"name": "Two"}}
            two.publish("roster", "the other socket is gone")
            assert two.roster("roster") == {"r-1": None}
            with peer(shared_cloud, "r-3") as three:
                three.subscribe("roster")
                wait_until(lambda: sorted(one.roster("roster")) == ["r-2", "r-3"])
                # A further reader with metadata subscribes again: the list comes anew.
                one.subscribe("roster", include_sender_metadata=True)
                assert sorted(one.roster("roster")) == ["r-2", "r-3"]
            wait_until(lambda: sorted(one.roster("roster")) == ["r-2"])
            one.unsubscribe("roster")
            with pytest.raises(KeyError):
                one.roster("roster")


def test_the_roster_is_right_after_a_reconnect(cloud: LocalCloud) -> None:
    with peer(cloud, "r-1") as one, peer(cloud, "r-2") as two:
        one.subscribe("roster")
        two.subscribe("roster")
        wait_until(lambda: list(one.roster("roster")) == ["r-2"])
        with one.events(Outage) as outages:
            with outage(cloud, one, peer_id="r-1"):
                two.unsubscribe("roster")
            assert outages.get(timeout=20).duration > 0
        wait_until(lambda: one.roster("roster") == {})  # (the list follows)


def test_the_roster_waits_for_a_list_that_may_never_come(shared_cloud: LocalCloud) -> None:
    with peer(shared_cloud, "r-4", permissions=["subscribe"]) as blind:
        blind.subscribe("roster")
        assert blind.roster("roster") == {}
        with pytest.raises(MeteredTimeoutError, match="presence permission"):
            blind.roster("roster", timeout=0.05)


def test_a_callback_finds_its_event_in_the_roster(shared_cloud: LocalCloud) -> None:
    seen: queue.Queue[bool] = queue.Queue()
    with peer(shared_cloud, "r-5") as one, peer(shared_cloud, "r-6") as two:
        one.subscribe("roster-5")

        @one.on(Presence)
        def note(event: Presence) -> None:
            for joined in event.joined:
                seen.put(joined.peer_id in one.roster(event.channel))

        two.subscribe("roster-5")
        assert seen.get(timeout=20)


# --- patterns -------------------------------------------------------------------------


def test_a_pattern_receives_what_it_covers(shared_cloud: LocalCloud) -> None:
    with client(shared_cloud) as fleet, client(shared_cloud) as device:
        everything, one = fleet.subscribe("dev/*/events"), fleet.subscribe("dev/7/events")
        device.publish("dev/7/events", "seven")
        device.publish("dev/8/events", "eight")
        device.publish("dev/8/other", "no")
        device.publish("dev/8/sub/events", "no")
        device.publish("dev/9/events", "nine")
        got = [everything.get(timeout=20) for _ in range(3)]
        assert [(m.channel, m.data) for m in got] == [
            ("dev/7/events", "seven"),
            ("dev/8/events", "eight"),
            ("dev/9/events", "nine"),
        ]
        assert one.get(timeout=20).data == "seven"
        assert len(one) == len(everything) == 0


# --- what happens to subscriptions after a reconnect ------------------------------------


def test_the_outage_is_over_when_the_subscriptions_are_back() -> None:
    def answer(connection: Scripted, frame: dict[str, Any]) -> None:
        if connection.number == 0 or frame["type"] != "subscribe" or len(connection.texts) >= 4:
            polite(connection, frame)

    timings = dataclasses.replace(DEFAULT_TIMINGS, replay_retry=0.3)
    with (
        ScriptedServer(answer) as server,
        SignallingClient(api_key="pk_k", url=server.url, reconnect=FAST, _timings=timings) as alice,
    ):
        alice.subscribe("a")
        alice.subscribe("b")
        with alice.events(Outage, Connected) as events:
            server.accept().drop()
            second = server.accept()
            assert isinstance(events.get(timeout=20), Connected)
            outage = events.get(timeout=20)
            assert isinstance(outage, Outage)
            assert outage.duration >= 0.3
            assert [f["channel"] for f in second.frames if f["type"] == "subscribe"][:3] == [
                "a",
                "b",
                "a",
            ]


def test_a_subscription_that_stays_unacknowledged_ends_its_readers() -> None:
    def answer(connection: Scripted, frame: dict[str, Any]) -> None:
        if connection.number == 0 or frame["type"] != "subscribe":
            polite(connection, frame)

    timings = dataclasses.replace(DEFAULT_TIMINGS, replay_retry=0.05)
    with (
        ScriptedServer(answer) as server,
        SignallingClient(api_key="pk_k", url=server.url, reconnect=FAST, _timings=timings) as alice,
    ):
        inbox = alice.subscribe("a")
        with alice.events(ServerError) as errors:
            server.accept().drop()
            with pytest.raises(AckTimeoutError, match="subscribe again"):
                inbox.get(timeout=20)
            lost = errors.get(timeout=20)
            assert isinstance(lost, ServerError)
            assert lost.code == "subscription_lost"  # for those who use callbacks
        with pytest.raises(KeyError):
            alice.roster("a")
        alice.publish("a", "still connected", timeout=20)


def test_a_provider_that_hangs_is_not_called_again_beside_itself(cloud: LocalCloud) -> None:
    calls, release = [], threading.Event()
    good = cloud.token_options("slow")["token_provider"]

    def provide() -> str:
        calls.append(threading.current_thread().name)
        if len(calls) > 1:
            release.wait(20)
        return str(good())

    with SignallingClient(
        token_provider=provide, url=cloud.url, reconnect=FAST, token_provider_timeout=0.2
    ) as alice:
        cloud.faults.drop_connections()
        with alice.events(Connected) as events:
            wait_until(lambda: len(calls) == 2)
            with pytest.raises(MeteredTimeoutError):
                events.get(timeout=1.0)  # several attempts, one call
            assert len(calls) == 2
            release.set()
            assert events.get(timeout=20).is_reconnect


def test_a_connection_over_tls(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    authority = trustme.CA()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("localhost").configure_cert(context)
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    with ScriptedServer(ssl=context) as server:
        url = server.url.replace("ws://127.0.0.1", "wss://localhost")
        with pytest.raises(SignallingConnectError, match="certificate"):
            SignallingClient(api_key="pk_k", url=url).connect()
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
        with SignallingClient(api_key="pk_k", url=url) as alice:
            for number in range(50):
                alice.publish_nowait("x", "x" * 50_000)
                alice.publish("x", number)
            alice.flush()
        assert len(server.accept().texts) == 100


@pytest.mark.parametrize("limit", [(90, math.inf), (math.inf, 1), (math.inf, math.inf)])
def test_pacing_may_be_boundless(shared_cloud: LocalCloud, limit: tuple[float, float]) -> None:
    with client(shared_cloud, rate_limit=limit) as alice:
        for number in range(3):
            alice.publish("c", number, timeout=20)


def test_a_close_that_timed_out_is_made_good(shared_cloud: LocalCloud) -> None:
    alice = client(shared_cloud)
    alice.connect()
    link: Any = alice._link
    with contextlib.suppress(MeteredTimeoutError):
        alice.close(timeout=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        del alice
        gc.collect()
    wait_until(lambda: link.state == "closed" and link._connection is None)


def test_a_provider_that_fails_when_nobody_asks_any_more(
    shared_cloud: LocalCloud, log: io.StringIO
) -> None:
    release, failed = threading.Event(), threading.Event()

    def provide() -> str:
        release.wait(20)
        failed.set()
        raise OSError("too late")

    alice = SignallingClient(
        token_provider=provide, url=shared_cloud.url, token_provider_timeout=0.1
    )
    with pytest.raises(SignallingConnectError, match="took too long"):
        alice.connect()
    asked = weakref.ref(alice._link._connector._provider._asking)  # type: ignore[union-attr]
    del alice
    release.set()
    assert failed.wait(20)
    wait_until(lambda: gc.collect() >= 0 and asked() is None)
    assert "never retrieved" not in log.getvalue()
