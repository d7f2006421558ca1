"""Narrow a session description, so that whoever may not publish cannot send.

A section without a direction of its own has the session's, and without that either it may send
(RFC 8866, section 6.7). So each section of sound or pictures gets exactly one direction here, and
what announces a sender goes.
"""

from __future__ import annotations

import re

from metered_sync.wire import sdp

__all__ = ["SendingRefusedError", "receive_only"]

_DIRECTIONS = ("a=sendrecv", "a=sendonly", "a=recvonly", "a=inactive")
_SENDER = re.compile(r"a=(?:msid|ssrc|ssrc-group|simulcast|rid)(?::|$)")
"""What a sender announces of itself."""


class SendingRefusedError(ValueError):
    """A description has a section that does nothing but send."""


def receive_only(text: str) -> str:
    """Return the description with no section that may send.

    Raises:
        SendingRefusedError: A section does nothing but send.
        SdpError: It is no description, or too long.
    """
    sdp.parse(text)  # (its limits, and its idea of a line)
    head: list[str] = []
    sections: list[list[str]] = []
    for line in text.split("\n"):
        line = line.rstrip("\r")
        if len(line.splitlines()) > 1:  # there are readers who see two lines in it
            raise sdp.SdpError("a line has a line end of another kind in it")
        if line.startswith("m="):
            sections.append([])
        if line:
            (sections[-1] if sections else head).append(line)
    inherited = [line for line in head if line in _DIRECTIONS]
    kept = [line for line in head if line not in _DIRECTIONS and not _SENDER.match(line)]
    for lines in sections:
        kept += _narrowed(lines, inherited) if _is_media(lines[0]) else lines
    return "\r\n".join(kept) + "\r\n"


def _is_media(line: str) -> bool:
    return not line.startswith("m=application ")


def _narrowed(lines: list[str], inherited: list[str]) -> list[str]:
    directions = [line for line in lines if line in _DIRECTIONS] or inherited
    if "a=sendonly" in directions:
        raise SendingRefusedError("a section is sendonly")
    only = "a=inactive" if set(directions) == {"a=inactive"} else "a=recvonly"
    rest = [line for line in lines if line not in _DIRECTIONS and not _SENDER.match(line)]
    return [*rest, only]
