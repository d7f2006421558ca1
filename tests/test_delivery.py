from __future__ import annotations

import concurrent.futures
import json
import math
import queue
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from metered_sync import (
    AckTimeoutError,
    CancelledError,
    ClosedError,
    Delivery,
    DisconnectedError,
    MeteredTimeoutError,
    NotConnectedError,
    OversizedPayloadError,
    ServerRequestError,
    SignallingClient,
)
from metered_sync.engine.messaging.outbox import MAX_QUEUED
from metered_sync.local import LocalCloud
from tests.conftest import run_script, wait_until
from tests.support.outage import outage
from tests.support.scripted_service import ScriptedServer, mute, polite
from tests.test_client import FAST, client, peer


def test_many_arrive_in_order_and_flush_waits_for_them(shared_cloud: LocalCloud) -> None:
    with client(shared_cloud, rate_limit=None) as alice, client(shared_cloud) as bob:
        inbox = bob.subscribe("many", maxsize=3000)
        deliveries = [alice.publish_nowait("many", number) for number in range(3000)]
        alice.flush()
        assert all(delivery.done() for delivery in deliveries)
        assert [inbox.get(timeout=20).data for _ in range(3000)] == list(range(3000))
        alice.flush(timeout=0)  # nothing left to wait for


def test_direct_messages_too(shared_cloud: LocalCloud) -> None:
    with peer(shared_cloud, "nw-1") as alice, peer(shared_cloud, "nw-2") as bob:
        with bob.events() as events:
            delivery = alice.send_nowait("nw-2", {"n": 1})
            delivery.result(timeout=20)
            assert delivery.done()
            assert "acknowledged" in repr(delivery)
            assert events.get(timeout=20).data == {"n": 1}
        lost = alice.send_nowait("nobody", 1)
        with pytest.raises(ServerRequestError, match="send to 'nobody'") as caught:
            lost.result(timeout=20)
        assert caught.value.code == "peer_not_found"


def test_a_failure_is_on_its_delivery_and_raised_by_flush_unless_fetched(
    shared_cloud: LocalCloud,
) -> None:
    with peer(shared_cloud, "nw-3") as alice:
        bad, good = alice.send_nowait("nobody", 1), alice.publish_nowait("x", 1)
        worse = alice.send_nowait("nobody else", 1)
        with pytest.raises(ServerRequestError, match="'nobody'"):
            alice.flush()
        alice.flush()  # told once
        assert isinstance(bad.exception(), ServerRequestError)
        assert good.exception() is None
        assert isinstance(worse.exception(), ServerRequestError)

        bad = alice.send_nowait("nobody", 1)
        assert isinstance(bad.exception(timeout=20), ServerRequestError)
        alice.flush()  # somebody has fetched it
        # A failure counts, too, if later messages have gone well since.
        bad = alice.send_nowait("nobody", 1)
        wait_until(bad.done)
        for number in range(100):
            alice.publish("x", number)
            alice.publish_nowait("x", number)
        with pytest.raises(ServerRequestError):
            alice.flush()


def test_a_wait_that_times_out_only_stops_waiting() -> None:
    with ScriptedServer(mute) as server:
        alice = SignallingClient(api_key="pk_k", url=server.url, timeout=1.0)
        alice.connect(timeout=20)
        delivery = alice.publish_nowait("x", 1)
        with pytest.raises(MeteredTimeoutError, match="still waited for"):
            delivery.result(timeout=0.05)
        with pytest.raises(MeteredTimeoutError, match="1 of 1"):
            alice.flush(timeout=0.05)
        server.accept().expect("publish")
        # The acknowledgement's own deadline is the client's timeout.
        with pytest.raises(AckTimeoutError, match="within 1 s; it was sent") as caught:
            delivery.result(timeout=10)
        assert caught.value.sent
        link: Any = alice._link
        assert not link.outbox._pending
        alice.close(timeout=10)


def test_a_late_acknowledgement_hurts_nobody() -> None:
    with ScriptedServer(mute) as server:
        alice = SignallingClient(api_key="pk_k", url=server.url, timeout=0.2)
        alice.connect(timeout=20)
        delivery = alice.publish_nowait("x", 1)
        connection = server.accept()
        frame = connection.expect("publish")
        assert isinstance(delivery.exception(timeout=20), AckTimeoutError)
        server.answer = polite
        polite(connection, frame)
        alice.publish("x", 2, timeout=20)
        alice.close(timeout=10)


