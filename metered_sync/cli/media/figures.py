"""Show seconds, bytes and bit rates as text, and read a bit rate."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from metered_sync.media.recording.info import RecordingInfo

__all__ = ["bitrate_text", "clock_text", "parse_bitrate", "published_text", "recorded_text"]

BITRATE = re.compile(r"([0-9]{1,12}(?:\.[0-9]{1,6})?)([kM]?)")
FACTORS = {"": 1, "k": 1000, "M": 1_000_000}


def clock_text(seconds: float) -> str:
    """Return seconds as ``0:07`` or ``1:02:03``."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def bitrate_text(rate: float) -> str:
    """Return bits per second as ``850 kbit/s`` or ``1.25 Mbit/s``."""
    return f"{rate / 1e6:.2f} Mbit/s" if rate >= 1e6 else f"{rate / 1000:.0f} kbit/s"


def bytes_text(count: int) -> str:
    """Return a file's size as ``12 kB`` or ``3.4 MB``."""
    return f"{count / 1e6:.1f} MB" if count >= 1_000_000 else f"{count / 1000:.0f} kB"


def parse_bitrate(text: str) -> int:
    """Return the bits per second that ``800000``, ``800k`` or ``1.5M`` stand for."""
    found = BITRATE.fullmatch(text.strip())
    rate = round(float(found[1]) * FACTORS[found[2]]) if found else 0
    if rate <= 0:
        raise ValueError(f"a bit rate is like 800k or 1.5M, in bits per second, not {text!r}")
    return rate


def frames_text(kind: str, count: int) -> str:
    """Return a number of frames; pieces of sound are told from pictures."""
    return f"{count} {'frame' if kind == 'video' else 'piece'}{'' if count == 1 else 's'}" + (
        "" if kind == "video" else " of sound"
    )


def published_text(
    seconds: float, publications: Sequence[Mapping[str, Any]], subscribers: int | None
) -> str:
    """Return how far publishing has come: time, bit rate, frames, watchers where known.

    Args:
        seconds: Since it began.
        publications: As :meth:`SfuClient.stats` returns them.
        subscribers: How many receive it; ``None``: the SFU does not tell.
    """
    rate = sum(one["bitrate"] or 0 for one in publications)
    shown = [one for one in publications if one["kind"] == "video"] or list(publications)
    parts = [clock_text(seconds), bitrate_text(rate)]
    parts += [frames_text(one["kind"], one["frames_sent"]) for one in shown]
    if subscribers is not None:
        parts.append(f"{subscribers} watching")
    return "  ".join(parts)


def recorded_text(info: RecordingInfo) -> str:
    """Return how far a recording has come: time, bit rate, size, frames, and what was dropped."""
    kinds = {stream.kind for stream in info.streams}
    kind = "audio" if kinds == {"audio"} else "video"
    rate = info.bytes * 8 / info.duration if info.duration else 0.0
    parts = [clock_text(info.duration), bitrate_text(rate), bytes_text(info.bytes)]
    parts.append(frames_text(kind, info.frames))
    if info.dropped:
        parts.append(f"{info.dropped} dropped")
    return "  ".join(parts)
