"""Reach a receiver's way from packets to its decoder."""

from __future__ import annotations

import contextlib
import queue
from typing import Any, NamedTuple

from aiortc import RTCRtpReceiver

from metered_sync.engine.webrtc.aiortc_private.names import (
    DECODER_QUEUE,
    DECODER_THREAD,
    JITTER_BUFFER,
    NACK_GENERATOR,
    RECEIVER_CODECS,
    TIMESTAMP_MAPPER,
)

__all__ = ["PacketPath", "payload"]


class PacketPath:
    """A receiver's way from packets to its decoder."""

    def __init__(self, receiver: RTCRtpReceiver) -> None:
        self._receiver: Any = receiver
        self.codecs: dict[int, Any] = getattr(receiver, RECEIVER_CODECS)
        """Codecs by payload type."""
        self._frames: Any = getattr(receiver, DECODER_QUEUE)
        self._mapper: Any = getattr(receiver, TIMESTAMP_MAPPER)

    @property
    def buffer(self) -> Any:
        """What takes packets (``add``) in the receiver's place."""
        return getattr(self._receiver, JITTER_BUFFER)

    @buffer.setter
    def buffer(self, buffer: Any) -> None:
        setattr(self._receiver, JITTER_BUFFER, buffer)

    @property
    def nacks(self) -> Any:
        """What asks for missing packets; ``None`` for sound, where nothing does."""
        return getattr(self._receiver, NACK_GENERATOR)

    @nacks.setter
    def nacks(self, nacks: Any) -> None:
        setattr(self._receiver, NACK_GENERATOR, nacks)

    def hand_over(self, packet: Any, data: bytes) -> None:
        """Give a frame to the decoder, as the receiver does: its first packet, its bitstream."""
        if getattr(self._receiver, DECODER_THREAD):
            frame = _Frame(data, self.pts_of(packet))
            self._frames.put((self.codecs[packet.payload_type], frame))

    def codec_of(self, packet: Any) -> str:
        """Return the name of a packet's codec, in lower case."""
        mime_type: str = self.codecs[packet.payload_type].mimeType
        return mime_type.partition("/")[2].lower()

    def pts_of(self, packet: Any) -> int:
        """Return the timestamp that a packet's frame will have."""
        pts: int = self._mapper.map(packet.timestamp)
        return pts

    @property
    def waiting(self) -> int:
        """How many frames wait for the decoder, the one aside that it is at."""
        return int(self._frames.qsize())

    def take_failure(self) -> bool:
        """Say whether something could not be decoded since this was last asked.

        (Where aiortc's own decoder is at work, aiortc asks for a key frame then, from 1.16 on.)
        """
        failed: bool = getattr(self._frames, "failed", False)
        if failed:
            self._frames.failed = False
        return failed

    def drop_waiting(self) -> int:
        """Take back the frames that wait for the decoder; return how many those were."""
        frames = self._frames
        dropped = 0
        with contextlib.suppress(queue.Empty):
            while True:
                if frames.get_nowait() is None:  # the end of the decoder's thread
                    frames.put(None)
                    break
                dropped += 1
        return dropped


class _Frame(NamedTuple):
    """A frame as decoders take it."""

    data: bytes
    timestamp: int


def payload(packet: Any) -> bytes:
    """Return a packet's payload without what its codec puts around it."""
    data: bytes = packet._data
    return data
