"""Keep a client connected to the SFU: make a session, and the next one when it is lost.

What a user holds - publications, received tracks - outlives the session that carries
it. A :class:`~metered_sync.engine.sfu.session.Session` ends when its connection does,
when the SFU forgets it, or when a negotiation breaks off half-way. Then, unless told
not to, the link makes a new one, publishes what was published, and subscribes to what
was subscribed to. Calls wait meanwhile, and are made again where they were cut off.

============  ==========================================  =======================
state         what ends it                                 next
============  ==========================================  =======================
idle          ``connect``                                  connecting
connecting    media can flow; or it failed                 connected; idle
connected     the session is lost                          reconnecting, or closed
reconnecting  media can flow; the budget is spent          connected; closed
closed
============  ==========================================  =======================

While connected, :meth:`SfuLink._watch` looks after tracks that have fallen silent
(:mod:`metered_sync.engine.sfu.watch`).
"""

from __future__ import annotations

import functools
import logging
import random
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any, TypeVar

import anyio
from anyio.lowlevel import checkpoint_if_cancelled

from metered_sync.bridge.clock import monotonic
from metered_sync.bridge.deadline import Deadline
from metered_sync.bridge.link import Link, Scope, within
from metered_sync.bridge.loop import Engine
from metered_sync.engine.sending.local_track import LocalTrack
from metered_sync.engine.sfu.calls import Calls
from metered_sync.engine.sfu.connection import Progress
from metered_sync.engine.sfu.directory import Directory
from metered_sync.engine.sfu.options import SfuOptions
from metered_sync.engine.sfu.publications import Publications
from metered_sync.engine.sfu.session import Session, SessionLostError
from metered_sync.engine.sfu.tracks import Incoming, Outgoing, SfuSink
from metered_sync.engine.sfu.watch import Watch, Watched, learn_names
from metered_sync.engine.webrtc.incoming import IncomingTrack
from metered_sync.errors import (
    ClosedError,
    MediaError,
    MeteredError,
    NotConnectedError,
    SfuAuthError,
    SfuError,
    fresh,
)
from metered_sync.wire import sfu as wire
from metered_sync.wire.events import Outage, StateChange
from metered_sync.wire.secrets import scrub
from metered_sync.wire.states import SfuClientState
from metered_sync.wire.timings import DEFAULT_TIMINGS, Timings

__all__ = ["SfuLink"]

logger = logging.getLogger("metered_sync")

T = TypeVar("T")
TRIES = 2
"""Times that a call is made which the loss of its session cuts off."""