def test_callbacks_run_on_the_dispatcher_and_may_publish(shared_cloud: LocalCloud) -> None:
    done: queue.Queue[tuple[Delivery, str]] = queue.Queue()
    errors: queue.Queue[Any] = queue.Queue()
    with client(shared_cloud) as alice:

        def note(delivery: Delivery) -> None:
            alice.publish("x", "from a callback")
            done.put((delivery, threading.current_thread().name))

        def fail(delivery: Delivery) -> None:
            raise ZeroDivisionError

        alice.on_error = lambda *what: errors.put(what)
        delivery = alice.publish_nowait("x", 1)
        delivery.add_done_callback(note)
        first, thread = done.get(timeout=20)
        assert first is delivery
        assert "callbacks" in thread
        delivery.add_done_callback(note)  # done already
        assert done.get(timeout=20)[0] is delivery
        delivery.add_done_callback(fail)
        what, error = errors.get(timeout=20)
        assert what is delivery
        assert isinstance(error, ZeroDivisionError)
        with pytest.raises(TypeError, match="callable"):
            delivery.add_done_callback(1)  # type: ignore[arg-type]
    delivery.add_done_callback(lambda d: done.put((d, threading.current_thread().name)))
    assert done.get(timeout=20)[1] == threading.current_thread().name  # the dispatcher is gone


def test_what_has_not_left_can_be_cancelled(cloud: LocalCloud) -> None:
    with client(cloud, rate_limit=(1, 1)) as alice, client(cloud) as bob:
        inbox = bob.subscribe("c")
        first = alice.publish_nowait("c", "first")
        first.result(timeout=20)
        second = alice.publish_nowait("c", "second")  # waits a second for its turn
        assert "queued" in repr(second)
        assert second.cancel()
        assert second.cancelled()
        assert second.cancel()
        assert not first.cancel()
        assert not first.cancelled()
        with pytest.raises(CancelledError, match="publish to 'c'"):
            second.result()
        assert isinstance(second.exception(), concurrent.futures.CancelledError)
        alice.publish_nowait("c", "third").result(timeout=20)
        assert [inbox.get(timeout=20).data for _ in range(2)] == ["first", "third"]


@pytest.fixture
def unlimited() -> Iterator[LocalCloud]:
    with LocalCloud(limits=False) as cloud:
        yield cloud


def test_the_outbox_is_bounded_and_survives_an_outage(unlimited: LocalCloud) -> None:
    cloud = unlimited
    with client(cloud, rate_limit=None) as alice, client(cloud, rate_limit=None) as bob:
        inbox = bob.subscribe("full", maxsize=2 * MAX_QUEUED)
        with outage(cloud, alice, peer_id=alice.peer_id):
            sent = [alice.publish_nowait("full", number) for number in range(MAX_QUEUED)]
            with pytest.raises(queue.Full, match="flush"):
                alice.publish_nowait("full", "too many")
            assert not any(delivery.done() for delivery in sent)
        alice.flush(timeout=30)
        assert [inbox.get(timeout=20).data for _ in range(MAX_QUEUED)] == list(range(MAX_QUEUED))


def test_the_outbox_is_bounded_in_bytes(unlimited: LocalCloud) -> None:
    cloud = unlimited
    with client(cloud, rate_limit=None) as alice, ThreadPoolExecutor(1) as thread:
        link: Any = alice._link
        with outage(cloud, alice, peer_id=alice.peer_id):
            with pytest.raises(queue.Full):
                for _ in range(300):
                    alice.publish_nowait("full", "x" * 60_000)
            full = len(link.outbox._pending)
            small = thread.submit(alice.publish, "full", "small", timeout=60)
            wait_until(lambda: len(link.outbox._pending) > full or small.done())
            assert not small.done()  # waiting calls are not bounded so
        small.result(timeout=60)


def test_an_outage_fails_what_had_left() -> None:
    with (
        ScriptedServer(mute) as server,
        SignallingClient(api_key="pk_k", url=server.url, reconnect=FAST) as alice,
    ):
        delivery = alice.publish_nowait("x", 1)
        connection = server.accept()
        connection.expect("publish")
        server.answer = polite
        connection.drop()
        with pytest.raises(DisconnectedError, match="may or may not"):
            delivery.result(timeout=10)
        alice.publish_nowait("x", 2).result(timeout=10)
        alice.flush()  # the first one's failure has been fetched
        assert [json.loads(t)["data"] for t in server.accept().texts] == [2]


def test_closing_fails_what_is_on_its_way() -> None:
    with ScriptedServer(mute) as server:
        alice = SignallingClient(api_key="pk_k", url=server.url)
        alice.connect()
        delivery = alice.publish_nowait("x", 1)
        alice.close()
        with pytest.raises(ClosedError):
            delivery.result(timeout=20)
        with pytest.raises(ClosedError):
            alice.publish_nowait("x", 1)
        with pytest.raises(ClosedError):
            alice.flush()


def test_bad_calls_are_told_at_once(shared_cloud: LocalCloud) -> None:
    alice = client(shared_cloud)
    with pytest.raises(NotConnectedError):
        alice.publish_nowait("x", 1)
    with pytest.raises(NotConnectedError):
        alice.flush()
    with alice:
        with pytest.raises(ValueError, match="JSON"):
            alice.publish_nowait("x", float("nan"))
        with pytest.raises(TypeError):
            alice.publish_nowait("x", object())
        with pytest.raises(OversizedPayloadError):
            alice.publish_nowait("x", "x" * 70_000)
        with pytest.raises(ValueError, match="reserves"):
            alice.publish_nowait("_metered/x", 1)
        alice.flush()


