"""Hold the media sections of a session, as both sides have agreed on them.

A slot is a section's place in the order of ``m=`` lines. It never moves; when both sides have
rejected it, another section may take the place (RFC 9429, section 5.2.2). One slot may carry a
track of the client and a subscription at once: browsers reuse the transceiver of a received
track when the page adds a track of its own.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Container, Iterable, Sequence
from dataclasses import dataclass

from metered_sync.local.sfu.codecs import (
    default_codecs,
    default_extensions,
    forwardable,
    known_extensions,
    merge,
)
from metered_sync.local.sfu.forward import PublishedTrack, TrackSubscription
from metered_sync.wire.sdp import Codec, Extension, Fingerprint, Section
from metered_sync.wire.sfu import PublishTrack

__all__ = ["Formats", "LocalTransport", "Slot"]


MakeTrack = Callable[[str, str, str], PublishedTrack]
"""A function that makes a track of a session, from its kind, mid and id."""


@dataclass(frozen=True)
class LocalTransport:
    """The SFU's end of the transport, as each section of its descriptions shows it."""

    ufrag: str
    password: str
    fingerprint: Fingerprint
    candidates: tuple[str, ...]
    setup: str
    """``"passive"`` in answers, ``"actpass"`` in offers (RFC 8842, section 5.2)."""

    def __repr__(self) -> str:
        return f"LocalTransport(ufrag={self.ufrag!r})"


class Formats:
    """The payload types and header extensions that a client has shown.

    The SFU's own offers use these numbers and never renumber any: a browser takes a new
    number for a new meaning, and its live video would stop.
    """

    def __init__(self) -> None:
        self._codecs: dict[str, tuple[Codec, ...]] = {}
        self._extensions: dict[str, tuple[Extension, ...]] = {}
        self.payload_types: set[int] = set()
        """All numbers that have a meaning in this session."""

    def learn(self, kind: str, codecs: Sequence[Codec], extensions: Sequence[Extension]) -> None:
        """Remember the numbers of a section, whoever wrote it."""
        self._codecs[kind] = merge(self._codecs.get(kind, ()), forwardable(codecs))
        known = self._extensions.get(kind, ())
        uris = {item.uri for item in known}
        news = (item for item in known_extensions(extensions) if item.uri not in uris)
        self._extensions[kind] = (*known, *news)
        self.payload_types.update(codec.payload_type for codec in codecs)

    def codecs(self, kind: str) -> tuple[Codec, ...]:
        """Return the table for this kind of media, or a default one."""
        return self._codecs.get(kind) or default_codecs(kind, self.payload_types)

    def extensions(self, kind: str) -> tuple[Extension, ...]:
        """Return the header extensions for this kind of media, or default ones."""
        if self._codecs.get(kind):
            return self._extensions[kind]
        return default_extensions(kind, [x for items in self._extensions.values() for x in items])


