"""Make offers and answers on one peer connection to the SFU, and take the SFU's.

aiortc and the SFU do not agree on everything that a description may have: what each is to see
of the other's is fitted to it here. A section that is rejected, by the SFU or because what is
sent there cannot be decoded, is one that aiortc would fail on.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import anyio
from aiortc import RTCRtpTransceiver, RTCSessionDescription

from metered_sync.bridge.clock import monotonic
from metered_sync.engine.sending.outlet import Outlet
from metered_sync.engine.sfu.options import SfuOptions
from metered_sync.engine.webrtc.aiortc_private.negotiation import (
    can_take_place,
    discard,
    retire,
    section_index,
    take_place,
)
from metered_sync.engine.webrtc.aiortc_private.routing import stop_receiver
from metered_sync.engine.webrtc.aiortc_private.sctp import bound_reassembly
from metered_sync.engine.webrtc.header_extensions import PictureExtensions
from metered_sync.engine.webrtc.ice import path as ice_path
from metered_sync.engine.webrtc.ice import relay_only, transports
from metered_sync.engine.webrtc.peer_connection import (
    bound_gathering,
    peer_connection,
    trust_relays,
)
from metered_sync.engine.webrtc.sdp_repair import placeholder, reject
from metered_sync.engine.webrtc.stream_formats import (
    StreamFormat,
    admit,
    offer_only,
    restore_profiles,
)
from metered_sync.errors import NegotiationFailedError
from metered_sync.wire import sdp
from metered_sync.wire import sfu as wire
from metered_sync.wire.secrets import scrub

__all__ = ["Progress", "SfuConnection"]


@dataclass
class Progress:
    """The stage of the current call, for the message of its timeout."""

    stage: str = "start"
    sent: bool = False
    """Whether its request has left."""


class SfuConnection:
    """One peer connection to the SFU, and the descriptions of both sides."""

    def __init__(self, label: str, options: SfuOptions, progress: Progress) -> None:
        """Prepare; ``progress`` is told the stages of what is being done."""
        self.pc = peer_connection(options.ice_servers)
        self.unagreed = False
        """Whether our description and the SFU's may differ, so that there is no way back."""
        self.refused: set[str] = set()
        """Media sections that are rejected: by the SFU, or because what is sent there cannot be
        decoded. The SFU gives their places to others."""
        self.formats: dict[RTCRtpTransceiver, StreamFormat] = {}
        """The formats of what is sent encoded already, and was."""
        self._reuses = can_take_place()
        """Whether a section in which a track was sent is used for another one."""
        self._free: list[RTCRtpTransceiver] = []
        """Transceivers that have sent in such sections."""
        self._reused: set[RTCRtpTransceiver] = set()
        """Transceivers that send in one."""
        self._extensions = PictureExtensions()
        self._label = label
        self._options = options
        self._progress = progress
        self._heard = (0, monotonic())

    def at(self, stage: str) -> None:
        """Note the stage of the current call."""
        self._progress.stage = stage

    @property
    def ended(self) -> bool:
        """Whether media can flow no more."""
        # A moment before an event says so, aiortc raises errors of its own.
        states = [t.receiver.transport.state for t in self.pc.getTransceivers()[:1]]
        return self.pc.signalingState == "closed" or states in (["closed"], ["failed"])

    # --- sections that are used again ---

    def send(self, outlet: Outlet) -> RTCRtpTransceiver:
        """Add a track to the next offer: in a section that is free again, or in a new one."""
        transceiver = self.pc.addTransceiver(outlet, direction="sendonly")
        old = next((one for one in self._free if one.kind == outlet.kind), None)
        if old is not None:
            self._free.remove(old)
            self.formats.pop(old, None)
            take_place(self.pc, transceiver, old)
            self._reused.add(transceiver)
        return transceiver

    async def end_sending(self, transceiver: RTCRtpTransceiver) -> None:
        """Stop sending in a section, when the SFU knows that its track is over."""
        await transceiver.sender.stop()  # its reports would go on
        self._reused.discard(transceiver)
        if (
            self._reuses
            and transceiver in self.pc.getTransceivers()
            and transceiver.mid not in self.refused
        ):
            self._free.append(transceiver)

    def give_up_reuse(self, refused: Iterable[RTCRtpTransceiver]) -> bool:
        """Use new sections only, if the SFU has refused one that was used again; say whether.

        The service does not say that it takes another track there, as an SFU should.
        """
        again = any(one in self._reused and one not in self.formats for one in refused)
        if again:
            self._reuses = False
            self._free.clear()
        return again

    # --- descriptions ---

    async def offer(self) -> wire.SessionDescription:
        """Make an offer, and return it as the SFU is to see it."""
        self.unagreed = True
        bound_gathering(self.pc, self._options.gather_timeout)
        trust_relays(self.pc, self._options.ca_file, self._label)
        if self._options.relay_only:
            relay_only(self.pc, self._label)
        # Shielded: aioice leaves a socket open where its gathering is cancelled.
        with self.mapping_errors("offer", "no offer can be made"), anyio.CancelScope(shield=True):
            offer = sdp.parse((await self.pc.createOffer()).sdp)
            offer = self._extensions.offer(offer_only(offer, self._by_mid(offer)))
            await self.pc.setLocalDescription(RTCSessionDescription(sdp.build(offer), "offer"))
        self.at("HTTP")
        return self._described()

    async def answer(self, offer: sdp.Description) -> wire.SessionDescription:
        """Answer an offer that was applied, and return the answer as the SFU is to see it."""
        with self.mapping_errors("answer", "no answer can be made to the SFU's offer"):
            answer = sdp.parse((await self.pc.createAnswer()).sdp)
            answer = restore_profiles(self._extensions.answer(answer, offer), offer)
            await self.pc.setLocalDescription(RTCSessionDescription(sdp.build(answer), "answer"))
        return self._described()

    def _by_mid(self, description: sdp.Description) -> dict[str, StreamFormat]:
        """Return the formats of what is sent encoded already, by the mids of a description."""
        mids = [section.mid for section in description.sections]
        indices = {section_index(one, -1): f for one, f in self.formats.items()}
        return {mids[index]: f for index, f in indices.items() if 0 <= index < len(mids)}

    def _described(self) -> wire.SessionDescription:
        """Return our description as the SFU is to see it: with rejected sections."""
        local: Any = self.pc.localDescription
        if not self.refused:
            return wire.SessionDescription(local.type, local.sdp)
        text = sdp.build(reject(sdp.parse(local.sdp), self.refused))
        return wire.SessionDescription(local.type, text)

    def read_answer(self, description: wire.SessionDescription) -> sdp.Description:
        """Return an answer of the SFU's, in which sections that it rejects may lack their mids."""
        answer, ours = self.read(description), sdp.parse(self.pc.localDescription.sdp)
        sections = (
            section if section.mid else replace(section, mid=mine.mid)
            for section, mine in zip(answer.sections, ours.sections, strict=False)
        )
        return replace(answer, sections=tuple(sections))

    def read(self, description: wire.SessionDescription) -> sdp.Description:
        """Return a description of the SFU's."""
        try:
            return sdp.parse(description.sdp)
        except sdp.SdpError as error:
            what = description.type
            raise NegotiationFailedError(
                f"{self._label}: the SFU's {what} cannot be read: {error}", stage=what
            ) from None

    def _fitted(self, read: sdp.Description) -> sdp.Description:
        """Return what aiortc can take: it fails on a section without a codec it knows."""
        formats = self._by_mid(read)
        admitted = (admit(section, formats.get(section.mid)) for section in read.sections)
        fitted = replace(read, sections=tuple(admitted))
        unfit = self.refused & {section.mid for section in fitted.sections}
        tagged = next((s for s in fitted.sections if s.ice_ufrag), None)
        if not unfit or tagged is None:
            return fitted
        sections = (
            placeholder(s, tagged, formats.get(s.mid)) if s.mid in unfit else s
            for s in fitted.sections
        )
        bundle = dict.fromkeys((*fitted.bundle, *unfit))
        return replace(fitted, sections=tuple(sections), bundle=tuple(bundle))

    async def _forget_recycled(self, description: sdp.Description) -> None:
        """Give up sections in whose place the SFU offers others."""
        for transceiver in self.pc.getTransceivers():
            index = section_index(transceiver, -1)
            here = description.sections[index : index + 1] if index >= 0 else ()
            if here and transceiver.mid not in (None, here[0].mid):
                retire(transceiver)
                if len(self.pc.getTransceivers()) > 1 or self.pc.sctp is not None:
                    discard(self.pc, transceiver)  # (the last one has the transport)
                if transceiver in self._free:
                    self._free.remove(transceiver)
                await stop_receiver(transceiver.receiver)
                await transceiver.sender.stop()

    async def apply(self, description: wire.SessionDescription, read: sdp.Description) -> None:
        """Set a description of the SFU's, which has been read: aiortc's reader has no limits."""
        fitted = self._fitted(read)
        text = description.sdp if fitted == read else sdp.build(fitted)
        problem = f"the SFU's {description.type} cannot be applied"
        with self.mapping_errors(description.type, problem):
            await self._forget_recycled(fitted)
            await self.pc.setRemoteDescription(RTCSessionDescription(text, description.type))
            self._extensions.learn(fitted, self.pc)
            if self.pc.sctp is not None:  # it offers data channels, which nobody uses here
                bound_reassembly(self.pc.sctp)
        if description.type == "answer":
            self.unagreed = False

    @contextlib.contextmanager
    def mapping_errors(self, stage: str, problem: str) -> Iterator[None]:
        """Map the errors that aiortc raises."""
        self.at(stage)
        try:
            yield
        except Exception as error:
            text = scrub(str(error)) or type(error).__name__
            raise NegotiationFailedError(f"{self._label}: {problem}: {text}", stage=stage) from (
                error if text == str(error) else None
            )

    # --- what it carries ---

    @property
    def idle_sections(self) -> int:
        """How many media sections carry nothing: a description has all that there ever were."""
        transceivers = self.pc.getTransceivers()
        return sum(one.currentDirection in (None, "inactive") for one in transceivers)

    def paths(self) -> list[dict[str, str]]:
        """Return the kinds of the ICE candidates that were chosen."""
        return [path for one in transports(self.pc) if (path := ice_path(one))]

    async def heard(self) -> float:
        """Return the seconds since media, or reports on it, last came: ICE does not count."""
        received, now = self._heard[0], monotonic()
        for transceiver in self.pc.getTransceivers()[:1]:  # they share one transport
            for entry in (await transceiver.sender.getStats()).values():
                if entry.type == "transport":
                    received = entry.bytesReceived
        if received != self._heard[0]:
            self._heard = (received, now)
        return now - self._heard[1]
