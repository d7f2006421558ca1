"""Describe a local cloud as JSON: what the console shows beside the log."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from itertools import islice
from typing import Any

from metered_sync.local.connections import Socket
from metered_sync.local.console.journal import Journal
from metered_sync.local.console.media import TrackMeters
from metered_sync.local.console.rooms import RoomSignals
from metered_sync.local.servers import Servers
from metered_sync.wire.json_codec import encode
from metered_sync.wire.names import is_pattern

__all__ = ["CloudState", "masked"]

MAX_LISTED = 200
"""Channels, peers, sessions that are listed; of the others the number is told."""
MAX_INNER = 50
"""Peers in a channel, channels of a peer, that are listed."""
MAX_METADATA = 4096
"""Characters of metadata, and of a frame that was refused, that are shown."""
_NO_SECRET = ("key_id", "sfu_app_id", "turn_app")
"""Keys that are names only."""


class CloudState:
    """What there is in a cloud at a moment. All methods belong to its loop.

    Args:
        servers: The cloud's.
        journal: What was refused.
        signals: What its peers said about media.
        meters: Measures its SFU's tracks.
        keys: The cloud's keys and secrets by the names of its attributes, which are shown masked.
    """

    def __init__(
        self,
        servers: Servers,
        journal: Journal,
        signals: RoomSignals,
        meters: TrackMeters,
        keys: Mapping[str, str],
    ) -> None:
        self._servers = servers
        self._signals = signals
        self._meters = meters
        self._journal = journal
        self._keys = {n: value if n in _NO_SECRET else masked(value) for n, value in keys.items()}

    def sections(self) -> dict[str, Any]:
        """Return all of it, in sections that change apart from each other."""
        signalling, sfu = self._servers.signalling, self._servers.sfu
        peers: dict[str, list[Socket]] = {}
        for socket in signalling.broker.sockets():
            peers.setdefault(socket.peer_id, []).append(socket)
        channels = list(signalling.broker.channels())
        alive = [session for info in sfu.sessions() if (session := sfu.session(info.session_id))]
        usage = signalling.meter.usage()
        return {
            "keys": self._keys,
            "refused": {
                "count": self._journal.refusals,
                "latest": [_short(entry.body()) for entry in self._journal.refused_last],
            },
            "usage": {
                "connections": usage.concurrent_now,
                "peak": usage.peak_concurrent,
                "messages": usage.messages_used,
                "channels": len(channels),
                "peers": len(peers),
                "sessions": len(alive),
            },
            "channels": [
                {
                    "name": name,
                    "pattern": is_pattern(name),
                    "count": len(members),
                    "peers": _some(members),
                }
                for name, members in channels[:MAX_LISTED]
            ],
            "peers": [_peer(*item) for item in islice(peers.items(), MAX_LISTED)],
            "rooms": self._rooms(channels),
            "sessions": self._meters.sessions(alive[:MAX_LISTED]),
            "faults": {
                "refuse_connections": signalling.refusing(),
                "hold_acks": signalling.scheduler.holding,
                "delay": signalling.scheduler.slow,
                "lose_media": sfu.loss,
            },
        }

    def _rooms(self, channels: list[tuple[str, Collection[str]]]) -> list[dict[str, Any]]:
        rooms = (
            (name, self._signals.room(members))
            for name, members in channels[:MAX_LISTED]
            if not is_pattern(name)
        )
        return [
            {"name": name, "count": len(members), "members": members[:MAX_INNER]}
            for name, members in rooms
            if members is not None
        ]


def masked(value: str) -> str:
    """Return a key with nothing but its kind and its last characters."""
    kind, _, rest = value.rpartition("_")
    return f"{kind}_…{rest[-4:]}" if kind else f"…{rest[-4:]}"


def _short(row: dict[str, Any]) -> dict[str, Any]:
    return {**row, "text": row["text"][:MAX_METADATA], "answer": ""}


def _some(names: Collection[str]) -> list[str]:
    return list(islice(names, MAX_INNER))


def _peer(peer_id: str, sockets: list[Socket]) -> dict[str, Any]:
    identity = sockets[0].identity
    channels = {name: None for socket in sockets for name in socket.channels}
    return {
        "id": peer_id,
        "connections": len(sockets),
        "actions": sorted(identity.grant.actions),
        "patterns": [list(islice(group, MAX_INNER)) for group in identity.grant.patterns],
        "expires": identity.expires_at,
        "metadata": _shown(identity.metadata),
        "peerMetadata": _shown(identity.peer_metadata),
        "count": len(channels),
        "channels": sorted(_some(channels)),
    }


def _shown(metadata: dict[str, Any] | None) -> str | None:
    """Return metadata as JSON text: it is the peer's, and may be nested at will."""
    if metadata is None:
        return None
    try:
        return encode(metadata)[:MAX_METADATA]
    except (ValueError, TypeError):
        return repr(metadata)[:MAX_METADATA]
