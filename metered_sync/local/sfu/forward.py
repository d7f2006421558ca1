"""Forward a published track to its subscribers, packet by packet, without decoding.

A packet is parsed once and kept in a ring; each subscription builds its own header in
front of the same payload: payload type, SSRC, sequence number (a constant offset) and the
ids of header extensions are the subscriber's, the timestamp stays the publisher's, so that
sender reports stay true.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from typing import Protocol

from metered_sync.local.sfu import codecs as codec_rules
from metered_sync.local.sfu import rtcp
from metered_sync.local.sfu.reception import Reception
from metered_sync.local.sfu.rtp import RTP_HEADER, Packet, element, extension_block
from metered_sync.wire.key_frames import detector
from metered_sync.wire.sdp import Codec, Extension
from metered_sync.wire.sfu import TrackInfo
from metered_sync.wire.timings import Timings

__all__ = ["MediaPath", "PublishedTrack", "TrackSubscription"]

_CACHE_SIZE = 1024
"""Packets kept for each track: a second of video at several Mbit/s. A power of two."""
_KEY_FRAME_TRIES = 3
"""Requests for a key frame before the SFU forwards without one."""
_MAX_RESENT = 256
"""Packets that one NACK may bring back, so that it cannot be used to amplify traffic."""
_ANCHOR_GUARD = 2048
"""Packets after a subscription's start for which older ones are recognised as such."""


class MediaPath(Protocol):
    """Sends RTP and RTCP packets to one client."""

    def send_rtp(self, packet: bytes) -> None: ...

    def send_rtcp(self, packet: bytes) -> None: ...


