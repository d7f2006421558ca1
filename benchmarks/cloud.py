"""What a connection and a message cost the local cloud, next to bare servers of the same kind.

The peers are the two usual ways to write a fan-out server: `websockets` with its `broadcast()`,
and `aiohttp` with a loop of `send_str()`. They read the same frames (JSON), pass messages on to
everybody in a channel, and acknowledge; there is nothing else in them: no keys, no permissions,
no presence, no limits: that all subscribe costs them nothing, where the local cloud tells each of
a thousand clients of each. Each server runs in a process of its own; the clients are in this one,
and count frames without decoding them. Costs are the server's, read from /proc (Linux).
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import importlib.util
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Coroutine
from urllib.parse import urlsplit

CONNECTIONS = 1000
MESSAGES = 300
ROUNDS = 100
BURST, WINDOW = 20, 64
"""Messages published without waiting: to a thousand, to a few."""
DATA = "x" * 200
QUIET = 0.3
"""Seconds without a frame after which all are taken to have arrived."""


# --- the bare servers, each run as `cloud.py <name>` ---


class Room:
    """Channels, and what is made of a frame: an answer, and a message for others."""

    def __init__(self) -> None:
        self.channels: dict[str, set] = {}

    def take(self, socket: object, text: str) -> tuple[str, str | None, set]:
        """Return the acknowledgement, the message to pass on, and to whom."""
        frame = json.loads(text)
        members = self.channels.setdefault(frame["channel"], set())
        message = None
        if frame["type"] == "subscribe":
            members.add(socket)
        else:
            fields = {"type": "message", "channel": frame["channel"], "from": "x"}
            message = json.dumps({**fields, "data": frame["data"]})
        return json.dumps({"type": "ack", "requestId": frame["requestId"]}), message, members

    def leave(self, socket: object) -> None:
        """Forget a socket."""
        for members in self.channels.values():
            members.discard(socket)


async def serve_websockets() -> None:
    """Serve with the `websockets` package."""
    from websockets.asyncio.server import broadcast, serve
    from websockets.exceptions import ConnectionClosed

    room = Room()

    async def handler(connection) -> None:
        await connection.send(json.dumps({"type": "welcome"}))
        try:
            async for text in connection:
                ack, message, members = room.take(connection, text)
                if message is not None:
                    broadcast(members - {connection}, message)
                await connection.send(ack)
        except ConnectionClosed:
            pass
        finally:
            room.leave(connection)

    async with serve(handler, "127.0.0.1", 0, compression=None, backlog=1024) as server:
        announce(server.sockets[0].getsockname()[1])
        await asyncio.Event().wait()


async def serve_aiohttp() -> None:
    """Serve with `aiohttp`."""
    from aiohttp import web

    room = Room()

    async def handler(request):
        ws = web.WebSocketResponse(compress=False, heartbeat=30)
        await ws.prepare(request)
        await ws.send_str(json.dumps({"type": "welcome"}))
        try:
            async for incoming in ws:
                ack, message, members = room.take(ws, incoming.data)
                if message is not None:
                    for other in tuple(members):
                        if other is not ws:
                            await other.send_str(message)
                await ws.send_str(ack)
        finally:
            room.leave(ws)
        return ws

    app = web.Application()
    app.router.add_get("/v1", handler)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, backlog=1024).start()
    announce(runner.addresses[0][1])
    await asyncio.Event().wait()


def serve_bare(server: Coroutine[None, None, None]) -> None:
    """Run a bare server, on the event loop that the local cloud would run on."""
    wanted = os.environ.get("METERED_SYNC_LOOP") != "asyncio"
    uvloop = importlib.util.find_spec("uvloop") and importlib.import_module("uvloop")
    with contextlib.suppress(KeyboardInterrupt):
        (uvloop if uvloop and wanted else asyncio).run(server)


def announce(port: int) -> None:
    """Tell the starting process where to connect."""
    facts = {"url": f"ws://127.0.0.1:{port}", "publishable_key": "none"}
    print(json.dumps(facts), flush=True)


# --- the clients ---


class Client(asyncio.Protocol):
    """A connection that counts frames."""

    def __init__(self, count: Callable[[], None]) -> None:
        self.frames = 0
        self.ready = asyncio.get_running_loop().create_future()
        self._count = count
        self._buffer = b""
        self._open = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self.transport = transport

    def greet(self, host: str, key: str) -> None:
        """Ask for the upgrade."""
        self.transport.write(
            f"GET /v1?key={key} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\n"
            f"Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
            f"Sec-WebSocket-Key: {base64.b64encode(os.urandom(16)).decode()}\r\n\r\n".encode()
        )

    def data_received(self, data: bytes) -> None:
        """Count what is complete."""
        data = self._buffer + data
        if not self._open:
            head, separator, data = data.partition(b"\r\n\r\n")
            if not separator:
                self._buffer = head
                return
            assert b" 101 " in head, head
            self._open = True
        at, end = 0, len(data)
        while end - at >= 2:
            size, start = data[at + 1], at + 2
            if size == 126:
                size, start = int.from_bytes(data[at + 2 : at + 4], "big"), at + 4
            elif size == 127:
                size, start = int.from_bytes(data[at + 2 : at + 10], "big"), at + 10
            if start + size > end:
                break
            if data[at] == 0x81:
                self.frames += 1
                self._count()
                if not self.ready.done():
                    self.ready.set_result(None)
            elif data[at] == 0x89:  # a ping; the pong carries the same
                self.transport.write(
                    bytes((0x8A, 0x80 | size)) + b"\0\0\0\0" + data[start : start + size]
                )
            at = start + size
        self._buffer = data[at:]

    def send(self, **fields: object) -> None:
        """Send a frame, masked with zeros."""
        payload = json.dumps(fields).encode()
        size = len(payload)
        length = bytes((0x80 | size,)) if size < 126 else b"\xfe" + size.to_bytes(2, "big")
        self.transport.write(b"\x81" + length + b"\0\0\0\0" + payload)


class Counter:
    """Frames of all clients, and waiting until there are enough."""

    def __init__(self) -> None:
        self.total = 0
        self._wanted = 0
        self._enough = asyncio.Event()

    def count(self) -> None:
        """Count one."""
        self.total += 1
        if self.total >= self._wanted:
            self._enough.set()

    async def reach(self, total: int) -> None:
        """Wait until so many have come."""
        self._wanted = total
        self._enough.clear()
        if self.total < total:
            await asyncio.wait_for(self._enough.wait(), 120)


def cpu(pid: int) -> float:
    """Return the CPU seconds that a process has used."""
    with open(f"/proc/{pid}/stat") as stat:
        fields = stat.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def memory(pid: int) -> int:
    """Return the resident bytes of a process."""
    with open(f"/proc/{pid}/statm") as statm:
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def files(pid: int) -> int:
    """Return how many files a process has open."""
    return len(os.listdir(f"/proc/{pid}/fd"))


async def measure(pid: int, url: str, key: str) -> dict[str, float]:
    """Load a server and return what that cost it."""
    parts = urlsplit(url)
    counter = Counter()
    memory_before, files_before = memory(pid), files(pid)
    start, used = time.perf_counter(), cpu(pid)
    loop = asyncio.get_running_loop()
    clients = []
    for _ in range(CONNECTIONS):
        _, client = await loop.create_connection(
            lambda: Client(counter.count), parts.hostname, parts.port
        )
        client.greet(parts.netloc, key)
        clients.append(client)
    await asyncio.wait_for(asyncio.gather(*(client.ready for client in clients)), 60)
    result = {
        "connect: ms of CPU": (cpu(pid) - used) / CONNECTIONS * 1000,
        "all connected: s": time.perf_counter() - start,
        "memory: KB a connection": (memory(pid) - memory_before) / CONNECTIONS / 1024,
        "open files a connection": (files(pid) - files_before) / CONNECTIONS,
    }

    sender, *readers = clients

    async def quiet() -> None:
        seen = -1
        while counter.total != seen:
            seen = counter.total
            await asyncio.sleep(QUIET)

    async def subscribe(client: Client, channel: str) -> None:
        before = client.frames
        client.send(type="subscribe", channel=channel, requestId="r")
        while client.frames == before:
            await asyncio.sleep(0.0005)

    # A thousand arrivals, each of which a server with presence tells all who are there.
    start, used = time.perf_counter(), cpu(pid)
    await asyncio.gather(*(subscribe(client, "everybody") for client in readers))
    await quiet()
    result["all subscribed: s"] = time.perf_counter() - start - QUIET
    result["all subscribed: s of CPU"] = cpu(pid) - used

    async def burst(channel: str, count: int, fan_out: int, in_flight: int) -> float:
        """Return the seconds of CPU that publishing took."""
        used = cpu(pid)
        done = counter.total
        for number in range(count):
            sender.send(type="publish", channel=channel, requestId=str(number), data=DATA)
            if (number + 1) % in_flight == 0:
                await counter.reach(done + (number + 1) * (fan_out + 1))
        await counter.reach(done + count * (fan_out + 1))
        return cpu(pid) - used

    count = MESSAGES
    used = await burst("everybody", count, len(readers), 1)
    result["1 to 999: µs of CPU a delivery"] = used / count / len(readers) * 1e6
    used = await burst("everybody", count, len(readers), BURST)
    result["1 to 999, bursts: µs a delivery"] = used / count / len(readers) * 1e6
    for client in readers[:10]:
        await subscribe(client, "ten")
    await quiet()
    count = ROUNDS * WINDOW
    used = await burst("ten", count, 10, 1)
    result["1 to 10: µs of CPU a message"] = used / count * 1e6
    used = await burst("ten", count, 10, WINDOW)
    result["1 to 10, bursts: µs a message"] = used / count * 1e6
    used = await burst("nobody", count, 0, 1)
    result["1 to nobody: µs of CPU a message"] = used / count * 1e6
    used = await burst("nobody", count, 0, WINDOW)
    result["1 to nobody, bursts: µs a message"] = used / count * 1e6
    for client in clients:
        client.transport.abort()
    return result


def run(name: str, command: list[str]) -> dict[str, float]:
    """Start a server, measure it, end it."""
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            facts = json.loads(process.stdout.readline())
            return asyncio.run(measure(process.pid, facts["url"], facts["publishable_key"]))
        finally:
            process.terminate()


def main() -> None:
    """Measure, and print a table."""
    cloud = [sys.executable, "-m", "metered_sync.cli", "serve", "--json", "--no-limits"]
    results = {
        "websockets": run("websockets", [sys.executable, __file__, "websockets"]),
        "aiohttp": run("aiohttp", [sys.executable, __file__, "aiohttp"]),
        "local cloud": run("local cloud", cloud),
    }
    print(f"{CONNECTIONS} connections{'':<22}" + "".join(f"{name:>14}" for name in results))
    for row in results["aiohttp"]:
        values = [result[row] for result in results.values()]
        ratios = " ".join(f"{values[-1] / value:8.2f}" if value else "" for value in values[:-1])
        print(f"{row:<38}" + "".join(f"{value:>14.2f}" for value in values) + f"  ratios {ratios}")


if __name__ == "__main__":
    servers = {"websockets": serve_websockets, "aiohttp": serve_aiohttp}
    if len(sys.argv) == 1:
        main()
    else:
        serve_bare(servers[sys.argv[1]]())
