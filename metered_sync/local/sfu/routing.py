"""Lead the packets of one client to its tracks, and its feedback to the publishers.

Which track a packet belongs to (RFC 9143, section 9.2): by an SSRC that the offer names, by
the packet's ``mid`` extension, or by a payload type that only one section uses.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Iterable

from metered_sync.local.sfu import rtcp
from metered_sync.local.sfu.codecs import MID
from metered_sync.local.sfu.forward import MediaPath, PublishedTrack, TrackSubscription
from metered_sync.local.sfu.rtp import Packet, parse_packet
from metered_sync.wire.timings import Timings

__all__ = ["Router"]

_VIDEO_BITRATE = 5_000_000
"""Bits per second that each video may use. The local network is taken to carry that: without
an estimate from its receiver, Chromium stays near its start of 300 kbit/s."""
_MAX_IGNORED_SSRCS = 64
"""Unknown SSRCs that are remembered, so that their packets cost little."""


class Router:
    """The tables that lead one session's packets to tracks and subscriptions.

    Args:
        timings: Intervals.
        on_first_packet: Called with a track when its first packet has come.
    """

    def __init__(self, timings: Timings, on_first_packet: Callable[[PublishedTrack], None]) -> None:
        self.ssrc = secrets.randbits(32)
        """The sender of the SFU's feedback to this client."""
        self._timings = timings
        self._on_first_packet = on_first_packet
        self._loop = asyncio.get_running_loop()
        self._tracks: dict[str, PublishedTrack] = {}
        self._hints: dict[int, str] = {}
        self._mid_ids: set[int] = set()
        self._by_ssrc: dict[int, PublishedTrack] = {}
        self._ignored: dict[int, float] = {}
        self._subscriptions: dict[int, TrackSubscription] = {}

    def configure(
        self,
        tracks: Iterable[PublishedTrack],
        hints: dict[int, str],
        subscriptions: Iterable[TrackSubscription],
    ) -> None:
        """Take over the tables after a negotiation.

        Args:
            tracks: The tracks that the client sends or has announced.
            hints: The mid for each SSRC that the client's last description names.
            subscriptions: What the client receives.
        """
        self._tracks = {track.mid: track for track in tracks}
        self._hints = hints
        self._subscriptions = {item.ssrc: item for item in subscriptions}
        self._mid_ids = {
            item.id
            for track in self._tracks.values()
            for item in track.extensions
            if item.uri == MID
        }
        self._ignored.clear()
        alive = set(self._tracks.values())
        self._by_ssrc = {
            ssrc: track
            for ssrc, track in self._by_ssrc.items()
            if track in alive and self._tracks.get(hints.get(ssrc, track.mid)) is track
        }

    def knows_ssrc(self, ssrc: int) -> bool:
        """Return whether this SSRC is in use on the client's transport."""
        return ssrc in self._subscriptions or ssrc in self._hints or ssrc in self._by_ssrc

    # --- media ---

    def on_rtp(self, data: bytes) -> None:
        """Take an RTP packet of the client."""
        packet = parse_packet(data)
        if packet is None:
            return
        now = self._loop.time()
        track = self._by_ssrc.get(packet.ssrc)
        if track is None:
            track = self._find(packet, now)
            if track is None:
                return
        track.on_packet(packet, now)

    def _find(self, packet: Packet, now: float) -> PublishedTrack | None:
        """Find the track of an SSRC that is new, or may be a track's next one."""
        ssrc = packet.ssrc
        if now < self._ignored.get(ssrc, 0.0):
            return None
        track = self._candidate(packet)
        if track is not None and any(
            codec.payload_type == packet.payload_type for codec in track.codecs
        ):
            reception = track.reception
            silence = self._timings.source_silence
            if reception is None or now - reception.last_heard > silence or ssrc in self._hints:
                if reception is not None:
                    self._by_ssrc.pop(reception.ssrc, None)
                track.accept(ssrc, packet.payload_type)
                self._by_ssrc[ssrc] = track
                self._on_first_packet(track)
                return track
        if len(self._ignored) >= _MAX_IGNORED_SSRCS:
            self._ignored.clear()
        self._ignored[ssrc] = now + self._timings.source_silence
        return None

    def _candidate(self, packet: Packet) -> PublishedTrack | None:
        if packet.ssrc in self._hints:
            return self._tracks.get(self._hints[packet.ssrc])
        for number, value in packet.elements:
            if number in self._mid_ids:
                return self._tracks.get(value.decode("utf-8", "replace"))
        matches = [
            track
            for track in self._tracks.values()
            if any(codec.payload_type == packet.payload_type for codec in track.codecs)
        ]
        return matches[0] if len(matches) == 1 else None

    # --- feedback ---

    def on_rtcp(self, data: bytes) -> None:
        """Take an RTCP packet of the client."""
        for message in rtcp.parse_compound(data):
            info = rtcp.sender_info(message)
            if info is not None:
                track = self._by_ssrc.get(info[0])
                if track is not None:
                    track.on_sender_report(message, info[1])
                continue
            feedback = rtcp.feedback(message)
            if feedback is None:
                continue
            if rtcp.is_fir(message):
                for ssrc in rtcp.fir_targets(feedback.details):
                    self._request_key_frame(ssrc)
            elif rtcp.is_pli(message):
                self._request_key_frame(feedback.media_ssrc)
            elif rtcp.is_nack(message):
                subscription = self._subscriptions.get(feedback.media_ssrc)
                if subscription is not None:
                    subscription.resend(rtcp.nacked(feedback.details))

    def _request_key_frame(self, ssrc: int) -> None:
        subscription = self._subscriptions.get(ssrc)
        if subscription is not None:
            subscription.track.request_key_frame()

    def report(self, path: MediaPath) -> None:
        """Send the client a report of what was received from it, and a bitrate for video."""
        now = self._loop.time()
        reports = []
        videos = []
        for track in self._tracks.values():
            report = track.reception.report(now) if track.reception is not None else None
            if report is not None:
                reports.append(report)
                if track.kind == "video":
                    videos.append(report.ssrc)
        for start in range(0, len(reports), rtcp.MAX_REPORTS):
            part = reports[start : start + rtcp.MAX_REPORTS]
            path.send_rtcp(rtcp.receiver_report(self.ssrc, part))
        if videos:
            empty = rtcp.receiver_report(self.ssrc, ())
            path.send_rtcp(empty + rtcp.remb(self.ssrc, _VIDEO_BITRATE * len(videos), videos[:255]))
