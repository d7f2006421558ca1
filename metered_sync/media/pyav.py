"""Open files, convert pictures and explain errors with PyAV, whichever version of it is there.

What differs between PyAV's versions, and what its errors hold, is known here and nowhere
else in :mod:`metered_sync.media`.
"""

from __future__ import annotations

import errno
import functools
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import av
import av.error
from av import VideoFrame
from av.format import ContainerFormat
from av.video.reformatter import VideoReformatter

from metered_sync.errors import MediaError
from metered_sync.media.file_objects import FileObject
from metered_sync.wire.secrets import scrub

__all__ = [
    "ONE_THREAD",
    "OPEN_ERRORS",
    "READ_ERRORS",
    "media_error",
    "media_errors",
    "open_file",
    "reason_of",
]

READ_ERRORS = (av.error.FFmpegError, OSError)
"""Errors of reading, decoding and writing."""
OPEN_ERRORS = (*READ_ERRORS, ValueError)
"""Errors of opening; with ``ValueError`` PyAV refuses arguments by itself."""


def _accepts_threads() -> bool:
    try:
        VideoReformatter().reformat(VideoFrame(16, 16, "yuv420p"), format="gray", threads=1)
    except TypeError:
        return False
    return True


ONE_THREAD: dict[str, Any] = {"threads": 1} if _accepts_threads() else {}
"""Arguments of a conversion on one thread: FFmpeg starts one for each processor, if it may."""
# Text in a file that is not UTF-8 must not keep it from being played. PyAV 19 has no
# such option any more.
_ANY_TEXT: dict[str, Any] = (
    {"metadata_errors": "ignore"} if int(av.__version__.split(".")[0]) < 19 else {}
)


OPENING_FORMATS = frozenset(
    {
        *("avisynth", "concat", "dash", "dvdvideo", "hls", "imf", "lavfi", "libcdio", "mlv"),
        *("rtsp", "sdp", "vapoursynth", "vobsub"),
    }
)
"""Formats, by FFmpeg's names, of files that name others: reading one opens whatever it names."""
PICTURE_PATTERN = re.compile(r"%[0-9]*d")
"""A name that stands for a row of pictures, for FFmpeg."""


@functools.cache
def _plain_formats() -> str:
    """Return the formats that read one file only, as FFmpeg's option has them."""
    names = []
    for name in av.formats_available:
        with suppress(ValueError):  # one that can be written only
            names.append(ContainerFormat(name, "r").name)
    return ",".join(name for name in sorted(names) if name not in OPENING_FORMATS)


def open_file(path: str | FileObject, *, trusted: bool = False) -> Any:
    """Open a media file of this machine, or one that is open already, for reading.

    ``trusted`` permits files that name others, whatever they are called: playlists, lists of
    pieces, rows of pictures. Else FFmpeg refuses them as an invalid argument.
    """
    if trusted:
        return _opened(path)
    container = _opened(path, {"format_whitelist": _plain_formats(), "pattern_type": "none"})
    if isinstance(path, FileObject):
        return container
    if container.format.name == "image2" and PICTURE_PATTERN.search(os.path.basename(path)):
        container.close()
        raise av.error.ArgumentError(errno.EINVAL, "its name is a pattern of pictures", path)
    return container


def _opened(path: str | FileObject, options: dict[str, str] | None = None) -> Any:
    # With the protocol spelt out no path can be mistaken for another one.
    name: Any = path.view() if isinstance(path, FileObject) else "file:" + path
    try:
        return av.open(name, options=options, **_ANY_TEXT)
    except av.error.EOFError:
        # FFmpeg 8.1 (PyAV 19) takes some sound in WAV files, a tone of 1 kHz, for another format.
        if isinstance(path, FileObject):
            head = path.view().read(12)
        else:
            with open(path, "rb") as file:
                head = file.read(12)
        if head[:4] != b"RIFF" or head[8:] != b"WAVE":
            raise
        return av.open(name, format="wav", **_ANY_TEXT)


def reason_of(error: BaseException) -> str:
    """Return an error's reason in words, without the address that PyAV adds to it."""
    return getattr(error, "strerror", None) or scrub(str(error)) or type(error).__name__


def media_error(
    what: str,
    error: BaseException,
    *,
    reason: str | None = None,
    remedy: str = "",
    kind: type[MediaError] = MediaError,
) -> MediaError:
    """Return the :class:`MediaError` for an error of FFmpeg, which stays its cause.

    The message is ``what``, the object and the stage, then the reason, then the remedy. The
    cause loses the address that PyAV keeps in it, password and all.
    """
    made = kind(f"{what}: {reason or reason_of(error)}{remedy and f'; {remedy}'}")
    if isinstance(error, av.error.FFmpegError):
        error.args = error.args[:2]
        if isinstance(error, OSError):  # which keeps a copy
            vars(OSError)["filename"].__set__(error, None)
    made.__cause__ = error
    return made


@contextmanager
def media_errors(
    what: str,
    remedy: str | Callable[[BaseException], str] = "",
    *,
    errors: tuple[type[Exception], ...] = READ_ERRORS,
) -> Iterator[None]:
    """Raise FFmpeg's errors as :class:`MediaError`; see :func:`media_error`."""
    try:
        yield
    except MediaError:
        raise
    except errors as error:
        hint = remedy if isinstance(remedy, str) else remedy(error)
        raise media_error(what, error, remedy=hint) from error
