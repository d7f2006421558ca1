"""List and search the tracks that an app's sessions publish, with few requests."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Sequence

import anyio

from metered_sync.bridge.clock import monotonic
from metered_sync.bridge.deadline import Deadline
from metered_sync.engine.sfu.calls import Calls
from metered_sync.errors import SfuNotFoundError
from metered_sync.wire import sfu as wire
from metered_sync.wire.timings import Timings

__all__ = ["Directory"]

ENDED = ("closed", "failed")
"""States of sessions that publish nothing any more."""


class Directory:
    """The sessions of an app and their tracks. Searches share one pace, however many there are."""

    def __init__(self, calls: Calls, timings: Timings) -> None:
        self.searches = calls.lists_sessions
        """Whether tracks can be found without knowing their session."""
        self._calls = calls
        self._timings = timings
        self._next = 0.0

    async def _pace(self) -> None:
        now = monotonic()
        wait, self._next = self._next - now, max(self._next, now) + self._timings.request_interval
        if wait > 0:
            await anyio.sleep(wait)

    async def sessions(self, deadline: Deadline) -> list[wire.SessionInfo]:
        """List the app's sessions."""
        return list(await self._calls.ask(wire.SESSIONS, wire.parse_sessions, deadline))

    async def tracks(self, session_id: str, deadline: Deadline) -> list[wire.TrackInfo]:
        """List the tracks that a session publishes."""
        return list(
            await self._calls.ask(wire.TRACKS, wire.parse_tracks, deadline, session_id=session_id)
        )

    def _bound(self, deadline: Deadline) -> Deadline:
        """Return the deadline of one request of a search, which itself may have none."""
        return Deadline(min(deadline.left(), self._timings.attempt))

    async def published(self, session_id: str, deadline: Deadline) -> list[wire.TrackInfo] | None:
        """Return the tracks that a session publishes; ``None`` where there is no such session."""
        await self._pace()
        try:
            return await self.tracks(session_id, self._bound(deadline))
        except SfuNotFoundError:
            return None

    async def search(
        self, deadline: Deadline, last: Iterable[str] = ()
    ) -> AsyncIterator[wire.TrackInfo]:
        """Yield all tracks of the app, those of the newest session first.

        The service does not say in what order it lists sessions; the local SFU lists the
        oldest first, and so this takes the last for the newest. Those in ``last`` come
        after all others.
        """
        await self._pace()
        listed = await self.sessions(self._bound(deadline))
        sessions = [s.session_id for s in listed if s.state not in ENDED]
        late = set(last)
        newest_first = sessions[::-1]
        for session_id in sorted(newest_first, key=lambda one: one in late):
            for track in await self.published(session_id, deadline) or ():
                yield track

    async def wait(
        self,
        matches: Callable[[wire.TrackInfo], bool],
        deadline: Deadline,
        *,
        session_id: str | None = None,
        last: Iterable[str] = (),
        seen: Callable[[Sequence[wire.TrackInfo]], None] = lambda others: None,
    ) -> wire.TrackInfo:
        """Wait for the first track that matches, in one session or in all.

        ``seen`` is told each time of the tracks that do not.
        """
        pause = self._timings.poll
        while True:
            others = []
            if session_id is None:
                async for track in self.search(deadline, last):
                    if matches(track):
                        return track
                    others.append(track)
            else:
                await self._pace()
                for track in await self.tracks(session_id, self._bound(deadline)):
                    if matches(track):
                        return track
                    others.append(track)
            seen(others)
            await anyio.sleep(pause)
            pause = min(pause * 1.5, self._timings.poll_max)