class PublishedTrack:
    """A stream that a session publishes, or has announced in its offer."""

    def __init__(
        self,
        *,
        session_id: str,
        track_id: str,
        kind: str,
        mid: str,
        path: MediaPath,
        rtcp_ssrc: int,
        timings: Timings,
    ) -> None:
        self.session_id = session_id
        self.track_id = track_id
        self.name: str | None = None
        self.kind = kind
        self.mid = mid
        self.listed = False
        """Whether others see it: it was published by name, or has shown a packet."""
        self.ended = False
        self.codecs: tuple[Codec, ...] = ()
        self.extensions: tuple[Extension, ...] = ()
        self.reception: Reception | None = None
        self.watcher: Callable[[Packet, str], None] | None = None
        """Is shown each packet with the name of its codec, for people to look at."""
        self._path = path
        self._rtcp_ssrc = rtcp_ssrc
        self._timings = timings
        self._loop = asyncio.get_running_loop()
        self._subscriptions: list[TrackSubscription] = []
        self._cache: list[Packet | None] = [None] * _CACHE_SIZE
        self._detectors: dict[int, Callable[[bytes], bool] | None] = {}
        self._answers_nacks = False
        self._key_tries = 0
        self._key_timer: asyncio.TimerHandle | None = None
        self._nack_timer: asyncio.TimerHandle | None = None
        self._watch_key_frames = False

    def info(self) -> TrackInfo:
        """Return what the API tells about this track."""
        return TrackInfo(
            self.session_id,
            self.track_id,
            self.name,
            self.kind,
            self.mid,
            subscribers=len(self._subscriptions),
        )

    def configure(self, codecs: Sequence[Codec], extensions: Sequence[Extension]) -> None:
        """Take over what the publisher's section has negotiated; nothing is ever renumbered."""
        merged = codec_rules.merge(self.codecs, codecs)
        if merged == self.codecs and tuple(extensions) == self.extensions:
            return
        self.codecs, self.extensions = merged, tuple(extensions)
        self._detectors = {codec.payload_type: detector(codec.name) for codec in self.codecs}
        self._answers_nacks = any("nack" in codec.feedback for codec in self.codecs)
        for subscription in self._subscriptions:
            subscription.remap()

    # --- packets in ---

    def accept(self, ssrc: int, payload_type: int) -> None:
        """Begin to receive this stream, in place of any earlier one."""
        rate = next((c.clock_rate for c in self.codecs if c.payload_type == payload_type), 90000)
        self.reception = Reception(ssrc, rate)
        self._cache = [None] * _CACHE_SIZE
        for subscription in self._subscriptions:
            subscription.start_anew()
        if self._subscriptions:
            self.request_key_frame()

    def on_packet(self, packet: Packet, now: float) -> None:
        """Take a packet of :attr:`reception`'s stream and pass it on at once."""
        reception = self.reception
        if reception is None or packet.payload_type not in self._detectors:
            return
        gap = reception.add(packet.seq, packet.timestamp, now)
        self._cache[packet.seq & (_CACHE_SIZE - 1)] = packet
        if self._watch_key_frames:
            self._watch(packet)
        if self.watcher is not None:
            self.watcher(packet, self._codec_name(packet.payload_type))
        for subscription in self._subscriptions:
            subscription.forward(packet)
        if gap and self._answers_nacks and self._nack_timer is None:
            self._ask_again()

    def counts(self) -> tuple[int, int]:
        """Return how many packets of the stream were expected, and how many came."""
        return (0, 0) if self.reception is None else self.reception.counts()

    def _codec_name(self, payload_type: int) -> str:
        return next(c.name for c in self.codecs if c.payload_type == payload_type)

    def on_sender_report(self, message: rtcp.RtcpMessage, ntp: int) -> None:
        """Pass the publisher's clock on to the subscribers."""
        if self.reception is not None:
            self.reception.on_sender_report(ntp, self._loop.time())
        cname = self.session_id.encode()
        for subscription in self._subscriptions:
            report = rtcp.sender_report(message, subscription.ssrc, cname)
            subscription.path.send_rtcp(report)

    def cached(self, seq: int) -> Packet | None:
        """Return a recent packet by the publisher's sequence number; none of an ended track."""
        if self.ended:  # subscribers may ask for some time yet
            return None
        packet = self._cache[seq & (_CACHE_SIZE - 1)]
        return packet if packet is not None and packet.seq == seq else None

    def _ask_again(self) -> None:
        """Ask the publisher for missing packets, now and on a timer until they are there."""
        self._nack_timer = None
        reception = self.reception
        if reception is None or self.ended:
            return
        give_up = self._timings.renack_give_up
        missing = list(reception.missing(self._loop.time(), give_up))
        if not missing:
            return
        self._path.send_rtcp(rtcp.nack(self._rtcp_ssrc, reception.ssrc, missing))
        self._nack_timer = self._loop.call_later(self._timings.renack, self._ask_again)

    # --- key frames ---

    def request_key_frame(self) -> None:
        """Ask the publisher for a key frame, a few times until one comes; throttled."""
        if self.kind != "video" or self.ended:
            return
        self._key_tries = _KEY_FRAME_TRIES
        self._watch_key_frames = True
        if self._key_timer is None:
            self._try_key_frame()

    def _try_key_frame(self) -> None:
        self._key_timer = None
        if self._key_tries and self.reception is not None:
            self._key_tries -= 1
            self._path.send_rtcp(rtcp.pli(self._rtcp_ssrc, self.reception.ssrc))
            self._key_timer = self._loop.call_later(self._timings.pli_throttle, self._try_key_frame)
        elif self.reception is not None:
            self._open_gates()  # None came: the decoder may do with what there is.

    def _watch(self, packet: Packet) -> None:
        test = self._detectors[packet.payload_type]
        if test is None or test(packet.payload):
            self._key_tries = 0
            self._open_gates()

    def _open_gates(self) -> None:
        self._watch_key_frames = False
        for subscription in self._subscriptions:
            subscription.gated = False

    # --- subscriptions ---

    def attach(self, subscription: TrackSubscription) -> None:
        """Begin to forward to *subscription*."""
        if self.ended:
            subscription.path.send_rtcp(rtcp.bye(subscription.ssrc))
        elif subscription not in self._subscriptions:
            subscription.start_anew()
            self._subscriptions.append(subscription)
            self.request_key_frame()

    def detach(self, subscription: TrackSubscription) -> None:
        """Stop forwarding to *subscription*; it may be attached again."""
        if subscription in self._subscriptions:
            self._subscriptions.remove(subscription)

    def end(self) -> None:
        """Stop for good and tell the subscribers."""
        self.ended = True
        for timer in (self._key_timer, self._nack_timer):
            if timer is not None:
                timer.cancel()
        self._key_timer = self._nack_timer = None
        for subscription in self._subscriptions:
            subscription.path.send_rtcp(rtcp.bye(subscription.ssrc))
        self._subscriptions.clear()
        self._cache.clear()
        self.reception = None


