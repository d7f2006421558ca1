"""Publish this peer's tracks to the SFU, and say which of them flow.

One worker makes what is published what is wanted, round by round, on one session that only
publishes. A track is announced once its sender has sent something: before that the SFU does not
list it, and whoever asks for it is refused. After a lost session everything is published again by
itself; what was announced stays so until it flows under its new ids.
"""

from __future__ import annotations

import asyncio
import functools
import logging
from collections.abc import Callable, Sequence
from typing import Any

import anyio

from metered_sync.bridge.clock import monotonic
from metered_sync.bridge.deadline import Deadline
from metered_sync.engine.sending.local_track import LocalTrack
from metered_sync.engine.sending.outlet import Outlet
from metered_sync.engine.sfu.link import SfuLink
from metered_sync.engine.sfu.publications import publish_apart
from metered_sync.engine.sfu.session import Session
from metered_sync.engine.sfu.tracks import Incoming, Outgoing, SfuSink
from metered_sync.engine.sfu_rooms.messages import AnnouncedTrack
from metered_sync.engine.sfu_rooms.speakers import SpeechDetector, sound_level
from metered_sync.engine.webrtc.media_frames import AUDIO_RATE, SAMPLES_PER_FRAME
from metered_sync.errors import MediaError, MeteredError, SfuAuthError, SfuError
from metered_sync.wire.events import Event
from metered_sync.wire.timings import Timings

__all__ = ["RoomPublisher"]

logger = logging.getLogger("metered_sync")
FLOW_POLL = 0.3
"""Seconds between two looks at tracks that have not sent anything yet, and do not tell when."""
FLOW_PATIENCE = 1.0
"""Seconds after a recovery for which tracks that were announced may be silent."""
REFUSALS = (400, 413, 415, 422)
"""Answers of the SFU that the same request would get again."""
METERED_FRAMES = 5
"""Slices of 20 ms of our sound that are measured together."""


