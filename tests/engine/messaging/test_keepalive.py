"""The messaging connection where machines sleep and networks forget it."""

from __future__ import annotations

import dataclasses
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from metered_sync import Direct, MeteredError, SignallingClient
from metered_sync.local import LocalCloud
from metered_sync.wire.timings import DEFAULT_TIMINGS
from tests.conftest import ROOT
from tests.support.scripted_service import Scripted, ScriptedServer

PUBLISHER = """
import sys
from metered_sync import MeteredError, ReconnectOptions, SignallingClient
url, key = sys.argv[1:]
soon = ReconnectOptions(initial_delay=0.01)
with SignallingClient(url=url, api_key=key, reconnect=soon, timeout=10) as client:
    print("ready", flush=True)
    for line in sys.stdin:
        try:
            client.publish("x", line)
            print("delivered", flush=True)
        except MeteredError as error:
            print(type(error).__name__, flush=True)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs SIGSTOP")
def test_what_is_published_first_after_a_pause_of_the_process_arrives(
    shared_cloud: LocalCloud,
) -> None:
    command = [sys.executable, "-c", PUBLISHER, shared_cloud.url, shared_cloud.publishable_key]
    outcomes: Counter[str] = Counter()
    with subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env={**os.environ, "METERED_SYNC_LOOP": "asyncio"},
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == "ready\n"
            for _ in range(20):
                process.send_signal(signal.SIGSTOP)
                os.waitpid(process.pid, os.WUNTRACED)
                shared_cloud.faults.drop_connections()
                time.sleep(0.1)  # the pause
                process.stdin.write("\n")
                process.stdin.flush()
                process.send_signal(signal.SIGCONT)
                outcomes[process.stdout.readline().strip()] += 1
        finally:
            process.kill()
    assert outcomes["delivered"] + outcomes["NotConnectedError"] >= 18, outcomes


class Tunnel:
    """Pass bytes to a server and back, until told to swallow those of the connections so far."""

    def __init__(self, port: int) -> None:
        self._behind = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._ends: list[tuple[socket.socket, threading.Event]] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def swallow(self) -> None:
        for _, swallowing in self._ends:
            swallowing.set()

    def close(self) -> None:
        self._listener.close()
        for end, _ in self._ends:
            end.close()

    def _accept(self) -> None:
        try:
            while True:
                here = self._listener.accept()[0]
                there = socket.create_connection(("127.0.0.1", self._behind))
                swallowing = threading.Event()
                self._ends += [(here, swallowing), (there, swallowing)]
                for ends in ((here, there), (there, here)):
                    threading.Thread(
                        target=self._pass, args=(*ends, swallowing), daemon=True
                    ).start()
        except OSError:
            pass

    @staticmethod
    def _pass(source: socket.socket, sink: socket.socket, swallowing: threading.Event) -> None:
        try:
            while data := source.recv(65536):
                if not swallowing.is_set():
                    sink.sendall(data)
            if not swallowing.is_set():
                sink.shutdown(socket.SHUT_WR)
        except OSError:
            pass


@contextmanager
def tunnel(port: int) -> Iterator[Tunnel]:
    made = Tunnel(port)
    try:
        yield made
    finally:
        made.close()


IMPATIENT = dataclasses.replace(DEFAULT_TIMINGS, overdue=0.3)


def test_a_connection_that_the_network_has_forgotten_is_soon_back(
    shared_cloud: LocalCloud,
) -> None:
    with (
        tunnel(shared_cloud.port) as path,
        SignallingClient(
            url=f"ws://127.0.0.1:{path.port}",
            api_key=shared_cloud.publishable_key,
            _timings=IMPATIENT,
        ) as client,
    ):
        client.publish("x", 1)
        path.swallow()
        began = time.monotonic()
        while True:
            try:
                client.publish("x", 2, timeout=1)
                break
            except MeteredError:
                assert time.monotonic() - began < 10
        assert client.state == "connected"


def test_a_server_that_answers_the_probe_may_take_its_time() -> None:
    def answer(connection: Scripted, frame: dict[str, Any]) -> None:
        if frame["type"] == "ping":
            connection.send(type="pong")

    with (
        ScriptedServer(answer) as server,
        SignallingClient(url=server.url, api_key="pk_k", _timings=IMPATIENT) as client,
        client.events(Direct) as events,
    ):
        connection = server.accept()
        deliveries, ids = [], []
        for number in range(4):  # silence would have ended it after two
            deliveries.append(client.publish_nowait("x", number))
            ids.append(connection.expect("publish")["requestId"])
            connection.expect("ping")
            connection.send(type="direct", data=1, **{"from": "b"})
            events.get(timeout=20)  # so the answer has come, too
        for request_id in ids:
            connection.send(type="ack", requestId=request_id)
        for delivery in deliveries:
            delivery.result(timeout=20)
        assert len(server.upgrades) == 1
