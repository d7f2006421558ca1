"""Ping the server while nothing arrives, and notice a connection that has died without a word."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import anyio

from metered_sync.bridge.clock import monotonic
from metered_sync.engine.messaging.outbox import Outbox
from metered_sync.engine.messaging.request import Request
from metered_sync.wire import frames
from metered_sync.wire.timings import Timings

if TYPE_CHECKING:
    from metered_sync.engine.messaging.websocket import WebSocket

__all__ = ["await_silence"]

logger = logging.getLogger("metered_sync")

STOOD_STILL = 1.0
"""Seconds by which a timer is late where the process, or the machine, has stood still."""
CATCH_UP = 0.05
"""Seconds in which what came in such a time is read."""


async def await_silence(
    connection: WebSocket, outbox: Outbox, limit: float, timings: Timings, label: str
) -> float:
    """Ping while nothing arrives; return once the connection stays silent all the same.

    One on which a request waits is left sooner: the other end may be gone without a word.

    Args:
        connection: The connection.
        outbox: Sends the pings.
        limit: Seconds of silence after which it counts as dead.
        timings: The pauses.
        label: Of the link, for the log.

    Returns:
        The seconds that closing it may take.
    """
    overdue = timings.overdue
    interval = max(timings.ping_floor, limit * timings.ping_fraction)
    while True:
        now = monotonic()
        silence, unanswered = now - connection.last_text, connection.unanswered()
        if silence >= limit or unanswered >= 2 * overdue:
            logger.info("%s: nothing arrived for %.0f s", label, silence)
            return timings.close if silence >= limit else timings.farewell
        pause = interval - silence
        if silence >= interval or unanswered >= overdue:
            pause = min(interval, limit - silence)
            outbox.urge([Request("", frames.build_ping(), "ping", outage="fail")])
            outbox.flush()
        if unanswered:
            left = overdue - unanswered
            pause = min(pause, left if left > 0 else overdue + left)
        else:
            connection.asked.clear()
        with anyio.move_on_after(max(pause, 0.01)):
            await (anyio.sleep_forever() if unanswered else connection.asked.wait())
        if monotonic() - now > pause + STOOD_STILL:  # read first what has come meanwhile
            await anyio.sleep(CATCH_UP)
