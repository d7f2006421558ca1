"""Find out which subscribed tracks are gone, and where they are published now.

A track may be silent because nothing is sent (a muted microphone), because its
publisher closed it, or because the publisher is gone, perhaps to come back with another
session. The SFU does not tell; so a track that was silent for a while is looked up.

===================================  ==================================================
its publisher's session …            what becomes of the track
===================================  ==================================================
publishes it                         nothing; the next look is later (a new subscription,
                                     where the old one has ended)
publishes others, not this one       it ends: its publisher closed it (found by its name a
                                     moment ago, it is looked for on: its publisher has taken
                                     back a round of tracks, and publishes them anew)
is gone, and the track had a name    it is looked for by name and kind, for a while; found,
                                     it is subscribed to and goes on
is gone, and it had none             it ends with ``SfuNotFoundError``
===================================  ==================================================

A session of ours that the SFU has forgotten, without a word, is found out the same way.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterable
from typing import NoReturn, Protocol

import anyio

from metered_sync.bridge.clock import monotonic
from metered_sync.bridge.deadline import Deadline
from metered_sync.engine.sfu.directory import Directory
from metered_sync.engine.sfu.session import Session, SessionLostError
from metered_sync.engine.sfu.tracks import Incoming, Outgoing
from metered_sync.errors import MediaError, NegotiationFailedError, SfuError, SfuNotFoundError
from metered_sync.wire.sfu import TrackInfo
from metered_sync.wire.timings import Timings

__all__ = ["Watch", "Watched", "learn_names"]

logger = logging.getLogger("metered_sync")
FORGOTTEN = "the SFU does not know it any more"


async def learn_names(
    directory: Directory, session_id: str, tracks: Iterable[Incoming], deadline: Deadline
) -> list[Incoming]:
    """Ask a session for the names of those tracks that are its; return what it does not list."""
    listed = await directory.published(session_id, deadline) or ()
    by_id = {track.track_id: track for track in listed}
    theirs = [one for one in tracks if one.info.session_id == session_id]
    for one in theirs:
        if one.info.track_id in by_id:
            one.learn(by_id[one.info.track_id])
    return [one for one in theirs if one.info.track_id not in by_id]


class Watched(Protocol):
    """The link whose tracks are watched."""

    label: str
    error: BaseException | None
    outgoing: list[Outgoing]
    incoming: list[Incoming]
    session: Session | None
    timings: Timings
    directory: Directory

    @property
    def connected(self) -> bool:
        """Whether the session can be used."""

    @property
    def recovers(self) -> bool:
        """Whether a lost session is made again."""


class Watch:
    """Look after the tracks of one link."""

    def __init__(self, link: Watched) -> None:
        self._link = link
        self._timings = link.timings
        self._wake = anyio.Event()
        self._look: anyio.CancelScope | None = None
        self._own_look_at = 0.0
        self._own_pause = 0.0

    def wake(self) -> None:
        """Look at the tracks now."""
        self._wake.set()

    def interrupt(self) -> None:
        """Break a look off: the session that it asks about was lost just now."""
        if self._look is not None:
            self._look.cancel()

    async def run(self) -> None:
        """Look at the tracks now and then, until the link ends."""
        link = self._link
        while link.error is None:
            with anyio.move_on_after(self.pause()):
                await self._wake.wait()
            self._wake = anyio.Event()
            session = link.session
            if not link.connected or session is None:
                continue
            with anyio.CancelScope() as self._look:
                await self._look_around(session)
            self._look = None

    async def _look_around(self, session: Session) -> None:
        try:
            with anyio.fail_after(self._timings.attempt):
                deadline = Deadline(self._timings.attempt)
                await self._clean(session, deadline)
                if self._link.recovers:
                    await self.look_after(session, deadline)
        except (SfuError, NegotiationFailedError, TimeoutError) as error:
            logger.debug("%s: looking after its tracks: %s", self._link.label, error)

    def pause(self) -> float:
        """Return the seconds to wait: few while a track is being looked for."""
        now = monotonic()
        searches = [one.look_at - now for one in self._link.incoming if one.gone_at is not None]
        return max(min([self._timings.watch, *searches]), self._timings.request_interval)

    async def _clean(self, session: Session, deadline: Deadline) -> None:
        """Forget tracks that have ended; measure those that go on."""
        link = self._link
        # What was closed just while it was being restored is there, and not wanted.
        for outgoing in [one for one in link.outgoing if one.closed]:
            await session.unpublish(outgoing, deadline)
            link.outgoing.remove(outgoing)
        for incoming in [one for one in link.incoming if one.ended]:
            await session.unsubscribe(incoming, deadline)
            link.incoming.remove(incoming)
        for outgoing in link.outgoing:
            await outgoing.sample()

    async def look_after(self, session: Session, deadline: Deadline) -> None:
        """Find out what has become of silent tracks, and act on it."""
        await self.look_at_own(session, deadline)
        await self._learn_names(deadline)
        now = monotonic()
        due = [
            one
            for one in self._link.incoming
            if now >= one.look_at
            and not one.ended
            and (not one.live or one.silence(now) > self._timings.quiet)
        ]
        await self._look_at(due, session, deadline)

    async def resubscribe(self, session: Session, deadline: Deadline) -> None:
        """Subscribe on a new session to the tracks of the lost one, as far as they are there."""
        missing = [one for one in self._link.incoming if not one.ended]
        for one in missing:
            one.look_at, one.pause = 0.0, 0.0
        with contextlib.suppress(SfuNotFoundError):  # one went just now: the next look tells
            await self._look_at(missing, session, deadline)

    async def look_at_own(self, session: Session, deadline: Deadline) -> None:
        """Find out whether a session in which nothing arrives is still there."""
        link = self._link
        quiet = await session.connection.heard()
        if quiet < self._timings.quiet:
            self._own_pause = 0.0
        elif (link.outgoing or link.incoming) and monotonic() >= self._own_look_at:
            self._own_pause = self._longer(self._own_pause)
            self._own_look_at = monotonic() + self._own_pause
            reason = await self._why_gone(session, quiet, deadline)
            if reason is not None:
                self._lose(session, reason)

    def _lose(self, session: Session, reason: str) -> NoReturn:
        session.lose(reason)
        raise SessionLostError(f"session {session.id} is gone: {reason}")

    async def _why_gone(self, session: Session, quiet: float, deadline: Deadline) -> str | None:
        try:
            listed = await self._link.directory.published(session.id, deadline)
        except SfuError as error:
            if error.status is None and quiet > self._timings.dead:
                return "nothing arrives, and the SFU cannot be reached"
            raise
        return FORGOTTEN if listed is None else None

    async def _learn_names(self, deadline: Deadline) -> None:
        """Ask for the names of tracks that were subscribed to by their ids alone."""
        now = monotonic()
        nameless = [
            one
            for one in self._link.incoming
            if not one.info.kind and one.live and now >= one.look_at
        ]
        for session_id in {one.info.session_id for one in nameless}:
            for one in await learn_names(self._link.directory, session_id, nameless, deadline):
                self._later(one)

    async def _look_at(self, due: list[Incoming], session: Session, deadline: Deadline) -> None:
        """Decide about each of these tracks: end it, look again, or subscribe to it again."""
        found: list[Incoming] = []
        there = [one for one in due if one.gone_at is None]
        for session_id in dict.fromkeys(one.info.session_id for one in there):
            theirs = [one for one in there if one.info.session_id == session_id]
            listed = await self._link.directory.published(session_id, deadline)
            if listed is None and session_id == session.id:
                self._lose(session, FORGOTTEN)
            found += self._judge(theirs, listed)
        lost = [one for one in due if one.gone_at is not None and not one.ended]
        if lost:
            found += await self._find(lost, deadline)
        found = [one for one in found if not one.ended]
        if found:
            await self._subscribe_again(found, session, deadline)

    async def _subscribe_again(
        self, tracks: list[Incoming], session: Session, deadline: Deadline
    ) -> None:
        """Subscribe to tracks again; those end that come in a codec which cannot be decoded."""
        try:
            await session.subscribe(tracks, deadline)
        except MediaError as error:
            if len(tracks) == 1:
                tracks[0].end(error)
                return
            for one in tracks:
                await self._subscribe_again([one], session, deadline)

    def _judge(self, tracks: Iterable[Incoming], listed: list[TrackInfo] | None) -> list[Incoming]:
        """Return the tracks of one publisher that can be subscribed to again."""
        again = []
        ids = {track.track_id for track in listed or ()}
        for one in tracks:
            if listed is None:
                one.gone_at, one.gone_from = monotonic(), one.info.session_id
                one.live = False
            elif one.info.track_id in ids:
                one.listed = True
                if not one.live:
                    again.append(one)
                self._later(one)
            elif self._found_just_now(one):
                one.gone_at, one.live = one.sought_since, False
            elif one.listed or one.frames or not one.live:
                one.end()
            elif one.silence(monotonic()) > self._timings.search:
                self._end(one, "or never sent anything")
            else:  # a track is listed with its first packet
                self._later(one)
        return again

    def _found_just_now(self, one: Incoming) -> bool:
        """Say whether a track was found by its name, and may have been found too early."""
        settled = one.attached_at + self._timings.settle
        return one.sought_since is not None and monotonic() < settled

    async def _find(self, lost: list[Incoming], deadline: Deadline) -> list[Incoming]:
        """Return the lost tracks that another session publishes, by their names.

        Until they are subscribed to they stay lost: what was found may vanish again.
        """
        found = []
        named = [one for one in lost if one.info.name] if self._link.directory.searches else []
        published = [t async for t in self._link.directory.search(deadline)] if named else []
        for one in lost:
            candidates = [
                track
                for track in published
                if track.name == one.info.name
                and track.kind == one.kind
                and track.session_id != one.gone_from
            ]
            assert one.gone_at is not None
            if one.info.name and len(candidates) == 1:
                one.refer(candidates[0])
                one.sought_since = one.gone_at
                self._later(one, self._timings.poll, self._timings.poll_max)
                found.append(one)
            elif len(candidates) > 1 and one.info.name:
                self._end(one, f"and {len(candidates)} tracks are published under its name now")
            elif not one.info.name:
                self._end(one, "and it had no name to find it by again")
            elif monotonic() - one.gone_at > self._timings.search:
                self._end(one, f"and nobody published it again in {self._timings.search:g} s")
            else:
                self._later(one, self._timings.poll, self._timings.poll_max)
        return found

    def _end(self, one: Incoming, why: str) -> None:
        one.end(
            SfuNotFoundError(
                f"{self._link.label}: the publisher of {one.kind} track {one.name or one.id!r} "
                f"is gone (session {one.info.session_id}), {why}"
            )
        )

    def _later(self, one: Incoming, least: float = 0.0, most: float = 0.0) -> None:
        one.pause = self._longer(one.pause, least, most)
        one.look_at = monotonic() + one.pause

    def _longer(self, pause: float, least: float = 0.0, most: float = 0.0) -> float:
        pause = max(pause * 1.5, least or self._timings.quiet)
        return min(pause, most or self._timings.quiet_max)
