"""Keep what a client publishes, over all its sessions, and publish it again on the next one."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import TypeVar

from metered_sync.bridge.deadline import Deadline
from metered_sync.engine.sfu.session import Session
from metered_sync.engine.sfu.tracks import Incoming, Outgoing, SfuSink
from metered_sync.errors import MediaError, MeteredError

__all__ = ["Publications", "publish_apart"]

logger = logging.getLogger("metered_sync")

T = TypeVar("T")


async def publish_apart(
    publish: Callable[[Sequence[T]], Awaitable[None]],
    tracks: Sequence[T],
    is_refusal: Callable[[MeteredError], bool],
) -> AsyncIterator[tuple[T, MeteredError]]:
    """Publish tracks together; each by itself where one of them is refused. Yield those, and why.

    What is no refusal is raised.
    """
    rounds = [tracks] if tracks else []
    while rounds:
        some = rounds.pop(0)
        try:
            await publish(some)
            continue
        except MeteredError as error:
            if not is_refusal(error):
                raise
            refusal = error
        if len(some) > 1:
            rounds += ([one] for one in some)  # one of them it is
        else:
            yield some[0], refusal


class Publications:
    """The tracks that a client publishes."""

    def __init__(self, label: str, sink: SfuSink) -> None:
        self.tracks: list[Outgoing] = []
        """Those that the session has, closed ones included until it knows that."""
        self._label = label
        self._sink = sink
        self._moved: dict[tuple[str, str], Outgoing] = {}
        """Those that have other ids now, by the session and track id that they had."""

    async def publish_again(
        self, session: Session, incoming: Sequence[Incoming], deadline: Deadline
    ) -> None:
        """Publish on a new session what was published on the lost one.

        ``incoming``: what the client receives, of itself perhaps.
        """
        for outgoing in self.tracks:
            if outgoing.local.ended:
                self.end(outgoing)
        again = [(o, o.session_id, o.track_id) for o in self.tracks if not o.closed]
        async for outgoing, error in publish_apart(
            lambda tracks: session.publish(tracks, deadline),
            [outgoing for outgoing, *_ in again],
            lambda error: isinstance(error, MediaError),
        ):
            logger.warning("%s: a track is published no longer: %s", self._label, error)
            outgoing.release()
            self.end(outgoing)
        again = [one for one in again if not one[0].closed]
        for outgoing, session_id, track_id in again:
            self._moved[session_id, track_id] = outgoing
        self.follow(incoming)
        for outgoing, session_id, track_id in again:
            publication = outgoing.handle()
            if publication is not None:
                self._sink.republished(publication, session_id, track_id)

    def follow(self, tracks: Sequence[Incoming]) -> None:
        """Give tracks that this client itself publishes their new ids."""
        for incoming in tracks:
            moved = self._moved.get((incoming.info.session_id, incoming.info.track_id))
            if moved is not None and not moved.closed:
                incoming.refer(moved.info())

    def end(self, outgoing: Outgoing) -> None:
        """Publish a track no longer: its source has ended, or the SFU takes it no more."""
        self.forget(outgoing)
        publication = outgoing.handle()
        if publication is not None:
            self._sink.unpublished(publication)

    def forget(self, outgoing: Outgoing) -> None:
        """Publish a track no longer, on this session or on one after it."""
        outgoing.close()
        self._moved = {ids: one for ids, one in self._moved.items() if one is not outgoing}
