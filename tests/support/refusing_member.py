"""A member that is scripted: it answers our offers by hand, and refuses what it is told to."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from aiortc import RTCSessionDescription

from metered_sync.engine.webrtc.aiortc_private.negotiation import bundle_all
from metered_sync.engine.webrtc.peer_connection import peer_connection
from metered_sync.engine.webrtc.sdp_repair import Repaired, reject, repair
from metered_sync.wire import sdp
from metered_sync.wire.signals import SessionDescription, Signal, build_signal
from tests.support.connections import Side


class RefusingMember:
    """The other end of a side's connection: a peer connection of aiortc's, and a script."""

    def __init__(self, side: Side) -> None:
        self.pc = peer_connection(())
        self.refuses: Callable[[sdp.Section], bool] = lambda _: True
        """Says which sections of our offers it answers with port 0."""
        self.bare = True
        """Whether an answer that refuses all says nothing of a transport."""
        self.offers: list[sdp.Description] = []
        """The offers that came."""
        self.answers: list[sdp.Description] = []
        self._side = side
        side.carry = self.carry

    async def carry(self, _side: Side, _data: dict[str, Any], signal: Signal) -> None:
        if not isinstance(signal, SessionDescription):
            return
        theirs = repair(sdp.parse(signal.sdp), answer=signal.type == "answer")
        if signal.type == "answer":
            self.answers.append(theirs.original)
            if self.pc.signalingState == "have-local-offer":
                await self._set(theirs, "answer")
            return
        self.offers.append(theirs.original)
        refused = {s.mid for s in theirs.original.sections if s.rejected or self.refuses(s)}
        if len(refused) == len(theirs.original.sections) and self.bare:
            answer = reject(theirs.description, refused, theirs.original.sections)
        else:
            await self._set(theirs, "offer")
            await self.pc.setLocalDescription(await self.pc.createAnswer())
            answer = sdp.parse(self.pc.localDescription.sdp)
            answer = reject(answer, refused, theirs.original.sections)
        self._say("answer", answer)

    async def _set(self, theirs: Repaired, type_: str) -> None:
        bundle_all(self.pc)
        text = sdp.build(theirs.description)
        await self.pc.setRemoteDescription(RTCSessionDescription(text, type_))

    async def offer(self) -> None:
        """Make an offer."""
        await self.pc.setLocalDescription(await self.pc.createOffer())
        self._say("offer", sdp.parse(self.pc.localDescription.sdp))

    async def offer_to_stop(self) -> None:
        """Make an offer that stops all sections, of which the peer connection knows nothing."""
        offer = sdp.parse((await self.pc.createOffer()).sdp)
        self._say("offer", replace(offer, sections=tuple(map(stopped, offer.sections)), bundle=()))

    def _say(self, type_: Any, description: sdp.Description) -> None:
        self._side.take(build_signal(SessionDescription(type_, sdp.build(description))))

    async def close(self) -> None:
        await self.pc.close()


def stopped(section: sdp.Section) -> sdp.Section:
    """Return a section as a browser shows one that it has stopped."""
    return sdp.Section(section.kind, section.mid, port=0, formats=section.formats)
