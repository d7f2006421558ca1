"""A proxy on loopback: HTTP ``CONNECT``, or SOCKS 5, which leads wherever a test wants."""

from __future__ import annotations

import contextlib
import select
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field

__all__ = ["Proxying", "proxying"]


@dataclass
class Proxying:
    """A proxy that runs: where it is, what it was asked, and how it answers."""

    port: int
    to: int
    """The port of this machine that every request leads to."""
    refuse: bytes = b""
    """Answers ``CONNECT`` with this status line instead."""
    asked: list[bytes] = field(default_factory=list)
    """The head of each ``CONNECT``; by SOCKS, the name that was asked for."""

    @property
    def place(self) -> str:
        """Its host and port."""
        return f"127.0.0.1:{self.port}"


@contextlib.contextmanager
def proxying(to: int) -> Iterator[Proxying]:
    """Run a proxy that leads every request to a port of ours."""

    def accept() -> None:
        while True:
            try:
                client, _ = listening.accept()
            except OSError:
                return
            threading.Thread(target=_serve, args=(client, proxy), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listening:
        proxy = Proxying(listening.getsockname()[1], to)
        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        yield proxy
        listening.shutdown(socket.SHUT_RDWR)
        thread.join(20)


def _serve(client: socket.socket, proxy: Proxying) -> None:
    with client, contextlib.suppress(OSError):
        client.settimeout(20)
        first = client.recv(1)
        if first == b"\x05":
            _socks(client, proxy)
        elif not _connect(client, proxy, first):
            return
        with socket.create_connection(("127.0.0.1", proxy.to)) as server:
            ways = {client: server, server: client}
            while True:
                for source in select.select(list(ways), [], [], 20)[0]:
                    data = source.recv(65536)
                    if not data:
                        return
                    ways[source].sendall(data)


def _connect(client: socket.socket, proxy: Proxying, head: bytes) -> bool:
    """Answer a ``CONNECT``; whether it was granted."""
    while b"\r\n\r\n" not in head:
        head += client.recv(65536)
    proxy.asked.append(head)
    if proxy.refuse:
        client.sendall(b"HTTP/1.1 " + proxy.refuse + b"\r\nContent-Length: 0\r\n\r\n")
        return False
    client.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
    return True


def _socks(client: socket.socket, proxy: Proxying) -> None:
    """Grant a request by SOCKS 5 (RFC 1928)."""
    client.recv(1 + client.recv(1)[0] - 1)  # the methods
    client.sendall(b"\x05\x00")
    client.recv(3)
    kind = client.recv(1)[0]
    length = client.recv(1)[0] if kind == 3 else 4
    proxy.asked.append(client.recv(length) if kind == 3 else b"an address")
    client.recv(2)
    client.sendall(b"\x05\x00\x00\x01\x7f\x00\x00\x01\x00\x00")
