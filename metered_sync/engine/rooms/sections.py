"""Place tracks in the media sections of a connection to a peer, and keep the sections in order.

A connection keeps its sections over all its generations: a browser whose peer connection
lives on refuses an offer in which their order, their kinds or their number differ.

A track of ours takes a section that the other side offered, if it has room, or one of our
own. One with metadata takes one of our own: the JS client (1.2) finds metadata by the
track's id, and a browser takes over our id only where it makes the receiver for our offer.
Such a section is offered for sending only: else a browser puts a track of its own into it,
with the receiver that it has made for that (RFC 9429, section 5.10).

A track that is encoded already takes one of our own, too, in which nothing but its codec is
offered. Such a section is not used for anything else later: receivers know its codec.

A track that the other side refuses (it answers its section with port 0) is not offered again
until our tracks change, or a section of the other side has room for it. Where a section of the
other side is stopped, the track in it moves to another one; but only once, lest the two go on
for ever. A section of ours that was refused makes room for another one, under another mid
(RFC 9429, section 5.2.2). Not one that was in use: Chromium (156) receives nothing in its place.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from aiortc import RTCPeerConnection, RTCRtpTransceiver

from metered_sync.engine.rooms.slot import Slot
from metered_sync.engine.sending.local_track import LocalTrack
from metered_sync.engine.webrtc.aiortc_private.negotiation import set_mid, set_section_index
from metered_sync.engine.webrtc.aiortc_private.sending import put_codec_first
from metered_sync.engine.webrtc.encoding import pin_bitrate
from metered_sync.engine.webrtc.stream_formats import INSTEAD, StreamFormat
from metered_sync.wire.sdp import Description

__all__ = ["Sections"]

CROWDED_FROM = 32
"""Number of sections from which on a track with metadata, too, takes any that is free."""
WITHDRAWN_MID = " "
"""The mid of a section that was withdrawn, until it is offered again: no other section has it."""
UNUSED_CHANNEL_ID = 65534
"""The id of a channel that is never used: with it a section for data is offered again."""


class Sections:
    """All sections of one connection."""

    def __init__(self) -> None:
        self.slots: list[Slot] = []
        self.mids: set[str] = set()
        """All mids that the other side knows, those of recycled sections included."""
        self.tracks: tuple[LocalTrack, ...] = ()
        """The tracks that are to be sent, in order."""
        self._refused: set[LocalTrack] = set()
        """Those that the other side has refused."""
        self._moved: set[LocalTrack] = set()
        """Those whose section the other side has stopped."""
        self._told: set[LocalTrack] = set()
        """Those of which the user has been told."""
        self._data_refused = False
        """Whether it has refused a section for data channels along with all the rest."""

    @property
    def rejected(self) -> frozenset[str]:
        """The mids of those that are not in use."""
        return frozenset(slot.mid for slot in self.slots if slot.rejected)

    @property
    def in_use(self) -> bool:
        """Whether any is agreed on and not rejected: without one nothing connects."""
        return any(slot.agreed and not slot.rejected for slot in self.slots)

    def formats(self, *, agreed: bool = False) -> dict[str, StreamFormat]:
        """Return the formats of sections in which what is sent is encoded already, by mid.

        ``agreed``: of those that the other side knows; in an offer that crosses ours, another
        section may have the mid that we have given to one.
        """
        return {
            slot.mid: slot.format
            for slot in self.slots
            if slot.mid and slot.format is not None and (slot.agreed or not agreed)
        }

    def take_problems(self) -> list[str]:
        """Return, once, why tracks that are encoded already cannot be sent, and what to do."""
        told = [track for track in self._refused if track.format and track not in self._told]
        self._told.update(told)
        return [
            f"the peer does not take {track.format}, the codec of the {track.kind} track "
            f"{track.id!r}, which is encoded already; {INSTEAD}"
            for track in told
        ]

    @property
    def refused(self) -> bool:
        """Whether the other side does not want to receive a track of ours where it is sent."""
        return any(slot.refused for slot in self.slots) or bool(self._refused)

    @property
    def refuses_data(self) -> bool:
        """Whether the other side has refused the section for data channels."""
        data = [slot.rejected for slot in self.slots if slot.kind == "application"]
        return self._data_refused or (bool(data) and all(data))

    def renew(self) -> None:
        """Keep the sections for a new generation, and drop the transceivers of the old one."""
        self.release()
        self._forget_refusals()
        self._restore_given_up()
        self.slots = [slot for slot in self.slots if slot.agreed]
        for slot in self.slots:
            slot.transceiver = slot.outlet = None
            slot.refused = False

    def release(self) -> None:
        """Let go of the tracks."""
        for slot in self.slots:
            if slot.outlet is not None:
                slot.outlet.close()

    def set_tracks(self, tracks: Sequence[LocalTrack]) -> None:
        """Take the tracks that are to be sent; others fall silent at once."""
        if tuple(tracks) != self.tracks:
            self._forget_refusals()
        self.tracks = tuple(tracks)
        self._told.intersection_update(self.tracks)
        for slot in self.slots:
            if slot.local is not None and slot.local not in self.tracks:
                slot.detach()

    def replace(self, old: LocalTrack, new: LocalTrack | None) -> None:
        """Send another track in the place of one, without a word to the other side."""
        self._forget_refusals()
        replaced = [new if track is old else track for track in self.tracks]
        self.tracks = tuple(track for track in replaced if track is not None)
        for slot in self.slots:
            if slot.local is old:
                if new is None:
                    slot.detach()
                else:
                    slot.local = new
                    if slot.outlet is not None:
                        slot.outlet.switch(new)

    # --- what is refused ---

    def _forget_refusals(self) -> None:
        """Offer what was refused once more."""
        self._refused.clear()
        self._moved.clear()
        self._data_refused = False

    def _reject(self, slot: Slot, *, answered: bool) -> None:
        """Take note that the other side rejects a section; ``answered``: in answer to our offer."""
        local = slot.local
        if local is not None:
            if answered or local in self._moved:
                self._refused.add(local)
            self._moved.add(local)
            slot.detach()

    def refuse_all(self) -> None:
        """Take note that all of our first offer was refused, after it was withdrawn."""
        self._data_refused = True
        for slot in self.slots:
            self._reject(slot, answered=True)

    def want_data(self) -> None:
        """Offer a section for data channels once more, if it was refused."""
        self._data_refused = False

    def _give_place(self, slot: Slot) -> None:
        """Put a new section in the place of one that was refused, or at the end."""
        for index, old in enumerate(self.slots):
            if old.given_up and old.kind == slot.kind:
                slot.former, self.slots[index] = old, slot
                old.retire()
                return
        self.slots.append(slot)

    def _restore_given_up(self) -> list[Slot]:
        """Put sections back whose places were not agreed to be others'; return those others."""
        displacing = [slot for slot in self.slots if slot.former is not None]
        for slot in displacing:
            assert slot.former is not None
            self.slots[self.slots.index(slot)] = slot.former
            slot.former = None
        return displacing

    # --- what is left to negotiate ---

    def are_empty(self, pc: RTCPeerConnection) -> bool:
        """Return whether there is nothing to make an offer of."""
        return not (self.slots or self.tracks or pc.sctp)

    def unsettled(self, pc: RTCPeerConnection) -> bool:
        """Return whether what was negotiated differs from what is wanted."""
        placed = {slot.local for slot in self.slots if slot.transceiver is not None}
        if any(track not in placed and track not in self._refused for track in self.tracks):
            return True
        if pc.sctp is not None and pc.sctp.mid is None and not self._data_refused:
            return True
        return any(
            (slot.local is not None) != slot.sends
            or (slot.local is not None and slot.announced != slot.told)
            for slot in self.slots
            if slot.transceiver is not None and not slot.refused and not slot.rejected
        )

    # --- placing tracks ---

    def place_offered(self) -> None:
        """Attach tracks to the sections of an offer, once aiortc has it."""
        for slot in self.slots:
            if slot.transceiver is not None and slot.local is not None and slot.outlet is None:
                slot.attach(slot.local)  # where it was on the last generation
        for local in self._unplaced():
            self._take(local, agreed=True)
        for slot in self.slots:
            if slot.local is not None and slot.transceiver is not None:
                slot.transceiver.direction = "sendrecv"
                put_codec_first(slot.transceiver, slot.local.codec)

    def place_withdrawn(self, offer: Description, rejected: frozenset[str]) -> None:
        """Move withdrawn tracks into sections that only an offer has, before aiortc has the offer.

        As tracks do that were not offered yet; those with metadata wait for sections of our own.
        """
        known = {slot.mid for slot in self.slots}
        for index, section in enumerate(offer.sections):
            if section.mid in known or section.mid in rejected or not section.receives:
                continue
            for slot in self.slots:
                local, transceiver = slot.local, slot.transceiver
                if slot.mid or transceiver is None or local is None or local.apart:
                    continue
                if slot.kind == section.kind:
                    set_mid(transceiver, section.mid)
                    set_section_index(transceiver, index)
                    slot.mid, slot.ours = section.mid, False
                    break

    def place_all(self, pc: RTCPeerConnection) -> None:
        """Attach all tracks, before an offer is made; on a new generation, remake sections."""
        for slot in self.slots:
            one = slot.transceiver
            if one is not None and one.mid == WITHDRAWN_MID:
                set_mid(one, None)
        for slot in self.slots:
            if slot.transceiver is None:
                self._remake(slot, pc)
        for slot in self.slots:
            if slot.refused and slot.local is not None and not slot.ours:
                slot.detach()  # it goes to a section of our own
        for local in self._unplaced():
            if self._take(local):
                continue
            slot = Slot(local.kind, ours=True)
            slot.transceiver = pc.addTransceiver(local.kind)
            slot.attach(local)
            local.prefer_codec(slot.transceiver)
            self._give_place(slot)
        for slot in self.slots:
            if slot.local is not None and slot.transceiver is not None:
                alone = slot.ours and not slot.heard and slot.local.apart
                slot.transceiver.direction = "sendonly" if alone else "sendrecv"
        if pc.sctp is not None and not any(s.kind == "application" for s in self.slots):
            self.slots.append(Slot("application", ours=True))

    def _unplaced(self) -> list[LocalTrack]:
        placed = {slot.local for slot in self.slots if slot.transceiver is not None}
        return [track for track in self.tracks if track not in placed]

    def _take(self, local: LocalTrack, *, agreed: bool = False) -> bool:
        """Attach a track to a section that suits it; ``agreed``: that the other side knows."""
        crowded = len(self.slots) >= CROWDED_FROM
        for slot in self.slots:
            if slot.agreed >= agreed and slot.suits(local, crowded=crowded):
                slot.attach(local)
                return True
        return False

    @staticmethod
    def _remake(slot: Slot, pc: RTCPeerConnection) -> None:
        if slot.kind == "application":
            if pc.sctp is None:
                pc.createDataChannel("", negotiated=True, id=UNUSED_CHANNEL_ID)
        else:
            kind = slot.kind if slot.kind in ("audio", "video") else "audio"  # (as in a repair)
            slot.transceiver = pc.addTransceiver(kind, direction="recvonly")
            if slot.local is not None:
                slot.attach(slot.local)
                slot.local.prefer_codec(slot.transceiver)
            if slot.rejected:
                slot.transceiver.direction = "inactive"

    # --- what a description says ---

    def forget_recycled(self, remote: Description) -> None:
        """Give up sections in whose place an offer has others (RFC 9429, section 5.2.2).

        aiortc does not know this: it would go on taking the old one for the new.
        """
        for index, section in enumerate(remote.sections[: len(self.slots)]):
            slot = self.slots[index]
            if slot.mid not in ("", section.mid):
                slot.retire()
                self.slots[index] = Slot(section.kind, section.mid)

    def are_known_to(self, offer: Description) -> bool:
        """Return whether an offer has all that was agreed on, on earlier generations, in order."""
        agreed = [(slot.kind, slot.mid) for slot in self.slots if slot.agreed]
        return agreed == [(one.kind, one.mid) for one in offer.sections[: len(agreed)]]

    def withdraw(self, pc: RTCPeerConnection) -> None:
        """Withdraw the sections that only our offer has: the other side does not know them.

        They are offered again later. aiortc would put them into the other side's offer.
        """
        self.slots += self._restore_given_up()
        for slot in self.slots:
            if not slot.agreed:
                slot.mid = ""
                transceiver = slot.transceiver
                if transceiver is not None:
                    set_mid(transceiver, WITHDRAWN_MID)
                    set_section_index(transceiver, None)
                elif pc.sctp is not None:
                    pc.sctp.mid = None
        self.slots = [slot for slot in self.slots if slot.agreed or slot.transceiver is not None]

    def adopt(
        self,
        remote: Description,
        rejected: frozenset[str],
        pc: RTCPeerConnection,
        *,
        answered: bool,
    ) -> None:
        """Take over the sections of a description that aiortc has taken.

        Args:
            remote: The description.
            rejected: The mids of sections that are not in use.
            pc: The peer connection.
            answered: Whether it is an answer.
        """
        by_mid: dict[Any, RTCRtpTransceiver] = {t.mid: t for t in pc.getTransceivers()}
        self.mids.update(section.mid for section in remote.sections)
        # A new generation may have another order, or others altogether.
        known = {slot.mid: slot for slot in self.slots if slot.mid}
        withdrawn = [slot for slot in self.slots if not slot.mid]
        slots = []
        for section in remote.sections:
            slot = known.pop(section.mid, None)
            if slot is None or slot.kind not in (section.kind, "audio"):
                slot = Slot(section.kind)
            slot.mid, slot.agreed = section.mid, True
            slot.rejected, slot.room = section.mid in rejected, section.receives
            slot.heard = section.sends
            slot.given_up, slot.former = section.rejected and slot.ours and answered, None
            slot.transceiver = by_mid.get(section.mid)
            if slot.rejected:
                self._reject(slot, answered=answered)
            slots.append(slot)
        for slot in known.values():
            slot.transceiver = None
            if slot.outlet is not None:
                slot.outlet.close()
        self.slots = [*slots, *withdrawn]

    def tell(self) -> None:
        """Note that a description names the tracks that are attached."""
        for slot in self.slots:
            slot.told = slot.announced

    def settle(self, *, final: bool) -> None:
        """Note which tracks were agreed on; ``final``: in an answer to all that are wanted."""
        for slot in self.slots:
            if slot.local is not None and slot.transceiver is not None:
                slot.refused = final and not slot.sends
                if slot.sends:
                    self._refused.discard(slot.local)
                    pin_bitrate(slot.transceiver, slot.local.video_bitrate)
