"""A real TURN server, and a bad path to it."""

from __future__ import annotations

import asyncio
import random
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.conftest import need, wait_until

SECRET = "shared"
"""What the server and the local cloud agree on: ``LocalCloud(turn_secret=SECRET)``."""


def free_port() -> int:
    """Return a port that is free for UDP and TCP."""
    while True:
        with socket.socket() as tcp, socket.socket(type=socket.SOCK_DGRAM) as udp:
            tcp.bind(("127.0.0.1", 0))
            port: int = tcp.getsockname()[1]
            try:
                udp.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port


@contextmanager
def coturn(folder: Path) -> Iterator[int]:
    """Run a coturn on loopback; its port, for UDP and TCP."""
    program = need("turnserver", "coturn")
    port = free_port()
    options = [
        *("--listening-ip=127.0.0.1", "--relay-ip=127.0.0.1", f"--listening-port={port}"),
        *("--use-auth-secret", f"--static-auth-secret={SECRET}", "--realm=local", "--no-cli"),
        *("--no-tls", "--no-dtls", "--allow-loopback-peers", "--log-file=stdout"),
        *(f"--pidfile={folder / 'pid'}", f"--userdb={folder / 'db'}"),
    ]
    quiet = subprocess.DEVNULL
    with subprocess.Popen([program, *options], stdout=quiet, stderr=quiet) as server:
        try:
            wait_until(lambda: _listens(port), 20, "coturn listens")
            yield port
        finally:
            server.terminate()


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@contextmanager
def bad_path(
    port: int, *, loss: float = 0.0, delay: float = 0.0, spare_requests: bool = False
) -> Iterator[BadPath]:
    """Stand before a UDP port of this machine; its ``port`` is the one to use instead.

    Each datagram, in either direction, is lost with the probability ``loss``, or else comes
    ``delay`` seconds later. TURN's requests and their answers may be spared from the loss.
    """
    path = BadPath(port, loss, delay, spare_requests)
    thread = threading.Thread(target=path.loop.run_forever)
    thread.start()
    try:
        yield path
    finally:
        path.loop.call_soon_threadsafe(path.loop.stop)
        thread.join()
        path.loop.close()
        for end in (path.front, *path.backs.values()):
            end.close()


class BadPath:
    """What clients send to ``front`` goes on to the port, from a socket of each one's own."""

    def __init__(self, port: int, loss: float, delay: float, spare_requests: bool) -> None:
        self.loop = asyncio.new_event_loop()
        self.backs: dict[Any, socket.socket] = {}
        self.front = self._socket(self._forth)
        self.front.bind(("127.0.0.1", 0))
        self.port: int = self.front.getsockname()[1]
        self._behind = port
        self._loss = loss
        self.delay = delay
        """Seconds that a datagram takes; any thread may set it."""
        self._spare_requests = spare_requests
        self._dice = random.Random(1)
        self._cut: dict[str, tuple[Any, ...]] = {}
        """The clients to whom everything is lost, by the way that it takes."""

    def _socket(self, read: Callable[..., None], *args: Any) -> socket.socket:
        end = socket.socket(type=socket.SOCK_DGRAM)
        end.setblocking(False)
        self.loop.add_reader(end, read, *args)
        return end

    def _forth(self) -> None:
        data, client = self.front.recvfrom(65536)
        if client not in self.backs:
            self.backs[client] = self._socket(self._back, client)
            self.backs[client].connect(("127.0.0.1", self._behind))
        self._later("forth", client, self.backs[client].send, data)

    def _back(self, client: Any) -> None:
        self._later("back", client, self.front.sendto, self.backs[client].recv(65536), client)

    def _later(self, way: str, client: Any, send: Callable[..., int], *args: Any) -> None:
        spared = self._spare_requests and args[0][:1] < b"\x40"  # (RFC 8656, section 12.4)
        if client not in self._cut.get(way, ()) and (spared or self._dice.random() >= self._loss):
            self.loop.call_later(self.delay, send, *args)

    def cut(self, *ways: str) -> None:
        """Lose all that goes these ways from now on, for all who use it now; any thread."""
        self._cut = dict.fromkeys(ways, tuple(self.backs))
