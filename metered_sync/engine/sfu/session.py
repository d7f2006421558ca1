"""Run one session with the SFU: one peer connection, negotiated over HTTP.

Source: docs/protocol/sfu.md#how-the-calls-fit-together. Each negotiation builds on the last
agreed description, so they take turns. aiortc cannot roll back: a negotiation that is
interrupted or refused after our offer was set leaves the two sides with different
descriptions. A session that this happens to is lost, as is one whose connection ends,
or that the SFU has forgotten: :attr:`Session.on_lost` is told, and what is under way
ends with :class:`SessionLostError`. What becomes of its tracks is the link's affair
(:mod:`metered_sync.engine.sfu.link`).
"""

from __future__ import annotations

import contextlib
import functools
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any, NoReturn

import anyio
from aiortc import RTCRtpTransceiver
from anyio.lowlevel import checkpoint_if_cancelled

from metered_sync.bridge.deadline import Deadline
from metered_sync.bridge.link import Scope
from metered_sync.engine.sending.outlet import Outlet
from metered_sync.engine.sfu.calls import Calls
from metered_sync.engine.sfu.connection import Progress, SfuConnection
from metered_sync.engine.sfu.options import SfuOptions
from metered_sync.engine.sfu.tracks import Incoming, Outgoing
from metered_sync.engine.webrtc.aiortc_private.paths import can_probe
from metered_sync.engine.webrtc.aiortc_private.routing import readmit_streams, stop_receiver
from metered_sync.engine.webrtc.encoding import pin_bitrate
from metered_sync.engine.webrtc.ice import loopback_address, path_died
from metered_sync.engine.webrtc.peer_connection import (
    close_quietly,
    gather_on,
    wait_connected,
)
from metered_sync.engine.webrtc.sdp_repair import misfit
from metered_sync.engine.webrtc.stream_formats import (
    INSTEAD,
)
from metered_sync.errors import (
    MediaError,
    NegotiationFailedError,
    SfuConflictError,
    SfuError,
    SfuNotFoundError,
)
from metered_sync.wire import sdp
from metered_sync.wire import sfu as wire
from metered_sync.wire.timings import Timings

__all__ = ["Session", "SessionLostError"]

logger = logging.getLogger("metered_sync")


class SessionLostError(SfuError):
    """Raised when the session ends under a negotiation."""


class _ReuseRefusedError(MediaError):
    """Raised when the SFU does not take a track in a section that has carried another one."""


