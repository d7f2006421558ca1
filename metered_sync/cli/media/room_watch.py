"""Watch a room: its members, their tracks, their messages."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any, Protocol

from metered_sync.cli import output
from metered_sync.cli.media.figures import bitrate_text, bytes_text, clock_text, recorded_text
from metered_sync.cli.media.recording import recorded_facts
from metered_sync.cli.media.room_files import RoomFiles
from metered_sync.errors import MeteredTimeoutError
from metered_sync.events import Data, Event, PeerJoined, PeerLeft
from metered_sync.media.recording import RecordingInfo
from metered_sync.media.tracks.track import RemoteTrack
from metered_sync.peer import MeteredPeer

__all__ = ["RoomWatch"]

LOOK_INTERVAL = 0.2
"""Seconds between two looks at which tracks there are."""


class Tell(Protocol):
    """Shows that something has happened: to people the text, to programs the facts."""

    def __call__(self, kind: str, member: str, text: str, facts: dict[str, Any]) -> None: ...


class RoomWatch:
    """Tell what happens in a room, and record it where that is wanted. Used by one thread.

    It is made before the room is joined, and so misses nothing.
    """

    def __init__(self, peer: MeteredPeer, tell: Tell) -> None:
        self._peer = peer
        self._tell = tell
        self._events = peer.events(PeerJoined, PeerLeft, Data)
        self._tracks: dict[str, list[RemoteTrack]] = {}
        self._look_at = 0.0
        self.files: RoomFiles | None = None
        """Records what members send."""

    def run(self, report: Callable[[str], object], seconds: float | None) -> None:
        """Watch for so many seconds, or until Ctrl-C; ``report`` is given lines of progress.

        Raises:
            DisconnectedError: The connection to the service has ended for good.
        """
        began = time.monotonic()
        end = math.inf if seconds is None else began + seconds
        with self._events as events:
            while (now := time.monotonic()) < end:
                if now >= self._look_at:
                    self._look_at = now + LOOK_INTERVAL
                    self._look()
                    report(self._progress(now - began))
                try:
                    event = events.get(timeout=max(0.0, min(self._look_at, end) - now))
                except MeteredTimeoutError:
                    continue
                self._take(event)
        if events.dropped:
            output.talk(f"{events.dropped} messages came too fast to be shown")

    def _take(self, event: Event) -> None:
        if isinstance(event, PeerJoined):
            self._tracks.setdefault(event.peer.id, [])
            metadata = event.peer.metadata
            self._tell(
                "joined",
                event.peer.id,
                "joined" + (f" {output.json_text(metadata)}" if metadata else ""),
                {"metadata": metadata},
            )
        elif isinstance(event, PeerLeft):
            self._tracks.pop(event.peer.id, None)
            if self.files is not None:
                self.files.end(event.peer.id)
            self._tell("left", event.peer.id, "left", {})
        elif isinstance(event, Data):
            how = "says" if event.kind == "broadcast" else "says to this member"
            text = f"{how} {output.json_text(event.data)}"
            facts = {"data": event.data, "direct": event.kind == "direct"}
            self._tell("data", event.sender_peer_id, text, facts)

    def _look(self) -> None:
        """Tell which tracks have come and which have ended, and have them recorded."""
        for member in self._peer.remote_peers:
            known = self._tracks.get(member.id)
            if known is None:
                continue  # that it has joined is told first
            live = [track for track in member.tracks if not track.ended]
            new = [track for track in live if track not in known]
            for track in known:
                if track not in live:
                    self._tell("ended", member.id, f"ended {_named(track)}", _facts(track))
            for track in new:
                metadata = track.metadata
                text = f" {output.json_text(metadata)}" if metadata else ""
                facts = {**_facts(track), "metadata": metadata}
                self._tell("track", member.id, f"sends {_named(track)}{text}", facts)
            self._tracks[member.id] = live
            if self.files is not None and new:
                self.files.add(member.id, new, live)
            elif self.files is not None and known and not live:
                self.files.end(member.id)

    def _progress(self, seconds: float) -> str:
        members = self._peer.remote_peers
        rate = sum(
            track.stats()["bitrate"] or 0 for live in self._tracks.values() for track in live
        )
        others = "nobody else" if not members else f"{len(members)} other"
        parts = [clock_text(seconds), others + ("s" if len(members) > 1 else "")]
        parts.append(f"{bitrate_text(rate)} received")
        if self.files is not None:
            parts.append(f"{bytes_text(self.files.bytes())} recorded")
        return "  ".join(parts)

    def recorded(self, member: str, info: RecordingInfo) -> None:
        """Tell that a member's file is complete."""
        text = f"recorded to {output.printable(info.path)}: {recorded_text(info)}"
        self._tell("recorded", member, text, recorded_facts(info))


def _named(track: RemoteTrack) -> str:
    return track.kind + (f" of {output.printable(track.stream_id)}" if track.stream_id else "")


def _facts(track: RemoteTrack) -> dict[str, Any]:
    return {"kind": track.kind, "stream": track.stream_id}
