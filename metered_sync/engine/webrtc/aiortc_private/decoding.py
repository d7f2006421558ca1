"""Decode what a receiver is given on its decoder's thread, with less effort than aiortc does.

That thread of aiortc's (1.14 to 1.16) takes frames from a queue, decodes VP8 by libvpx, which
copies each picture, and starts a coroutine, a task and two futures to hand one to the loop. What
stands in for its queue here decodes by itself when the thread takes from it, and returns
nothing but the end.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import queue
from fractions import Fraction
from typing import Any

from aiortc import RTCRtpReceiver
from aiortc.codecs import get_decoder
from av import CodecContext, FFmpegError, Packet

from metered_sync.engine.webrtc.aiortc_private.capabilities import Capability, can
from metered_sync.engine.webrtc.aiortc_private.names import DECODER_QUEUE, DECODER_THREAD

__all__ = ["DecodingQueue", "decode_by_ourselves"]

logger = logging.getLogger("metered_sync")

PICTURE_TIME_BASE = Fraction(1, 90000)
UNSPECIFIED, LIMITED = 2, 1
"""FFmpeg's numbers for colours that nobody has named, and for the range from 16 to 235."""


class _PictureDecoder:
    """One of FFmpeg's own decoders, without a thread: none is left behind in a forked child."""

    def __init__(self, name: str) -> None:
        self._codec: Any = CodecContext.create(name, "r")
        self._codec.thread_count = 1

    def decode(self, frame: Any) -> list[Any]:
        """Return the pictures that a frame's bitstream completes."""
        packet = Packet(frame.data)
        packet.pts, packet.time_base = frame.timestamp, PICTURE_TIME_BASE
        pictures: list[Any] = self._codec.decode(packet)
        return pictures


class _Vp8Decoder(_PictureDecoder):
    """A decoder of VP8 whose pictures say of themselves what those of libvpx say: nothing."""

    def __init__(self) -> None:
        super().__init__("vp8")

    def decode(self, frame: Any) -> list[Any]:
        pictures = super().decode(frame)
        for picture in pictures:
            # FFmpeg takes a bit that says that nothing needs clamping (RFC 6386, section 9.2) for
            # one that says that the range is full.
            picture.colorspace, picture.color_range = UNSPECIFIED, LIMITED
            picture.pict_type = 0  # an encoder would take it for what is wished for
        return pictures


def _new_decoder(codec: Any) -> Any:
    kind = codec.mimeType.lower()
    if kind == "video/vp8":
        return _Vp8Decoder()
    return _PictureDecoder("h264") if kind == "video/h264" else get_decoder(codec)


class DecodingQueue:
    """Stand in for a receiver's queue of frames to be decoded, and decode them.

    ``put``, ``get_nowait`` and ``qsize`` are those of a queue; ``get`` is for the decoder's thread.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, receiver: RTCRtpReceiver) -> None:
        frames: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self.put, self.get_nowait, self.qsize = frames.put, frames.get_nowait, frames.qsize
        self._take = frames.get
        self._loop = loop
        self._receiver = receiver
        self._told = False
        """Whether it was logged that something cannot be decoded."""
        self.failed = False
        """Whether something could not be decoded; who has taken note of it takes it back."""

    def get(self) -> None:
        """Decode what comes and hand it to the track, up to the end, which is ``None``."""
        decoder: Any = None
        mime_type = None
        track: Any = self._receiver.track
        call = self._loop.call_soon_threadsafe

        def hand_over(frame: Any) -> None:
            track._queue.put_nowait(frame)  # (looked up now: see frames_offered())

        while (task := self._take()) is not None:
            codec, frame = task
            if codec.mimeType != mime_type:
                decoder, mime_type = _new_decoder(codec), codec.mimeType
            try:
                decoded = decoder.decode(frame)
            except FFmpegError as error:
                self._fail(codec, error)
                continue
            with contextlib.suppress(RuntimeError):  # the loop is closed
                for one in decoded:
                    call(hand_over, one)

    def _fail(self, codec: Any, error: FFmpegError) -> None:
        """Note that something cannot be decoded; tell of the first."""
        self.failed = True
        if not self._told:
            self._told = True
            logger.warning(
                "%s track %r: what arrives as %s cannot be decoded (%s); it is left out, and this "
                "is not told again",
                self._receiver.track.kind,
                self._receiver.track.id,
                codec.name,
                error.strerror,
            )


def decode_by_ourselves(receiver: RTCRtpReceiver) -> None:
    """Have a receiver that has not begun decode as is said above, where its version permits."""
    if not can(Capability.DECODING) or isinstance(getattr(receiver, DECODER_QUEUE), DecodingQueue):
        return
    if getattr(receiver, DECODER_THREAD) is None:
        setattr(receiver, DECODER_QUEUE, DecodingQueue(asyncio.get_running_loop(), receiver))
