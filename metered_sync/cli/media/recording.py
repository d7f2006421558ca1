"""Record tracks to a file until they end, time is up, or Ctrl-C."""

from __future__ import annotations

import contextlib
import math
import os
import time
from collections.abc import Callable, Sequence

from metered_sync.errors import MeteredTimeoutError
from metered_sync.media.recording import Recorder, RecordingInfo
from metered_sync.media.tracks.track import RemoteTrack

__all__ = ["discard_empty", "record", "recorded_facts"]

LOOK_INTERVAL = 0.2
"""Seconds between two looks at how far it is."""


def record(
    recorder: Recorder,
    tracks: Sequence[RemoteTrack],
    report: Callable[[RecordingInfo], object],
    *,
    seconds: float | None,
    wait: float,
) -> None:
    """Record tracks to a file, which is complete also where Ctrl-C or an error ends it.

    Args:
        recorder: A new one. A file that got nothing is removed.
        tracks: The tracks, of which the file gets streams.
        report: Called again and again with how far it is.
        seconds: End so long after the first frame; ``None``: once all tracks have ended.
        wait: Seconds to wait for the first frame.

    Raises:
        MeteredTimeoutError: No frame came in time.
        MediaError: The file cannot be written.
    """
    recorder.add(list(tracks))
    before = [track.frames_received for track in tracks]
    began: float | None = None
    end = time.monotonic() + wait
    try:
        with recorder:
            while recorder.state == "recording" and not all(track.ended for track in tracks):
                now = time.monotonic()
                if began is None and before != [track.frames_received for track in tracks]:
                    began = now
                    end = math.inf if seconds is None else now + seconds
                if now >= end:
                    break
                report(recorder.info)
                _pause(tracks, end - now)
            if began is None and recorder.state == "recording":
                raise MeteredTimeoutError(
                    f"no frame came within {wait:g} s: the tracks are negotiated; does their "
                    "publisher send?"
                )
    finally:
        discard_empty(recorder.info)


def _pause(tracks: Sequence[RemoteTrack], most: float) -> None:
    """Wait a moment, less where a track ends."""
    live = next((track for track in tracks if not track.ended), None)
    if live is not None:
        with contextlib.suppress(MeteredTimeoutError):
            live.wait_ended(timeout=min(LOOK_INTERVAL, most))


def discard_empty(info: RecordingInfo) -> None:
    """Remove a file into which nothing was recorded."""
    with contextlib.suppress(OSError):
        if os.path.getsize(info.path) == 0:
            os.unlink(info.path)


def recorded_facts(info: RecordingInfo) -> dict[str, object]:
    """Return what is told to programs of a file that is complete."""
    return {
        "path": info.path,
        "duration": round(info.duration, 3),
        "bytes": info.bytes,
        "frames": info.frames,
        "dropped": info.dropped,
        "streams": [stream.kind for stream in info.streams],
    }
