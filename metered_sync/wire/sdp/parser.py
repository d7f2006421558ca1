"""Read session descriptions. They come from strangers: what they cost has bounds."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import cached_property

from metered_sync.wire.sdp.description import (
    DIRECTIONS,
    Codec,
    Description,
    Extension,
    Fingerprint,
    Section,
    SsrcGroup,
)

__all__ = ["MAX_DESCRIPTION", "SdpError", "parse"]

_STATIC_CODECS = {0: ("PCMU", 8000), 8: ("PCMA", 8000), 9: ("G722", 8000), 13: ("CN", 8000)}
"""Payload types that need no ``rtpmap`` (RFC 3551, section 6)."""

# A description comes from strangers: what it may cost has a bound, and an error says which.
MAX_DESCRIPTION = 1 << 19
"""Characters of a description; one of 200 sections has some 300,000."""
MAX_LINES = 1 << 14
"""Lines of a description."""
MAX_SECTIONS = 256
"""Media sections of a description, and mids of its bundle."""
MAX_SECTION_LINES = 512
"""Lines of one section; a browser writes some 150 for a camera."""
MAX_SESSION_LINES = 64
"""Lines before the first section: those that sections inherit count in each of them."""
MAX_FORMATS = 128
"""Formats of one section: there are as many payload types."""
MAX_GROUP_SSRCS = 64
"""Streams of one group; a simulcast has three."""
MAX_FEEDBACK = 32
"""Kinds of feedback of one codec, those of all codecs included."""

_ILLEGAL_CHARACTER = re.compile("[\x00-\x08\x0a-\x1f\x7f]")
_NUMBER = re.compile("[0-9]{1,19}")


class SdpError(ValueError):
    """A session description cannot be understood; the message names the line's fault."""


def parse(text: str) -> Description:
    """Parse a session description.

    Raises:
        SdpError: It is malformed, or longer than the limits above.
    """
    # Counted before anything is built.
    _limit(len(text), MAX_DESCRIPTION, "characters")
    _limit(text.count("\n"), MAX_LINES, "lines")
    _limit(text.count("\nm="), MAX_SECTIONS, "media sections")
    groups = _group_lines(text)
    head = groups[0]
    if not head or head[0] != ("v", "0"):
        raise SdpError('an SDP begins with "v=0"')
    origin_id = origin_version = 0
    bundle: tuple[str, ...] = ()
    ice_lite = False
    for letter, value in head:
        if letter == "o":
            fields = value.split()
            if len(fields) != 6:
                raise SdpError("the o= line needs six fields")
            # RFC 8866 lets both be longer than 64 bits; nobody computes with a foreign one.
            origin_id, origin_version = (_number(item[-18:], "o=") for item in fields[1:3])
        elif letter == "a":
            name, _, value = value.partition(":")
            if name == "ice-lite":
                ice_lite = True
            elif name == "group" and value.split()[:1] == ["BUNDLE"]:
                bundle = tuple(value.split()[1:])
                _limit(len(bundle), MAX_SECTIONS, "mids in its bundle")
    inherited = _Attributes(value for letter, value in head if letter == "a")
    sections = tuple(_Parser(inherited, lines).section() for lines in groups[1:])
    return Description(sections, bundle, ice_lite, origin_id, origin_version)


def _group_lines(text: str) -> list[list[tuple[str, str]]]:
    """Split into ``(letter, value)`` lines: the head first, then one group per ``m=``."""
    groups: list[list[tuple[str, str]]] = [[]]
    for number, line in enumerate(text.split("\n"), start=1):
        line = line.rstrip("\r")
        if not line:
            continue
        if len(line) < 2 or line[1] != "=" or _ILLEGAL_CHARACTER.search(line):
            # The line itself stays out of the message: it may be the ICE password's.
            raise SdpError(f"line {number} is not a line of an SDP")
        if line[0] == "m":
            groups.append([])
        groups[-1].append((line[0], line[2:]))
    _limit(len(groups[0]), MAX_SESSION_LINES, "lines before its first section")
    _limit(max(map(len, groups)), MAX_SECTION_LINES, "lines in one section")
    return groups


