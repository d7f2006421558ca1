"""Check names of channels and peers, and match the patterns that keys and tokens grant.

Sizes are counted in UTF-8 bytes. Sources: docs/protocol/signalling.md#limits-and-quotas and
docs/protocol/signalling.md#channel-patterns.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from functools import lru_cache

from metered_sync.wire.limits import MAX_CHANNEL, MAX_PEER_ID, RESERVED_PREFIXES
from metered_sync.wire.secrets import cut_secrets

__all__ = [
    "channel_problem",
    "check_channel",
    "check_one_channel",
    "check_peer_id",
    "covers",
    "covers_any",
    "is_pattern",
    "is_reserved",
    "matches",
    "matches_any",
    "name_problem",
    "peer_id_problem",
    "utf8_size",
]

_CONTROL_CHARACTER = re.compile("[\x00-\x1f\x7f-\x9f]")
_PRINTABLE_ASCII = re.compile("[\x20-\x7e]+")
# The elements of patterns that are not characters (and so not equal to any).
_RUN, _LONG_RUN = "*…", "**…"


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
    if _CONTROL_CHARACTER.search(name):
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
    """Return whether the service reserves this channel, whatever the case of its letters."""
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


def check_one_channel(channel: object, what: str) -> str:
    """Return ``channel`` if it can be published to, or joined: a pattern is for subscriptions."""
    name = check_channel(channel)
    if is_pattern(name):
        raise ValueError(
            f"{what}: {_shown(name)} is a pattern of channels; only subscribe() takes those"
        )
    return name


def check_peer_id(peer_id: object) -> str:
    """Return ``peer_id`` if it can be one; ``TypeError`` or ``ValueError`` if not."""
    problem = peer_id_problem(peer_id)
    if problem is None and isinstance(peer_id, str):
        return peer_id
    kind = ValueError if isinstance(peer_id, str) else TypeError
    raise kind(f"the peer id {_shown(peer_id)} {problem}")


def _shown(name: object) -> str:
    text = cut_secrets(ascii(name))
    return text if len(text) <= 60 else text[:57] + "…"


class _Pattern:
    """A pattern of channel names, as a machine that takes one character after the other.

    Its states are the places between the pattern's elements, kept as the bits of one
    integer; so matching takes one step per character, whatever the pattern. (A regular
    expression with many runs in it may take years over a name that nearly matches.)
    """

    def __init__(self, text: str) -> None:
        self._literals: dict[str, int] = {}
        self._runs = 0
        """The places where a run is."""
        self._long_runs = 0
        """Those of them where it is ``**``."""
        place = 1
        previous = ""
        for element in _elements(text):
            if element in (_RUN, _LONG_RUN):
                if previous in (_RUN, _LONG_RUN):  # two runs in a row are the longer one
                    place >>= 1
                self._runs |= place
                if _LONG_RUN in (element, previous):
                    self._long_runs |= place
                    element = _LONG_RUN
            else:
                self._literals[element] = self._literals.get(element, 0) | place
            place <<= 1
            previous = element
        self._end = place

    def accepts(self, elements: Iterable[str]) -> bool:
        """Return whether the pattern covers a name - or everything that another pattern covers.

        That one's runs are elements as well: only a run that is at least as long may
        swallow them.
        """
        places = self._past_runs(1)
        for element in elements:
            stays = self._long_runs if element in ("/", _LONG_RUN) else self._runs
            moves = (places & self._literals.get(element, 0)) << 1
            places = self._past_runs(moves | places & stays)
            if not places:
                return False
        return bool(places & self._end)

    def _past_runs(self, places: int) -> int:
        """Add what can be reached without a character: a run may be empty."""
        return places | (places & self._runs) << 1


def _elements(pattern: str) -> Iterator[str]:
    """Split a pattern into single characters and runs."""
    for element in re.findall(r"\\[\\*]|\*\*|\*|[^*]", pattern, re.DOTALL):
        if element.startswith("*"):
            yield _RUN if element == "*" else _LONG_RUN
        else:
            yield element[-1]


_compiled = lru_cache(maxsize=1024)(_Pattern)


@lru_cache(maxsize=4096)
def matches(pattern: str, channel: str) -> bool:
    r"""Return whether a key's or token's pattern covers a channel.

    ``*`` is any run of characters without ``/``, ``**`` any run at all, both may
    be empty; ``\*`` and ``\\`` are the characters themselves.
    """
    return _compiled(pattern).accepts(channel)


@lru_cache(maxsize=1024)
def covers(pattern: str, other: str) -> bool:
    """Return whether a pattern covers each channel that another pattern covers.

    A ``False`` is cautious: it may be that no single element of ``pattern`` takes in
    a run of ``other``, and that there is another reason why it is covered.
    """
    return _compiled(pattern).accepts(_elements(other))


def is_pattern(channel: str) -> bool:
    """Return whether a subscription to this name is one to a pattern of channels."""
    return "*" in channel


def matches_any(patterns: Iterable[str], channel: str) -> bool:
    """Return whether one of the patterns covers the channel."""
    return any(matches(pattern, channel) for pattern in patterns)


def covers_any(patterns: Iterable[str], other: str) -> bool:
    """Return whether one of the patterns covers all that another pattern covers."""
    return any(covers(pattern, other) for pattern in patterns)
