"""Make the event loop of an engine: uvloop's or asyncio's, with four things changed.

**The clock.** Its timers go by the real clock (:mod:`metered_sync.bridge.clock`), whatever a test
has put in the place of ``time.monotonic``.

**Names.** Host names are looked up on daemon threads of our own. asyncio would use the loop's
default executor, and so does aioice for the name of a STUN server: there a name that nobody
answers for would keep the codecs waiting, and the interpreter's exit. uvloop would use the
threads of libuv, which hold up the exit as well. Two lookups of one name at a time are one.

**Sockets.** aioice leaves some open whose TURN server does not answer, or whose gathering is cut
short. They are closed with the loop, without a ``ResourceWarning``.

**Green threads.** Those of gevent and eventlet share one thread, for which asyncio notes the loop
that runs in it. While ours only waits, the others see none: Django would refuse each of them its
database, and ``asyncio.run()`` would not start.
"""

from __future__ import annotations

import asyncio
import functools
import ipaddress
import os
import selectors
import socket
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

from metered_sync.bridge.clock import monotonic
from metered_sync.bridge.process import has_green_threads
from metered_sync.bridge.workers import run_in_worker

__all__ = ["new_event_loop", "uvloop_wanted"]

if TYPE_CHECKING:
    _Loop = asyncio.BaseEventLoop
else:
    _Loop = object
if sys.platform == "win32":
    _Asyncio = asyncio.ProactorEventLoop
else:
    _Asyncio = asyncio.SelectorEventLoop


class _OwnWays(_Loop):
    """Look host names up on threads of our own, and close what is left; for a loop's class."""

    def __init__(self, *options: Any) -> None:
        super().__init__(*options)
        self._lookups: dict[Any, asyncio.Task[Any]] = {}
        self._endpoints: WeakSet[asyncio.DatagramTransport] = WeakSet()

    async def create_datagram_endpoint(self, *args: Any, **options: Any) -> Any:
        """Open a socket for datagrams as the loop does, and note it."""
        transport, protocol = await super().create_datagram_endpoint(*args, **options)
        self._endpoints.add(transport)
        return transport, protocol

    def close(self) -> None:
        """Close the loop; before that, the sockets that were left open."""
        left = [one for one in tuple(self._endpoints) if not one.is_closing()]
        if left and not (self.is_running() or self.is_closed()):
            for transport in left:
                transport.abort()
            self.run_until_complete(asyncio.sleep(0.001))  # (they close in its next turns)
        super().close()

    def run_in_executor(  # type: ignore[override]
        self, executor: Any, func: Callable[..., Any], *args: Any
    ) -> Any:
        """Run a function on an executor's thread; a lookup on one of ours.

        asyncio's own lookups come through here, and aioice's.
        """
        if executor is None and func in (socket.getaddrinfo, socket.gethostbyname):
            return self._look_up(func, *args)
        return super().run_in_executor(executor, func, *args)

    def _look_up(self, function: Callable[..., Any], *args: Any) -> asyncio.Future[Any]:
        key = (function, args)
        if key not in self._lookups:
            task = self._lookups[key] = self.create_task(run_in_worker(function, *args))

            def end(_: object) -> None:
                del self._lookups[key]
                # Retrieves an error that comes when nobody asks any more.
                task.cancelled() or task.exception()

            task.add_done_callback(end)
        return asyncio.shield(self._lookups[key])  # one who gives up leaves the others theirs


class _AsyncioLoop(_OwnWays, _Asyncio):
    """asyncio's loop, with the real clock and lookups of our own."""

    def time(self) -> float:
        """Return the time that timers go by."""
        return monotonic()


@functools.cache
def _uvloop_class() -> type[asyncio.AbstractEventLoop]:
    import uvloop

    class UvLoop(_OwnWays, uvloop.Loop):  # type: ignore[misc]
        """uvloop's loop (its clock is its own), which is given addresses instead of names."""

        async def getaddrinfo(
            self,
            host: Any,
            port: Any,
            *,
            family: int = 0,
            type: int = 0,
            proto: int = 0,
            flags: int = 0,
        ) -> Any:
            return await self._look_up(socket.getaddrinfo, host, port, family, type, proto, flags)

        async def create_connection(
            self, protocol_factory: Any, host: Any = None, port: Any = None, **options: Any
        ) -> Any:
            connect = super().create_connection
            if not _is_name(host):
                return await connect(protocol_factory, host, port, **options)
            if options.get("ssl"):
                options.setdefault("server_hostname", host)
            wanted = {key: options.get(key, 0) for key in ("family", "proto", "flags")}
            for key in wanted:
                options.pop(key, None)
            found = await self.getaddrinfo(host, port, type=socket.SOCK_STREAM, **wanted)
            return await _first(
                lambda address: connect(protocol_factory, *address[:2], **options), found
            )

        async def create_datagram_endpoint(
            self,
            protocol_factory: Any,
            local_addr: Any = None,
            remote_addr: Any = None,
            **options: Any,
        ) -> Any:
            create = super().create_datagram_endpoint
            if remote_addr is None or not _is_name(remote_addr[0]):
                return await create(protocol_factory, local_addr, remote_addr, **options)
            family = options.get("family", 0)
            found = await self.getaddrinfo(*remote_addr[:2], family=family, type=socket.SOCK_DGRAM)
            return await _first(
                lambda address: create(protocol_factory, local_addr, address, **options), found
            )

    return UvLoop


def _green_selector() -> selectors.BaseSelector:
    """Return a selector in whose wait other green threads run, and see the loop that is theirs."""
    selector: Any = selectors.DefaultSelector()  # (looked up now: it has been replaced)
    select = selector.select
    others: asyncio.AbstractEventLoop | None = None

    def wait(timeout: float | None = None) -> Any:
        nonlocal others
        ours = asyncio._get_running_loop()
        asyncio._set_running_loop(others)
        try:
            return select(timeout)
        finally:
            others = asyncio._get_running_loop()
            asyncio._set_running_loop(ours)

    selector.select = wait
    return selector  # type: ignore[no-any-return]


def _is_name(host: object) -> bool:
    if not isinstance(host, str) or not host:
        return False
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return True
    return False


async def _first(attempt: Callable[[Any], Any], found: list[Any]) -> Any:
    """Return the result of the first address with which an attempt succeeds."""
    for number, (*_, address) in enumerate(found, 1):
        try:
            return await attempt(address)
        except OSError:
            if number == len(found):
                raise
    raise OSError("the name has no address")


def new_event_loop() -> asyncio.AbstractEventLoop:
    """Return a loop for an engine's thread."""
    if uvloop_wanted():
        return _uvloop_class()()
    if has_green_threads() and sys.platform != "win32":
        return _AsyncioLoop(_green_selector())
    return _AsyncioLoop()


def uvloop_wanted() -> bool:
    """Say whether loops are uvloop's: it is installed, works here and is not opted out of."""
    if os.environ.get("METERED_SYNC_LOOP") == "asyncio" or has_green_threads():
        return False  # (a green thread that waits in libuv stops all others, for ever)
    try:
        import uvloop  # noqa: F401
    except ImportError:
        return False
    return True
