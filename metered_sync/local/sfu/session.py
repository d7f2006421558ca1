"""Negotiate one session of the local SFU: the tracks that its client publishes and receives.

The calls of the API arrive here one at a time (:attr:`Session.lock`). Each checks everything
that could be wrong before it changes anything, and raises :class:`Refusal` for it.
"""

from __future__ import annotations

import asyncio
import secrets
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain, count
from typing import Literal

from metered_sync.local.rest import Refusal
from metered_sync.local.sfu.checks import (
    check_answer,
    check_count,
    check_offer,
    check_publish,
    first_active,
    media_ssrcs,
    parse_description,
)
from metered_sync.local.sfu.codecs import with_formats
from metered_sync.local.sfu.dtls import DtlsIdentity
from metered_sync.local.sfu.forward import PublishedTrack, TrackSubscription
from metered_sync.local.sfu.routing import Router
from metered_sync.local.sfu.slots import Formats, LocalTransport, Slot
from metered_sync.local.sfu.transport import ClientTransport, UdpPort
from metered_sync.wire import sdp
from metered_sync.wire.sfu import PublishTrack, SessionDescription, SessionInfo, TrackInfo
from metered_sync.wire.timings import Timings

__all__ = ["SessionContext", "Session"]


@dataclass(frozen=True)
class SessionContext:
    """The parts of an SFU that all its sessions share."""

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
    """A session of the SFU: one client's tracks and subscriptions over one transport."""

    def __init__(self, context: SessionContext, metadata: str | None) -> None:
        self.id = uuid.uuid4().hex
        self.metadata = metadata
        self.lock = asyncio.Lock()
        """Held by the API around each call that negotiates, so that each builds on the last."""
        self.ended = False
        self._context = context
        self._loop = asyncio.get_running_loop()
        self._router = Router(context.timings, self._on_first_packet)
        self._client_transport = ClientTransport(
            context.port,
            context.identity,
            on_rtp=self._router.on_rtp,
            on_rtcp=self._router.on_rtcp,
            on_change=self._on_transport_change,
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
        self._ticker = self._loop.call_later(context.timings.report, self._tick)

    # --- what others see ---

    def info(self) -> SessionInfo:
        """Return this session as the API lists it."""
        return SessionInfo(self.id, self._client_transport.state, self.metadata)

    def listed_tracks(self) -> tuple[TrackInfo, ...]:
        """Return the tracks that others may see now."""
        return tuple(track.info() for track in self.tracks() if track.listed)

    async def settled_tracks(self) -> tuple[TrackInfo, ...]:
        """Return the tracks, once those that were announced have had a moment to show.

        The service's quick start lists a publisher's tracks once, right after its connection
        is up, when the first packet may still be on its way.
        """
        hold = self._context.timings.first_packet_hold
        start = self._loop.time()
        while not self.ended and any(not track.listed for track in self.tracks()):
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

    def find_track(self, track_id: str) -> PublishedTrack | None:
        """Return a track by its id, even before its first packet."""
        return next((track for track in self.tracks() if track.track_id == track_id), None)

    def tracks(self) -> list[PublishedTrack]:
        """Return the tracks that the client publishes, or has announced."""
        return [slot.track for slot in self._slots if slot.track is not None]

    def subscriptions(self) -> list[TrackSubscription]:
        """Return what the client receives."""
        return [slot.subscription for slot in self._slots if slot.subscription is not None]

    # --- the calls ---

    def connect(self, offer: SessionDescription) -> SessionDescription:
        """Answer the first offer."""
        return self._answer(parse_description(offer))

    def publish(
        self, tracks: Sequence[PublishTrack], offer: SessionDescription
    ) -> SessionDescription:
        """Answer an offer that carries new tracks, and list them."""
        self._refuse_while_pending()
        description = parse_description(offer)
        published = {track.track_id: track.mid for track in self.tracks()}
        check_publish(tracks, description, published)
        return self._answer(description, publish=tracks)

    def subscribe(self, tracks: Sequence[PublishedTrack]) -> SessionDescription:
        """Make an offer with a new section for each track, in their order."""
        self._refuse_while_pending()
        check_count(len(self._slots) + len(tracks))
        before = list(self._slots)
        for slot in self._slots:
            slot.release()
        # New sections take the places of rejected ones first. The places run upwards, so the
        # order of the new sections is that of the request.
        places = [index for index, slot in enumerate(self._slots) if slot.rejected]
        for index, track in zip(chain(places, count(len(self._slots))), tracks, strict=False):
            self._slots[index : index + 1] = [self._new_slot(track)]
        timer = self._loop.call_later(self._context.timings.offer_pending, self._withdraw)
        self._pending = _PendingOffer(before, timer)
        transport = self._local_transport("actpass")
        return self._describe("offer", [slot.offer_section(transport) for slot in self._slots])

    def renegotiate(self, description: SessionDescription) -> SessionDescription | None:
        """Take the answer to the SFU's offer; or answer an offer, e.g. an ICE restart."""
        if description.type == "offer":
            self._refuse_while_pending()
            return self._answer(parse_description(description))
        if self._pending is None:
            raise Refusal(409, "no_offer", "no offer of the SFU waits for an answer")
        self._apply_answer(parse_description(description))
        return None

    def close_tracks(
        self, track_ids: Sequence[str], offer: SessionDescription
    ) -> SessionDescription:
        """End tracks that the session publishes, or receives, and answer the offer."""
        self._refuse_while_pending()
        description = parse_description(offer)
        for track_id in track_ids:
            if not any(self._carriers(track_id)):
                raise Refusal(404, "not_found", f"this session has no track {track_id!r}")
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
        self._client_transport.close()
        self._news.set()
        self._context.on_end(self)

    # --- the client's offers ---

    def _answer(
        self,
        description: sdp.Description,
        publish: Sequence[PublishTrack] = (),
        close: Sequence[str] = (),
    ) -> SessionDescription:
        check_offer(description, self._slots)
        self._take_transport(description)
        msids = {section.mid: section.msid for section in description.sections}
        for track_id in close:
            published, received = self._carriers(track_id)
            for slot in published:
                slot.close_track(msids.get(slot.mid))
            for slot in received:
                slot.close_subscription()
        for index, section in enumerate(description.sections):
            self._take_section(index, section)
        by_mid = {slot.mid: slot for slot in self._slots}
        for wish in publish:
            by_mid[wish.mid].publish(wish, self._new_track)
            self._news.set()
        self._configure_router(description)
        transport = self._local_transport("passive")
        return self._describe("answer", [slot.answer_section(transport) for slot in self._slots])

    def _take_transport(self, description: sdp.Description) -> None:
        first = first_active(description)
        if first is None:
            return
        self._client_transport.fingerprints = first.fingerprints
        if self._remote_ufrag and first.ice_ufrag != self._remote_ufrag:
            self._client_transport.restart()
        self._remote_ufrag = first.ice_ufrag

    def _take_section(self, index: int, section: sdp.Section) -> None:
        if index == len(self._slots):
            self._slots.append(Slot(section))
        elif section.mid and (self._slots[index].rejected or self._slots[index].mid != section.mid):
            self._slots[index] = Slot(section)
        slot = self._slots[index]
        if not slot.take(section):
            slot.reject()
            return
        slot.release()
        if not slot.is_media:
            return
        self._formats.learn(section.kind, section.codecs, section.extensions)
        taken = {item.track_id for item in self.tracks()}
        slot.announce(section, taken, self._new_track)
        if slot.subscription is not None:
            self._switch(slot.subscription, slot.client_receives)

    def _new_track(self, kind: str, mid: str, track_id: str) -> PublishedTrack:
        return PublishedTrack(
            session_id=self.id,
            track_id=track_id,
            kind=kind,
            mid=mid,
            path=self._client_transport,
            rtcp_ssrc=self._router.ssrc,
            timings=self._context.timings,
        )

    def _carriers(self, track_id: str) -> tuple[list[Slot], list[Slot]]:
        """Return the slots that publish a track of this id, or else those that receive one.

        Ids are unique within a session only, so its own tracks come first.
        """
        published = [slot for slot in self._slots if slot.publishes(track_id)]
        received = [slot for slot in self._slots if slot.receives(track_id)]
        return published, [] if published else received

    # --- the SFU's offers ---

    def _new_slot(self, track: PublishedTrack) -> Slot:
        mid = f"s{self._next_mid}"
        self._next_mid += 1
        slot = Slot(sdp.Section(kind=track.kind, mid=mid))
        ssrc = secrets.randbits(32)
        while not ssrc or self._router.knows_ssrc(ssrc):
            ssrc = secrets.randbits(32)
        subscription = TrackSubscription(
            track, mid=mid, ssrc=ssrc, track_id=uuid.uuid4().hex, path=self._client_transport
        )
        table = self._formats.codecs(track.kind)
        codecs = with_formats(table, track.codecs, self._formats.payload_types)
        slot.offer(subscription, codecs, self._formats.extensions(track.kind))
        self._formats.learn(slot.kind, slot.codecs, slot.extensions)
        return slot

    def _apply_answer(self, description: sdp.Description) -> None:
        check_answer(description, self._slots)
        assert self._pending is not None
        self._pending.timer.cancel()
        self._pending = None
        for slot, section in zip(self._slots, description.sections, strict=True):
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
            raise Refusal(409, "offer_pending", "an offer of the SFU waits for its answer")

    # --- common to both ---

    def _switch(self, subscription: TrackSubscription, on: bool) -> None:
        """Forward to a subscription while its client wants it and the transport is up."""
        if on and self._client_transport.state == "connected":
            subscription.track.attach(subscription)
        else:
            subscription.track.detach(subscription)

    def _configure_router(self, description: sdp.Description) -> None:
        self._router.configure(self.tracks(), media_ssrcs(description), self.subscriptions())

    def _local_transport(self, setup: str) -> LocalTransport:
        return LocalTransport(
            self._client_transport.ufrag,
            self._client_transport.password,
            self._context.identity.fingerprint,
            self._context.candidates,
            setup,
        )

    def _describe(
        self, kind: Literal["offer", "answer"], sections: list[sdp.Section]
    ) -> SessionDescription:
        self._version += 1
        bundle = tuple(section.mid for section in sections if not section.rejected)
        description = sdp.Description(tuple(sections), bundle, True, self._origin, self._version)
        return SessionDescription(kind, sdp.build(description))

    # --- events ---

    def _on_first_packet(self, track: PublishedTrack) -> None:
        track.listed = True
        self._news.set()
        # A browser's estimate of the bandwidth rises fastest in its first moments.
        self._loop.call_soon(self._report)

    def _on_transport_change(self) -> None:
        if self._client_transport.state == "connected":
            if self._connected_at is None:
                self._connected_at = self._loop.time()
            for slot in self._slots:
                if slot.subscription is not None:
                    self._switch(slot.subscription, slot.client_receives)
        elif self._client_transport.state in ("failed", "closed") and not self._is_empty():
            self._loop.call_soon(self.end)

    def _is_empty(self) -> bool:
        """Return whether all sections are given up.

        A browser then closes its transport, but its page may well publish again. It has the
        time of :attr:`Timings.stun_silence` to do so.
        """
        return all(slot.rejected for slot in self._slots)

    def _tick(self) -> None:
        timings = self._context.timings
        if self._loop.time() - self._client_transport.last_heard > timings.stun_silence:
            self.end()
            return
        self._report()
        delay = min(timings.report, timings.stun_silence / 4)
        self._ticker = self._loop.call_later(delay, self._tick)

    def _report(self) -> None:
        if not self.ended:
            self._router.report(self._client_transport)
