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

SIDE_BY_SIDE = 8
"""Sessions that a search asks at a time, at most: first one, then twice as many each time."""
ENDED = ("closed", "failed")
"""States of sessions that publish nothing any more."""


class Directory:
    """The sessions of an app and their tracks. Searches share one pace, however many there are."""

    def __init__(self, calls: Calls, timings: Timings) -> None:
        self.searches = calls.lists_sessions
        """Whether tracks can be found without knowing their session."""
        self._calls = calls
        self._timings = timings
        self._spent: dict[int, float] = {}
        """When the requests so far would have ended, one at each interval, by their burst."""

    async def _pace(self, burst: int) -> None:
        now, interval = monotonic(), self._timings.request_interval
        spent = self._spent[burst] = max(self._spent.get(burst, 0.0), now) + interval
        wait = spent - now - interval * burst
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

    async def published(
        self, session_id: str, deadline: Deadline, burst: int = 1
    ) -> list[wire.TrackInfo] | None:
        """Return the tracks that a session publishes; ``None`` where there is no such session.

        So many requests of one ``burst`` need not wait for each other.
        """
        await self._pace(burst)
        try:
            return await self.tracks(session_id, self._bound(deadline))
        except SfuNotFoundError:
            return None

    async def search(
        self, deadline: Deadline, last: Iterable[str] = (), burst: int = 1
    ) -> AsyncIterator[wire.TrackInfo]:
        """Yield all tracks of the app, those of the newest session first.

        The service does not say in what order it lists sessions; the local SFU lists the
        oldest first, and so this takes the last for the newest. Those in ``last`` come
        after all others.
        """
        await self._pace(burst)
        listed = await self.sessions(self._bound(deadline))
        newest_first = [s.session_id for s in reversed(listed) if s.state not in ENDED]
        late = set(last)
        ordered = sorted(newest_first, key=lambda one: one in late)
        width = 1
        while ordered:
            asked, ordered = ordered[:width], ordered[width:]
            for tracks in await self._ask_all(asked, deadline, burst):
                for track in tracks:
                    yield track
            width = min(2 * width, SIDE_BY_SIDE)

    async def _ask_all(
        self, session_ids: Sequence[str], deadline: Deadline, burst: int
    ) -> list[list[wire.TrackInfo]]:
        """Return what each of some sessions publishes; they are asked side by side."""
        found: dict[str, list[wire.TrackInfo] | Exception] = {}

        async def ask(session_id: str) -> None:
            try:
                found[session_id] = await self.published(session_id, deadline, burst) or []
            except Exception as error:  # (a task group would make a group of it)
                found[session_id] = error
                group.cancel_scope.cancel()

        async with anyio.create_task_group() as group:
            for session_id in session_ids:
                group.start_soon(ask, session_id)
        for tracks in found.values():
            if isinstance(tracks, Exception):
                raise tracks
        return [tracks for one in session_ids if isinstance(tracks := found[one], list)]

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
        pause, burst = self._timings.poll, self._timings.request_burst
        while True:
            others = []
            if session_id is None:
                async for track in self.search(deadline, last, burst):
                    if matches(track):
                        return track
                    others.append(track)
            else:
                await self._pace(burst)
                for track in await self.tracks(session_id, self._bound(deadline)):
                    if matches(track):
                        return track
                    others.append(track)
            seen(others)
            await anyio.sleep(pause)
            pause = min(pause * 1.5, self._timings.poll_max)