def test_from_many_threads(shared_cloud: LocalCloud) -> None:
    with client(shared_cloud, rate_limit=None) as alice, client(shared_cloud) as bob:
        inbox = bob.subscribe("threads", maxsize=4000)

        def work(name: int) -> None:
            for number in range(400):
                alice.publish_nowait("threads", [name, number])
                if number % 50 == 0:
                    alice.flush()

        threads = [threading.Thread(target=work, args=(name,)) for name in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        alice.flush()
        received = [inbox.get(timeout=20).data for _ in range(3200)]
        for name in range(8):
            assert [n for who, n in received if who == name] == list(range(400))


def test_memory_stays_flat_where_nobody_flushes(shared_cloud: LocalCloud) -> None:
    with client(shared_cloud, rate_limit=None) as alice:
        for number in range(3000):
            delivery = alice.publish_nowait("flat", number)
            if number % 100 == 0:
                delivery.result(timeout=20)
        delivery.result(timeout=20)
        alice.publish_nowait("flat", "last").result(timeout=20)
        assert len(alice._deliveries._open) < 10


def test_a_script_that_only_flushes(shared_cloud: LocalCloud) -> None:
    with client(shared_cloud) as bob:
        inbox = bob.subscribe("exit")
        done = run_script(
            "import sys\n"
            "from metered_sync import SignallingClient\n"
            "client = SignallingClient(api_key=sys.argv[1], url=sys.argv[2])\n"
            "client.connect()\n"
            "for number in range(100):\n"
            "    client.publish_nowait('exit', number)\n"
            "client.flush()\n",
            shared_cloud.publishable_key,
            shared_cloud.url,
        )
        assert (done.returncode, done.stderr) == (0, "")
        assert [inbox.get(timeout=20).data for _ in range(100)] == list(range(100))


def test_one_that_leaves_before_a_waiting_call_expires_as_well() -> None:
    with ScriptedServer(mute) as server:
        alice = SignallingClient(api_key="pk_k", url=server.url, timeout=0.3)
        alice.connect(timeout=20)
        link: Any = alice._link
        held, release = threading.Event(), threading.Event()
        link._engine.post(lambda: held.set() or release.wait(10))
        assert held.wait(20)
        delivery = alice.publish_nowait("x", 1)

        def wait() -> None:
            with pytest.raises(AckTimeoutError):
                alice.publish("x", 2, timeout=5)

        waiting = threading.Thread(target=wait)
        waiting.start()
        wait_until(lambda: len(link.outbox._queue) == 2)  # both go out with one write
        release.set()
        assert isinstance(delivery.exception(timeout=20), AckTimeoutError)
        waiting.join(10)
        alice.close(timeout=10)


def test_acknowledged_ones_are_forgotten_however_long_their_timeout(
    shared_cloud: LocalCloud,
) -> None:
    with client(shared_cloud, rate_limit=None, timeout=math.inf) as alice:
        for _ in range(10):
            deliveries = [alice.publish_nowait("x", "y" * 1000) for _ in range(100)]
            alice.flush(timeout=20)
        alice.publish_nowait("x", 1).result(timeout=20)
        link: Any = alice._link
        assert len(link.outbox._expiring) <= 200
        assert not any(delivery._request.frame for delivery in deliveries)


def test_it_is_done_when_its_callback_runs(shared_cloud: LocalCloud) -> None:
    done: queue.Queue[bool] = queue.Queue()
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with client(shared_cloud, rate_limit=None) as alice:
            for _ in range(20):
                for _ in range(100):
                    delivery = alice.publish_nowait("x", 1)
                    delivery.add_done_callback(lambda d: done.put(d.done()))
                alice.flush(timeout=20)
            assert all(done.get(timeout=20) for _ in range(2000))
    finally:
        sys.setswitchinterval(interval)


def test_flush_does_not_tell_of_what_was_cancelled(cloud: LocalCloud) -> None:
    with client(cloud, rate_limit=(1, 1)) as alice:
        alice.publish_nowait("c", 1).result(timeout=20)
        assert alice.publish_nowait("c", 2).cancel()
        alice.flush(timeout=20)


def test_what_has_left_cannot_be_cancelled_and_arrives_all_the_same() -> None:
    with (
        ScriptedServer(mute) as server,
        SignallingClient(api_key="pk_k", url=server.url) as alice,
    ):
        delivery, lost = alice.publish_nowait("x", 1), alice.publish_nowait("x", 2)
        connection = server.accept()
        frame = connection.expect("publish")
        connection.expect("publish")
        assert not delivery.cancel()
        assert not lost.cancel()
        polite(connection, frame)
        delivery.result(timeout=20)
        connection.drop()
        with pytest.raises(DisconnectedError):
            lost.result(timeout=20)
