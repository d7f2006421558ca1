"""Watch the publisher's tracks with a plain blocking loop.

Keys and addresses come from the environment (METERED_KEY, METERED_SFU_APP_ID, …).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from av import VideoFrame

from metered_sync import FrameQueue, SfuClient, SignallingClient

KEPT_PICTURES = 12
"""Pictures that are kept for the contact sheet."""


@dataclass
class Seen:
    """Collect what the viewer saw and heard."""

    seconds: float = 0.0
    sent: dict[str, int] = field(default_factory=dict)
    """Frames that the publisher sent meanwhile, by kind."""
    received: dict[str, int] = field(default_factory=dict)
    ages: list[float] = field(default_factory=list)
    """Seconds between a picture's arrival and its being read."""
    energies: list[float] = field(default_factory=list)
    """Mean square of each piece of sound; 1 is full scale."""
    pictures: list[tuple[float, Any]] = field(default_factory=list)
    """Pictures kept for the contact sheet (RGB arrays), each with its moment in seconds."""


def watch(seconds: float, progress: Callable[[float, int], None]) -> Seen:
    """Watch for some seconds; ``progress(share, pictures)`` is called with each picture."""
    seen = Seen()
    with SignallingClient() as client, SfuClient() as sfu:
        publisher = client.subscribe("demo/publisher")
        session = publisher.get(timeout=30).data["session"]
        tracks = {track.kind: track for track in sfu.subscribe(sfu.tracks(session))}
        pictures, sound = tracks["video"].frames(), tracks["audio"].frames()

        def count() -> dict[str, int]:
            return {kind: track.frames_received for kind, track in tracks.items()}

        pictures.get(timeout=20)  # the first picture starts the clock
        while len(publisher):  # old news
            publisher.get()
        client.publish("demo/viewer", "ready")
        sent, received = publisher.get(timeout=10).data["sent"], count()
        start = told = time.monotonic()
        while seen.seconds < seconds:
            frame = pictures.get(timeout=10)
            now = time.monotonic()
            seen.seconds = now - start
            seen.ages.append(pictures.age)
            assert isinstance(frame, VideoFrame)
            if len(seen.pictures) <= seen.seconds * KEPT_PICTURES / seconds < KEPT_PICTURES:
                seen.pictures.append((seen.seconds, frame.to_ndarray(format="rgb24")))
            listen(sound, seen)
            progress(min(seen.seconds / seconds, 1.0), len(seen.ages))
            if now - told >= 1:
                client.publish("demo/viewer", {"received": count()})
                told = now

        seen.received = {kind: n - received[kind] for kind, n in count().items()}
        client.publish("demo/viewer", "enough")
        news: dict[str, Any] = {}
        while not news.get("last"):
            news = publisher.get(timeout=10).data
        seen.sent = {kind: n - sent[kind] for kind, n in news["sent"].items()}
        progress(1.0, len(seen.ages))
    return seen


def listen(sound: FrameQueue, seen: Seen) -> None:
    """Measure how loud the sound is that has arrived."""
    while len(sound):
        samples = sound.get().to_ndarray().astype(np.float64) / 32768
        seen.energies.append(float(np.mean(samples**2)))
