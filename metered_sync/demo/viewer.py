"""Watch what the publisher sends, with a plain blocking loop.

Keys and addresses come from the environment (METERED_KEY, METERED_SFU_APP_ID, …).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from metered_sync import FrameQueue, SfuClient, SignallingClient

PICTURES = 12


@dataclass
class Seen:
    """What the viewer saw and heard."""

    seconds: float = 0.0
    sent: dict[str, int] = field(default_factory=dict)
    """Frames the publisher sent meanwhile, by kind."""
    received: dict[str, int] = field(default_factory=dict)
    ages: list[float] = field(default_factory=list)
    """Seconds between a picture's arrival and its being read."""
    levels: list[float] = field(default_factory=list)
    """Loudness of each piece of sound, in dBFS."""
    pictures: list[tuple[float, Any]] = field(default_factory=list)
    """Pictures kept for the contact sheet, each with its moment in seconds."""


def watch(seconds: float, progress: Callable[[float, int], None]) -> Seen:
    """Watch for some seconds; ``progress(share, pictures)`` is called with each picture."""
    seen = Seen()
    with SignallingClient() as client, SfuClient() as sfu:
        publisher = client.subscribe("demo/publisher")
        news = publisher.get(timeout=30).data
        video, audio = sorted(
            sfu.subscribe(sfu.tracks(news["session"])), key=lambda t: t.kind, reverse=True
        )
        pictures, sound = video.frames(), audio.frames()

        pictures.get(timeout=20)  # the first picture starts the clock
        sent_before = publisher.get(timeout=5).data["sent"]
        frames_before = {t.kind: t.frames_received for t in (video, audio)}
        start = time.monotonic()
        for frame in pictures:
            moment = time.monotonic() - start
            seen.ages.append(pictures.age)
            if moment >= len(seen.pictures) * seconds / PICTURES:
                seen.pictures.append((moment, frame.to_image()))
            listen(sound, seen)
            progress(min(moment / seconds, 1.0), len(seen.ages))
            if moment >= seconds:
                break

        seen.seconds = time.monotonic() - start
        while len(publisher):  # the newest news
            news = publisher.get().data
        client.publish("demo/viewer", "enough")
        seen.sent = {kind: news["sent"][kind] - sent_before[kind] for kind in sent_before}
        seen.received = {t.kind: t.frames_received - frames_before[t.kind] for t in (video, audio)}
    return seen


def listen(sound: FrameQueue, seen: Seen) -> None:
    """Measure how loud the sound is that has arrived."""
    while len(sound):
        samples = sound.get().to_ndarray().astype(np.float64) / 32768
        seen.levels.append(10 * np.log10(max(float(np.mean(samples**2)), 1e-10)))
