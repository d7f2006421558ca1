"""Measure the tracks of the local SFU while a page is open: codec, size, bit rate, loss."""

from __future__ import annotations

import weakref
from collections.abc import Iterable
from typing import Any

from metered_sync.bridge.clock import monotonic
from metered_sync.local.sfu.forward import PublishedTrack
from metered_sync.local.sfu.rtp import Packet
from metered_sync.local.sfu.session import Session
from metered_sync.wire.key_frames import size_in_payload

__all__ = ["TrackMeters"]

SPAN = 1.0
"""Seconds over which rates are taken."""


class _Meter:
    """Measures one track, packet by packet."""

    def __init__(self, track: PublishedTrack, now: float) -> None:
        self.size: tuple[int, int] | None = None
        self.codec: str | None = None
        self.bit_rate: int | None = None
        self.loss: float | None = None
        self._octets = 0
        self._since = now
        self._before = track.counts()
        track.watcher = self.on_packet
        track.request_key_frame()  # which tells the size of the picture

    def on_packet(self, packet: Packet, codec: str) -> None:
        self._octets += len(packet.payload)
        self.codec = codec
        size = size_in_payload(codec, packet.payload)
        if size is not None:
            self.size = size

    def read(self, track: PublishedTrack, now: float) -> None:
        """Take the rates since the last call, once some time has passed."""
        if now - self._since < SPAN:
            return
        self.bit_rate = round(self._octets * 8 / (now - self._since))
        before, counts = self._before, track.counts()
        expected, received = counts[0] - before[0], counts[1] - before[1]
        self.loss = None
        if expected > 0:  # (less than none: the stream began anew)
            self.loss = round(min(1.0, max(0.0, 1 - received / expected)), 3)
        self._octets, self._since, self._before = 0, now, counts


class TrackMeters:
    """Measure the tracks of an SFU. All methods belong to its loop."""

    def __init__(self) -> None:
        self._meters: weakref.WeakKeyDictionary[PublishedTrack, _Meter] = (
            weakref.WeakKeyDictionary()
        )

    def stop(self) -> None:
        """Look at no packet any more."""
        for track in self._meters:
            track.watcher = None
        self._meters.clear()

    def sessions(self, sessions: Iterable[Session]) -> list[dict[str, Any]]:
        """Return what is to be shown of sessions and their tracks; begin to measure new ones."""
        now = monotonic()
        return [
            {
                "id": session.id,
                "state": session.info().state,
                "metadata": session.metadata,
                "tracks": [self._track(track, now) for track in session.tracks()],
                "receives": [
                    {
                        "session": item.track.session_id,
                        "track": item.track.track_id,
                        "name": item.track.name,
                        "kind": item.track.kind,
                    }
                    for item in session.subscriptions()
                ],
            }
            for session in sessions
        ]

    def _track(self, track: PublishedTrack, now: float) -> dict[str, Any]:
        meter = self._meters.get(track)
        if meter is None:
            if track.reception is None:  # nothing came yet
                return {**_named(track), "codec": None, "bitRate": None, "loss": None, "size": None}
            meter = self._meters[track] = _Meter(track, now)
        meter.read(track, now)
        return {
            **_named(track),
            "codec": meter.codec,
            "bitRate": meter.bit_rate,
            "loss": meter.loss,
            "size": meter.size,
        }


def _named(track: PublishedTrack) -> dict[str, Any]:
    info = track.info()
    return {
        "id": info.track_id,
        "name": info.name,
        "kind": info.kind,
        "subscribers": info.subscribers,
        "listed": track.listed,
    }
