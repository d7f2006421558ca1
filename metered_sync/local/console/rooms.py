"""Find the rooms among the channels: by what their members say to each other about media.

To the service a room is a channel like others (docs/protocol/rooms.md); its members' signals, and
the states of docs/protocol/rooms-sfu.md, are messages. They are looked at whether a page is open or
not, since members that have found each other say nothing more. What they say are claims.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any

from metered_sync.wire.fields import FieldError, Fields
from metered_sync.wire.signals import SessionDescription, TrackMetadata, is_reserved, parse_signal

__all__ = ["RoomSignals"]

MAX_MEMBERS = 1000
"""Peers that are remembered, at most; the latest to have spoken stay."""
MAX_LINKS = 100
"""Other members that one has signalled to, at most."""
MAX_TRACKS = 32
"""Tracks that one member announces, at most."""
MAX_NAME = 256
_SECTIONS = re.compile("^m=", re.MULTILINE)
_SENDS_NOTHING = re.compile(r"^a=(?:recvonly|inactive)\s*$", re.MULTILINE)


@dataclass
class _Member:
    """What a peer has said."""

    links: OrderedDict[str, str] = field(default_factory=OrderedDict)
    """The last description, offer or answer, that it sent to each other member."""
    tracks: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Its tracks by their ids, as it has told of them."""
    sent: list[dict[str, Any]] = field(default_factory=list)
    """What its last description sends."""
    through_sfu: bool = False
    speaking: bool = False


class RoomSignals:
    """What the peers of a cloud say about media."""

    def __init__(self) -> None:
        self._members: OrderedDict[str, _Member] = OrderedDict()

    def clear(self) -> None:
        """Forget it all."""
        self._members.clear()

    def note(self, peer: str, data: Any, to: str | None) -> None:
        """Look at a message that was passed on."""
        if not isinstance(data, dict):
            return
        if to is not None and is_reserved(data):
            self._note_signal(self._member(peer), data, to)
        elif data.get("$sfu") == 1 and "session" in data:
            self._note_state(self._member(peer), Fields(data))

    def _member(self, peer: str) -> _Member:
        member = self._members.setdefault(peer, _Member())
        self._members.move_to_end(peer)
        if len(self._members) > MAX_MEMBERS:
            self._members.popitem(last=False)
        return member

    def _note_signal(self, member: _Member, data: dict[str, Any], to: str) -> None:
        signal = parse_signal(data)
        if isinstance(signal, SessionDescription):
            member.links[to] = signal.type
            member.sent = _sent(signal.sdp)
            member.links.move_to_end(to)
            if len(member.links) > MAX_LINKS:
                member.links.popitem(last=False)
        elif isinstance(signal, TrackMetadata):
            if signal.metadata is None:
                member.tracks.pop(signal.track_id, None)
            elif signal.track_id in member.tracks or len(member.tracks) < MAX_TRACKS:
                track = {"kind": signal.kind, "stream": signal.stream_id}
                member.tracks[signal.track_id] = track

    def _note_state(self, member: _Member, state: Fields) -> None:
        def read(track: Fields) -> tuple[str, dict[str, Any]]:
            return track.filled("id", most=MAX_NAME), {
                "kind": track.filled("kind", most=MAX_NAME),
                "name": track.text_or_none("name", most=MAX_NAME),
                "stream": track.text_or_none("stream", most=MAX_NAME),
                "on": track.get("on") is not False,
            }

        try:
            tracks = dict(state.each("tracks", read)[:MAX_TRACKS])
        except FieldError:
            return
        member.tracks = tracks
        member.through_sfu = True
        member.speaking = state.get("speaking") is True

    def room(self, peers: Collection[str]) -> list[dict[str, Any]] | None:
        """Return the members of a room, or ``None`` if these peers of a channel are in none."""
        found = [(peer, self._members.get(peer)) for peer in peers]
        if not any(
            member is not None and (member.through_sfu or not member.links.keys().isdisjoint(peers))
            for _, member in found
        ):
            return None
        return [
            {
                "peer": peer,
                "media": "sfu" if member.through_sfu else "mesh",
                "tracks": list(member.tracks.values()) or member.sent,
                "speaking": member.speaking,
                "links": [to for to in member.links if to in peers],
            }
            if member is not None
            else {"peer": peer, "media": None, "tracks": [], "speaking": False, "links": []}
            for peer, member in found
        ]


def _sent(description: str) -> list[dict[str, Any]]:
    """Return a track for each section of sound or pictures that a description sends."""
    sections = _SECTIONS.split(description, MAX_TRACKS + 1)[1 : MAX_TRACKS + 1]
    heads = [(*section.split(" ", 2)[:2], section) for section in sections if " " in section]
    return [
        {"kind": kind}
        for kind, port, section in heads
        if kind in ("audio", "video") and port != "0" and not _SENDS_NOTHING.search(section)
    ]