class TrackSubscription:
    """The forwarding of one track to one media section of one subscriber."""

    def __init__(
        self, track: PublishedTrack, *, mid: str, ssrc: int, track_id: str, path: MediaPath
    ) -> None:
        self.track = track
        self.mid = mid
        self.ssrc = ssrc
        self.msid = (track.session_id, track_id)
        """The publisher's session and an id of this subscription's own."""
        self.path = path
        self.gated = track.kind == "video"
        """Whether it still waits for a key frame to begin with."""
        self._codecs: tuple[Codec, ...] = ()
        self._extensions: tuple[Extension, ...] = ()
        self._payload_types: dict[int, int] = {}
        self._extension_ids: dict[int, int] = {}
        self._publisher_mid_id = 0
        self._mid_element = b""
        self._anchored = False
        self._offset = 0
        # Far from the wrap-around at both ends: the receiver's SRTP guesses the rollover
        # counter from the first packet that it sees.
        self._anchor = secrets.randbelow(19000) + 1000
        self._highest = self._anchor - 1
        self._sent = 0

    def configure(self, codecs: Sequence[Codec], extensions: Sequence[Extension]) -> None:
        """Take the formats of the subscriber's first answer; later answers change nothing.

        aiortc lists other payload types in its own later offers and yet goes on to
        understand only the first ones.
        """
        if not self._codecs:
            self._codecs, self._extensions = tuple(codecs), tuple(extensions)
            self.remap()

    def is_called(self, track_id: str) -> bool:
        """Return whether *track_id* names this subscription: by the publisher's id or its own."""
        return track_id in (self.track.track_id, self.msid[1])

    def remap(self) -> None:
        """Work out which of the publisher's numbers become which of the subscriber's."""
        self._payload_types.clear()
        for codec in self.track.codecs:
            match = codec_rules.find_match(codec, self._codecs)
            if match is not None:
                self._payload_types[codec.payload_type] = match.payload_type
        ids = {item.uri: item.id for item in self._extensions}
        mid_id = ids.pop(codec_rules.MID, 0)
        self._mid_element = element(mid_id, self.mid.encode())
        self._extension_ids = {
            item.id: ids[item.uri] for item in self.track.extensions if item.uri in ids
        }
        mids = (item.id for item in self.track.extensions if item.uri == codec_rules.MID)
        self._publisher_mid_id = next(mids, 0)

    def start_anew(self) -> None:
        """Join the next packet to the last one sent, whatever its number is."""
        self._anchored = False
        self.gated = self.track.kind == "video"

    def forward(self, packet: Packet) -> None:
        """Send a packet of the track, at once."""
        if self.gated:
            return
        payload_type = self._payload_types.get(packet.payload_type)
        if payload_type is None:
            return
        if not self._anchored:
            if packet.is_padding:
                return  # aiortc's decoders never recover from a first frame without data.
            self._anchored = True
            self._anchor = (self._highest + 1) & 0xFFFF
            self._offset = self._anchor - packet.seq
            self._sent = 0
        seq = (packet.seq + self._offset) & 0xFFFF
        if (seq - self._highest) & 0xFFFF < 0x8000:
            self._highest = seq
        elif self._is_from_before(seq):
            return
        self._sent += 1
        self.path.send_rtp(self._rewrite(packet, payload_type, seq))

    def resend(self, seqs: Iterable[int]) -> None:
        """Answer a NACK from the track's cache."""
        for seq in islice(seqs, _MAX_RESENT):
            packet = self.track.cached((seq - self._offset) & 0xFFFF)
            if packet is None or not self._anchored or self._is_from_before(seq):
                continue
            payload_type = self._payload_types.get(packet.payload_type)
            if payload_type is not None:
                self.path.send_rtp(self._rewrite(packet, payload_type, seq))

    def _is_from_before(self, seq: int) -> bool:
        return self._sent < _ANCHOR_GUARD and (seq - self._anchor) & 0xFFFF >= 0x8000

    def _rewrite(self, packet: Packet, payload_type: int, seq: int) -> bytes:
        flags, block = packet.flags, b""
        if packet.elements:
            ids, elements = self._extension_ids, []
            for number, value in packet.elements:
                if number in ids:
                    elements.append(element(ids[number], value))
                elif number == self._publisher_mid_id:
                    elements.append(self._mid_element)
            block = extension_block(elements)
            if block:
                flags |= 0x10
        header = RTP_HEADER.pack(
            flags, packet.marker | payload_type, seq, packet.timestamp, self.ssrc
        )
        return b"".join((header, packet.csrcs, block, packet.payload))
