"""Names of channels and peers, and the patterns that keys and tokens grant.

Facts: service documentation, "channels", "limits and quotas", "channel patterns".
Sizes are counted in UTF-8 bytes.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache

from metered_sync.wire.limits import MAX_CHANNEL, MAX_PEER_ID, RESERVED_PREFIXES

__all__ = [
    "channel_problem",
    "check_channel",
    "check_peer_id",
    "is_reserved",
    "matches",
    "matches_any",
    "name_problem",
    "peer_id_problem",
    "utf8_size",
]

_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f]")
_PRINTABLE_ASCII = re.compile("[\x20-\x7e]+")


def utf8_size(text: str) -> int:
    """Return the length of ``text`` in UTF-8 bytes; a lone surrogate counts as three."""
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))


def name_problem(name: object, cap: int) -> str | None:
    """Say what is wrong with a name of at most ``cap`` bytes, or return ``None``."""
    if not isinstance(name, str):
        return f"must be a string, not {type(name).__name__}"
    if not name:
        return "must not be empty"
    if utf8_size(name) > cap:
        return f"is {utf8_size(name)} bytes long; the limit is {cap}"
    if _CONTROL.search(name):
        return "contains a control character"
    if not name.isascii() and any("\ud800" <= char <= "\udfff" for char in name):
        return "contains a lone surrogate, which cannot be sent as UTF-8"
    return None


@lru_cache(maxsize=1024)
def _channel_problem(name: str) -> str | None:
    return name_problem(name, MAX_CHANNEL)


def channel_problem(name: object) -> str | None:
    """Say what is wrong with a channel's name, or return ``None``."""
    if isinstance(name, str):
        return _channel_problem(name)
    return name_problem(name, MAX_CHANNEL)


def peer_id_problem(name: object) -> str | None:
    """Say what is wrong with a peer id (printable ASCII), or return ``None``."""
    problem = name_problem(name, MAX_PEER_ID)
    if problem is None and not _PRINTABLE_ASCII.fullmatch(str(name)):
        problem = "contains a character that is not printable ASCII"
    return problem


def is_reserved(channel: str) -> bool:
    """Whether the service keeps this channel for itself (whatever the case of its letters)."""
    return channel.lower().startswith(RESERVED_PREFIXES)


def check_channel(channel: object) -> str:
    """Return ``channel`` if a client may use it; ``TypeError`` or ``ValueError`` if not."""
    problem = channel_problem(channel)
    if problem is None and isinstance(channel, str):
        if not is_reserved(channel):
            return channel
        problem = "has a prefix that the service reserves for itself"
    kind = ValueError if isinstance(channel, str) else TypeError
    raise kind(f"the channel name {_shown(channel)} {problem}")


def check_peer_id(peer_id: object) -> str:
    """Return ``peer_id`` if it can be one; ``TypeError`` or ``ValueError`` if not."""
    problem = peer_id_problem(peer_id)
    if problem is None and isinstance(peer_id, str):
        return peer_id
    kind = ValueError if isinstance(peer_id, str) else TypeError
    raise kind(f"the peer id {_shown(peer_id)} {problem}")


def _shown(name: object) -> str:
    text = ascii(name)
    return text if len(text) <= 60 else text[:57] + "…"


@lru_cache(maxsize=1024)
def _compiled(pattern: str) -> re.Pattern[str]:
    parts = []
    for token in re.findall(r"\\[\\*]|\*\*|\*|[^*\\]+|\\", pattern):
        if token == "**":
            parts.append(".*")
        elif token == "*":
            parts.append("[^/]*")
        else:
            parts.append(re.escape(token[1:] if token in (r"\*", r"\\") else token))
    return re.compile("".join(parts), re.DOTALL)


def matches(pattern: str, channel: str) -> bool:
    r"""Whether a key's or token's pattern covers a channel.

    ``*`` is any run of characters without ``/``, ``**`` any run at all, both may
    be empty; ``\*`` and ``\\`` are the characters themselves.
    """
    return _compiled(pattern).fullmatch(channel) is not None


def matches_any(patterns: Iterable[str], channel: str) -> bool:
    """Whether one of the patterns covers the channel."""
    return any(matches(pattern, channel) for pattern in patterns)
