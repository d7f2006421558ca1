"""Receive what is wanted of the room's tracks, and nothing else.

What is wanted follows from the readers of the tracks, or from what the user decided about them.
One worker makes what is received what is wanted: it subscribes in rounds, lets go, and tries again
what the SFU does not have yet. It is what looks after the tracks of one link
(:class:`~metered_sync.engine.sfu.link.SfuLink`), which makes lost sessions again.

==========================================  ==================================================
a track that the SFU does not have          is asked for again with each state of its member, and
                                            after pauses that grow
… for 3 s                                   its member is asked for its state
… for 60 s                                  is given up until the next state; an event tells
a round that is refused for one of them     is tried track by track
==========================================  ==================================================
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

import anyio

from metered_sync.bridge.clock import monotonic
from metered_sync.bridge.deadline import Deadline
from metered_sync.engine.sfu.link import SfuLink
from metered_sync.engine.sfu.session import Session, SessionLostError
from metered_sync.engine.sfu.tracks import Incoming, SfuSink
from metered_sync.engine.sfu.watch import Watch, Watched
from metered_sync.engine.sfu_rooms.room_track import RoomTrack
from metered_sync.errors import (
    MediaError,
    MeteredError,
    NegotiationFailedError,
    SfuAuthError,
    SfuError,
    SfuNotFoundError,
)
from metered_sync.wire.events import Event
from metered_sync.wire.timings import Timings

__all__ = ["RoomReceiver", "TrackDirectory"]

logger = logging.getLogger("metered_sync")
ROUND = 16
"""Tracks that are subscribed to in one round, at most."""


MAX_IDLE_SECTIONS = 32
"""Sections without a track that a session may have, before it is made anew."""
MAX_IDLE_SECTIONS_UNREAD = 8
"""The same while nothing is received, so that nobody notices."""


class TrackDirectory(Protocol):
    """The room's tracks, for the one who receives them."""

    def wanted(self, now: float) -> list[RoomTrack]:
        """Return the tracks that are to be received."""

    def ask(self, track: RoomTrack) -> None:
        """Ask a track's member for its state."""

    def on_missing(self, track: RoomTrack, error: MeteredError) -> None:
        """Take note of a track that cannot be received, for now."""

    def on_misfit(self, track: RoomTrack, error: MeteredError) -> None:
        """Take note of a track that can never be received."""

    def on_refused(self, error: MeteredError) -> None:
        """Take note that the SFU refuses this peer for good."""

    def on_received(self) -> None:
        """Take note that other tracks are received than before."""


class RoomReceiver:
    """The tracks that one peer receives of its room."""

    def __init__(
        self,
        make_link: Callable[[SfuSink, Callable[[Watched], Watch]], SfuLink],
        tracks: TrackDirectory,
        timings: Timings,
    ) -> None:
        """Prepare; ``make_link`` makes the link that receives, with its sink and its worker."""
        self._make_link = make_link
        self._tracks = tracks
        self._timings = timings
        self._link: SfuLink | None = None
        self._worker: _Worker | None = None
        self._wake = asyncio.Event()
        self._closed = False

    @property
    def session(self) -> Session | None:
        """The session that is in use, if there is one."""
        return None if self._link is None else self._link.session

    @property
    def received(self) -> list[RoomTrack]:
        """The tracks that are received at present."""
        link = self._link
        return [] if link is None else [one for one in link.incoming if isinstance(one, RoomTrack)]

    def wake(self) -> None:
        """Look at once at what is wanted."""
        self._wake.set()
        if self._worker is not None:
            self._worker.wake()

    async def run(self) -> None:
        """Make the session once something is wanted; its worker does the rest."""
        delay = self._timings.recover_delay
        while not self._closed:
            pause = None
            if self._tracks.wanted(monotonic()):
                try:
                    await self._connect()
                except SfuAuthError as error:
                    self._tracks.on_refused(error)
                except (MeteredError, TimeoutError) as error:
                    logger.info("the room's tracks are not received yet: %s", error)
                    pause, delay = delay, min(delay * 2, self._timings.recover_delay_max)
                else:
                    delay = self._timings.recover_delay
            with anyio.move_on_after(pause):
                await self._wake.wait()
                self._wake.clear()

    async def _connect(self) -> None:
        link = self._link
        if link is None or link.error is not None:

            def work(watched: Watched) -> Watch:
                self._worker = _Worker(watched, self._tracks)
                return self._worker

            link = self._link = self._make_link(_ReceiverSink(self._tracks), work)
        if link.state == "idle":
            with anyio.fail_after(self._timings.attempt):
                await link.connect(Deadline(self._timings.attempt))
            self.wake()

    async def aclose(self) -> None:
        """Close the session."""
        self._closed = True
        self._wake.set()
        if self._link is not None:
            await self._link.aclose()

    def abort(self, error: BaseException) -> None:
        """End with an error; there may be no loop any more."""
        self._closed = True
        if self._link is not None:
            self._link.abort(error)