class SfuLink(Link):
    """The sessions of one client, one after the other, from its connection to its end."""

    def __init__(
        self,
        engine: Engine,
        sink: SfuSink,
        options: SfuOptions,
        calls: Calls,
        label: str,
        timings: Timings = DEFAULT_TIMINGS,
        make_watch: Callable[[Watched], Watch] = Watch,
    ) -> None:
        """Prepare; ``make_watch`` makes what looks after the link's tracks while connected."""
        self.label = label
        self.state: SfuClientState = "idle"
        self.error: BaseException | None = None
        self._publications = Publications(label, sink)
        self.outgoing = self._publications.tracks
        self.incoming: list[Incoming] = []
        self.recoveries = 0
        self.session: Session | None = None
        """The session in use; while reconnecting, the lost one."""
        self.timings = timings
        self._engine = engine
        self._sink = sink
        self._options = options
        self._calls = calls
        self.directory = Directory(calls, timings)
        self._progress = Progress()
        self._usable: anyio.Event
        """Set while connected, and at the end."""
        self._make_watch = make_watch
        self._watch: Watch
        self._scopes: set[Scope] = set()
        """Operations under way; closing cancels them."""

    @property
    def connected(self) -> bool:
        """Whether its session can be used."""
        return self.state == "connected"

    @property
    def recovers(self) -> bool:
        """Whether a lost session is made again."""
        return self._options.recover

    @property
    def session_id(self) -> str | None:
        """The id of the session in use."""
        return self.session.id if self.session is not None else None

    def progress(self) -> tuple[str, bool]:
        """Say how far the current call has come, and whether its request has left."""
        return self._progress.stage, self._progress.sent

    async def run(self, operation: Callable[..., Awaitable[T]], *args: Any) -> T:
        """Run one of the operations below; closing the link ends it with the link's error."""
        self.check()
        scope = Scope()
        self._scopes.add(scope)
        with scope:
            self._progress.sent = False
            try:
                return await operation(*args)
            finally:
                self._scopes.discard(scope)
        raise fresh(self.error or self.closed())

    # --- life ---

    async def connect(self, deadline: Deadline) -> None:
        """Make the first session, and return when media can flow."""
        async with self.opening():
            if self.state == "idle":
                self._set_state("connecting")
                self._engine.links.add(self)
                self._usable = anyio.Event()
                try:
                    session = await self._new_session(deadline)
                except BaseException:
                    self._engine.links.discard(self)
                    self._set_state("idle")
                    raise
                self._watch = self._make_watch(self)
                self._use(session)
                self._in_background(self._watch.run)
            elif self.state == "reconnecting":
                await self._usable.wait()
                self.check()

    async def _new_session(self, deadline: Deadline) -> Session:
        session = Session(
            self.label,
            self._calls,
            self._options,
            self.timings,
            self._progress,
            self._lost,
            self.spawn,
            self._on_ended,
        )
        await session.connect(deadline)
        return session

    def _use(self, session: Session) -> None:
        self.session = session
        if session.loss is not None:  # already
            self._lost(session, session.loss)
            return
        self._usable.set()
        self._set_state("connected")

    async def aclose(self) -> None:
        """Close the session. The SFU notices by the DTLS close."""
        self._finish(self.closed())
        if self.session is not None:
            await self.session.close()

    def abort(self, error: BaseException) -> None:
        """Wake every waiter with an error."""
        self._finish(error)
        if self.session is not None and self._engine.error is None:
            self.spawn(self.aclose)

    def spawn(self, function: Callable[[], Awaitable[None]]) -> None:
        """Run a coroutine function in the background."""
        self._engine.spawn(self, function)

    def _in_background(self, function: Callable[[], Awaitable[None]]) -> None:
        """Run a coroutine function in the background; cancel it when the link ends."""
        if self.error is None:
            self.spawn(within(self._scopes, function))

    def _finish(self, error: BaseException) -> None:
        if self.error is not None:
            return
        self.error = error
        self._engine.links.discard(self)
        self._calls.close()
        if self._engine.error is None:  # else what ran has ended with the loop
            for scope in tuple(self._scopes):
                scope.cancel()
        for outgoing in self.outgoing:
            outgoing.close()
        end = None if isinstance(error, ClosedError) else error
        for incoming in self.incoming:
            incoming.end(end)
        was, self.state = self.state, "closed"
        self._sink.emit(StateChange(was, "closed"))
        self._sink.end(end)

    def _set_state(self, state: SfuClientState) -> None:
        if self.error is None and self.state != state:
            was, self.state = self.state, state
            self._sink.emit(StateChange(was, state))

    # --- recovery ---

    def _lost(self, session: Session, reason: str) -> None:
        """Recover from the loss of a session, or give up."""
        if session is not self.session or self.error is not None:
            return
        if self.connected:
            logger.info("%s: session %s has ended: %s", self.label, session.id, reason)
            self._usable = anyio.Event()
            self._watch.interrupt()
        if self._options.recover:
            self._set_state("reconnecting")
            self._in_background(functools.partial(self._recover, session, reason))
        else:
            self._in_background(functools.partial(self._give_up, session, reason))

    async def _give_up(self, session: Session, reason: str) -> None:
        # Not at once: an event loop that dies loses its connections, too, and then the
        # engine has to say why.
        await anyio.sleep(self.timings.lost)
        self.abort(
            SfuError(
                f"{self.label}: session {session.id} has ended: {reason}; connect a new "
                "SfuClient, or leave recover=True"
            )
        )

    async def _recover(self, old: Session, reason: str) -> None:
        """Make a lost session again, or close the link for good."""
        lost_at = monotonic()
        await anyio.sleep(self.timings.lost)
        for outgoing in self.outgoing:
            await outgoing.keep_counts()
            outgoing.release()
        await old.close()
        for incoming in self.incoming:
            incoming.transceiver, incoming.live = None, False
        delay = self.timings.recover_delay
        while True:
            try:
                session = await self._next_session()
                break
            except Exception as error:  # aiortc's own, too, where an SFU sends what it dislikes
                logger.info("%s: no new session yet: %s", self.label, scrub(str(error)))
                spent = monotonic() - lost_at
                if isinstance(error, SfuAuthError) or spent + delay > self.timings.recover_budget:
                    failure = SfuError(
                        f"{self.label}: session {old.id} was lost ({reason}), and none could be "
                        f"made in {spent:.0f} s to replace it: {scrub(str(error))}; connect a new "
                        "SfuClient",
                        status=getattr(error, "status", None),
                    )
                    failure.__cause__ = error if isinstance(error, MeteredError) else None
                    self.abort(failure)
                    return
            await anyio.sleep(delay * random.uniform(0.8, 1.2))
            delay = min(delay * 2, self.timings.recover_delay_max)
        self.recoveries += 1
        self._use(session)
        self._sink.emit(Outage(monotonic() - lost_at))

    async def _next_session(self) -> Session:
        """Make a session with the publications and subscriptions of the lost one."""
        session: Session | None = None
        try:
            with anyio.fail_after(self.timings.attempt):
                deadline = Deadline(self.timings.attempt)
                session = await self._new_session(deadline)
                await self._publications.publish_again(session, self.incoming, deadline)
                await self._watch.resubscribe(session, deadline)
                if session.loss is not None:
                    raise SessionLostError(f"session {session.id} has ended: {session.loss}")
                await checkpoint_if_cancelled()  # by a close that came when all was done
                return session
        except BaseException:
            if session is not None:
                await session.close()
                for outgoing in self.outgoing:
                    outgoing.release()
            raise

    def _on_ended(self, incoming: Incoming) -> None:
        """Look after a received track that has ended: its publisher closed it, or is gone."""
        if self._options.recover:
            incoming.transceiver = None
            self._watch.wake()
        else:
            incoming.end()

    # --- negotiations ---

    async def _negotiate(self, operation: Callable[[Session], Awaitable[T]]) -> T:
        """Run a negotiation on the session; again on the next one if it is lost meanwhile."""
        if self.state in ("idle", "connecting"):
            raise NotConnectedError(f"{self.label} is not connected yet; wait for connect()")
        tries = 0
        while True:
            self._progress.stage = "waiting for a session"
            await self._usable.wait()
            self.check()
            assert self.session is not None
            try:
                return await operation(self.session)
            except SessionLostError as lost:
                tries += 1
                if not self._options.recover or tries == TRIES:
                    raise lost.__cause__ or lost from None

    async def publish(self, outgoing: Sequence[Outgoing], deadline: Deadline) -> None:
        """Publish tracks in one round."""
        for one in outgoing:
            if one.local.ended:
                raise MediaError(
                    f"{self.label}: {one.local.source!r} has ended: there is nothing to publish"
                )
        try:
            await self._negotiate(lambda session: session.publish(outgoing, deadline))
        except BaseException:
            for one in outgoing:
                one.release()
                one.close()
            raise
        self.outgoing += outgoing
        for one in outgoing:
            if one.owned:
                ended = functools.partial(self._on_source_ended, one)
                one.local.watch(ended, self.timings.last_frames)

    async def unpublish(self, outgoing: Outgoing, deadline: Deadline) -> None:
        """End a published track."""
        if not outgoing.closed:
            self._publications.forget(outgoing)  # whatever happens now, it is not published again
            if self.connected:
                await self._negotiate(lambda session: session.unpublish(outgoing, deadline))

    def _on_source_ended(self, outgoing: Outgoing, _: LocalTrack) -> None:
        if self.error is None and not outgoing.closed:
            self._publications.end(outgoing)
            self._watch.wake()  # to unpublish it

    async def subscribe(self, incoming: Sequence[Incoming], deadline: Deadline) -> None:
        """Receive tracks of other sessions, in one round."""
        named = self._begin_to_name([one for one in incoming if not one.info.kind], deadline)

        async def subscribe(session: Session) -> None:
            self._publications.follow(incoming)
            await session.subscribe(incoming, deadline)

        await self._negotiate(subscribe)
        for one in incoming:
            one.on_end = self._tell_end
        self.incoming += incoming
        # (The SFU may hold the answer back until a track's first packet: the watch asks again.)
        with anyio.move_on_after(min(deadline.left(), self.timings.names)):
            await named.wait()

    def drop(self, tracks: Iterable[Outgoing | Incoming]) -> None:
        """Undo a call that was broken off, perhaps when all was done; from any thread."""
        self._engine.post(self._drop, tracks)

    def _drop(self, tracks: Iterable[Outgoing | Incoming]) -> None:
        for one in tracks:
            if isinstance(one, Outgoing):
                self._publications.forget(one)
            else:
                one.on_end = None  # nobody has heard of it
                one.end()
        if self.connected:
            self._watch.wake()  # to unpublish, and to unsubscribe

    def _begin_to_name(self, nameless: Sequence[Incoming], deadline: Deadline) -> anyio.Event:
        """Ask for the names of tracks that are subscribed to by their ids alone, meanwhile."""
        named = anyio.Event()

        async def ask() -> None:
            try:
                for session_id in dict.fromkeys(one.info.session_id for one in nameless):
                    await learn_names(self.directory, session_id, nameless, deadline)
            except (SfuError, TimeoutError) as error:  # the watch asks again
                logger.debug("%s: no names: %s", self.label, error)
            finally:
                named.set()

        if nameless:
            self._in_background(ask)
        else:
            named.set()
        return named

    def _tell_end(self, incoming: IncomingTrack) -> None:
        assert isinstance(incoming, Incoming)
        self._sink.track_ended(incoming)

    async def unsubscribe(self, incoming: Incoming, deadline: Deadline) -> None:
        """Stop receiving a track."""
        if not incoming.ended:
            incoming.end()
            if self.connected:
                await self._negotiate(lambda session: session.unsubscribe(incoming, deadline))

    # --- queries ---

    async def wait_for_track(
        self,
        session_id: str | None,
        name: str | None,
        kind: str | None,
        seen: Callable[[Sequence[wire.TrackInfo]], None],
        deadline: Deadline,
    ) -> wire.TrackInfo:
        """Wait until a track with this session, name and kind is published."""

        def matches(track: wire.TrackInfo) -> bool:
            if session_id is None and name is None and track.session_id == self.session_id:
                return False  # its own: nobody waits for that without naming it
            return name in (None, track.name) and kind in (None, track.kind)

        while True:
            own = [self.session_id] if self.session_id else []
            try:
                return await self.directory.wait(
                    matches, deadline, session_id=session_id, last=own, seen=seen
                )
            except SfuError:
                if self.state != "reconnecting":
                    raise
            await self._usable.wait()

    async def stats(self, deadline: Deadline) -> dict[str, Any]:
        """Return counts of all that was sent and received."""
        publications = [await one.sample() for one in self.outgoing if not one.closed]
        times = [p["round_trip_time"] for p in publications if p["round_trip_time"] is not None]
        return {
            "state": self.state,
            "session_id": self.session_id,
            "recoveries": self.recoveries,
            "round_trip_time": min(times, default=None),
            "paths": [] if self.session is None else self.session.connection.paths(),
            "publications": publications,
            "subscriptions": [one.stats() for one in self.incoming if not one.ended],
        }