class Slot:
    """The place of one media section in a session's descriptions."""

    def __init__(self, section: Section) -> None:
        self.mid = section.mid
        self.kind = section.kind
        self.protocol = section.protocol
        self.formats = section.formats
        self.codecs: tuple[Codec, ...] = ()
        self.extensions: tuple[Extension, ...] = ()
        self.rtcp_rsize = section.rtcp_rsize
        self.sctp_port = section.sctp_port
        self.max_message_size = section.max_message_size
        self.rejected = False
        """Whether both sides have given the section up."""
        self.spent = False
        """Whether its subscription is over: the SFU's next offer gives the section up."""
        self.client_sends = False
        self.client_receives = False
        self.track: PublishedTrack | None = None
        self._announced_id = ""
        """The track id of the msid that the client last showed."""
        self._named = False
        """Whether the track was published by a call, under an id of the caller's choice."""
        self.subscription: TrackSubscription | None = None
        self.closed_msid: tuple[str, str] | None = None
        """The msid of a closed track: while the section still shows it, there is no new one."""

    @property
    def is_media(self) -> bool:
        """Return whether RTP may flow here."""
        return self.kind in ("audio", "video")

    def take(self, section: Section) -> bool:
        """Take over a client's section; `False` if the SFU cannot accept it.

        A data channel section is accepted, so that a client may connect with nothing else;
        the SFU speaks no SCTP, and the channel itself never opens.
        """
        self.client_sends, self.client_receives = section.sends, section.receives
        self.formats = section.formats
        if section.rejected:
            return False
        if not self.is_media:
            self.sctp_port = section.sctp_port
            return self.kind == "application" and "DTLS/SCTP" in section.protocol
        self.codecs = forwardable(section.codecs)
        self.extensions = known_extensions(section.extensions)
        self.rtcp_rsize = section.rtcp_rsize
        return bool(self.codecs) and "RTP/SAVP" in section.protocol

    def offer(
        self,
        subscription: TrackSubscription,
        codecs: Sequence[Codec],
        extensions: Iterable[Extension],
    ) -> None:
        """Prepare the slot for the SFU's offer of *subscription*."""
        self.subscription = subscription
        self.codecs, self.extensions = tuple(codecs), tuple(extensions)
        self.formats = tuple(str(codec.payload_type) for codec in codecs)
        self.rtcp_rsize = True

    # --- the client's track ---

    def announce(self, section: Section, taken: Container[str], make: MakeTrack) -> None:
        """Note the track that a client's section may carry; a packet will show whether it does.

        An idle ``sendrecv`` section has an msid as well, so the msid alone proves nothing.

        Args:
            section: The section, already taken over.
            taken: Track ids of the session.
            make: Makes a track.
        """
        if not section.sends:
            self.closed_msid = None
            if self.track is not None and not self.track.listed:
                self.end_track()
            return
        announced = section.msid[1] if section.msid is not None else ""
        if self._announced_id not in ("", announced) and not self._named:
            self.end_track()  # Another track took the transceiver over.
        if self.track is None and (self.closed_msid is None or self.closed_msid != section.msid):
            track_id = announced if announced and announced not in taken else uuid.uuid4().hex
            self.track = make(self.kind, self.mid, track_id)
            self._named, self.closed_msid = False, None
        self._announced_id = announced
        if self.track is not None:
            self.track.configure(self.codecs, self.extensions)

    def publish(self, wish: PublishTrack, make: MakeTrack) -> None:
        """List the section's track under the id and name of a call."""
        if self.track is not None and self._named and self.track.track_id != wish.track_id:
            self.end_track()
        if self.track is None:
            self.track = make(self.kind, self.mid, wish.track_id)
            self.track.configure(self.codecs, self.extensions)
        self.track.track_id, self.track.name = wish.track_id, wish.name
        self.track.listed = self._named = True
        self.closed_msid = None

    def publishes(self, track_id: str) -> bool:
        """Return whether the client's track has this id."""
        return self.track is not None and self.track.track_id == track_id

    def close_track(self, msid: tuple[str, str] | None) -> None:
        """End the client's track, whether or not its section still sends, under this msid."""
        self.end_track()
        self.closed_msid = msid

    def end_track(self) -> None:
        """End the client's track, if there is one."""
        if self.track is not None:
            self.track.end()
            self.track = None

    # --- the subscription ---

    def release(self) -> None:
        """Drop a subscription whose track has ended."""
        if self.subscription is not None and self.subscription.track.ended:
            self.subscription = None
            self.spent = self.track is None

    def reject(self) -> None:
        """Give the section up, with all that it carried."""
        self.rejected = True
        self.client_sends = self.client_receives = False
        self.end_track()
        self.end_subscription()

    def receives(self, track_id: str) -> bool:
        """Return whether the client may call its subscription by this id."""
        return self.subscription is not None and self.subscription.is_called(track_id)

    def close_subscription(self) -> None:
        """End the subscription, and the section with it unless it carries more."""
        self.end_subscription()
        self.spent = self.track is None

    def end_subscription(self) -> None:
        """End the subscription, if there is one."""
        if self.subscription is not None:
            self.subscription.track.detach(self.subscription)
            self.subscription = None

    # --- the SFU's side of the section ---

    def answer_section(self, transport: LocalTransport) -> Section:
        """Return the section for an answer: within what the client has offered."""
        sends = self.subscription is not None and self.client_receives
        return self._section(transport, sends, self.rejected)

    def offer_section(self, transport: LocalTransport) -> Section:
        """Return the section for an offer; a spent one is offered for rejection."""
        sends = self.subscription is not None
        spent = self.spent and self.track is None and not self.client_sends
        return self._section(transport, sends, self.rejected or spent)

    def _section(self, transport: LocalTransport, sends: bool, rejected: bool) -> Section:
        if rejected:
            # The codecs stay: aiortc ignores the port and wants at least one.
            return Section(
                kind=self.kind,
                mid=self.mid,
                port=0,
                protocol=self.protocol,
                formats=self.formats,
                direction="inactive",
                codecs=self.codecs,
                ice_ufrag=transport.ufrag,
                ice_pwd=transport.password,
                fingerprints=(transport.fingerprint,),
                setup=transport.setup,
                rtcp_mux=self.is_media,
            )
        directions = {
            (True, True): "sendrecv",
            (True, False): "sendonly",
            (False, True): "recvonly",
            (False, False): "inactive",
        }
        subscription = self.subscription if sends else None
        return Section(
            kind=self.kind,
            mid=self.mid,
            protocol=self.protocol,
            formats=self.formats,
            direction=directions[sends, self.client_sends] if self.is_media else "sendrecv",
            codecs=self.codecs,
            extensions=self.extensions,
            msid=subscription.msid if subscription is not None else None,
            ssrcs=(subscription.ssrc,) if subscription is not None else (),
            cname=subscription.track.session_id if subscription is not None else "",
            ice_ufrag=transport.ufrag,
            ice_pwd=transport.password,
            fingerprints=(transport.fingerprint,),
            setup=transport.setup,
            rtcp_mux=self.is_media,
            rtcp_rsize=self.rtcp_rsize,
            candidates=transport.candidates,
            end_of_candidates=True,
            sctp_port=self.sctp_port,
            max_message_size=self.max_message_size,
        )
