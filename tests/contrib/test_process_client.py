"""Test the one client of a process: opened once, in each child anew, and again where it must."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from metered_sync import MeteredError, NotConnectedError, Outage, SignallingClient
from metered_sync.contrib.process_client import ProcessClient
from metered_sync.contrib.settings import WebSettings, read_settings
from metered_sync.local import LocalCloud
from tests.conftest import wait_until


@pytest.fixture
def held() -> Iterator[Callable[..., SignallingClient]]:
    """A function that returns the client for some settings; it is closed at the end."""
    opened: list[SignallingClient] = []

    def make(settings: WebSettings) -> SignallingClient:
        client = SignallingClient(
            api_key=settings.get("KEY"), url=settings.get("URL"), timeout=settings.get("TOKEN")
        )
        opened.append(client)
        return client

    held = ProcessClient(make)

    def get(cloud: LocalCloud, url: str | None = None, timeout: float = 15) -> SignallingClient:
        # (Whatever is there to be compared: "TOKEN" stands for the timeout.)
        given = {"KEY": cloud.publishable_key, "URL": url or cloud.url, "TOKEN": timeout}
        return held.get(read_settings("METERED", given))

    get.opened = opened  # type: ignore[attr-defined]
    yield get
    for client in opened:
        client.close()


def test_many_threads_share_one(
    shared_cloud: LocalCloud, held: Callable[..., SignallingClient]
) -> None:
    with ThreadPoolExecutor(8) as pool:
        clients = set(pool.map(lambda _: held(shared_cloud), range(32)))
    assert len(clients) == 1
    assert clients.pop().state == "connected"


def test_what_ended_for_good_is_opened_anew(
    shared_cloud: LocalCloud, held: Callable[..., SignallingClient]
) -> None:
    first = held(shared_cloud)
    shared_cloud.faults.close(4020, first.peer_id)
    wait_until(lambda: first.state == "closed", 30)
    second = held(shared_cloud)
    assert second is not first
    assert second.state == "connected"
    second.close()  # by mistake
    assert held(shared_cloud).state == "connected"


def test_a_lost_connection_comes_back_by_itself(
    shared_cloud: LocalCloud, held: Callable[..., SignallingClient]
) -> None:
    client = held(shared_cloud)
    with client.events(Outage) as outages:
        shared_cloud.faults.drop_connections(client.peer_id)
        assert held(shared_cloud) is client
        outages.get(timeout=30)
    assert held(shared_cloud) is client
    client.publish("room", "after the reconnect")


def test_other_settings_open_another(
    shared_cloud: LocalCloud, held: Callable[..., SignallingClient]
) -> None:
    first = held(shared_cloud)
    second = held(shared_cloud, timeout=7)
    assert second is not first
    assert first.state == "closed"
    assert held(shared_cloud, timeout=7) is second


def test_a_failed_connect_is_remembered_for_a_moment(
    shared_cloud: LocalCloud, held: Callable[..., SignallingClient]
) -> None:
    """Of many requests one waits for a silent service; the others are told at once."""
    with socket.create_server(("127.0.0.1", 0), backlog=50) as silent:
        url = f"ws://127.0.0.1:{silent.getsockname()[1]}"

        def ask(_: int) -> BaseException | None:
            try:
                held(shared_cloud, url, 2)
            except MeteredError as error:
                return error
            return None

        begin = time.monotonic()
        with ThreadPoolExecutor(4) as pool:
            errors = list(pool.map(ask, range(4)))
        # (One by one they would take eight. A slow machine may try twice.)
        assert time.monotonic() - begin < 7.5
        assert sum(isinstance(error, NotConnectedError) for error in errors) >= 2
        assert None not in errors
    assert held(shared_cloud).state == "connected"  # other settings, tried at once


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork()")
def test_a_child_opens_its_own_though_another_thread_was_connecting(
    shared_cloud: LocalCloud, held: Callable[..., SignallingClient]
) -> None:
    """The lock that the parent's thread holds at the fork is none of the child's."""
    with socket.create_server(("127.0.0.1", 0), backlog=50) as silent:
        url = f"ws://127.0.0.1:{silent.getsockname()[1]}"
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(held, shared_cloud, url, 1)
            wait_until(lambda: held.opened, 30)  # type: ignore[attr-defined]
            child = os.fork()
            if child == 0:
                status = 1
                try:
                    client = held(shared_cloud, timeout=10)
                    client.publish("room", "from the child")
                    client.close()
                    status = 0
                finally:
                    os._exit(status)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
            assert isinstance(waiting.exception(30), MeteredError)
