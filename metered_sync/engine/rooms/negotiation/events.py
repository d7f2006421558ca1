"""Name the events that a negotiation is told of, and the actions that it asks for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from metered_sync.wire.states import PeerConnectionState

__all__ = [
    "Action",
    "ActionFailed",
    "AnswerCame",
    "AnswerTaken",
    "AwaitedAction",
    "ChangeState",
    "Closing",
    "ConnectionState",
    "Event",
    "GiveUp",
    "Greet",
    "HelloCame",
    "InternalError",
    "MakeAnswer",
    "MakeOffer",
    "Observed",
    "OfferAnswered",
    "OfferCame",
    "OfferMade",
    "Rebuild",
    "RemoteDescription",
    "Replace",
    "Report",
    "RollBack",
    "Send",
    "StartMedia",
    "TakeAnswer",
    "TellReset",
    "Tick",
    "TracksDiffer",
    "UpdateTracks",
]

ConnectionState = Literal["new", "connecting", "connected", "closing", "failed", "closed"]
"""As in WebRTC; ``"closing"`` while aiortc closes, which changes one of its states first and the
other last."""


@dataclass(frozen=True)
class RemoteDescription:
    """What a negotiation needs to know of an offer or an answer of the other side."""

    fragment: str
    """The ICE user name fragment: another one means that the other side has begun anew."""
    origin_id: int
    """The peer connection there that made it."""
    origin_version: int
    """Rises with each description of that peer connection."""


# --- events ---


@dataclass(frozen=True)
class Observed:
    """The peer connection and the sections were looked at, ahead of any other event."""

    connection: ConnectionState = "new"
    unsettled: bool = False
    """Whether what was negotiated differs from what is wanted."""
    empty: bool = False
    """Whether there is nothing to make an offer of."""
    ice_completed: bool = False
    """Whether ICE has found a path."""
    has_candidates: bool = False
    """Whether any usable ICE candidate of the other side has come."""

    def what_is_missing(self) -> str:
        """Return why the connection has not come about, though descriptions were exchanged."""
        if self.ice_completed:
            return "the DTLS handshake failed"
        if not self.has_candidates:
            return "the peer has sent no address to reach it at (ICE candidates)"
        return "no network path was found (ICE): a firewall may block UDP"


@dataclass(frozen=True)
class Tick:
    """Nothing came; time has passed."""


@dataclass(frozen=True)
class OfferCame:
    """An offer of the other side came."""

    offer: RemoteDescription
    is_answered: bool
    """Whether it is, to the letter, the one that we have answered last."""
    can_roll_back: bool
    """Whether our own offer, if there is one, can be taken back for it."""


@dataclass(frozen=True)
class AnswerCame:
    """An answer of the other side came."""

    answer: RemoteDescription
    fits: bool
    """Whether it may be one to our offer: it has the same sections, and was not taken before."""
    differs: bool
    """Whether it says something else of tracks than the description that we have."""


@dataclass(frozen=True)
class HelloCame:
    """The other side has said that it has this library, too."""

    offers: bool
    """Whether it has something to offer."""


@dataclass(frozen=True)
class OfferMade:
    """Our offer is made."""


@dataclass(frozen=True)
class OfferAnswered:
    """The other side's offer is taken, and our answer made."""

    in_use: bool
    """Whether any section is in use: without one nothing connects."""


@dataclass(frozen=True)
class AnswerTaken:
    """The other side's answer is taken."""

    in_use: bool
    """Whether any section is in use: without one nothing connects."""
    refused: bool = False
    """Whether it refuses a track that we want to send."""


@dataclass(frozen=True)
class ActionFailed:
    """What was to be made or taken could not be."""

    problem: str
    stage: str


@dataclass(frozen=True)
class TracksDiffer:
    """A track of the other side cannot be received on this generation any more."""


@dataclass(frozen=True)
class Rebuild:
    """Signalling is back: the other side may have forgotten us, or we it."""

    polite: bool
    """Whether this side gives way from now on."""
    used: bool
    """Whether anything was done with the present generation."""


@dataclass(frozen=True)
class InternalError:
    """Something went wrong that should not have."""

    problem: str


@dataclass(frozen=True)
class Closing:
    """The connection is closed, for good."""


Event = (
    Observed
    | Tick
    | OfferCame
    | AnswerCame
    | HelloCame
    | OfferMade
    | OfferAnswered
    | AnswerTaken
    | ActionFailed
    | TracksDiffer
    | Rebuild
    | InternalError
    | Closing
)

# --- actions ---


@dataclass(frozen=True)
class MakeOffer:
    """Make an offer; then tell of :class:`OfferMade` or :class:`ActionFailed`."""


@dataclass(frozen=True)
class MakeAnswer:
    """Take the offer that came, and make an answer; then tell of :class:`OfferAnswered`…"""


@dataclass(frozen=True)
class TakeAnswer:
    """Take the answer that came; then tell of :class:`AnswerTaken` or :class:`ActionFailed`."""


@dataclass(frozen=True)
class Greet:
    """Say hello, and whether we have something to offer."""

    offers: bool


@dataclass(frozen=True)
class Send:
    """Send our latest offer or answer, for the first time or again."""

    type: Literal["offer", "answer"]


@dataclass(frozen=True)
class RollBack:
    """Take our offer back, for the one that came."""


@dataclass(frozen=True)
class Replace:
    """Put a new generation in the place of the present one."""


@dataclass(frozen=True)
class StartMedia:
    """Start what was negotiated while the connection came about."""


@dataclass(frozen=True)
class UpdateTracks:
    """See which tracks the other side sends now; perhaps tell of :class:`TracksDiffer`."""


@dataclass(frozen=True)
class ChangeState:
    """Tell the owner of another state."""

    state: PeerConnectionState


@dataclass(frozen=True)
class TellReset:
    """Tell the owner that there is a new generation."""


@dataclass(frozen=True)
class Report:
    """Tell the owner of a negotiation that failed."""

    problem: str
    stage: str


@dataclass(frozen=True)
class GiveUp:
    """Tell the owner that no more attempts follow."""

    problem: str
    stage: str


AwaitedAction = MakeOffer | MakeAnswer | TakeAnswer
"""Actions that take time. Until their outcome is told, nothing else is but what interrupts them:
:class:`Rebuild` and :class:`Closing`, after which there is no outcome."""
Action = (
    AwaitedAction
    | Greet
    | Send
    | RollBack
    | Replace
    | StartMedia
    | UpdateTracks
    | ChangeState
    | TellReset
    | Report
    | GiveUp
)
