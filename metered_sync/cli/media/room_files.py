"""Record what each member of a room sends, a file for each."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Sequence
from pathlib import Path

from metered_sync.cli.media.recording import discard_empty
from metered_sync.errors import ClosedError, MediaError
from metered_sync.media.recording import Recorder, RecordingInfo
from metered_sync.media.tracks.track import RemoteTrack

__all__ = ["RoomFiles", "file_stem"]

SUFFIX = ".mkv"
"""The kind of file that takes all that members send as it is, without decoding and encoding it."""
MAX_STEM = 80
"""Characters of a member's id that its file's name has."""
PLAIN = re.compile(rf"[A-Za-z0-9_][A-Za-z0-9._-]{{0,{MAX_STEM - 1}}}(?<!\.)")
UNSAFE = re.compile(r"[^A-Za-z0-9_-]")
RESERVED = re.compile(r"(?i)(con|prn|aux|nul|com\d|lpt\d)(\..*)?")
"""Names that are devices on Windows."""


def file_stem(member: str) -> str:
    """Return a member's id as the stem of a file's name: in its folder whatever the id is.

    Ids that cannot stand as they are get a few hexadecimal digits, which keep them apart.
    """
    if PLAIN.fullmatch(member) and not RESERVED.fullmatch(member):
        return member
    stem = UNSAFE.sub("_", member)[:MAX_STEM].strip("_-")
    digest = hashlib.sha256(member.encode("utf-8", "surrogatepass")).hexdigest()[:8]
    return f"{stem}_{digest}" if stem else digest


class RoomFiles:
    """Record members of a room into a folder. Used by one thread.

    A member's file goes on as long as it sends something. What cannot be added to a file any
    more (pictures that come late), and what comes after its end, begins another one:
    ``alice.mkv``, ``alice-2.mkv``. No file that is there is overwritten.
    """

    def __init__(self, folder: Path, ended: Callable[[str, RecordingInfo], None]) -> None:
        """Make the folder; ``ended(member, info)`` is called for each file that is complete.

        Raises:
            OSError: It cannot be made.
        """
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._ended = ended
        self._recorders: dict[str, Recorder] = {}
        self.errors: list[MediaError] = []
        """The errors of files that could not be written to their end."""

    def add(self, member: str, new: Sequence[RemoteTrack], live: Sequence[RemoteTrack]) -> None:
        """Record tracks that a member has begun to send; ``live`` are all that it sends now."""
        recorder = self._recorders.get(member)
        if recorder is not None:
            try:
                recorder.add(list(new))
                return
            except (MediaError, ClosedError):  # too late for that file
                self.end(member)
        try:
            recorder = Recorder(self._free(member), *live)
            recorder.start()
        except MediaError as error:
            self.errors.append(error)
        else:
            self._recorders[member] = recorder

    def _free(self, member: str) -> Path:
        """Return a path that no file has yet."""
        stem, number = file_stem(member), 1
        path = self._folder / f"{stem}{SUFFIX}"
        while path.exists():
            number += 1
            path = self._folder / f"{stem}-{number}{SUFFIX}"
        return path

    def end(self, member: str) -> None:
        """Complete a member's file, if it has one."""
        recorder = self._recorders.pop(member, None)
        if recorder is None:
            return
        try:
            recorder.stop()
        except MediaError as error:
            if recorder.info.bytes:  # else nothing came of what was announced
                self.errors.append(error)
        discard_empty(recorder.info)
        if recorder.info.bytes:
            self._ended(member, recorder.info)

    def __enter__(self) -> RoomFiles:
        return self

    def __exit__(self, *exc: object) -> None:
        """Complete all files."""
        for member in list(self._recorders):
            self.end(member)

    def bytes(self) -> int:
        """Return the size of the files that are being written."""
        return sum(recorder.info.bytes for recorder in self._recorders.values())
