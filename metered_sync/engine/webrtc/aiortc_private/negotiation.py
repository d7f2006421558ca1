"""Reach into negotiation: sections, what was agreed on, and offers that are taken back."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from aiortc import RTCIceTransport, RTCPeerConnection, RTCRtpTransceiver

from metered_sync.engine.webrtc.aiortc_private.capabilities import Capability, can
from metered_sync.engine.webrtc.aiortc_private.names import (
    CONNECT,
    PENDING_DESCRIPTION,
    REMOTE_DTLS,
    REMOTE_ICE,
    SET_SIGNALING_STATE,
    TRANSCEIVERS,
)

__all__ = [
    "bundle_all",
    "can_take_offer_back",
    "can_take_place",
    "discard",
    "keep_agreed",
    "retire",
    "section_index",
    "set_mid",
    "set_offered",
    "set_section_index",
    "set_unoffered",
    "start_rest",
    "take_offer_back",
    "take_place",
]


def keep_agreed(pc: RTCPeerConnection) -> Callable[[], None]:
    """Return a function that restores the codecs and header extensions that are agreed on now.

    For making an offer forgets them, and senders and receivers may be started any time.
    """
    if not can(Capability.CODECS):
        return lambda: None
    agreed: list[tuple[Any, Any, Any]] = [
        (transceiver, transceiver._codecs, transceiver._headerExtensions)
        for transceiver in pc.getTransceivers()
        if transceiver.currentDirection is not None
    ]

    def restore() -> None:
        for transceiver, codecs, extensions in agreed:
            transceiver._codecs, transceiver._headerExtensions = codecs, extensions

    return restore


def section_index(transceiver: RTCRtpTransceiver, default: int) -> int:
    """Return the place of a transceiver's section in the latest description of ours."""
    index = transceiver._get_mline_index() if can(Capability.SECTIONS) else None
    return default if index is None else index


def set_section_index(transceiver: RTCRtpTransceiver, index: int | None) -> None:
    """Give a transceiver a section; ``None``: the next new one."""
    if can(Capability.SECTIONS):
        transceiver._set_mline_index(index)  # type: ignore[arg-type]


def retire(transceiver: RTCRtpTransceiver) -> None:
    """Leave a transceiver out of descriptions: another one takes the place of its section.

    aiortc does not know of that (RFC 9429, section 5.2.2): it would go on with the old one.
    """
    transceiver.direction = "inactive"
    set_offered(transceiver, "inactive")
    set_section_index(transceiver, None)


def discard(pc: RTCPeerConnection, transceiver: RTCRtpTransceiver) -> None:
    """Forget a retired transceiver, just before an offer that gives its place away is applied.

    aiortc keeps each until the end, and looks at all of them for each description. What sent and
    received there is to be stopped by the caller.
    """
    if can(Capability.FORGETTING):
        getattr(pc, TRANSCEIVERS).remove(transceiver)
        getattr(pc, REMOTE_ICE).pop(transceiver, None)
        getattr(pc, REMOTE_DTLS).pop(transceiver, None)


def can_take_place() -> bool:
    """Return whether :func:`take_place` is possible."""
    return can(Capability.SECTIONS) and can(Capability.FORGETTING)


def take_place(pc: RTCPeerConnection, new: RTCRtpTransceiver, old: RTCRtpTransceiver) -> None:
    """Give a new transceiver the section of one that sends no more, which is forgotten.

    A sender of aiortc's that was stopped never sends again. What the old one sends and receives is
    to be stopped by the caller.
    """
    mid, index = old.mid, section_index(old, 0)
    retire(old)
    discard(pc, old)
    set_mid(new, mid)
    set_section_index(new, index)


def set_mid(transceiver: RTCRtpTransceiver, mid: str | None) -> None:
    """Name a transceiver's section; ``None``: it has none yet."""
    if can(Capability.SECTIONS):
        transceiver._set_mid(mid)  # type: ignore[arg-type]


def set_offered(transceiver: RTCRtpTransceiver, direction: str) -> None:
    """Note the direction that the other side has offered for a transceiver."""
    if can(Capability.SECTIONS):
        transceiver._offerDirection = direction


def set_unoffered(pc: RTCPeerConnection) -> None:
    """Note of each transceiver without a section in an offer that it is inactive.

    An answer fails on one that nothing is noted of: ``None is not in list``.
    """
    for transceiver in pc.getTransceivers():
        if getattr(transceiver, "_offerDirection", "") is None:
            transceiver._offerDirection = "inactive"


def bundle_all(pc: RTCPeerConnection) -> None:
    """Have everything on one transport count as bundled already.

    Bundling would stop the shared transport as soon as the first section of the group is not
    the one that it was made for.
    """
    if can(Capability.BUNDLES):
        for one in (*pc.getTransceivers(), pc.sctp):
            if one is not None:
                one._bundled = True


def can_take_offer_back() -> bool:
    """Return whether :func:`take_offer_back` is possible."""
    return can(Capability.ROLLBACK)


def take_offer_back(pc: RTCPeerConnection, undecided: Iterable[RTCIceTransport]) -> bool:
    """Take our offer back; say whether that was possible.

    All that an offer leaves behind are its description, a state, its new sections (which are
    the caller's affair) and, where it was the first, the ICE role of the side that offers.

    Args:
        pc: The peer connection.
        undecided: Transports whose role the other side's offer decides.
    """
    if not can(Capability.ROLLBACK):
        return False
    setattr(pc, PENDING_DESCRIPTION, None)
    getattr(pc, SET_SIGNALING_STATE)("stable")
    for transport in undecided:
        transport._role_set = False
    return True


async def start_rest(pc: RTCPeerConnection) -> None:
    """Start what was negotiated while DTLS was connecting.

    Senders and receivers are started after each description, unless the handshake is just
    under way: then never.
    """
    if can(Capability.STARTING):
        await getattr(pc, CONNECT)()
