"""Play media files in real time."""

from __future__ import annotations

import os
import re
from fractions import Fraction
from typing import IO, Any

from av import AudioFrame

from metered_sync.bridge.deadline import Deadline
from metered_sync.engine.sending.feed import Feed
from metered_sync.engine.sending.packet_queue import PacketQueue
from metered_sync.engine.webrtc.media_frames import AUDIO_RATE
from metered_sync.errors import (
    ClosedError,
    MediaError,
    MediaNotFoundError,
    MeteredTimeoutError,
)
from metered_sync.media.file_objects import FileObject
from metered_sync.media.opening import open_in_time
from metered_sync.media.pyav import media_errors
from metered_sync.media.sources.base import Source
from metered_sync.media.sources.demuxing import Reading, probe
from metered_sync.media.sources.packets import (
    RATES,
    PacketReading,
    Sendable,
    packet_of,
    probe_packets,
)
from metered_sync.wire.arguments import check_number
from metered_sync.wire.secrets import hides_arguments

__all__ = ["FileSource", "from_file"]

DECODED_AHEAD = {"video": 8, "audio": 50}
"""Frames that are decoded ahead: about 0.3 s of pictures, 1 s of sound."""
PACKETS_AHEAD = {"video": 15, "audio": 50}
"""Packets that are read ahead."""
SEEK_DELAY = 0.03
"""Seconds between a seek and the first frame from there: the frame before lasts that long."""
OPEN_TIMEOUT = 15.0
"""Seconds that opening may take unless told otherwise."""
MAX_LOOP_SKEW = 0.1
"""Seconds by which sound and pictures may differ in length and still be looped without a gap."""
MAX_STREAM_LAG = 0.5
"""Seconds by which a stream may lag behind the other in the file; later frames are left out."""
PROTOCOL = re.compile(r"[A-Za-z0-9+.-]{2,}:|subfile,")
"""The beginning of a path that FFmpeg takes for a protocol; one letter is a Windows drive."""


@hides_arguments
def from_file(
    path: str | os.PathLike[str] | IO[bytes],
    *,
    loop: bool = False,
    encoded: bool = False,
    trusted: bool = False,
    timeout: float | None = None,
) -> FileSource:
    """Open a media file for playing.

    Anything that FFmpeg decodes. It is played in real time from the moment something
    consumes its tracks; sound and pictures stay in step.

    Args:
        path: A file on this machine. Or a binary file that is open and can be sought in
            (``io.BytesIO``, an upload, a temporary file): it is played from its beginning, and
            belongs to this source until that ends: close it afterwards, and do not read it
            meanwhile.
        loop: Whether to start again at the end, for ever; timestamps go on rising.
        encoded: Whether to send H.264, VP8 and Opus as they are, without decoding and encoding:
            at next to no cost, in the quality of the file. Its tracks can be sent and recorded,
            not looked at. A track in another codec, or with B-frames, is refused when it is
            asked for, with what to do.
        trusted: Whether to play files that name other files, which are then opened, too:
            playlists (``.m3u8``), lists of pieces (ffconcat), rows of pictures
            (``picture%d.png``). FFmpeg tells them by what is in them, not by their names.
        timeout: Seconds in which to open it; ``None``: 15.

    Raises:
        MediaNotFoundError: There is no such file.
        MediaError: It cannot be read or decoded, or has neither sound nor pictures; or an
            open file that cannot be sought in. With ``encoded``: nothing in it can be sent as
            it is.
        MeteredTimeoutError: It was not opened in time.
        ValueError: A URL or another protocol of FFmpeg instead of a path.
    """
    return FileSource(path, loop=loop, encoded=encoded, trusted=trusted, timeout=timeout)


class FileSource(Source):
    """Play a media file. Made by :func:`from_file`."""

    def __init__(
        self,
        path: str | os.PathLike[str] | IO[bytes],
        *,
        loop: bool = False,
        encoded: bool = False,
        trusted: bool = False,
        timeout: float | None = None,
    ) -> None:
        """Open the file; see :func:`from_file`."""
        deadline = Deadline.of(timeout, OPEN_TIMEOUT)
        given = _given(path)
        label = (
            f"from_file({given if isinstance(given, FileObject) else os.path.basename(given)!r})"
        )

        def look() -> tuple[str | FileObject, list[str], Sendable | None, float | None]:
            name = given if isinstance(given, FileObject) else _checked(given)
            if encoded:
                sendable, duration = probe_packets(name, label, trusted=trusted)
                return name, list(sendable.formats), sendable, duration
            kinds, duration = probe(name, trusted=trusted)
            return name, kinds, None, duration

        try:
            name, kinds, sendable, duration = open_in_time(look, deadline, label)
        except TimeoutError:
            raise MeteredTimeoutError(
                f"{label}: not opened within {deadline}; is it on a disk that does not answer?"
            ) from None
        if sendable is None:
            playback = _Playback(name, label, loop, trusted)
            super().__init__(label, {kind: DECODED_AHEAD[kind] for kind in kinds}, playback.run)
        else:
            super().__init__(
                label,
                {kind: PACKETS_AHEAD[kind] for kind in kinds},
                _PacketPlayback(name, label, loop, trusted).run,
                queue=PacketQueue,
                **sendable._asdict(),
            )
        self._duration: float | None = duration

    @property
    def duration(self) -> float | None:
        """The file's duration in seconds; ``None`` where it does not say."""
        return self._duration

    def seek(self, seconds: float) -> None:
        """Play on from another position; also before playing has started.

        Args:
            seconds: From the beginning of the file; beyond its end is its end.

        Raises:
            ClosedError: It has been stopped, or played to its end.
        """
        seconds = check_number("seconds", seconds, 0)
        self._feed.check_process()
        if self._feed.stopped:
            raise ClosedError(f"{self._label} has ended: open the file again with from_file()")
        self._feed.seek(float(seconds))


