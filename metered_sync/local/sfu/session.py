"""One session of the local SFU: a client's connection, and what it publishes and receives.

The calls of the API arrive here one at a time (:attr:`Session.lock`). Each checks everything
that could be wrong before it changes anything, and raises :class:`RefusedError` for it.
"""

from __future__ import annotations

import asyncio
import secrets
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain, count

from metered_sync.local.sfu.codecs import forwardable, with_formats
from metered_sync.local.sfu.dtls import DtlsIdentity
from metered_sync.local.sfu.forward import Subscription, Track
from metered_sync.local.sfu.routing import Router
from metered_sync.local.sfu.slots import Formats, LocalTransport, Slot
from metered_sync.local.sfu.transport import Link, UdpPort
from metered_sync.wire import sdp
from metered_sync.wire.sfu import PublishTrack, SessionDescription, SessionInfo, TrackInfo
from metered_sync.wire.timings import Timings

__all__ = ["Host", "RefusedError", "Session"]

_MAX_SECTIONS = 200
"""Media sections of one session; a description of so many is some 300 kB long."""


class RefusedError(Exception):
    """A call that the SFU answers with an error.

    Attributes:
        status: The HTTP status.
        code: A word for programs, e.g. ``"not_found"``.
    """

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code


@dataclass(frozen=True)
class Host:
    """What a session needs of the SFU that it belongs to."""

    port: UdpPort
    identity: DtlsIdentity
    candidates: tuple[str, ...]
    timings: Timings
    on_end: Callable[[Session], None]


@dataclass
class _PendingOffer:
    """An offer of the SFU that the client has not answered yet."""

    before: list[Slot]
    """The sections as they were, for when it is withdrawn."""
    timer: asyncio.TimerHandle


