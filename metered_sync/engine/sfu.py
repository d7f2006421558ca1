"""A session with the SFU: one peer connection, negotiated over HTTP.

Facts: protocol notes, "The Global Cloud SFU". Each negotiation builds on the
last agreed description, so one lock lets one at a time happen. aiortc cannot
roll back: a negotiation that is interrupted or refused after our offer was set
leaves the two sides with different descriptions, and the session is closed
rather than left in between.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import weakref
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar
from urllib.parse import urlsplit

import anyio
from aiortc import RTCDtlsTransport, RTCPeerConnection, RTCRtpTransceiver, RTCSessionDescription
from aiortc.mediastreams import MediaStreamTrack

from metered_sync.engine.deadline import Deadline
from metered_sync.engine.http import Answer, Http, HttpError
from metered_sync.engine.loop import Engine, EventSink, Link
from metered_sync.engine.rtc import (
    IncomingTrack,
    close_quietly,
    gather_on,
    peer_connection,
    wait_connected,
)
from metered_sync.errors import (
    ClosedError,
    MediaError,
    MeteredError,
    NegotiationFailedError,
    NotConnectedError,
    SfuAuthError,
    SfuConflictError,
    SfuError,
    SfuNotFoundError,
    fresh,
)
from metered_sync.events import IceServer, StateChange
from metered_sync.wire import sdp
from metered_sync.wire import sfu as wire
from metered_sync.wire.timings import DEFAULT, Timings
from metered_sync.wire.urls import is_loopback, scrub, scrubbed

__all__ = ["Outgoing", "SfuLink", "SfuOptions", "SfuState"]

logger = logging.getLogger("metered_sync")

_published: weakref.WeakSet[MediaStreamTrack] = weakref.WeakSet()
"""Tracks that some session publishes: two that share one would get half its frames each."""
T = TypeVar("T")
SfuState = Literal["idle", "connecting", "connected", "closed"]


@dataclass(frozen=True)
class SfuOptions:
    """What a session is made with."""

    url: str
    """The origin."""
    app_id: str
    metadata: str | None
    ice_servers: tuple[IceServer, ...]


@dataclass
class Incoming:
    """A subscribed track."""

    track_id: str
    """The id at its publisher."""
    frames: IncomingTrack
    transceiver: RTCRtpTransceiver


@dataclass
class Outgoing:
    """A published track."""

    session_id: str
    track_id: str
    mid: str
    name: str | None
    kind: str
    transceiver: RTCRtpTransceiver
    closed: bool = False


class SfuLink(Link):
    """One session, from its connection to its end."""

    def __init__(
        self,
        engine: Engine,
        sink: EventSink,
        options: SfuOptions,
        secret: str,
        label: str,
        timings: Timings = DEFAULT,
    ) -> None:
        self.label = label
        self.state: SfuState = "idle"
        self.stage = "start"
        """How far the current call has come, for the message of its timeout."""
        self.sent = False
        """Whether the current call's request has left."""
        self.session_id: str | None = None
        self.error: BaseException | None = None
        self._engine = engine
        self._sink = sink
        self._options = options
        self._timings = timings
        self._http = Http(options.url, secret)
        self._pc: RTCPeerConnection | None = None
        self._lock: anyio.Lock | None = None
        self._between = False
        """Whether our description and the SFU's may differ, so that there is no way back."""
        self._scopes: set[anyio.CancelScope] = set()
        """Operations under way; closing cancels them."""
        self._incoming: dict[str, Incoming] = {}
        """Received tracks by the mid of their media section."""
        self._outgoing: weakref.WeakSet[MediaStreamTrack] = weakref.WeakSet()

    def progress(self) -> tuple[str, bool]:
        """Say how far the current call has come, and whether its request has left."""
        return self.stage, self.sent

    async def run(self, operation: Callable[..., Awaitable[T]], *args: Any) -> T:
        """Run one of the operations below; closing the link ends it with the link's error."""
        self._check()
        with anyio.CancelScope() as scope:
            self._scopes.add(scope)
            self.sent = False
            try:
                return await operation(*args)
            finally:
                self._scopes.discard(scope)
        raise fresh(self.error or ClosedError(f"{self.label} is closed"))

    # --- life ---

    async def connect(self, deadline: Deadline) -> None:
        """Make the session, and return when media can flow."""
        async with self.opening():
            if self.state == "idle":
                await self._connect(deadline)

    async def _connect(self, deadline: Deadline) -> None:
        self._set_state("connecting")
        self._engine.links.add(self)
        self._lock = anyio.Lock()
        host = urlsplit(self._options.url).hostname
        if is_loopback(host):
            gather_on.set("::1" if host == "::1" else "127.0.0.1")
        pc = self._pc = peer_connection(self._options.ice_servers)
        # Idle sections: an offer needs one, and they tell the SFU this client's payload
        # types for what it will offer later.
        for kind in ("audio", "video"):
            pc.addTransceiver(kind, direction="recvonly")
        try:
            description = await self._offer(pc)
            request = wire.NewRequest(description, self._options.metadata)
            answer = await self._call(wire.NEW, request.body(), deadline)
            negotiated = self._parsed(wire.Negotiated, answer, wire.NEW)
            await self._apply(pc, negotiated.description)
            self.session_id = negotiated.session_id
            await wait_connected(pc, self._at)
        except BaseException:
            self._engine.links.discard(self)
            self._set_state("idle")
            self._pc = None
            await close_quietly(pc, self._timings.close)
            raise
        pc.on("connectionstatechange", self._on_state)
        self._set_state("connected")

    async def aclose(self) -> None:
        """Close the session. The SFU notices by the DTLS close."""
        self._finish(ClosedError(f"{self.label} is closed"))
        if self._pc is not None:
            await close_quietly(self._pc, self._timings.close)

    def abort(self, error: BaseException) -> None:
        """Wake every waiter with an error."""
        self._finish(error)
        if self._pc is not None and self._engine.error is None:
            self._engine.spawn(self, self.aclose)

    def _on_state(self) -> None:
        if self._pc is not None and self._pc.connectionState in ("failed", "closed"):
            self._lost()

    async def _receive(self, track: IncomingTrack, transport: RTCDtlsTransport) -> None:
        await track.run()
        # aiortc ends tracks before it says that their connection is gone.
        if transport.state in ("failed", "closed"):
            self._lost()
        else:
            track.end()

    def _lost(self) -> None:
        error = SfuError(
            f"{self.label}: the media connection of session {self.session_id} was lost; "
            "connect a new SfuClient"
        )
        # Not at once: an event loop that dies loses its connections, too, and then the
        # engine has to say why.
        asyncio.get_running_loop().call_later(self._timings.lost, self.abort, error)

    def _finish(self, error: BaseException) -> None:
        if self.error is not None:
            return
        self.error = error
        self._engine.links.discard(self)
        self._http.close()
        for scope in tuple(self._scopes):
            scope.cancel()
        for outgoing in tuple(self._outgoing):
            _published.discard(outgoing)
        end = None if isinstance(error, ClosedError) else error
        for incoming in self._incoming.values():
            incoming.frames.end(end)
        was, self.state = self.state, "closed"
        self._sink.emit(StateChange(was, "closed"))
        self._sink.end(end)

    def _set_state(self, state: SfuState) -> None:
        if self.error is None:
            was, self.state = self.state, state
            self._sink.emit(StateChange(was, state))

    def _check(self) -> None:
        if self.error is not None:
            raise fresh(self.error)

    def _at(self, stage: str) -> None:
        self.stage = stage

    # --- negotiations ---

    async def publish(
        self, tracks: Sequence[tuple[MediaStreamTrack, str | None]], deadline: Deadline
    ) -> list[Outgoing]:
        """Publish tracks, each with a name or ``None``, in one round."""
        async with _Negotiation(self) as pc:
            self._take([track for track, _ in tracks])
            transceivers = [pc.addTransceiver(track, direction="sendonly") for track, _ in tracks]
            description = await self._offer(pc)
            listed = tuple(
                wire.PublishTrack(track.id, str(transceiver.mid), name)
                for (track, name), transceiver in zip(tracks, transceivers, strict=True)
            )
            request = wire.PublishRequest(listed, description)
            answer = await self._call(wire.PUBLISH, request.body(), deadline)
            negotiated = self._parsed(wire.Negotiated, answer, wire.PUBLISH)
            await self._apply(pc, negotiated.description)
            return [
                Outgoing(negotiated.session_id, t.track_id, t.mid, t.name, track.kind, transceiver)
                for t, (track, _), transceiver in zip(listed, tracks, transceivers, strict=True)
            ]

    def _take(self, tracks: list[MediaStreamTrack]) -> None:
        """Check that these tracks can be published, before anything is changed."""
        for index, track in enumerate(tracks):
            if track in _published or track in tracks[:index]:
                raise MediaError(
                    f"{self.label}: {track!r} is published already; open its source a second "
                    "time to publish it twice"
                )
            if track.readyState != "live":
                raise MediaError(f"{self.label}: {track!r} has ended: there is nothing to publish")
        for track in tracks:
            _published.add(track)
            self._outgoing.add(track)

    async def unpublish(self, outgoing: Outgoing, deadline: Deadline) -> None:
        """End a published track."""
        async with _Negotiation(self) as pc:
            if not outgoing.closed:
                track = outgoing.transceiver.sender.track
                outgoing.transceiver.sender.replaceTrack(None)
                _published.discard(track)
                self._outgoing.discard(track)
                await self._close_track(pc, outgoing.transceiver, outgoing.track_id, deadline)
                outgoing.closed = True

    async def unsubscribe(self, frames: IncomingTrack, deadline: Deadline) -> None:
        """Stop receiving a track."""
        async with _Negotiation(self) as pc:
            for mid, incoming in self._incoming.items():
                if incoming.frames is frames and not frames.ended:
                    await self._close_track(pc, incoming.transceiver, incoming.track_id, deadline)
                    frames.end()
                    del self._incoming[mid]
                    return

    async def _close_track(
        self,
        pc: RTCPeerConnection,
        transceiver: RTCRtpTransceiver,
        track_id: str,
        deadline: Deadline,
    ) -> None:
        transceiver.direction = "inactive"
        description = await self._offer(pc)
        request = wire.CloseRequest((track_id,), description)
        answer = await self._call(wire.CLOSE, request.body(), deadline)
        closed = self._parsed(wire.Closed, answer, wire.CLOSE)
        await self._apply(pc, closed.description)

    async def subscribe(
        self, refs: Sequence[wire.RemoteTrackRef], deadline: Deadline
    ) -> list[IncomingTrack]:
        """Receive tracks of other sessions, in one round, in their order."""
        async with _Negotiation(self) as pc:
            self.stage = "HTTP"
            request = wire.SubscribeRequest(tuple(refs))
            self._between = True  # the SFU makes an offer, and waits for its answer
            try:
                answer = await self._call(wire.SUBSCRIBE, request.body(), deadline)
            except SfuError as error:
                self._between = error.status is None  # refused: nothing has changed
                raise
            subscribed = self._parsed(wire.Subscribed, answer, wire.SUBSCRIBE)
            self.stage = "offer"
            mids = self._new_mids(subscribed.description, refs)
            await self._apply(pc, subscribed.description)
            self.stage = "answer"
            await pc.setLocalDescription(await pc.createAnswer())
            if subscribed.renegotiation_required:
                reply = wire.RenegotiateRequest(_wire(pc.localDescription))
                await self._call(wire.RENEGOTIATE, reply.body(), deadline)
            self._between = False
            transceivers = {t.mid: t for t in pc.getTransceivers()}
            tracks = []
            for mid, ref in zip(mids, refs, strict=True):
                receiver = transceivers[mid].receiver
                track = IncomingTrack(receiver.track)
                self._incoming[mid] = Incoming(ref.track_id, track, transceivers[mid])
                receive = functools.partial(self._receive, track, receiver.transport)
                self._engine.spawn(self, receive)
                tracks.append(track)
            return tracks

    def _new_mids(
        self, offer: wire.SessionDescription, refs: Sequence[wire.RemoteTrackRef]
    ) -> list[str]:
        """Return the mids of an SFU offer's new sections, in the order of ``refs``."""
        known = {mid for mid, incoming in self._incoming.items() if not incoming.frames.ended}
        try:
            sections = sdp.parse(offer.sdp).sections
        except sdp.SdpError as error:
            raise NegotiationFailedError(
                f"{self.label}: the SFU's offer cannot be read: {error}", stage="offer"
            ) from None
        new = [s.mid for s in sections if s.mid not in known and not s.rejected and s.sends]
        if len(new) != len(refs):
            raise SfuError(
                f"{self.label}: the SFU offered {len(new)} new tracks where {len(refs)} were "
                "asked for",
                endpoint=wire.SUBSCRIBE.route,
            )
        return new

    async def _offer(self, pc: RTCPeerConnection) -> wire.SessionDescription:
        self.stage, self._between = "offer", True
        # Shielded: aioice leaves a socket open where its gathering is cancelled.
        with anyio.CancelScope(shield=True):
            await pc.setLocalDescription(await pc.createOffer())
        self.stage = "HTTP"
        return _wire(pc.localDescription)

    async def _apply(self, pc: RTCPeerConnection, description: wire.SessionDescription) -> None:
        self.stage = description.type
        try:
            await pc.setRemoteDescription(RTCSessionDescription(description.sdp, description.type))
        except Exception as error:
            text = scrub(str(error))
            raise NegotiationFailedError(
                f"{self.label}: the SFU's {description.type} cannot be applied: {text}",
                stage=description.type,
            ) from (error if text == str(error) else None)
        if description.type == "answer":
            self._between = False

    # --- queries ---

    async def sessions(self, deadline: Deadline) -> list[wire.SessionInfo]:
        """List the app's sessions."""
        answer = await self._call(wire.SESSIONS, None, deadline, safe=True)
        return list(self._listed(wire.parse_sessions, answer, wire.SESSIONS))

    async def tracks(self, session_id: str, deadline: Deadline) -> list[wire.TrackInfo]:
        """List what a session publishes."""
        answer = await self._call(wire.TRACKS, None, deadline, safe=True, session_id=session_id)
        return list(self._listed(wire.parse_tracks, answer, wire.TRACKS))

    async def _call(
        self,
        call: wire.Call,
        body: Any,
        deadline: Deadline,
        *,
        safe: bool = False,
        session_id: str | None = None,
    ) -> Answer:
        self._check()
        self.sent = True
        path = call.path(self._options.app_id, session_id or self.session_id or "")
        endpoint = f"{call.method} {path}"
        try:
            answer = await self._http.fetch(
                call.method, path, json=body, deadline=deadline, safe=safe
            )
        except HttpError as failure:
            raise SfuError(
                f"{self.label}: {endpoint} at {self._options.url}: {failure}; check the url "
                "and that the SFU runs",
                endpoint=endpoint,
            ) from None
        if answer.ok:
            return answer
        kind, remedy = _STATUS.get(answer.status, (SfuError, ""))
        texts = wire.parse_error(answer.body)
        if isinstance(answer.body, str):
            texts = (answer.body, None)
        detail = scrub(": ".join(text for text in texts if text))
        raise kind(
            f"{self.label}: {endpoint} failed with HTTP {answer.status}"
            + (f" ({detail})" if detail else "")
            + (f": {remedy}" if remedy else ""),
            status=answer.status,
            endpoint=endpoint,
            body=scrubbed(answer.body),
        )

    def _parsed(self, kind: Any, answer: Answer, call: wire.Call) -> Any:
        return self._listed(kind.parse, answer, call)

    def _listed(self, parse: Any, answer: Answer, call: wire.Call) -> Any:
        try:
            return parse(answer.body)
        except wire.SfuBodyError as error:
            raise SfuError(
                f"{self.label}: the answer to {call.method} {call.route} is not what an SFU "
                f"sends ({error}); is the url right?",
                status=answer.status,
                endpoint=f"{call.method} {call.route}",
                body=scrubbed(answer.body),
            ) from None


