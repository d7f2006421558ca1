"""Keep the tracks that a peer sends us over all generations of its connection.

aiortc (1.14 to 1.16) says once that a section has a track, and nothing when the other
side stops sending in it, or begins again. So each remote description is compared with the
one before, section by section: who sends, and what.

A track that is not sent any more may come again (``Timings.track_return``), with or without a
new generation, and goes on as the same object. Then it ends.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from aiortc import RTCRtpTransceiver

from metered_sync.engine.webrtc.incoming import IncomingTrack
from metered_sync.engine.webrtc.sdp_repair import Repaired, Sender, senders
from metered_sync.wire.timings import Timings

__all__ = ["ReceivedTracks"]

MAX_ABSENT = 256
"""How many tracks that are not sent at present are remembered: they may be sent again."""


@dataclass(eq=False)
class _PresentTrack:
    """A track that is being received."""

    incoming: IncomingTrack
    sender: Sender
    transceiver: RTCRtpTransceiver
    taking: asyncio.Task[None]


class ReceivedTracks:
    """The tracks that one peer sends."""

    def __init__(
        self,
        on_track: Callable[[IncomingTrack, bool], None],
        on_gone: Callable[[IncomingTrack], None],
        on_ended: Callable[[IncomingTrack], None],
        timings: Timings,
        max_pixels: int,
    ) -> None:
        """Prepare.

        Args:
            on_track: Called with a track that the peer sends, and whether for the first time.
            on_gone: Called with a track that it sends no more; it may come again.
            on_ended: Called with a track that has ended.
            timings: Say how soon a track must come again.
            max_pixels: The area of the pictures that are decoded, at most.
        """
        self._on_track = on_track
        self._on_gone = on_gone
        self._on_ended = on_ended
        self._track_return = timings.track_return
        self._max_pixels = max_pixels
        self._present: dict[str, _PresentTrack] = {}
        """By mid, on the present generation."""
        self._carried: list[IncomingTrack] = []
        """Present on the last generation, and not found yet on this one."""
        self._absent: dict[IncomingTrack, asyncio.TimerHandle] = {}
        """Not sent at present, with the moment at which they end."""
        self._sent: tuple[IncomingTrack, ...] = ()
        """Present and carried ones; replaced, not changed: other threads read it meanwhile."""

    @property
    def tracks(self) -> tuple[IncomingTrack, ...]:
        """The tracks that the peer sends, as far as is known, and that have not ended here."""
        return tuple(one for one in self._sent if not one.ended)

    def carry(self) -> None:
        """Begin a new generation."""
        for received in self._present.values():
            received.taking.cancel()
            self._carried.append(received.incoming)
        self._present.clear()

    def update(self, remote: Repaired, transceivers: Iterable[RTCRtpTransceiver]) -> bool:
        """Compare a description of the other side with the one before.

        Returns:
            Whether all can be received: aiortc does not start a receiver again that the
            other side has once ended (RTCP BYE).
        """
        by_mid: dict[Any, RTCRtpTransceiver] = {one.mid: one for one in transceivers}
        found = {
            mid: sender
            for mid, sender in senders(remote.original).items()
            if mid not in remote.rejected and mid in by_mid
        }
        gone = []
        for mid, received in tuple(self._present.items()):
            if _same(received.sender, found.get(mid)):
                received.incoming.stream_id = found[mid].stream_id
                received.sender = found[mid]
            else:
                received.taking.cancel()
                gone.append(self._present.pop(mid).incoming)
        # (One that was closed here, and that the peer has removed, does not come again.)
        before = [*self._carried, *(one for one in (*gone, *self._absent) if not one.ended)]
        candidates = list(before)
        retransmissions = {
            s.mid: {c.payload_type for c in s.codecs if c.name.lower() == "rtx"}
            for s in remote.original.sections
        }
        new = found.keys() - self._present.keys()
        arrived = []
        for mid, sender in found.items():
            if mid in new:
                incoming = self._recognise(sender, candidates, set(found.values()))
                first = incoming is None
                if incoming is None:
                    track_id = sender.track_id or by_mid[mid].receiver.track.id
                    incoming = IncomingTrack(
                        sender.kind,
                        id=track_id,
                        stream_id=sender.stream_id,
                        max_pixels=self._max_pixels,
                    )
                    incoming.on_end = self._on_ended
                else:
                    candidates.remove(incoming)
                    incoming.stream_id = sender.stream_id
                self._attach(mid, incoming, sender, by_mid[mid], retransmissions[mid])
                if first or incoming in self._absent:
                    arrived.append((incoming, first))
        returned = [one for one in before if one not in candidates]
        lost = [one for one in (*self._carried, *gone) if one not in returned]
        self._carried = []
        self._sent = tuple(received.incoming for received in self._present.values())
        self._note_absent(returned, lost)
        for incoming in lost:
            self._on_gone(incoming)
        for incoming, first in arrived:
            self._on_track(incoming, first)
        ended = [by_mid[mid].receiver.track.readyState == "ended" for mid in new]
        return not any(ended)

    def _note_absent(
        self, returned: Iterable[IncomingTrack], lost: Iterable[IncomingTrack]
    ) -> None:
        """Give tracks that are lost their time to come again."""
        loop = asyncio.get_running_loop()
        for incoming in returned:
            timer = self._absent.pop(incoming, None)
            if timer is not None:
                timer.cancel()
        for incoming in lost:
            if not incoming.ended:
                self._absent[incoming] = loop.call_later(
                    self._track_return, self._give_up, incoming
                )
        for incoming in tuple(self._absent)[:-MAX_ABSENT]:
            self._absent[incoming].cancel()
            self._give_up(incoming)

    def _give_up(self, incoming: IncomingTrack) -> None:
        self._absent.pop(incoming, None)
        incoming.end()

    def _recognise(
        self, sender: Sender, candidates: list[IncomingTrack], all_: set[Sender]
    ) -> IncomingTrack | None:
        """Return the track of a sender, if it was there before."""
        for incoming in candidates:
            if incoming.kind == sender.kind and incoming.id == sender.track_id:
                return incoming
        # Its id may have changed: by the place in its stream, leaving out those whose id is
        # there. A track that is not known to be gone is rather taken for this than another.
        ids = {one.track_id for one in all_}
        for incoming in self._carried:
            same = (incoming.kind, incoming.stream_id) == (sender.kind, sender.stream_id)
            if same and incoming in candidates and incoming.id not in ids:
                return incoming
        return None

    def _attach(
        self,
        mid: str,
        incoming: IncomingTrack,
        sender: Sender,
        transceiver: RTCRtpTransceiver,
        retransmissions: set[int],
    ) -> None:
        receiver = transceiver.receiver
        if incoming.frames or incoming.received.packets:
            incoming.restarts += 1
        incoming.take_over(receiver, retransmissions)
        taking = asyncio.get_running_loop().create_task(
            incoming.run(receiver.track), name=f"{incoming.kind} track {incoming.id}"
        )
        self._present[mid] = _PresentTrack(incoming, sender, transceiver, taking)

    def end(self, error: BaseException | None = None) -> None:
        """End all tracks, for good; their readers get ``error``, or ``ClosedError``."""
        for incoming in (*self.tracks, *self._absent):
            incoming.end(error)

    def close(self) -> None:
        """End all tracks, and take no more frames from the connection."""
        for received in self._present.values():
            received.taking.cancel()
        for timer in self._absent.values():
            timer.cancel()
        self.end()
        self._absent.clear()


def _same(before: Sender, now: Sender | None) -> bool:
    return now is not None and (before.kind, before.track_id) == (now.kind, now.track_id)
