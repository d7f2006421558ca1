"""Say how far a recording has come."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["RecordedStream", "RecordingInfo"]


@dataclass(frozen=True)
class RecordedStream:
    """One stream of a recorded file."""

    kind: str
    """``"audio"`` or ``"video"``."""
    codec: str
    """The encoder: ``"libx264"``, ``"libvpx"``, ``"aac"``, ``"libopus"``, ``"pcm_s16le"``; or the
    codec of what is written as it comes: ``"h264"``, ``"vp8"``, ``"opus"``."""
    frames: int
    """Pictures, or packets of sound, written."""
    duration: float
    """Seconds from the recording's beginning to the stream's end."""
    size: tuple[int, int] | None
    """Width and height of the first picture, in pixels; ``None`` for sound."""


@dataclass(frozen=True)
class RecordingInfo:
    """How far a recording has come."""

    path: str
    """The file."""
    duration: float
    """Seconds recorded."""
    frames: int
    """Pictures written; packets of sound where the file has no pictures."""
    dropped: int
    """Frames that could not be recorded, because encoder or disk were too slow."""
    bytes: int
    """The file's size so far."""
    streams: tuple[RecordedStream, ...]
    """The file's streams; empty before the first frames were written."""