class Session:
    """A client of the SFU."""

    def __init__(self, host: Host, metadata: str | None) -> None:
        self.id = uuid.uuid4().hex
        self.metadata = metadata
        self.lock = asyncio.Lock()
        """Held by the API around each call that negotiates, so that each builds on the last."""
        self.ended = False
        self._host = host
        self._loop = asyncio.get_running_loop()
        self._router = Router(host.timings, self._on_first_packet)
        self._link = Link(
            host.port,
            host.identity,
            on_rtp=self._router.on_rtp,
            on_rtcp=self._router.on_rtcp,
            on_change=self._on_link_change,
        )
        self._slots: list[Slot] = []
        self._formats = Formats()
        self._remote_ufrag = ""
        self._pending: _PendingOffer | None = None
        self._origin = secrets.randbits(62)
        self._version = 0
        self._next_mid = 0
        self._connected_at: float | None = None
        self._news = asyncio.Event()
        self._ticker = self._loop.call_later(host.timings.report, self._tick)

    # --- what others see ---

    def info(self) -> SessionInfo:
        """Return what the API tells about this session."""
        return SessionInfo(self.id, self._link.state, self.metadata)

    def listed_tracks(self) -> tuple[TrackInfo, ...]:
        """Return the tracks that others may see now."""
        return tuple(track.info() for track in self._tracks() if track.listed)

    async def settled_tracks(self) -> tuple[TrackInfo, ...]:
        """Return the tracks, once those that were announced have had a moment to show.

        The service's quick start lists a publisher's tracks once, right after its connection
        is up, when the first packet may still be on its way.
        """
        hold = self._host.timings.first_packet_hold
        start = self._loop.time()
        while not self.ended and any(not track.listed for track in self._tracks()):
            since = start if self._connected_at is None else min(start, self._connected_at)
            remaining = since + hold - self._loop.time()
            if remaining <= 0:
                break
            self._news.clear()
            try:
                await asyncio.wait_for(self._news.wait(), remaining)
            except asyncio.TimeoutError:
                break
        return self.listed_tracks()

    def find_track(self, track_id: str) -> Track | None:
        """Return a track by its id, even before its first packet."""
        return next((track for track in self._tracks() if track.track_id == track_id), None)

    def _tracks(self) -> list[Track]:
        return [slot.track for slot in self._slots if slot.track is not None]

    def _subscriptions(self) -> list[Subscription]:
        return [slot.subscription for slot in self._slots if slot.subscription is not None]

    # --- the calls ---

    def connect(self, offer: SessionDescription) -> SessionDescription:
        """Answer the first offer."""
        description = _parse(offer)
        if not any(not section.rejected for section in description.sections):
            raise RefusedError(400, "bad_description", "the offer needs a media section")
        return self._answer(description)

    def publish(
        self, tracks: Sequence[PublishTrack], offer: SessionDescription
    ) -> SessionDescription:
        """Answer an offer that carries new tracks, and list them."""
        self._refuse_while_pending()
        description = _parse(offer)
        sections = {section.mid: section for section in description.sections}
        taken = {track.track_id: track.mid for track in self._tracks()}
        for track in tracks:
            section = sections.get(track.mid)
            if section is None or section.kind not in ("audio", "video") or not section.sends:
                message = f"the offer sends no media in a section with mid {track.mid!r}"
                raise RefusedError(400, "bad_track", message)
            if not forwardable(section.codecs):
                message = f"none of the codecs of mid {track.mid!r} can be forwarded"
                raise RefusedError(400, "bad_track", message)
            if taken.setdefault(track.track_id, track.mid) != track.mid:
                message = f"this session publishes another track {track.track_id!r}"
                raise RefusedError(409, "track_exists", message)
        return self._answer(description, publish=tracks)

    def subscribe(self, tracks: Sequence[Track]) -> SessionDescription:
        """Make an offer with a new section for each track, in their order."""
        self._refuse_while_pending()
        if len(self._slots) + len(tracks) > _MAX_SECTIONS:
            raise RefusedError(
                413, "too_many_tracks", f"a session has at most {_MAX_SECTIONS} sections"
            )
        before = list(self._slots)
        for slot in self._slots:
            slot.release()
        # New sections take the places of rejected ones first. The places run upwards, so the
        # order of the new sections is that of the request.
        places = [index for index, slot in enumerate(self._slots) if slot.rejected]
        for index, track in zip(chain(places, count(len(self._slots))), tracks, strict=False):
            self._slots[index : index + 1] = [self._new_slot(track)]
        timer = self._loop.call_later(self._host.timings.offer_pending, self._withdraw)
        self._pending = _PendingOffer(before, timer)
        transport = self._transport("actpass")
        return self._describe("offer", [slot.offer_section(transport) for slot in self._slots])

    def renegotiate(self, description: SessionDescription) -> SessionDescription | None:
        """Take the answer to the SFU's offer; or answer an offer, e.g. an ICE restart."""
        if description.type == "offer":
            self._refuse_while_pending()
            return self._answer(_parse(description))
        if self._pending is None:
            raise RefusedError(409, "no_offer", "no offer of the SFU waits for an answer")
        self._apply_answer(_parse(description))
        return None

    def close_tracks(
        self, track_ids: Sequence[str], offer: SessionDescription
    ) -> SessionDescription:
        """End tracks that the session publishes, or receives, and answer the offer."""
        self._refuse_while_pending()
        description = _parse(offer)
        for track_id in track_ids:
            if not self._slots_of(track_id):
                raise RefusedError(404, "not_found", f"this session has no track {track_id!r}")
        return self._answer(description, close=track_ids)

    def end(self) -> None:
        """End the session, its tracks and its subscriptions. Does nothing the second time."""
        if self.ended:
            return
        self.ended = True
        self._ticker.cancel()
        if self._pending is not None:
            self._pending.timer.cancel()
            self._pending = None
        for slot in self._slots:
            slot.end_track()
            slot.end_subscription()
        self._link.close()
        self._news.set()
        self._host.on_end(self)

    # --- the client's offers ---

    def _answer(
        self,
        description: sdp.Description,
        publish: Sequence[PublishTrack] = (),
        close: Sequence[str] = (),
    ) -> SessionDescription:
        self._check_offer(description)
        self._take_transport(description)
        for track_id in close:
            for slot in self._slots_of(track_id):
                self._close_slot(slot, track_id, description)
        for index, section in enumerate(description.sections):
            self._take_section(index, section)
        by_mid = {slot.mid: slot for slot in self._slots}
        for wish in publish:
            self._publish_slot(by_mid[wish.mid], wish)
        self._configure_router(description)
        transport = self._transport("passive")
        return self._describe("answer", [slot.answer_section(transport) for slot in self._slots])

    def _check_offer(self, description: sdp.Description) -> None:
        sections = description.sections
        if len(sections) > _MAX_SECTIONS:
            raise RefusedError(
                413, "too_many_tracks", f"a session has at most {_MAX_SECTIONS} sections"
            )
        if not sections or len(sections) < len(self._slots):
            raise RefusedError(400, "bad_description", "the offer lacks sections of the session")
        mids = [section.mid for section in sections]
        if not all(mids) or len(set(mids)) != len(mids):
            raise RefusedError(400, "bad_description", "each section needs a mid of its own")
        for slot, section in zip(self._slots, sections, strict=False):
            if not slot.rejected and (slot.mid, slot.kind) != (section.mid, section.kind):
                message = f"the section with mid {slot.mid!r} has moved or gone"
                raise RefusedError(400, "bad_description", message)
        first = _first_active(description)
        if first is not None:
            if not (first.ice_ufrag and first.ice_pwd and first.fingerprints):
                message = "ICE credentials or the certificate's fingerprint are missing"
                raise RefusedError(400, "bad_description", message)
            if first.setup not in ("actpass", "active"):
                message = 'setup must be "actpass" or "active": the SFU is the DTLS server'
                raise RefusedError(400, "bad_description", message)

    def _take_transport(self, description: sdp.Description) -> None:
        first = _first_active(description)
        if first is None:
            return
        self._link.fingerprints = first.fingerprints
        if self._remote_ufrag and first.ice_ufrag != self._remote_ufrag:
            self._link.restart()
        self._remote_ufrag = first.ice_ufrag

    def _take_section(self, index: int, section: sdp.Section) -> None:
        if index == len(self._slots):
            self._slots.append(Slot(section))
        elif self._slots[index].mid != section.mid or self._slots[index].rejected:
            self._slots[index] = Slot(section)
        slot = self._slots[index]
        if not slot.take(section):
            slot.reject()
            return
        slot.release()
        if not slot.is_media:
            return
        self._formats.learn(section.kind, section.codecs, section.extensions)
        self._announce(slot, section)
        if slot.subscription is not None:
            self._switch(slot.subscription, slot.client_receives)

    def _announce(self, slot: Slot, section: sdp.Section) -> None:
        """Note the track that a section may carry; it is listed once a packet shows it.

        An idle ``sendrecv`` section has an msid as well, so the msid alone proves nothing.
        """
        track = slot.track
        if not section.sends:
            slot.closed_msid = None
            if track is not None and not track.listed:
                slot.end_track()
            return
        announced = section.msid[1] if section.msid is not None else ""
        if track is not None and slot.announced_id not in ("", announced) and not slot.named:
            slot.end_track()  # Another track took the transceiver over.
        if slot.track is None and (slot.closed_msid is None or slot.closed_msid != section.msid):
            taken = {item.track_id for item in self._tracks()}
            track_id = announced if announced and announced not in taken else uuid.uuid4().hex
            slot.track = self._new_track(slot, track_id)
            slot.named, slot.closed_msid = False, None
        slot.announced_id = announced
        if slot.track is not None:
            slot.track.configure(slot.codecs, slot.extensions)

    def _new_track(self, slot: Slot, track_id: str) -> Track:
        return Track(
            session_id=self.id,
            track_id=track_id,
            kind=slot.kind,
            mid=slot.mid,
            path=self._link,
            rtcp_ssrc=self._router.ssrc,
            timings=self._host.timings,
        )

    def _publish_slot(self, slot: Slot, wish: PublishTrack) -> None:
        if slot.track is not None and slot.named and slot.track.track_id != wish.track_id:
            slot.end_track()
        if slot.track is None:
            slot.track = self._new_track(slot, wish.track_id)
            slot.track.configure(slot.codecs, slot.extensions)
        slot.track.track_id, slot.track.name = wish.track_id, wish.name
        slot.track.listed, slot.named, slot.closed_msid = True, True, None
        self._news.set()

    def _slots_of(self, track_id: str) -> list[Slot]:
        """Return the slots that carry a track of this id, published or subscribed to."""
        return [
            slot
            for slot in self._slots
            if (slot.track is not None and slot.track.track_id == track_id)
            or (slot.subscription is not None and slot.subscription.is_called(track_id))
        ]

    def _close_slot(self, slot: Slot, track_id: str, description: sdp.Description) -> None:
        if slot.track is not None and slot.track.track_id == track_id:
            slot.end_track()
            msids = (item.msid for item in description.sections if item.mid == slot.mid)
            slot.closed_msid = next(msids, None)
        if slot.subscription is not None and slot.subscription.is_called(track_id):
            slot.end_subscription()
            slot.spent = slot.track is None

    # --- the SFU's offers ---

    def _new_slot(self, track: Track) -> Slot:
        mid = f"s{self._next_mid}"
        self._next_mid += 1
        slot = Slot(sdp.Section(kind=track.kind, mid=mid))
        ssrc = secrets.randbits(32)
        while not ssrc or self._router.knows_ssrc(ssrc):
            ssrc = secrets.randbits(32)
        subscription = Subscription(
            track, mid=mid, ssrc=ssrc, track_id=uuid.uuid4().hex, path=self._link
        )
        table = self._formats.codecs(track.kind)
        codecs = with_formats(table, track.codecs, self._formats.payload_types)
        slot.offer(subscription, codecs, self._formats.extensions(track.kind))
        self._formats.learn(slot.kind, slot.codecs, slot.extensions)
        return slot

    def _apply_answer(self, description: sdp.Description) -> None:
        sections = description.sections
        if [section.mid for section in sections] != [slot.mid for slot in self._slots]:
            raise RefusedError(400, "bad_description", "the answer's sections are not the offer's")
        first = _first_active(description)
        if first is not None and first.setup == "passive":
            raise RefusedError(
                400, "bad_description", "setup must be active: the SFU is the DTLS server"
            )
        assert self._pending is not None
        self._pending.timer.cancel()
        self._pending = None
        for slot, section in zip(self._slots, sections, strict=True):
            if section.rejected:
                slot.reject()
                continue
            slot.client_sends, slot.client_receives = section.sends, section.receives
            if not slot.is_media:
                continue
            if slot.subscription is not None:
                slot.subscription.configure(section.codecs, section.extensions)
                self._switch(slot.subscription, slot.client_receives)
        self._configure_router(description)

    def _withdraw(self) -> None:
        """Take an unanswered offer back."""
        if self._pending is not None:
            for slot in self._slots:
                if slot not in self._pending.before:
                    slot.end_subscription()
            self._slots = self._pending.before
            self._pending = None

    def _refuse_while_pending(self) -> None:
        if self._pending is not None:
            raise RefusedError(409, "offer_pending", "an offer of the SFU waits for its answer")

    # --- common to both ---

    def _switch(self, subscription: Subscription, on: bool) -> None:
        """Forward to a subscription while its client wants it and the link is up."""
        if on and self._link.state == "connected":
            subscription.track.attach(subscription)
        else:
            subscription.track.detach(subscription)

    def _configure_router(self, description: sdp.Description) -> None:
        hints = {
            _primary_ssrc(section): section.mid
            for section in description.sections
            if section.sends and section.ssrcs
        }
        self._router.configure(self._tracks(), hints, self._subscriptions())

    def _transport(self, setup: str) -> LocalTransport:
        return LocalTransport(
            self._link.ufrag,
            self._link.password,
            self._host.identity.fingerprint,
            self._host.candidates,
            setup,
        )

    def _describe(self, kind: str, sections: list[sdp.Section]) -> SessionDescription:
        self._version += 1
        bundle = tuple(section.mid for section in sections if not section.rejected)
        description = sdp.Description(tuple(sections), bundle, True, self._origin, self._version)
        return SessionDescription(kind, sdp.build(description))

    # --- events ---

    def _on_first_packet(self, track: Track) -> None:
        track.listed = True
        self._news.set()
        # A browser's estimate of the bandwidth rises fastest in its first moments.
        self._loop.call_soon(self._report)

    def _on_link_change(self) -> None:
        if self._link.state == "connected":
            if self._connected_at is None:
                self._connected_at = self._loop.time()
            for slot in self._slots:
                if slot.subscription is not None:
                    self._switch(slot.subscription, slot.client_receives)
        elif self._link.state in ("failed", "closed"):
            self._loop.call_soon(self.end)

    def _tick(self) -> None:
        timings = self._host.timings
        if self._loop.time() - self._link.last_heard > timings.stun_silence:
            self.end()
            return
        self._report()
        delay = min(timings.report, timings.stun_silence / 4)
        self._ticker = self._loop.call_later(delay, self._tick)

    def _report(self) -> None:
        if not self.ended:
            self._router.report(self._link)


def _parse(description: SessionDescription) -> sdp.Description:
    try:
        return sdp.parse(description.sdp)
    except sdp.SdpError as error:
        raise RefusedError(400, "bad_description", f"sessionDescription.sdp: {error}") from None


def _first_active(description: sdp.Description) -> sdp.Section | None:
    return next((item for item in description.sections if not item.rejected), None)


def _primary_ssrc(section: sdp.Section) -> int:
    """Return the SSRC that carries the media itself, not its retransmission."""
    for group in section.ssrc_groups:
        if group.semantics in ("SIM", "FID") and group.ssrcs:
            return group.ssrcs[0]
    return section.ssrcs[0]