class _Worker(Watch):
    """Make what a link receives what is wanted."""

    def __init__(self, link: Watched, tracks: TrackDirectory) -> None:
        super().__init__(link)
        self._tracks = tracks

    def pause(self) -> float:
        """Return the seconds to wait: until a track is asked for again, at most."""
        now = monotonic()
        waits = [
            one.retry_at - now
            for one in self._tracks.wanted(now)
            if one.subscribed is None and one.retry_at > now
        ]
        return max(min([self._timings.watch, *waits]), self._timings.request_interval)

    async def look_after(self, session: Session, deadline: Deadline) -> None:
        """Let go of what is not wanted, subscribe to what is."""
        await self.look_at_own(session, deadline)
        received = self._received()
        wanted = self._tracks.wanted(monotonic())  # (what changes meanwhile wakes this worker)
        await self._let_go(wanted, session, deadline)
        now = monotonic()
        self._ask(wanted, now)
        missing = [one for one in wanted if one not in self._link.incoming and now >= one.retry_at]
        for start in range(0, len(missing), ROUND):
            await self._subscribe(missing[start : start + ROUND], session, deadline)
        if self._received() != received:
            self._tracks.on_received()
        self._renew(session)

    def _renew(self, session: Session) -> None:
        """Begin a new session once the description of this one has grown too long.

        That is so where the SFU does not give the places of closed sections to new ones: then
        there is one for every track that was ever received.
        """
        if session.connection.idle_sections > (
            MAX_IDLE_SECTIONS if self._link.incoming else MAX_IDLE_SECTIONS_UNREAD
        ):
            session.lose("its description has grown too long")

    def _received(self) -> list[Incoming]:
        return list(self._link.incoming)

    async def _let_go(
        self, wanted: Iterable[RoomTrack], session: Session, deadline: Deadline
    ) -> None:
        wanted = set(wanted)
        for one in tuple(self._link.incoming):
            if not isinstance(one, RoomTrack) or one.ended:
                continue
            moved = one.subscribed != one.info
            if one in wanted and one.live and not moved:
                continue
            gone = not one.live
            await session.unsubscribe(one, deadline)
            self._link.incoming.remove(one)
            if gone and not moved:  # its sender has closed it, or is gone: a state will tell
                one.lost()
                one.retry_later(monotonic(), self._timings.recover_delay, self._timings.poll_max)
            elif one in wanted:
                one.lost()
            else:
                one.let_go()

    async def _subscribe(
        self, tracks: Sequence[RoomTrack], session: Session, deadline: Deadline
    ) -> None:
        """Subscribe in one round; where that is refused, track by track."""
        try:
            await session.subscribe(tracks, deadline)
        except SessionLostError:
            raise
        except (SfuError, NegotiationFailedError, MediaError) as error:
            if session.loss is not None:
                raise
            if len(tracks) > 1:
                for one in tracks:
                    await self._subscribe([one], session, deadline)
                return
            self._note_failure(tracks[0], error)
        else:
            for one in tracks:
                one.found()
            self._link.incoming += tracks

    def _note_failure(self, track: RoomTrack, error: MeteredError) -> None:
        timings, now = self._timings, monotonic()
        if track.outdated:  # what has failed is not what is wanted any more: the next look asks
            return
        if isinstance(error, MediaError):
            self._tracks.on_misfit(track, error)
            return
        track.retry_later(now, timings.recover_delay, timings.recover_delay_max)
        if not isinstance(error, SfuNotFoundError):
            logger.info("%s: %s", self._link.label, error)
        if track.missing_since is not None and now - track.missing_since > timings.room_search:
            track.retry_at = float("inf")  # until the next state of its member
            track.missing_since = None
            self._tracks.on_missing(track, error)

    def _ask(self, tracks: Iterable[RoomTrack], now: float) -> None:
        """Ask for the states of those whose tracks have been missing for a while."""
        for one in tracks:
            since = one.missing_since
            if since is not None and one.asked_at is None and now - since >= self._timings.room_ask:
                one.asked_at = now
                self._tracks.ask(one)

    async def resubscribe(self, session: Session, deadline: Deadline) -> None:
        """Subscribe on a new session to what was received on the lost one."""
        before = [one for one in self._link.incoming if isinstance(one, RoomTrack)]
        self._link.incoming.clear()
        for one in before:
            one.lost()
            one.retry_at = 0.0
        again = [one for one in before if not one.ended]
        for start in range(0, len(again), ROUND):
            await self._subscribe(again[start : start + ROUND], session, deadline)


class _ReceiverSink:
    """Tell where the link ends: because the SFU refuses it."""

    def __init__(self, tracks: TrackDirectory) -> None:
        self._tracks = tracks

    def emit(self, event: Event) -> None:
        """Its states are nobody's affair."""

    def end(self, error: BaseException | None = None) -> None:
        if isinstance(error, SfuError):  # (an event loop that dies says so itself)
            self._tracks.on_refused(error)

    def republished(self, publication: object, session_id: str, track_id: str) -> None:
        """Nothing is published here."""

    def unpublished(self, publication: object) -> None:
        """Nothing is published here."""

    def track_ended(self, incoming: Incoming) -> None:
        """Tracks tell their members."""
