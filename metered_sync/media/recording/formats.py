"""Choose a media file's container and encoders by its suffix."""

from __future__ import annotations

from dataclasses import dataclass

import av

from metered_sync.errors import MediaError

__all__ = ["ENCODERS", "FILE_FORMATS", "TAKEN", "FileFormat", "check_encoders"]

H264_ENCODER = ("libx264", {"preset": "veryfast", "tune": "zerolatency", "crf": "23", "bf": "0"})
VP8_ENCODER = (
    "libvpx",
    {"deadline": "realtime", "cpu-used": "8", "crf": "10", "lag-in-frames": "0"},
)
ENCODERS = {"h264": H264_ENCODER, "vp8": VP8_ENCODER}
"""FFmpeg's names of the encoders of pictures, and their options, by codec."""


@dataclass(frozen=True)
class FileFormat:
    """The container and the encoders that a suffix stands for."""

    container: str
    """FFmpeg's name of the container."""
    audio: str
    """FFmpeg's name of the encoder of sound."""
    video: tuple[str, dict[str, str]] | None = None
    """FFmpeg's name of the encoder of pictures, and its options; ``None``: sound only."""


_MP4, _OGG = FileFormat("mp4", "aac", H264_ENCODER), FileFormat("ogg", "libopus")
FILE_FORMATS = {
    ".m4a": FileFormat("mp4", "aac"),
    ".mkv": FileFormat("matroska", "libopus", H264_ENCODER),
    ".mp4": _MP4,
    ".ogg": _OGG,
    ".opus": _OGG,
    ".wav": FileFormat("wav", "pcm_s16le"),
    ".webm": FileFormat("webm", "libopus", VP8_ENCODER),
}
"""The format of each suffix that can be recorded to."""


TAKEN = {
    "matroska": ("h264", "vp8", "opus"),
    "mp4": ("h264",),
    "ogg": ("opus",),
    "webm": ("vp8", "opus"),
}
"""Codecs in which media that is encoded already can be written, by container.

(MP4 could hold Opus as well, and many players of MP4 do not play it.)
"""


def check_encoders(format: FileFormat, path: str) -> None:
    """Raise :class:`MediaError` for a format that this build of PyAV cannot encode."""
    needed = [format.audio] if format.video is None else [format.audio, format.video[0]]
    lacking = [name for name in needed if name not in av.codecs_available]
    if lacking:
        raise MediaError(
            f"{path!r} cannot be written: this build of PyAV lacks the encoder "
            f"{' and '.join(lacking)}; use PyAV's wheel from PyPI, or another suffix"
        )
