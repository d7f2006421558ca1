"""Say what a session description says: one frozen value for each thing in it."""

from __future__ import annotations

from dataclasses import dataclass, field

__all__ = [
    "DIRECTIONS",
    "Codec",
    "Description",
    "Extension",
    "Fingerprint",
    "Section",
    "SsrcGroup",
]

DIRECTIONS = ("sendrecv", "sendonly", "recvonly", "inactive")
"""The four directions of a media section, as its writer sees them."""


@dataclass(frozen=True)
class Codec:
    """One payload type of a media section."""

    payload_type: int
    """0 to 127."""
    name: str
    """The encoding's name as written, e.g. ``"VP8"``; compare without regard to case."""
    clock_rate: int
    """Ticks per second of the RTP timestamp."""
    channels: int = 1
    """Audio channels; 1 for video."""
    fmtp: str = ""
    """The format parameters as written, e.g. ``"packetization-mode=1"``."""
    feedback: tuple[str, ...] = ()
    """RTCP feedback messages (RFC 4585), e.g. ``("nack", "nack pli")``."""

    @property
    def parameters(self) -> dict[str, str]:
        """Return the format parameters by lower-case name; a bare value has the empty string."""
        result = {}
        for item in self.fmtp.split(";"):
            name, _, value = item.strip().partition("=")
            if name:
                result[name.strip().lower()] = value.strip()
        return result


@dataclass(frozen=True)
class Extension:
    """An RTP header extension (``extmap``)."""

    id: int
    uri: str


@dataclass(frozen=True)
class Fingerprint:
    """The hash of the certificate that DTLS will show."""

    algorithm: str
    """Lower case, e.g. ``"sha-256"``."""
    value: str
    """Upper-case hexadecimal pairs with colons."""


@dataclass(frozen=True)
class SsrcGroup:
    """Streams that belong together, e.g. ``FID`` (retransmission) or ``SIM``."""

    semantics: str
    ssrcs: tuple[int, ...]


@dataclass(frozen=True)
class Section:
    """One media section. Directions and setup roles are those of the text's writer."""

    kind: str
    """``"audio"``, ``"video"``, ``"application"`` or another media type."""
    mid: str = ""
    """The section's name; empty if it has none."""
    port: int = 9
    """0 means rejected or stopped (but see :attr:`rejected`)."""
    protocol: str = "UDP/TLS/RTP/SAVPF"
    formats: tuple[str, ...] = ()
    """The formats of the ``m=`` line; :func:`build` uses the codecs when there are any."""
    direction: str = "sendrecv"
    codecs: tuple[Codec, ...] = ()
    extensions: tuple[Extension, ...] = ()
    msid: tuple[str, str] | None = None
    """Stream id and track id; the track id is empty when the writer gave none."""
    ssrcs: tuple[int, ...] = ()
    """The streams announced with ``ssrc`` lines, each once, in order."""
    ssrc_groups: tuple[SsrcGroup, ...] = ()
    cname: str = ""
    """The ``cname`` of the ``ssrc`` lines."""
    rids: tuple[tuple[str, str], ...] = ()
    """Names of simulcast layers with their direction (``"send"`` or ``"recv"``)."""
    simulcast: str = ""
    """The ``simulcast`` attribute as written."""
    ice_ufrag: str = ""
    ice_pwd: str = field(default="", repr=False)
    fingerprints: tuple[Fingerprint, ...] = ()
    setup: str = ""
    """``"actpass"``, ``"active"``, ``"passive"``, or empty."""
    rtcp_mux: bool = False
    rtcp_rsize: bool = False
    bundle_only: bool = False
    candidates: tuple[str, ...] = ()
    """ICE candidates as written after ``candidate:``."""
    end_of_candidates: bool = False
    sctp_port: int | None = None
    max_message_size: int | None = None

    @property
    def rejected(self) -> bool:
        """Return whether the section is not in use: port 0, and not merely bundle-only."""
        return self.port == 0 and not self.bundle_only

    @property
    def sends(self) -> bool:
        """Return whether the writer sends media in this section."""
        return not self.rejected and self.direction in ("sendrecv", "sendonly")

    @property
    def receives(self) -> bool:
        """Return whether the writer is ready to receive media in this section."""
        return not self.rejected and self.direction in ("sendrecv", "recvonly")


@dataclass(frozen=True)
class Description:
    """A whole session description, parsed."""

    sections: tuple[Section, ...] = ()
    bundle: tuple[str, ...] = ()
    """The mids that share one transport, the first one's."""
    ice_lite: bool = False
    origin_id: int = 0
    """The session id of the ``o=`` line."""
    origin_version: int = 0
    """The version of the ``o=`` line; each new description of a writer has the next."""
