"""Inject faults into a local cloud, to test how a program takes them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from metered_sync.bridge.guard import LiveObject
from metered_sync.errors import SfuNotFoundError
from metered_sync.local.servers import Servers
from metered_sync.wire.arguments import check_number, check_whole, shown

__all__ = ["Faults"]


class Faults(LiveObject):
    """Faults to inject into a local cloud. Each call returns once the fault is in effect.

    Arguments that make no sense are ``ValueError``; a cloud that is not started raises
    :class:`~metered_sync.NotConnectedError`, one that is closed ``ClosedError``. Each call takes
    ``timeout=``, in seconds; ``None`` is the cloud's default.

    Args:
        run: Takes a fault's name, for errors, the seconds it may take, and a coroutine function;
            runs that with the cloud's servers on their loop, and waits for it.
    """

    def __init__(
        self, run: Callable[[str, float | None, Callable[[Servers], Awaitable[None]]], None]
    ) -> None:
        self._await = run

    def drop_connections(self, peer_id: str | None = None, *, timeout: float | None = None) -> None:
        """Reset the TCP connection of every messaging client, or of one peer's.

        They see close code 1006.
        """

        def drop(servers: Servers) -> None:
            servers.signalling.drop_connections(peer_id)

        self._run("drop_connections", timeout, drop)

    def refuse_connections(self, seconds: float, *, timeout: float | None = None) -> None:
        """Reset whoever tries to make a messaging connection, for so long; 0 ends it.

        Connections that stand are left alone.
        """
        seconds = check_number("seconds", seconds)

        def refuse(servers: Servers) -> None:
            servers.signalling.refuse_connections(seconds)

        self._run("refuse_connections", timeout, refuse)

    def going_away(self, retry_after_ms: int = 1000, *, timeout: float | None = None) -> None:
        """Announce the server's end to all messaging clients, then close them (1001).

        The announcement asks them to come back after ``retry_after_ms`` milliseconds. The
        server stays, so that they can. Returns when all are closed.
        """
        retry_after_ms = check_whole("retry_after_ms", retry_after_ms)

        async def go_away(servers: Servers) -> None:
            await servers.signalling.go_away(retry_after_ms)

        self._await("going_away", timeout, go_away)

    def close(self, code: int, peer_id: str | None = None, *, timeout: float | None = None) -> None:
        """Close the connection of every messaging client, or of one peer's, with a close code.

        Returns when they are closed. The code is one that a server may send: 1000 to 1003,
        1007 to 1014, 3000 to 4999 (RFC 6455, section 7.4).
        """
        code = check_whole("code", code)
        if not (1000 <= code <= 1003 or 1007 <= code <= 1014 or 3000 <= code <= 4999):
            raise ValueError(f"code must be a close code that can be sent, not {shown(code)}")

        async def close(servers: Servers) -> None:
            await servers.signalling.close_connections(code, peer_id)

        self._await("close", timeout, close)

    def hold_acks(self, seconds: float, *, timeout: float | None = None) -> None:
        """Hold back all acknowledgements for so long from now; then they go out, in order.

        Requests are carried out, and messages arrive, all the same. Presence of a channel
        waits for the acknowledgement of its subscription. 0 ends it.
        """
        seconds = check_number("seconds", seconds)

        def hold(servers: Servers) -> None:
            servers.signalling.scheduler.hold(seconds)

        self._run("hold_acks", timeout, hold)

    def delay(self, seconds: float, *, timeout: float | None = None) -> None:
        """Delay each frame to messaging clients by so long, from now on; 0 ends it.

        Their order stays as it is.
        """
        seconds = check_number("seconds", seconds)

        def delay(servers: Servers) -> None:
            servers.signalling.scheduler.delay(seconds)

        self._run("delay", timeout, delay)

    def kill_sfu_session(self, session_id: str, *, timeout: float | None = None) -> None:
        """End an SFU session at once, as if the SFU had forgotten it."""

        def kill(servers: Servers) -> None:
            try:
                servers.sfu.kill_session(session_id)
            except LookupError:
                raise SfuNotFoundError(f"there is no SFU session {session_id!r} to end") from None

        self._run("kill_sfu_session", timeout, kill)

    def lose_media(self, fraction: float, *, timeout: float | None = None) -> None:
        """Lose that fraction (0 to 1) of media packets from now on; 0 ends it."""
        fraction = check_number("fraction", fraction, most=1)

        def lose(servers: Servers) -> None:
            servers.sfu.lose_media(fraction)

        self._run("lose_media", timeout, lose)

    def _run(self, what: str, timeout: float | None, function: Callable[[Servers], object]) -> None:
        async def run(servers: Servers) -> None:
            function(servers)

        self._await(what, timeout, run)