def _limit(count: int, most: int, what: str) -> None:
    if count > most:
        raise SdpError(f"it has {count:,} {what}: at most {most:,} are read")


_PAYLOAD_TYPES = {str(number): number for number in range(128)}


def _payload_type(text: str, where: str) -> int:
    """Read one of the numbers that a description has most of."""
    number = _PAYLOAD_TYPES.get(text)
    return _number(text, where, 127) if number is None else number


def _number(text: str, where: str, highest: int = (1 << 63) - 1) -> int:
    if _NUMBER.fullmatch(text) is None or int(text) > highest:
        raise SdpError(f"{where}: a number up to {highest} is expected, not {text[:40]!r}")
    return int(text)


class _Attributes:
    """The attributes of one section, or of the session, by name."""

    def __init__(self, lines: Iterable[str]) -> None:
        self.flags: set[str] = set()
        self.values: dict[str, str] = {}
        self.lists: dict[str, list[str]] = {}
        self.direction = ""
        for line in lines:
            name, colon, rest = line.partition(":")
            if colon:
                self.values[name] = rest
                self.lists.setdefault(name, []).append(rest)
            elif name in DIRECTIONS:
                self.direction = name
            else:
                self.flags.add(name)

    @cached_property
    def extensions(self) -> tuple[Extension, ...]:
        result = []
        for value in self.lists.get("extmap", ()):
            fields = value.split()
            if len(fields) < 2:
                raise SdpError("extmap: an id and a URI are expected")
            number = _number(fields[0].partition("/")[0], "extmap", 4351)
            result.append(Extension(number, fields[1]))
        return tuple(result)

    @cached_property
    def fingerprints(self) -> tuple[Fingerprint, ...]:
        result = []
        for value in self.lists.get("fingerprint", ()):
            fields = value.split()
            if len(fields) != 2:
                raise SdpError("fingerprint: an algorithm and a value are expected")
            result.append(Fingerprint(fields[0].lower(), fields[1].upper()))
        return tuple(dict.fromkeys(result))


