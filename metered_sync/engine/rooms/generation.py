"""Make and take descriptions on one peer connection: a generation of a connection to a peer.

aiortc (1.14 to 1.16) cannot restart ICE, so where a browser would, a new generation takes
the place of the old one.

All sections share one transport from the start. (With aiortc's balanced policy a third
section is left on a transport that bundling has stopped.) What aiortc does with
``_bundled`` would stop the shared one, as soon as the first section of the group is not
the one it was made for; it is told that everything is bundled already.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
from collections.abc import AsyncIterator, Callable, Iterable
from dataclasses import replace

import anyio
from aiortc import RTCSessionDescription
from aiortc.sdp import candidate_from_sdp

from metered_sync.engine.rooms.sdp_pins import Pins, arrange
from metered_sync.engine.rooms.sections import Sections
from metered_sync.engine.webrtc import ice
from metered_sync.engine.webrtc.aiortc_private.negotiation import (
    bundle_all,
    can_take_offer_back,
    keep_agreed,
    section_index,
    set_section_index,
    set_unoffered,
    start_rest,
    take_offer_back,
)
from metered_sync.engine.webrtc.aiortc_private.paths import can_probe
from metered_sync.engine.webrtc.aiortc_private.sctp import bound_reassembly
from metered_sync.engine.webrtc.header_extensions import PictureExtensions
from metered_sync.engine.webrtc.peer_connection import (
    bound_gathering,
    close_quietly,
    peer_connection,
    trust_relays,
)
from metered_sync.engine.webrtc.sdp_repair import (
    MAX_CANDIDATES,
    Repaired,
    candidate_problem,
    is_usable_candidate,
    reject,
)
from metered_sync.engine.webrtc.stream_formats import offer_only, restore_profiles
from metered_sync.wire import sdp
from metered_sync.wire.events import IceServer
from metered_sync.wire.secrets import scrub
from metered_sync.wire.signals import Candidate, EndOfCandidates
from metered_sync.wire.timings import Timings

__all__ = ["Generation", "SupersededError"]

logger = logging.getLogger("metered_sync")


class SupersededError(Exception):
    """Raised where a generation was closed meanwhile: what was being done on it is of no use."""


class Generation:
    """A peer connection, and the descriptions exchanged on it. Its methods take turns."""

    def __init__(
        self,
        label: str,
        sections: Sections,
        pins: Pins,
        servers: Iterable[IceServer],
        *,
        gather_timeout: float,
        relay_only: bool,
        ca_file: str | None,
        on_refused: Callable[[str], None],
    ) -> None:
        self.pc = peer_connection(servers)
        self.label = label
        self.offered: str | None = None
        """Our offer that has not been answered."""
        self.answered: str | None = None
        """Our latest answer."""
        self.used = False
        """Whether anything was done with it."""
        self.closed = False
        """Whether this side has closed it."""
        self.path_died = False
        """Whether nothing comes over its path any more, though the other end was asked."""
        self.unheard = False
        """Whether a description could not be sent, and its owner knows."""
        self.remote: Repaired | None = None
        """The other side's latest description."""
        self._sections = sections
        self._pins = pins
        self._extensions = PictureExtensions()
        self._gather_timeout = gather_timeout
        self._relay_only = relay_only
        self._ca_file = ca_file
        self._on_refused = on_refused
        self._turn = anyio.Lock()
        # aiortc's own would be the second it was made in: two of one second have the same.
        self._origin = secrets.randbits(62)
        self._version = 0
        self._counted = 0
        self._adding: set[asyncio.Task[None]] = set()
        self._watch: asyncio.Task[None] | None = None

    @property
    def fragment(self) -> str:
        """The other side's ICE user name fragment; empty until it has described itself."""
        return "" if self.remote is None else self.remote.fragment

    @property
    def negotiated(self) -> bool:
        """Whether the other side has described itself."""
        return self.remote is not None

    @property
    def has_candidates(self) -> bool:
        """Whether any usable ICE candidate of the other side has come."""
        return any(transport.getRemoteCandidates() for transport in ice.transports(self.pc))

    # --- descriptions ---

    async def make_offer(self) -> str:
        """Make an offer of all that is wanted, and return its text."""
        async with self._taking_turns():
            self._sections.place_all(self.pc)
            restore = keep_agreed(self.pc)
            offer = sdp.parse((await self.pc.createOffer()).sdp)
            restore()
            offer = offer_only(self._arrange(offer), self._sections.formats())
            offer = self._extensions.offer(self._pins.apply(offer))
            self.offered = await self._describe("offer", offer)
            return self.offered

    def _arrange(self, offer: sdp.Description) -> sdp.Description:
        """Give an offer's sections the order and the mids that the other side knows."""
        slots = self._sections.slots
        taken = self._sections.mids | {slot.mid for slot in slots}
        order, mids = [], []
        for index, slot in enumerate(slots):
            transceiver = slot.transceiver
            if transceiver is None:
                kinds = [section.kind for section in offer.sections]
                order.append(kinds.index("application"))
            else:
                order.append(section_index(transceiver, index))
                set_section_index(transceiver, index)
            if slot.former is not None and slot.former.transceiver is not None:
                set_section_index(slot.former.transceiver, None)
            if not slot.mid:
                slot.mid = next(mid for mid in map(str, range(len(taken) + 1)) if mid not in taken)
                taken.add(slot.mid)
            mids.append(slot.mid)
        return arrange(offer, order, mids)

    def can_roll_back(self, offer: Repaired) -> bool:
        """Return whether our offer can be taken back, for one of the other side."""
        if self.offered is None:
            return False
        fits = self.negotiated or self._sections.are_known_to(offer.original)
        return fits and can_take_offer_back()

    def roll_back(self) -> None:
        """Take our offer back, where that is possible."""
        undecided = () if self.negotiated else ice.transports(self.pc)
        take_offer_back(self.pc, undecided)
        self._sections.withdraw(self.pc)
        self.offered = None

    async def take_offer(self, offer: Repaired) -> str:
        """Take an offer of the other side, and return the text of our answer."""
        async with self._taking_turns():
            self._sections.forget_recycled(offer.original)
            if not (self.negotiated or offer.is_usable):
                self._sections.adopt(offer.original, offer.rejected, self.pc, answered=False)
                self.answered = self._reject_all(offer)
                return self.answered
            self._sections.place_withdrawn(offer.original, offer.rejected)
            await self._take("offer", offer)
            self._sections.place_offered()
            set_unoffered(self.pc)
            answer = sdp.parse((await self.pc.createAnswer()).sdp)
            answer = self._extensions.answer(answer, offer.description)
            answer = restore_profiles(answer, offer.original)
            self.answered = await self._describe("answer", answer)
            self._sections.settle(final=False)
            return self.answered

    async def take_answer(self, answer: Repaired) -> None:
        """Take the answer to our offer."""
        async with self._taking_turns():
            if not (self.negotiated or answer.is_usable) and can_take_offer_back():
                # Nothing is left to connect for: aiortc would try, and fail after a while.
                self._sections.mids.update(section.mid for section in answer.original.sections)
                self.roll_back()
                self._sections.refuse_all()
                return
            await self._take("answer", answer)
            self.offered = self.answered = None
            self._sections.settle(final=True)

    def _reject_all(self, offer: Repaired) -> str:
        """Return an answer to an offer of which nothing can be used; aiortc needs not know it."""
        answer = reject(offer.description, offer.rejected, offer.original.sections)
        return self._number(answer)

    def fits(self, answer: Repaired) -> bool:
        """Return whether an answer may be one to our present offer."""
        if self.offered is None or self._has_taken(answer):
            return False
        offer = sdp.parse(self.offered)
        theirs = answer.original.sections
        return [(s.kind, s.mid) for s in offer.sections] == [(s.kind, s.mid) for s in theirs]

    def differs(self, answer: Repaired) -> bool:
        """Return whether a description says something else of tracks than the one we have."""
        known = () if self.remote is None else self.remote.original.sections
        return [(s.mid, s.direction, s.msid, s.rejected) for s in known] != [
            (s.mid, s.direction, s.msid, s.rejected) for s in answer.original.sections
        ]

    def has_answered(self, offer: Repaired) -> bool:
        """Return whether an offer is, to the letter, the one that we have answered last."""
        return self.answered is not None and self._has_taken(offer)

    def _has_taken(self, description: Repaired) -> bool:
        return self.remote is not None and self.remote.original == description.original

    @contextlib.asynccontextmanager
    async def _taking_turns(self) -> AsyncIterator[None]:
        self.used = True
        async with self._turn:
            self._check()
            try:
                yield
            except Exception:
                self._check()  # no wonder, then
                raise

    def _check(self) -> None:
        if self.closed:
            raise SupersededError

    async def _take(self, type_: str, repaired: Repaired) -> None:
        if repaired.fragment != self.fragment:
            self._counted = 0
        bundle_all(self.pc)
        text = sdp.build(repaired.description)
        await self.pc.setRemoteDescription(RTCSessionDescription(text, type_))
        self._check()
        self.remote = repaired
        self._pins.learn(repaired.original)
        self._extensions.learn(repaired.description, self.pc)
        answered = type_ == "answer"
        self._sections.adopt(repaired.original, repaired.rejected, self.pc, answered=answered)

    async def _describe(self, type_: str, description: sdp.Description) -> str:
        """Set our description; return it with all candidates."""
        bound_gathering(self.pc, self._gather_timeout)
        trust_relays(self.pc, self._ca_file, self.label)
        if self._relay_only:
            ice.relay_only(self.pc, self.label)
        if self.pc.sctp is not None:
            bound_reassembly(self.pc.sctp)
        given = RTCSessionDescription(sdp.build(description), type_)
        # Shielded: aioice leaves a socket open where its gathering is cancelled.
        with anyio.CancelScope(shield=True):
            await self.pc.setLocalDescription(given)
        self._check()
        complete = sdp.parse(self.pc.localDescription.sdp)
        self._sections.tell()
        theirs = () if self.remote is None else self.remote.original.sections
        complete = reject(complete, self._sections.rejected, theirs)
        # aiortc goes on naming a track that a section has ceased to send; Chromium refuses a
        # description that names it twice, once it is sent in another.
        named = (s if s.sends else replace(s, msid=None) for s in complete.sections)
        complete = replace(complete, sections=tuple(named))
        return self._number(complete)

    def _number(self, description: sdp.Description) -> str:
        """Return a description's text, with its number among ours."""
        self._version += 1
        return sdp.build(replace(description, origin_id=self._origin, origin_version=self._version))

    async def start_rest(self) -> None:
        """Start what was negotiated while DTLS was connecting.

        aiortc (1.14 to 1.16) starts senders and receivers after each description, unless the
        handshake is just under way: then never.
        """
        await start_rest(self.pc)

    def watch_path(self, timings: Timings, on_death: Callable[[], None]) -> None:
        """Call a function once the path that was found has died, unless it is closed before."""

        async def watch() -> None:
            self.path_died = await ice.path_died(self.pc, timings)
            if self.path_died:
                on_death()

        if self._watch is None and can_probe():
            self._watch = asyncio.get_running_loop().create_task(watch(), name=self.label)

    # --- candidates ---

    def add_candidate(self, candidate: Candidate) -> None:
        """Take a candidate for the present description of the other side."""
        self._counted += 1
        if self._counted > MAX_CANDIDATES:
            if self._counted == MAX_CANDIDATES + 1:
                logger.warning(
                    "%s: more than %d ICE candidates: the rest is ignored",
                    self.label,
                    MAX_CANDIDATES,
                )
            return
        if self.remote is None:
            return
        text = candidate.candidate.removeprefix("candidate:")
        mid, index = self.remote.tagged
        here = index == candidate.sdp_m_line_index
        if candidate.sdp_mid is not None:
            here = mid == candidate.sdp_mid
        if not here:
            return
        problem = candidate_problem(text)
        if problem is not None:
            self._refuse(problem)
        elif is_usable_candidate(text):
            self._add(text)

    def _refuse(self, problem: str) -> None:
        if not self.closed:
            self._on_refused(problem)

    def end_candidates(self, end: EndOfCandidates) -> None:
        """Note that the present description has no more candidates.

        Only what names it counts: a marker without a name may be about an earlier one, and
        aiortc takes no candidate after it. What it is good for, an early failure, the
        deadline for connecting does as well.
        """
        if end.username_fragment is not None and end.username_fragment == self.fragment:
            self._add(None)

    def _add(self, text: str | None) -> None:
        # A browser's candidate may have a name to look up (mDNS), which takes its time.
        task = asyncio.get_running_loop().create_task(self._add_soon(text, tuple(self._adding)))
        self._adding.add(task)
        task.add_done_callback(self._adding.discard)

    async def _add_soon(self, text: str | None, before: Iterable[asyncio.Task[None]]) -> None:
        try:
            if text is None and before:
                await asyncio.wait(before)
            candidate = None if text is None else candidate_from_sdp(text)
            for transport in ice.transports(self.pc):
                await transport.addRemoteCandidate(candidate)
        except Exception as error:
            logger.debug("%s: an ICE candidate was not taken", self.label, exc_info=True)
            if text is not None:
                self._refuse(scrub(str(error)) or type(error).__name__)

    # --- the end ---

    async def close(self, within: float, *, quiet: bool) -> None:
        """Close it. With ``quiet`` the other side is not told: it finds out, or hears of us."""
        self.closed = True
        if self._watch is not None:
            self._watch.cancel()
        with anyio.move_on_after(self._gather_timeout + 1):
            await self._turn.acquire()  # aioice leaves a socket open where it is disturbed
        for task in self._adding:
            task.cancel()
        await close_quietly(self.pc, within, quiet=quiet)