class _Negotiation:
    """One negotiation at a time; one that breaks in the middle ends the session."""

    def __init__(self, link: SfuLink) -> None:
        self._link = link

    async def __aenter__(self) -> RTCPeerConnection:
        link = self._link
        link._check()
        if link.state != "connected" or link._lock is None or link._pc is None:
            raise NotConnectedError(f"{link.label} is not connected yet; wait for connect()")
        await link._lock.acquire()
        if link.error is not None:
            link._lock.release()
            raise fresh(link.error)
        return link._pc

    async def __aexit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        link = self._link
        assert link._lock is not None
        link._lock.release()
        if error is not None and link._between:
            broken = MeteredError(
                f"{link.label}: a negotiation broke off ({link.stage}), so session "
                f"{link.session_id} was closed; connect a new SfuClient"
            )
            broken.__cause__ = error if isinstance(error, MeteredError) else None
            link.abort(broken)


def _wire(description: Any) -> wire.SessionDescription:
    return wire.SessionDescription(description.type, description.sdp)


_STATUS: dict[int, tuple[type[SfuError], str]] = {
    401: (SfuAuthError, "check the app id and the secret"),
    403: (SfuAuthError, "check the app id and the secret"),
    404: (SfuNotFoundError, "no such app, session or track (any more)"),
    409: (SfuConflictError, "another negotiation of the session is under way; try again"),
}
