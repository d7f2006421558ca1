"""Read how long an HTTP answer asks to wait."""

from __future__ import annotations

import math
from datetime import datetime, timezone
from email.utils import parsedate_to_datetime

__all__ = ["retry_after"]


def retry_after(value: str | None, date: str | None) -> float:
    """Return the seconds that an answer's ``Retry-After`` asks to wait (RFC 9110, 10.2.3), or 0.

    Args:
        value: The header: seconds, or a date.
        date: The answer's ``Date`` header: a date counts from the server's own clock, where it
            shows one.
    """
    try:
        seconds = float(value or "")
    except ValueError:
        try:
            now = parsedate_to_datetime(date or "")
        except (TypeError, ValueError):
            now = datetime.now(timezone.utc)
        try:
            seconds = (parsedate_to_datetime(value or "") - now).total_seconds()
        except (TypeError, ValueError):
            return 0.0
    return max(0.0, seconds) if math.isfinite(seconds) else 0.0