def _given(path: str | os.PathLike[str] | IO[bytes]) -> str | FileObject:
    """Return the path as text, or the open file, which a user gave."""
    if not isinstance(path, (str, os.PathLike)):
        return FileObject(path, "from_file()")
    name = os.fspath(path)
    if not isinstance(name, str):
        raise TypeError(f"path must be a str or a path object, not {type(name).__name__}")
    return name


def _checked(name: str) -> str:
    """Return the absolute path of a file that is there and is no protocol or device."""
    if match := PROTOCOL.match(name):
        raise ValueError(
            f"{match[0]!r} at the start of a path would be a protocol to FFmpeg, and "
            "from_file() plays files of this machine only: download it first and pass the "
            "local path (of a file that really has such a name: './' and the name)"
        )
    if not os.path.exists(name):
        raise MediaNotFoundError(
            f"there is no file {name!r} (looked for {os.path.abspath(name)!r}): check the path"
        )
    if not os.path.isfile(name):
        what = "a directory" if os.path.isdir(name) else "a device or a pipe"
        raise MediaError(f"{name!r} is {what}, not a media file")
    return os.path.abspath(name)


class _Playback:
    """Play a file into a feed, without knowing the source."""

    def __init__(self, path: str | FileObject, label: str, loop: bool, trusted: bool) -> None:
        self._path = path
        self._label = label
        self._loop = loop
        self._trusted = trusted
        self._offset: float | None = None  # from the file's time to the feed's clock
        self._newest = 0.0  # the file's time, of what was put latest
        self._audio_end: int | None = None  # of what was put, in samples
        self._video_pts = -1

    def run(self, feed: Feed) -> None:
        """Play until the end or the stop; on the producer's thread."""
        start = feed.take_seek()
        self._offset = None if start is None else -start
        while start is not None:
            end = self._play(feed, start)
            if end is not None and self._loop:
                if end == 0:
                    raise MediaError(f"{self._label}: nothing in it could be decoded")
                start, self._offset = 0.0, end + self._placed(feed, end)
            elif end is not None and feed.finish(end + self._placed(feed, end), end):
                return
            else:
                start = feed.take_seek()
                self._offset = self._audio_end = None
                self._video_pts = -1

    def _placed(self, feed: Feed, time: float) -> float:
        """Return the offset to the feed's clock; after a seek, the first frame is due at once."""
        if self._offset is None:
            self._offset = feed.clock() + SEEK_DELAY - time
        return self._offset

    def _due(self, feed: Feed, time: float) -> float:
        """Return when a frame is due; where that is over, it and all that follow are put off."""
        due = time + self._placed(feed, time)
        if behind := feed.behind(due):
            due += behind
            self._offset = due - time
        return due

    def _play(self, feed: Feed, start: float) -> float | None:
        """Play from a position; return the file's end, or ``None`` when interrupted."""
        kinds = [k for k, queue in feed.queues.items() if queue.wanted and not queue.closed]
        self._newest = start
        with (
            media_errors(f"{self._label} cannot be played any further"),
            self._reading(kinds, start) as reading,
        ):
            for time, kind, frame in reading:
                if not self._put(feed, kind, frame, max(time, start)):
                    return None
            shortest, longest = min(reading.ends), max(reading.ends)
        return max(
            shortest if self._loop and longest - shortest < MAX_LOOP_SKEW else longest, start
        )

    def _reading(self, kinds: list[str], start: float) -> Reading:
        return Reading(self._path, kinds, start, trusted=self._trusted)

    def _put(self, feed: Feed, kind: str, frame: Any, time: float) -> bool:
        lags = time < self._newest - MAX_STREAM_LAG
        if lags and feed.behind(time + self._placed(feed, time)):
            return not feed.interrupted
        due = self._due(feed, time)
        self._newest = max(self._newest, time)
        if kind == "audio":
            return self._put_audio(feed, frame, due, time)
        pts = round(due * 90000)
        if pts <= self._video_pts:
            return not feed.interrupted
        self._video_pts = frame.pts = pts
        frame.time_base = Fraction(1, 90000)
        return feed.queues[kind].put(frame, due, time)

    def _put_audio(self, feed: Feed, frame: AudioFrame, due: float, time: float) -> bool:
        pts = round(due * AUDIO_RATE)
        if self._audio_end is not None:
            if pts < self._audio_end - frame.samples // 2:
                return not feed.interrupted
            if abs(pts - self._audio_end) <= frame.samples // 2:
                pts = self._audio_end  # the same up to rounding, or the seam of a loop
        frame.pts, frame.time_base = pts, Fraction(1, AUDIO_RATE)
        self._audio_end = pts + frame.samples
        return feed.queues["audio"].put(frame, due, time)


class _PacketPlayback(_Playback):
    """Play the packets of a file as they are: none may be left out."""

    def __init__(self, path: str | FileObject, label: str, loop: bool, trusted: bool) -> None:
        super().__init__(path, label, loop, trusted)
        self._pts = dict.fromkeys(RATES, -1)

    def _reading(self, kinds: list[str], start: float) -> Reading:
        return PacketReading(self._path, kinds, start, self._label, trusted=self._trusted)

    def _put(self, feed: Feed, kind: str, frame: Any, time: float) -> bool:
        due = self._due(feed, time)
        pts = max(round(due * RATES[kind]), self._pts[kind] + 1)
        self._pts[kind] = pts
        return feed.queues[kind].put(packet_of(frame, pts, kind), due, time)
