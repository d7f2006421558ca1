"""Have aiortc go by a clock that neither stops nor jumps.

aiortc (1.14 to 1.16) measures round trips, retransmissions, jitter and the bit rate that the
network carries by the time of day. Where that jumps, or a test has frozen it, data channels wait
a minute for what was lost, and senders are told a wrong bit rate. Other users of aiortc in this
process see the steady clock as well.
"""

from __future__ import annotations

import time
from datetime import datetime, timedelta, timezone
from types import SimpleNamespace
from typing import Any

from aiortc import clock, rtcrtpreceiver, rtcrtpsender, rtcsctptransport

from metered_sync.bridge.clock import monotonic

__all__ = ["use_steady_clock"]

_began = time.time() - monotonic()
_began_at = datetime.fromtimestamp(_began, timezone.utc)
_began_after_1900 = (_began_at - datetime(1900, 1, 1, tzinfo=timezone.utc)).total_seconds()


def _seconds() -> float:
    """Return the seconds since 1970, as if nobody had set the clock since this was imported."""
    return _began + monotonic()


def _date() -> datetime:
    """Return the same as a date."""
    return _began_at + timedelta(seconds=monotonic())


def _milliseconds() -> int:
    """Return the milliseconds since 1900, by which each packet is stamped: without a date."""
    return int((_began_after_1900 + monotonic()) * 1000)


def use_steady_clock() -> None:
    """Put our clock into the place of aiortc's."""
    modules: tuple[Any, ...] = (rtcrtpreceiver, rtcrtpsender, rtcsctptransport)
    for module in modules:
        module.time = SimpleNamespace(time=_seconds)
    clock.current_datetime = _date
    clock.current_ms = _milliseconds
