"""Rule 1: every blocking call takes a deadline. (The bridge's own: tests/bridge/test_loop.py.)"""

from __future__ import annotations

import math
import socket
import threading
import time
from typing import Any

import pytest

from metered_sync import (
    AckTimeoutError,
    DisconnectedError,
    MeteredTimeoutError,
    SignallingClient,
)
from metered_sync.bridge import deadline as deadline_module
from metered_sync.bridge import reader as reader_module
from metered_sync.local import LocalCloud
from tests.conftest import wait_until


def test_connect_gives_up_on_a_server_that_says_nothing() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"ws://127.0.0.1:{server.getsockname()[1]}"
        client = SignallingClient(api_key="pk_live_x", url=url)
        started = time.monotonic()
        with pytest.raises(MeteredTimeoutError, match=r"connect: not finished within 0\.2 s"):
            client.connect(timeout=0.2)
        assert time.monotonic() - started < 1.2
        assert client.state == "idle"
        # The connection was given up, not left behind.
        connection, _ = server.accept()
        connection.settimeout(5)
        with connection:
            while connection.recv(4096):
                pass
        client.close()


def test_the_objects_default_and_the_calls_own(shared_cloud: LocalCloud) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"ws://127.0.0.1:{server.getsockname()[1]}"
        for options, timeout in (({"timeout": 0.2}, None), ({"timeout": 60}, 0.2)):
            client = SignallingClient(api_key="pk_live_x", url=url, **options)
            started = time.monotonic()
            with pytest.raises(TimeoutError):
                client.connect(timeout=timeout)
            assert time.monotonic() - started < 1.2
            client.close()


def test_a_publish_that_is_not_acknowledged_says_whether_it_left(cloud: LocalCloud) -> None:
    with SignallingClient(**cloud.client_options()) as client:
        server: Any = cloud._servers
        held = threading.Event()
        server._engine.post(held.wait, 20)  # the server's loop stands still
        started = time.monotonic()
        with pytest.raises(AckTimeoutError, match="it was sent") as caught:
            client.publish("x", 1, timeout=0.3)
        assert time.monotonic() - started < 1.3
        assert caught.value.sent
        held.set()
        client.publish("x", 2)
        link: Any = client._link
        assert not link.outbox._pending
        cloud.faults.drop_connections()
        cloud.close()
        wait_until(lambda: client.state == "reconnecting")
        with pytest.raises(AckTimeoutError, match="never left") as caught:
            client.publish("x", 1, timeout=0.3)
        assert not caught.value.sent
        assert not link.outbox._queue


def test_infinity_waits_until_there_is_something(shared_cloud: LocalCloud) -> None:
    options = shared_cloud.client_options()
    with (
        SignallingClient(**options, timeout=math.inf) as alice,
        SignallingClient(**options) as bob,
    ):
        inbox = alice.subscribe("inf", timeout=math.inf)
        threading.Timer(0.3, lambda: bob.publish("inf", 1)).start()
        assert inbox.get(timeout=math.inf).data == 1


def test_one_deadline_covers_all_steps(cloud: LocalCloud) -> None:
    """A subscribe that is interrupted by an outage starts over, but not its deadline."""
    with SignallingClient(**cloud.client_options()) as client:
        server: Any = cloud._servers
        held = threading.Event()
        server._engine.post(held.wait, 20)
        started = time.monotonic()
        timer = threading.Timer(0.4, client._link._connection.abort)  # type: ignore[union-attr]
        timer.start()
        with pytest.raises((MeteredTimeoutError, DisconnectedError)):
            client.subscribe("x", timeout=0.8)
        assert time.monotonic() - started < 1.8
        held.set()
        timer.join()


def test_a_waiter_is_woken_by_the_loss_not_by_its_own_deadline(cloud: LocalCloud) -> None:
    with SignallingClient(**cloud.client_options()) as client:
        server: Any = cloud._servers
        held = threading.Event()
        server._engine.post(held.wait, 20)
        errors: list[BaseException] = []

        def publish() -> None:
            try:
                client.publish("x", 1, timeout=60)
            except BaseException as error:
                errors.append(error)

        thread = threading.Thread(target=publish)
        thread.start()
        link: Any = client._link
        wait_until(lambda: any(r.sent for r in link.outbox._pending.values()))
        client._engine.post(link._connection.abort)  # type: ignore[union-attr]
        thread.join(5)
        assert not thread.is_alive()
        held.set()
        (error,) = errors
        assert isinstance(error, DisconnectedError)
        assert "may or may not" in str(error)


def test_waits_in_slices_work_too(
    shared_cloud: LocalCloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As on Windows, where Ctrl-C is seen between two waits only.
    monkeypatch.setattr(deadline_module, "WAIT_SLICE", 0.01)
    monkeypatch.setattr(reader_module, "WAIT_SLICE", 0.01)
    options = shared_cloud.client_options()
    with SignallingClient(**options) as alice, SignallingClient(**options) as bob:
        inbox = alice.subscribe("slices")
        threading.Timer(0.1, lambda: bob.publish("slices", 1)).start()
        assert inbox.get(timeout=5).data == 1
        with pytest.raises(MeteredTimeoutError):
            inbox.get(timeout=0.05)
