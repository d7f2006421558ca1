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

    def hand_over(self, packets: list[Any]) -> None:
        """Give the packets of one frame to the decoder, as the receiver does."""
        if getattr(self._receiver, DECODER_THREAD):
            data = b"".join(map(payload, packets))
            timestamp = getattr(self._receiver, TIMESTAMP_MAPPER).map(packets[0].timestamp)
            codec = self.codecs[packets[0].payload_type]
            getattr(self._receiver, DECODER_QUEUE).put((codec, _Frame(data, timestamp)))

    def pts_of(self, packet: Any) -> int:
        """Return the timestamp that a packet's frame will have."""
        pts: int = getattr(self._receiver, TIMESTAMP_MAPPER).map(packet.timestamp)
        return pts

    @property
    def waiting(self) -> int:
        """How many frames wait for the decoder, the one aside that it is at."""
        return int(getattr(self._receiver, DECODER_QUEUE).qsize())

    def drop_waiting(self) -> int:
        """Take back the frames that wait for the decoder; return how many those were."""
        frames = getattr(self._receiver, DECODER_QUEUE)
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