class _Parser(_Attributes):
    """Reads one section: its own attributes, and those of the session that it inherits.

    What is inherited is parsed once, and shared by all sections.
    """

    _INHERITED = ("ice-ufrag", "ice-pwd", "setup")

    def __init__(self, inherited: _Attributes, lines: Sequence[tuple[str, str]]) -> None:
        fields = lines[0][1].split()
        if len(fields) < 4:
            raise SdpError("an m= line needs four fields")
        _limit(len(fields) - 3, MAX_FORMATS, "formats in one section")
        self.kind, self.protocol = fields[0], fields[2]
        self.port = _number(fields[1].partition("/")[0], "m=", 65535)
        self.formats = tuple(fields[3:])
        super().__init__(value for letter, value in lines[1:] if letter == "a")
        for name in self._INHERITED:
            if name in inherited.values:
                self.values.setdefault(name, inherited.values[name])
        self.direction = self.direction or inherited.direction or "sendrecv"
        self._inherited = inherited

    def _owner(self, name: str) -> _Attributes:
        """Return whose attributes of this name count: a section's replace the session's."""
        return self if name in self.lists or name in self.flags else self._inherited

    def section(self) -> Section:
        is_rtp = "RTP/" in self.protocol
        return Section(
            kind=self.kind,
            mid=self.values.get("mid", "").strip(),
            port=self.port,
            protocol=self.protocol,
            formats=self.formats,
            direction=self.direction,
            codecs=self._codecs() if is_rtp else (),
            extensions=self._owner("extmap").extensions,
            msid=self._msid(),
            ssrcs=self._ssrcs(),
            ssrc_groups=self._ssrc_groups(),
            cname=self._cname(),
            rids=self._rids(),
            simulcast=self.values.get("simulcast", ""),
            ice_ufrag=self.values.get("ice-ufrag", ""),
            ice_pwd=self.values.get("ice-pwd", ""),
            fingerprints=self._owner("fingerprint").fingerprints,
            setup=self.values.get("setup", ""),
            rtcp_mux="rtcp-mux" in self.flags,
            rtcp_rsize="rtcp-rsize" in self.flags,
            bundle_only="bundle-only" in self.flags,
            candidates=tuple(self.lists.get("candidate", ())),
            end_of_candidates="end-of-candidates" in self.flags,
            sctp_port=self._optional_number("sctp-port", 65535),
            max_message_size=self._optional_number("max-message-size"),
        )

    def _optional_number(self, name: str, highest: int = (1 << 63) - 1) -> int | None:
        value = self.values.get(name)
        return None if value is None else _number(value.strip(), name, highest)

    def _codecs(self) -> tuple[Codec, ...]:
        maps: dict[int, tuple[str, int, int]] = {
            number: (*static, 1) for number, static in _STATIC_CODECS.items()
        }
        for value in self.lists.get("rtpmap", ()):
            number, _, encoding = value.partition(" ")
            parts = encoding.strip().split("/")
            if len(parts) not in (2, 3) or not parts[0]:
                raise SdpError(f"rtpmap: not an encoding: {encoding[:40]!r}")
            maps[_payload_type(number, "rtpmap")] = (
                parts[0],
                _number(parts[1], "rtpmap", 10**9),
                _number(parts[2], "rtpmap", 255) if len(parts) == 3 else 1,
            )
        formats: dict[int, str] = {}
        for value in self.lists.get("fmtp", ()):
            number, _, rest = value.partition(" ")
            formats[_payload_type(number, "fmtp")] = rest.strip()
        feedback: dict[int, list[str]] = {}
        everyone: list[str] = []
        for value in self.lists.get("rtcp-fb", ()):
            number, _, rest = value.partition(" ")
            if number == "*":
                everyone.append(rest.strip())
            else:
                feedback.setdefault(_payload_type(number, "rtcp-fb"), []).append(rest.strip())
        codecs: list[Codec] = []
        for payload_type in dict.fromkeys(_payload_type(item, "m=") for item in self.formats):
            if payload_type in maps:
                name, clock_rate, channels = maps[payload_type]
                own = feedback.get(payload_type)
                fb = tuple(dict.fromkeys(everyone + (own or []))) if own or everyone else ()
                _limit(len(fb), MAX_FEEDBACK, "kinds of feedback for one codec")
                fmtp = formats.get(payload_type, "")
                codecs.append(Codec(payload_type, name, clock_rate, channels, fmtp, fb))
        return tuple(codecs)

    def _msid(self) -> tuple[str, str] | None:
        # The first, as a track may be in several streams; before RFC 8830 the ssrc lines had it.
        legacy = (value.partition(" ")[2] for value in self.lists.get("ssrc", ()))
        old = (value.partition(":")[2] for value in legacy if value.startswith("msid:"))
        for value in (*self.lists.get("msid", ()), *old):
            if fields := value.split():
                return fields[0], fields[1] if len(fields) > 1 else ""
        return None

    def _ssrcs(self) -> tuple[int, ...]:
        numbers = [
            _number(value.partition(" ")[0], "ssrc", 0xFFFFFFFF)
            for value in self.lists.get("ssrc", ())
        ]
        return tuple(dict.fromkeys(numbers))

    def _cname(self) -> str:
        for value in self.lists.get("ssrc", ()):
            name, _, text = value.partition(" ")[2].partition(":")
            if name == "cname":
                return text
        return ""

    def _ssrc_groups(self) -> tuple[SsrcGroup, ...]:
        result = []
        for value in self.lists.get("ssrc-group", ()):
            fields = value.split()
            if not fields:
                raise SdpError("ssrc-group: the semantics are missing")
            _limit(len(fields) - 1, MAX_GROUP_SSRCS, "streams in one group")
            numbers = tuple(_number(item, "ssrc-group", 0xFFFFFFFF) for item in fields[1:])
            result.append(SsrcGroup(fields[0], numbers))
        return tuple(result)

    def _rids(self) -> tuple[tuple[str, str], ...]:
        result = []
        for value in self.lists.get("rid", ()):
            fields = value.split()
            if len(fields) < 2:
                raise SdpError("rid: a name and a direction are expected")
            result.append((fields[0], fields[1]))
        return tuple(result)