class Session:
    """A session and its peer connection, from their making to their loss or close."""

    def __init__(
        self,
        label: str,
        calls: Calls,
        options: SfuOptions,
        timings: Timings,
        progress: Progress,
        on_lost: Callable[[Session, str], None],
        receive: Callable[[Callable[[], Awaitable[None]]], None],
        on_ended: Callable[[Incoming], None],
    ) -> None:
        """Prepare a session.

        Args:
            on_lost: Called once if it is lost, with the reason in words.
            receive: Runs a coroutine function in the background.
            on_ended: Called when a received track ends, and its connection does not.
        """
        self.id = ""
        self._handle = ""
        """The id by which calls name the session: a gate's carries a ticket."""
        self.on_lost = on_lost
        self.loss: str | None = None
        """The reason for the session's loss, in words."""
        self.connection = SfuConnection(label, options, progress)
        self.pc = self.connection.pc
        self._label = label
        self._calls = calls
        self._options = options
        self._timings = timings
        self._progress = progress
        self._receive = receive
        self._on_ended = on_ended
        self._turn = anyio.Lock()
        self._scope: anyio.CancelScope | None = None
        """The negotiation under way; the session's loss cancels it."""
        self._mids: set[str] = set()
        """Media sections in which a track arrives."""
        self._watching = Scope()

    # --- life ---

    async def connect(self, deadline: Deadline) -> None:
        """Make the session, and return when media can flow. Failing closes it."""
        gather_on.set(loopback_address(self._options.url))
        # Idle sections: an offer needs one, and they tell the SFU this client's payload
        # types for what it will offer later.
        for kind in ("audio", "video"):
            self.pc.addTransceiver(kind, direction="recvonly")
        try:
            request = wire.NewRequest(await self.connection.offer(), self._options.metadata)
            negotiated = await self._ask(wire.NEW, wire.Negotiated.parse, deadline, request.body())
            answer = self.connection.read_answer(negotiated.description)
            await self.connection.apply(negotiated.description, answer)
            self._handle = negotiated.session_id
            self.id = wire.plain_session_id(self._handle)
            await wait_connected(self.pc, self.connection.at)
            await checkpoint_if_cancelled()  # by a close that came when it was connected
        except BaseException:
            await self.close()
            raise
        self.pc.on("connectionstatechange", self._on_state)
        if can_probe():
            self._receive(self._watch_path)

    async def close(self) -> None:
        """Close the peer connection. The SFU notices by the DTLS close."""
        if self.loss is None:
            self.loss = "closed"
        self._watching.cancel()
        await close_quietly(self.pc, self._timings.close)

    def lose(self, reason: str) -> None:
        """Mark the session as lost; end the negotiation under way."""
        if self.loss is None:
            self.loss = reason
            if self._scope is not None:
                self._scope.cancel()
            self.on_lost(self, reason)

    def _on_state(self) -> None:
        if self.pc.connectionState in ("failed", "closed"):
            self.lose("its media connection was lost")

    async def _watch_path(self) -> None:
        with self._watching:
            if await path_died(self.pc, self._timings):
                self.lose("nothing comes over its media path any more")

    # --- negotiations ---

    @contextlib.asynccontextmanager
    async def _negotiation(self) -> AsyncIterator[SfuConnection]:
        """Take a turn at negotiating. A turn that breaks in the middle loses the session."""
        async with self._turn:
            self._check()
            with anyio.CancelScope() as self._scope:
                try:
                    yield self.connection
                except BaseException as error:
                    if isinstance(error, NegotiationFailedError):
                        self._check()  # it may be for this that it failed
                    if self.connection.unagreed and self.loss is None:
                        self._scope = None
                        stage = self._progress.stage
                        self.lose(f"a negotiation broke off ({stage})")
                        if isinstance(error, (SfuNotFoundError, SfuConflictError)):
                            # The SFU does not know the session, or has it in another state
                            # than we: it is as if it had been lost a moment earlier.
                            raise self._lost_error() from error
                    raise
                finally:
                    self._scope = None
            self._check()

    def _check(self) -> None:
        if self.connection.ended:
            self.lose("its media connection was lost")
        if self.loss is not None:
            raise self._lost_error()

    def _lost_error(self) -> SessionLostError:
        return SessionLostError(f"{self._label}: session {self.id} has ended: {self.loss}")

    async def publish(self, tracks: Sequence[Outgoing], deadline: Deadline) -> None:
        """Publish tracks, in one round.

        Raises:
            MediaError: The SFU does not take one of them; none is published.
        """
        async with self._negotiation():
            try:
                await self._publish(tracks, deadline)
            except _ReuseRefusedError:
                await self._publish(tracks, deadline)

    async def _publish(self, tracks: Sequence[Outgoing], deadline: Deadline) -> None:
        connection = self.connection
        with connection.mapping_errors("offer", "no offer can be made"):
            sent = [self._send(one) for one in tracks]
        offer = await connection.offer()
        listed = tuple(
            wire.PublishTrack(outlet.id, str(transceiver.mid), one.name)
            for one, (outlet, transceiver) in zip(tracks, sent, strict=True)
        )
        negotiated = await self._ask(
            wire.PUBLISH,
            wire.Negotiated.parse,
            deadline,
            wire.PublishRequest(listed, offer).body(),
        )
        answer = connection.read_answer(negotiated.description)
        sections = {section.mid: section for section in answer.sections}
        refused = [t for _, t in sent if not self._is_taken(t, sections.get(str(t.mid)))]
        connection.refused.update(str(transceiver.mid) for transceiver in refused)
        await connection.apply(negotiated.description, answer)
        if refused:
            await self._take_back(tracks, sent, refused, deadline)
        for one, (outlet, transceiver) in zip(tracks, sent, strict=True):
            pin_bitrate(transceiver, one.local.video_bitrate)
            one.session_id, one.track_id, one.mid = self.id, outlet.id, str(transceiver.mid)

    def _is_taken(self, transceiver: RTCRtpTransceiver, section: sdp.Section | None) -> bool:
        """Say whether the SFU takes what is to be sent, in a codec that it was offered."""
        if section is None or not section.receives:
            return False
        format = self.connection.formats.get(transceiver)
        return format is None or any(c.name.lower() == format.codec for c in section.codecs)

    async def _take_back(
        self,
        tracks: Sequence[Outgoing],
        sent: Sequence[tuple[Outlet, RTCRtpTransceiver]],
        refused: Sequence[RTCRtpTransceiver],
        deadline: Deadline,
    ) -> NoReturn:
        """Close what the SFU takes of a round, and raise for what it does not take."""
        problem = ""
        for one, (outlet, transceiver) in zip(tracks, sent, strict=True):
            if transceiver not in refused:
                await self._close_track(transceiver, outlet.id, deadline)
                await self.connection.end_sending(transceiver)
                continue
            transceiver.direction = "inactive"
            format, local = self.connection.formats.get(transceiver), one.local
            track = f"the {local.kind} track {one.name or local.id!r}"
            if format is None:
                problem = f"{track}, in no codec that it was offered"
            else:
                problem = f"{format}, in which {track} is encoded already; {INSTEAD}"
        error = _ReuseRefusedError if self.connection.give_up_reuse(refused) else MediaError
        raise error(f"{self._label}: the SFU does not take {problem}")

    def _send(self, outgoing: Outgoing) -> tuple[Outlet, RTCRtpTransceiver]:
        """Add a track to the next offer."""
        outgoing.release()  # of a connection before, or of an attempt that broke off
        # With an id of its own: one source may be published more than once.
        outlet = outgoing.outlet = outgoing.local.outlet(own_id=True)
        transceiver = outgoing.transceiver = self.connection.send(outlet)
        outlet.attach(transceiver.sender)
        outgoing.local.prefer_codec(transceiver)
        if outgoing.local.format is not None:
            self.connection.formats[transceiver] = outgoing.local.format
        return outlet, transceiver

    async def unpublish(self, outgoing: Outgoing, deadline: Deadline) -> None:
        """End a published track."""
        async with self._negotiation():
            transceiver = outgoing.transceiver
            if transceiver is not None and outgoing.session_id == self.id:
                await outgoing.keep_counts()
                outgoing.release()
                await self._close_track(transceiver, outgoing.track_id, deadline)
                await self.connection.end_sending(transceiver)

    async def unsubscribe(self, incoming: Incoming, deadline: Deadline) -> None:
        """Give up the media section in which a track arrives."""
        async with self._negotiation():
            transceiver, incoming.transceiver = incoming.transceiver, None
            if transceiver in self.pc.getTransceivers():
                # (The SFU knows nothing any more of one that has ended at its publisher.)
                if incoming.live:
                    incoming.live = False
                    await self._close_track(transceiver, incoming.own_id, deadline)
                    self._mids.discard(incoming.mid)
                await stop_receiver(transceiver.receiver)  # its thread would go on

    async def _close_track(
        self, transceiver: RTCRtpTransceiver, track_id: str, deadline: Deadline
    ) -> None:
        transceiver.direction = "inactive"
        offer = await self.connection.offer()
        request = wire.CloseRequest((track_id,), offer)
        try:
            closed = await self._ask(wire.CLOSE, wire.Closed.parse, deadline, request.body())
        except SfuNotFoundError:
            # The track has ended at its publisher a moment ago. The offer needs an answer all the
            # same: without one the session would be lost, with all its other tracks.
            again = wire.RenegotiateRequest(offer).body()
            answered = await self._ask(wire.RENEGOTIATE, wire.Negotiated.parse, deadline, again)
            closed = wire.Closed(answered.session_id, True, answered.description)
        answer = self.connection.read_answer(closed.description)
        await self.connection.apply(closed.description, answer)
        if not closed.success:
            raise SfuError(
                f"{self._label}: the SFU did not close track {track_id!r}, without saying why",
                status=200,
                endpoint=f"{wire.CLOSE.method} {wire.CLOSE.route}",
            )

    async def subscribe(self, tracks: Sequence[Incoming], deadline: Deadline) -> None:
        """Receive tracks of other sessions, in one round.

        Raises:
            MediaError: One of them is sent in a codec that cannot be decoded; none is received.
        """
        async with self._negotiation() as connection:
            connection.at("HTTP")
            for one in tracks:
                one.requested = one.info
            refs = tuple(wire.RemoteTrackRef(t.info.session_id, t.info.track_id) for t in tracks)
            connection.unagreed = True  # the SFU makes an offer, and waits for its answer
            try:
                subscribed = await self._ask(
                    wire.SUBSCRIBE,
                    wire.SubscribeOffer.parse,
                    deadline,
                    wire.SubscribeRequest(refs).body(),
                )
            except SfuError as error:
                # Refused: then nothing has changed. (409: it has an offer of its own open.)
                connection.unagreed = error.status not in range(400, 500) or error.status == 409
                if isinstance(error, SfuNotFoundError):
                    await self._check_known(deadline)
                    raise _unknown(error, refs) from error.__cause__
                raise
            connection.at("offer")
            offer = connection.read(subscribed.description)
            sections = self._new_sections(offer, len(refs))
            problem = next(filter(None, map(self._misfit, tracks, sections)), None)
            if problem is not None:
                connection.refused.update(section.mid for section in sections)
            # Answered as they are offered (RFC 3264, section 6); aiortc would accept them.
            connection.refused.update(section.mid for section in offer.sections if section.rejected)
            if not all(section.ssrcs for section in sections):
                readmit_streams(connection.pc.getTransceivers()[0].receiver.transport)
            await connection.apply(subscribed.description, offer)
            transceivers = {t.mid: t for t in connection.pc.getTransceivers()}
            for incoming, section in [] if problem else zip(tracks, sections, strict=True):
                apart = {c.payload_type for c in section.codecs if c.name.lower() == "rtx"}
                incoming.take_over(transceivers[section.mid].receiver, apart)
            answer = await connection.answer(offer)
            if subscribed.renegotiation_required:
                reply = wire.RenegotiateRequest(answer)
                await self._ask(wire.RENEGOTIATE, lambda body: body, deadline, reply.body())
            connection.unagreed = False
            if problem is not None:
                raise MediaError(problem)
            # Nothing may have told that they have ended: a goodbye is lost like other packets.
            left = [one.transceiver for one in tracks]
            for incoming, section in zip(tracks, sections, strict=True):
                # A session may well receive one track twice, or one that it publishes itself:
                # the publisher's id alone would not tell which of them is meant.
                incoming.own_id = (section.msid or ("", ""))[1] or incoming.id
                self._attach(incoming, transceivers[section.mid])
            for transceiver in left:
                if transceiver in connection.pc.getTransceivers():
                    await stop_receiver(transceiver.receiver)

    def _misfit(self, incoming: Incoming, section: sdp.Section) -> str | None:
        """Return why a track cannot be decoded, and what to do about it."""
        problem = misfit(section, first=True)
        if problem is None:
            return None
        return (
            f"{self._label}: the {section.kind} track {incoming.name or incoming.id!r} of session "
            f"{incoming.stream_id!r} cannot be decoded: {problem}; have its publisher send one of "
            'these, as publish(…, codec="vp8") does'
        )

    def _attach(self, incoming: Incoming, transceiver: RTCRtpTransceiver) -> None:
        incoming.attach(transceiver)
        self._mids.add(incoming.mid)
        self._receive(functools.partial(self._take, incoming, transceiver))

    async def _take(self, incoming: Incoming, transceiver: RTCRtpTransceiver) -> None:
        receiver = transceiver.receiver
        await incoming.run(receiver.track)
        # aiortc ends tracks before it says that their connection is gone.
        if receiver.transport.state in ("failed", "closed"):
            self.lose("its media connection was lost")
        else:
            if incoming.transceiver is transceiver and not incoming.ended:
                incoming.live = False
                self._on_ended(incoming)
            # The section is not used again: aiortc would report on it as long as the session lasts.
            await stop_receiver(receiver)

    def _new_sections(self, offer: sdp.Description, count: int) -> list[sdp.Section]:
        """Return the new sections of an SFU's offer, in the order of what was asked for."""
        known = self._mids | self.connection.refused
        new = [
            section
            for section in offer.sections  # (of which one may be for data, which nobody uses)
            if section.kind in ("audio", "video") and section.sends and not section.rejected
            if section.mid not in known
        ]
        if len(new) != count:
            raise NegotiationFailedError(
                f"{self._label}: the SFU offered {len(new)} new tracks where {count} were "
                "asked for",
                stage="offer",
            )
        return new

    # --- calls ---

    async def _ask(
        self, call: wire.Endpoint, parse: Callable[[object], Any], deadline: Deadline, body: Any
    ) -> Any:
        self._progress.sent = True
        return await self._calls.ask(call, parse, deadline, session_id=self._handle, body=body)

    async def _check_known(self, deadline: Deadline) -> None:
        """Lose the session if the SFU does not know it any more."""
        try:
            await self.tracks(self.id, deadline)
        except SfuNotFoundError:
            self._scope = None
            self.lose("the SFU does not know it any more")
            self._check()

    async def tracks(self, session_id: str, deadline: Deadline) -> tuple[wire.TrackInfo, ...]:
        """Return what a session publishes."""
        return await self._calls.ask(
            wire.TRACKS, wire.parse_tracks, deadline, session_id=session_id
        )


def _unknown(error: SfuNotFoundError, refs: Sequence[wire.RemoteTrackRef]) -> SfuNotFoundError:
    """Return the error for tracks one of which the SFU does not know, with what was asked for."""
    asked = ", ".join(
        f"{r.track_id!r} of session {wire.plain_session_id(r.session_id)!r}" for r in refs
    )
    unknown = SfuNotFoundError(
        f"{error}; asked for: track {asked}. tracks(session_id) lists the ids of what a session "
        "publishes (a name is no id: wait_for_track(name=…) finds one by its name)"
    )
    unknown.__dict__.update(error.__dict__)
    return unknown
