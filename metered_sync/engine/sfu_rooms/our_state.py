"""Tell the other members of a room what this peer sends, and whether it speaks."""

from __future__ import annotations

import asyncio
import logging
import random
import secrets
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from metered_sync.engine.rooms.media import MediaOwner, RoomHost
from metered_sync.engine.sfu_rooms.messages import (
    MAX_STATE_TRACKS,
    AnnouncedTrack,
    RoomState,
    build_room_message,
    fitting,
)
from metered_sync.engine.sfu_rooms.publishing import RoomPublisher
from metered_sync.wire.timings import Timings

__all__ = ["OurState"]

logger = logging.getLogger("metered_sync")
BOOT_BYTES = 6


class OurState:
    """The state of this peer, as the others of its room are told."""

    def __init__(self, label: str, timings: Timings) -> None:
        self.left = False
        """Whether this peer has left, and tells nothing any more."""
        self._label = label
        self._timings = timings
        self._host: RoomHost
        self._publisher: RoomPublisher
        self._boot = secrets.token_urlsafe(BOOT_BYTES)
        self._revision = 0
        self._built: tuple[Any, dict[str, Any]] | None = None
        """The state as it was sent last, by what it was made of."""
        self._joined = False
        self._heard = False
        """Whether we speak just now."""
        self._speaking = False
        """Whether the others have been told that we speak."""
        self._speech_due: asyncio.TimerHandle | None = None
        self._spread: asyncio.TimerHandle | None = None
        """When the state is sent to all, because it cannot be sent to newcomers."""

    def attach(self, host: RoomHost, publisher: RoomPublisher) -> None:
        """Belong to a room, and tell what is published."""
        self._host, self._publisher = host, publisher

    def on_joined(self) -> None:
        """Tell of changes from now on."""
        self._joined = True

    def repeat(self) -> None:
        """Tell all again what we send: to them we have left and come back, perhaps."""
        if self._publisher.announced:
            self._host.channel.broadcast(self._state())

    async def leave(self) -> None:
        """Tell all that we send nothing any more."""
        self.left = True
        if self._joined and self._publisher.announced:
            self._revision += 1
            await self._host.channel.broadcast_now(build_room_message(self._empty_state()))

    def stop(self) -> None:
        """Plan nothing more."""
        for timer in (self._spread, self._speech_due):
            if timer is not None:
                timer.cancel()

    def _state(self) -> dict[str, Any]:
        """Return what the others are told; measured once for each change, not for each member."""
        tracks = self._publisher.announced
        key = (self._revision, self._publisher.session_id, self._speaking, tracks)
        if self._built is None or self._built[0] != key:
            self._built = key, self._measured(tracks)
        return self._built[1]

    def _measured(self, tracks: Sequence[AnnouncedTrack]) -> dict[str, Any]:
        fit = fitting(tracks)
        if len(fit) < len(tracks):
            logger.warning(
                "%s: the others see %d of %d tracks: a member has %d at most, and 8 KB of metadata "
                "of them all",
                self._label,
                len(fit),
                len(tracks),
                MAX_STATE_TRACKS,
            )
        state = replace(self._empty_state(), session_id=self._publisher.session_id, tracks=fit)
        return build_room_message(state)

    def _empty_state(self) -> RoomState:
        return RoomState(self._boot, self._revision, None, (), self._speaking)

    def on_published(self) -> None:
        """Tell of other tracks, or of another session."""
        self._revision += 1
        if self._joined and not self.left:
            self._host.channel.broadcast(self._state())

    def on_speech(self, speaking: bool) -> None:
        """Tell that we speak, or are quiet: not more than twice a second."""
        self._heard = speaking
        if self._speech_due is None and speaking != self._speaking and not self.left:
            self._speaking = speaking
            self.on_published()
            loop = asyncio.get_running_loop()
            self._speech_due = loop.call_later(self._timings.room_speech, self._speech_told)

    def _speech_told(self) -> None:
        self._speech_due = None
        self.on_speech(self._heard)

    def arrived(self, member: MediaOwner) -> None:
        """Send a member that has come, or come back, our state if there is something in it."""
        if self._publisher.announced and not self.left:
            self.tell(member)

    def tell(self, member: MediaOwner) -> None:
        """Send a member our state; where that is not permitted, send it to all, once."""
        if self._host.send_refused is None:
            member.post(self._state())
        elif self._spread is None:
            loop = asyncio.get_running_loop()
            pause = random.uniform(0, self._timings.room_spread)
            self._spread = loop.call_later(pause, self._spread_state)

    def _spread_state(self) -> None:
        self._spread = None
        if not self.left:
            self._host.channel.broadcast(self._state())
