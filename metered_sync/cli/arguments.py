"""Check what commands are given: names of channels and peers, JSON, lines of standard input."""

from __future__ import annotations

import io
import select
import sys
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO

import click

from metered_sync.wire.names import check_channel, check_one_channel, check_peer_id

__all__ = ["CHANNEL", "JSON", "PATTERN", "PEER", "LineError", "input_lines", "parsed_json"]

MAX_LINE = 1 << 20
"""Bytes of a line of standard input; many times what a message may have."""
LOOK = 0.5
"""Seconds from one look for Ctrl-C to the next, where a line is waited for."""


class Checked(click.ParamType):  # type: ignore[type-arg]  # (not generic in older ones)
    """An argument that a function checks: its ``ValueError`` is a misuse, with its words."""

    def __init__(self, name: str, check: Callable[[str], Any]) -> None:
        self.name = name
        self._check = check

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        try:
            return self._check(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


def parsed_json(text: str | bytes) -> Any:
    """Return the value that JSON text has; ``ValueError`` says what is wrong with it."""
    from metered_sync.wire.json_codec import decode  # takes long to load: not for ``--help``

    try:
        return decode(text if isinstance(text, str) else text.decode())
    except RecursionError:
        raise ValueError("is nested too deeply to be sent as JSON") from None
    except ValueError as error:
        shown = text if isinstance(text, str) else text.decode(errors="replace")
        shown = ascii(shown if len(shown) <= 40 else f"{shown[:39]}…")
        raise ValueError(f"{shown} is not JSON ({error})") from None


CHANNEL = Checked("channel", lambda name: check_one_channel(name, "CHANNEL"))
"""The name of one channel."""
PATTERN = Checked("channel", check_channel)
"""The name of a channel, or a pattern of names."""
PEER = Checked("peer", check_peer_id)
"""The id of a peer."""
JSON = Checked("json", parsed_json)
"""A value, written as JSON."""


class LineError(ValueError):
    """A line of standard input cannot be used."""


class _Interruptible(io.RawIOBase):
    """Read from a file, and look for Ctrl-C now and then.

    A signal ends a ``read`` of the system that is under way, but not one that is just about to
    begin, nor one of a thread other than that which the system chooses.
    """

    def __init__(self, file: io.RawIOBase) -> None:
        self._file = file

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        while not select.select([self._file], [], [], LOOK)[0]:
            pass
        return self._file.readinto(buffer)


def _standard_input() -> BinaryIO:
    """Return what reads the bytes of standard input, and can be interrupted."""
    stream: Any = sys.stdin.buffer
    file = getattr(stream, "raw", None)
    if file is None or sys.platform == "win32":  # (where `select` is for sockets alone)
        return stream  # type: ignore[no-any-return]
    return io.BufferedReader(_Interruptible(file))


def input_lines() -> Iterator[tuple[int, bytes | LineError]]:
    """Yield the lines of standard input, without their ends, and their numbers from 1.

    One that is too long is skipped, and a :class:`LineError` stands for it.
    """
    source = _standard_input()
    number = 0
    while line := source.readline(MAX_LINE + 2):
        number += 1
        if len(line) > MAX_LINE and not line.endswith(b"\n"):
            while line and not line.endswith(b"\n"):
                line = source.readline(MAX_LINE)
            yield number, LineError(f"is longer than {MAX_LINE} bytes")
            continue
        if number == 1:
            line = line.removeprefix(b"\xef\xbb\xbf")  # a mark that some programs begin with
        yield number, line.rstrip(b"\n").removesuffix(b"\r")
