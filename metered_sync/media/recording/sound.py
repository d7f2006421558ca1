"""Write the sound of a file: of one track as it is encoded, where it is Opus; of several, mixed.

A file's stream of Opus counts samples, and has none missing (RFC 7845, section 4): players of a
stream with holes lose step with the pictures. So what is written as it is comes one packet after
the other, whatever the track's clock says. Where that says that some are missing (lost on the
way, never sent by a sender that is silent or muted, or that slow a clock runs), packets of the same
kind without sound stand in for them, which a decoder conceals (RFC 6716, section 4.4); where it
says that there are too many, one is left out.
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import Any

from av import AudioFrame, Packet

from metered_sync.engine.webrtc.media_frames import AUDIO_RATE, SAMPLES_PER_FRAME
from metered_sync.media.recording.mixing import Mixer, MixerInput

__all__ = ["AudioStream", "concealed", "samples_of"]

MAX_OFFSET = SAMPLES_PER_FRAME * 3 // 4
"""Samples by which packets may be off their place: less than one that is put in or left out."""
MAX_PACKET_SAMPLES = 5760
"""Samples of one packet, at most: 120 ms (RFC 6716, section 3.2.5)."""


class AudioStream:
    """Write the sound of any number of tracks into a stream of a file.

    That of one alone is written as it is while :attr:`passes`; what is mixed is encoded.
    """

    kind = "audio"

    def __init__(self, mux: Callable[[Any], None], stream: Any, *, passes: bool = False) -> None:
        """Prepare.

        Args:
            mux: Writes a packet.
            stream: The file's stream, with its encoder.
            passes: Whether packets of Opus are written as they are.
        """
        self.frames = 0
        """Packets written."""
        self.mixer = Mixer()
        self.passes = passes
        self._mux = mux
        self._stream = stream
        self._skipped = _pre_skip(stream.codec_context) if passes else 0
        """Samples at the stream's beginning that players leave out: encoders make them."""
        self._like = b"\xfc"
        """What the latest packet begins with, that was written as it is: at first 20 ms, stereo."""

    @property
    def codec(self) -> str:
        """The encoder's name, or the codec of what is written as it is."""
        return "opus" if self.passes else str(self._stream.codec_context.codec.name)

    @property
    def end(self) -> float:
        """The end of the sound, in seconds."""
        return self.mixer.position / AUDIO_RATE

    def mix(self) -> MixerInput:
        """Mix from here on; return what takes the sound of one track."""
        self.passes = False
        return MixerInput(self.mixer)

    def write(self, packet: Any, at: float) -> None:
        """Write a packet that belongs ``at`` seconds as it is, unless it is damaged."""
        data = bytes(packet)
        samples = samples_of(data)
        off = round(at * AUDIO_RATE) - self.mixer.position
        if not samples or off <= -MAX_OFFSET:
            return
        self.write_until(self.mixer.position + off)
        self._like = data[:1]
        self._pass(data, samples)

    def write_until(self, position: int) -> None:
        """Write the sound up to a position in samples: what was mixed, or nothing but a gap."""
        if self.passes:
            while position - self.mixer.position >= MAX_OFFSET:
                self._pass(concealed(self._like), SAMPLES_PER_FRAME)
            return
        while (at := self.mixer.position) < position:
            # (Not all at once: after a long pause there is much silence to write.)
            samples = self.mixer.take(min(position, at + AUDIO_RATE // 10))
            frame = AudioFrame.from_ndarray(samples.reshape(1, -1), "s16", "stereo")
            frame.sample_rate = AUDIO_RATE
            frame.pts, frame.time_base = at, Fraction(1, AUDIO_RATE)
            self._put(self._stream.encode(frame))

    def flush(self) -> None:
        """Write the frames that the encoder holds."""
        if self.mixer.position and not self.passes:
            self._put(self._stream.encode(None))

    def _pass(self, data: bytes, samples: int) -> None:
        packet: Any = Packet(data)
        packet.pts = packet.dts = self.mixer.position - self._skipped
        packet.duration, packet.time_base = samples, Fraction(1, AUDIO_RATE)
        packet.stream, packet.is_keyframe = self._stream, True
        self.mixer.skip(samples)
        self._put([packet])

    def _put(self, packets: Any) -> None:
        for packet in packets:
            self._mux(packet)
            self.frames += 1


def _pre_skip(encoder: Any) -> int:
    """Return the samples that an encoder of Opus makes before its first (RFC 7845, section 5.1)."""
    if not encoder.is_open:
        encoder.open()
    return int.from_bytes(bytes(encoder.extradata)[10:12], "little")


def samples_of(packet: bytes) -> int:
    """Return how many samples, at 48 kHz, a packet of Opus holds; 0: it is none.

    Facts: RFC 6716, section 3.1 (the first byte), and sections 3.2.2 to 3.2.5 (further frames).
    """
    if not packet:
        return 0
    config, code = packet[0] >> 3, packet[0] & 3
    if config < 12:
        frame = (480, 960, 1920, 2880)[config & 3]
    elif config < 16:
        frame = (480, 960)[config & 1]
    else:
        frame = 120 << (config & 3)
    count = (1, 2, 2, packet[1] & 63 if len(packet) > 1 else 0)[code]
    samples = frame * count
    return samples if samples <= MAX_PACKET_SAMPLES else 0


def concealed(like: bytes) -> bytes:
    """Return a packet of 20 ms without sound, of the same mode and bandwidth as another."""
    config = like[0] >> 3
    twenty = config & ~3 | 1 if config < 12 else config | 1 if config < 16 else config | 3
    return bytes([twenty << 3 | like[0] & 4])