class RoomPublisher:
    """The tracks that one peer publishes for its room."""

    def __init__(
        self,
        make_link: Callable[[SfuSink], SfuLink],
        on_change: Callable[[], None],
        on_speech: Callable[[bool], None],
        on_refused: Callable[[MeteredError], None],
        timings: Timings,
    ) -> None:
        """Prepare.

        Args:
            make_link: Makes the link that publishes, with its sink.
            on_change: Called when other tracks are to be announced.
            on_speech: Called when this peer begins to speak, or ends.
            on_refused: Called when this peer is not let publish, or one of its tracks.
            timings: Pauses and bounds of the attempts.
        """
        self.announced: tuple[AnnouncedTrack, ...] = ()
        """The tracks to tell the room of."""
        self.session_id: str | None = None
        """The session that publishes them."""
        self._make_link = make_link
        self._on_change = on_change
        self._on_speech = on_speech
        self._on_refused = on_refused
        self._timings = timings
        self._link: SfuLink | None = None
        self._wanted: tuple[LocalTrack, ...] = ()
        self._refused: tuple[LocalTrack, ...] | None = None
        """The tracks that the SFU, or the gate, did not let us publish."""
        self._untaken: set[LocalTrack] = set()
        """Tracks that the SFU does not take: another attempt would end like the first."""
        self._outgoing: list[Outgoing] = []
        self._entries: dict[Outgoing, AnnouncedTrack] = {}
        self._patience = 0.0
        """The moment up to which a new session's tracks may be silent; 0: there is no new one."""
        self._meters: dict[LocalTrack, _LevelMeter] = {}
        self._wake = asyncio.Event()
        self._closed = False

    @property
    def session(self) -> Session | None:
        """The session that is in use, if there is one."""
        return None if self._link is None else self._link.session

    # --- as the receiver of our tracks ---

    def set_tracks(self, tracks: Sequence[LocalTrack]) -> None:
        """Publish these tracks, and no others."""
        self._wanted = tuple(tracks)
        self._wake.set()

    def replace_track(self, old: LocalTrack, new: LocalTrack | None) -> None:
        """Publish one track in the place of another, without negotiating."""
        self._wanted = tuple(
            track for one in self._wanted if (track := new if one is old else one) is not None
        )
        for outgoing in self._outgoing:
            if outgoing.local is old and new is not None:
                outgoing.local = new
                if outgoing.outlet is not None:
                    outgoing.outlet.switch(new)
        self._wake.set()

    # --- the worker ---

    async def run(self) -> None:
        """Make what is published what is wanted, until closed."""
        delay = self._timings.recover_delay
        while not self._closed:
            self._wake.clear()
            pause: float | None = None
            try:
                await self._publish()
                self._refresh()
                delay = self._timings.recover_delay
                if len(self._entries) < len(self._outgoing) or self._patience:
                    pause = FLOW_POLL
            except SfuAuthError as error:
                if self._refused is None:
                    self._on_refused(error)
                self._refused = self._wanted
            except (MeteredError, TimeoutError) as error:
                logger.info("the room's tracks are not published yet: %s", error)
                pause, delay = delay, min(delay * 2, self._timings.recover_delay_max)
            with anyio.move_on_after(pause):
                await self._wake.wait()

    async def _publish(self) -> None:
        await self._unpublish()
        if self._wanted == self._refused:
            return
        self._untaken.intersection_update(self._wanted)
        known = {outgoing.local for outgoing in self._outgoing} | self._untaken
        new = [track for track in self._wanted if track not in known and not track.ended]
        self._measure()
        if not new:
            return
        link = self._link
        if link is None or link.error is not None:
            self._outgoing.clear()  # (of a link that was closed: everything is published anew)
            new = [t for t in self._wanted if t not in self._untaken and not t.ended]
            link = self._link = self._make_link(_PublisherSink(self._wake.set))
        if link.state == "idle":
            with anyio.fail_after(self._timings.attempt):
                await link.connect(Deadline(self._timings.attempt))
        publish = functools.partial(self._publish_round, link)
        async for track, error in publish_apart(publish, new, _is_refusal):
            if not track.ended:
                self._untaken.add(track)
                self._on_refused(error)

    async def _publish_round(self, link: SfuLink, tracks: Sequence[LocalTrack]) -> None:
        with anyio.fail_after(self._timings.attempt):
            deadline = Deadline(self._timings.attempt)
            # A name that outlives the session, by which receivers find the track again.
            outgoing = [Outgoing(track, track.ids[0], owned=False) for track in tracks]
            self._outgoing += outgoing
            try:
                await link.run(link.publish, outgoing, deadline)
            except BaseException:
                self._outgoing = [one for one in self._outgoing if one not in outgoing]
                raise

    async def _unpublish(self) -> None:
        link = self._link
        gone = [one for one in self._outgoing if one.closed or one.local not in self._wanted]
        if not gone:
            return
        self._outgoing = [one for one in self._outgoing if one not in gone]
        self._refresh()  # to the room they are gone before they are
        if link is not None and link.error is None:
            for one in gone:
                with anyio.fail_after(self._timings.attempt):
                    await link.run(link.unpublish, one, Deadline(self._timings.attempt))

    def _refresh(self) -> None:
        """Find out what is to be announced."""
        link = self._link
        entries = {one: entry for one, entry in self._entries.items() if one in self._outgoing}
        session_id = self.session_id
        if link is not None and link.connected and link.session is not None:
            current = [one for one in self._outgoing if one.session_id == link.session.id]
            flowing = [one for one in current if self._flows(one)]
            if session_id != link.session.id:  # the first one, or one after a recovery
                now = monotonic()
                self._patience = self._patience or now + FLOW_PATIENCE
                waiting = [one for one in entries if one not in flowing]
                if waiting and now < self._patience:
                    flowing = []  # there is one session for all of them
                else:
                    session_id, self._patience = link.session.id, 0.0
                    flowing += [one for one in waiting if one in current]
                    entries.clear()
            else:
                flowing += [one for one in entries if one not in flowing]
            for one in current:
                if one in flowing:
                    entries[one] = _entry(one)
        announced = tuple(entries[one] for one in self._outgoing if one in entries)
        self._entries = entries
        if not announced:
            session_id = None
        if (announced, session_id) != (self.announced, self.session_id):
            self.announced, self.session_id = announced, session_id
            self._on_change()

    def _flows(self, one: Outgoing) -> bool:
        """Say whether a track has sent something; where not, look again once it has."""
        if one.outlet is None:
            return False
        if not one.outlet.frames:
            one.outlet.on_sent = self._wake.set
        return one.outlet.frames > 0

    # --- our own voice ---

    def _measure(self) -> None:
        """Listen to our own sound, to say whether this peer speaks."""
        wanted = {track for track in self._wanted if track.kind == "audio"}
        gone = self._meters.keys() - wanted
        for track in gone:
            self._meters.pop(track).close()
        if gone:
            self._note_level()
        for track in wanted - self._meters.keys():
            self._meters[track] = _LevelMeter(track, self._note_level)

    def _note_level(self) -> None:
        self._on_speech(any(meter.detector.speaking for meter in self._meters.values()))

    # --- the end ---

    async def stats(self) -> list[dict[str, Any]]:
        """Return the counts of what is published."""
        return [await one.sample() for one in self._outgoing if not one.closed]

    def end(self) -> None:
        """Publish nothing any more, for good."""
        self._closed = True
        self._wake.set()
        for meter in self._meters.values():
            meter.close()
        self._meters.clear()

    async def aclose(self) -> None:
        """Close the session."""
        self.end()
        if self._link is not None:
            await self._link.aclose()

    def abort(self, error: BaseException) -> None:
        """End with an error; there may be no loop any more."""
        self._closed = True
        if self._link is not None:
            self._link.abort(error)


class _PublisherSink:
    """Wake the worker whenever something has changed on its link."""

    def __init__(self, wake: Callable[[], None]) -> None:
        self._wake = wake

    def emit(self, event: Event) -> None:
        self._wake()

    def end(self, error: BaseException | None = None) -> None:
        self._wake()

    def republished(self, publication: Any, session_id: str, track_id: str) -> None:
        self._wake()

    def unpublished(self, publication: Any) -> None:
        self._wake()

    def track_ended(self, incoming: Incoming) -> None:
        """Nothing is received here."""


class _LevelMeter(Outlet):
    """Take the sound of a track of ours, as a sender does, and measure it."""

    def __init__(self, track: LocalTrack, on_level: Callable[[], None]) -> None:
        self.detector = SpeechDetector()
        self._on_level = on_level
        self._slices: list[bytes] = []
        super().__init__(track, own_id=True)
        self.asked = True
        track.update()

    def put(self, pts: int, content: Any) -> None:
        self._slices.append(content)
        if len(self._slices) >= METERED_FRAMES:
            samples = b"".join(self._slices)
            seconds = len(self._slices) * SAMPLES_PER_FRAME / AUDIO_RATE
            self._slices.clear()
            self.detector.note(sound_level(samples), seconds)
            self._on_level()


def _is_refusal(error: MeteredError) -> bool:
    """Say whether the SFU would refuse the same tracks again."""
    if isinstance(error, SfuError):
        return error.status in REFUSALS
    return isinstance(error, MediaError)


def _entry(outgoing: Outgoing) -> AnnouncedTrack:
    local = outgoing.local
    metadata = None if local.metadata is None else dict(local.metadata)
    return AnnouncedTrack(
        outgoing.track_id, local.kind, local.stream_id, outgoing.name, True, metadata
    )
