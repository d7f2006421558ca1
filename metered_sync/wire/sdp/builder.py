"""Write session descriptions."""

from __future__ import annotations

from collections.abc import Iterable

from metered_sync.wire.sdp.description import Codec, Description, Section

__all__ = ["build"]


def build(description: Description) -> str:
    """Return the text of *description*, with CRLF line ends."""
    lines = [
        "v=0",
        f"o=- {description.origin_id} {description.origin_version} IN IP4 127.0.0.1",
        "s=-",
        "t=0 0",
    ]
    if description.bundle:
        lines.append("a=group:BUNDLE " + " ".join(description.bundle))
    if description.ice_lite:
        lines.append("a=ice-lite")
    lines.append("a=msid-semantic:WMS *")
    for section in description.sections:
        lines.extend(_section_lines(section))
    return "\r\n".join(lines) + "\r\n"


def _section_lines(section: Section) -> Iterable[str]:
    formats = [str(codec.payload_type) for codec in section.codecs] or section.formats
    yield f"m={section.kind} {section.port} {section.protocol} {' '.join(formats)}"
    yield "c=IN IP4 0.0.0.0"
    if section.protocol.endswith("SAVPF"):
        yield "a=rtcp:9 IN IP4 0.0.0.0"
    if section.ice_ufrag:
        yield f"a=ice-ufrag:{section.ice_ufrag}"
        yield f"a=ice-pwd:{section.ice_pwd}"
    for fingerprint in section.fingerprints:
        yield f"a=fingerprint:{fingerprint.algorithm} {fingerprint.value}"
    if section.setup:
        yield f"a=setup:{section.setup}"
    if section.mid:
        yield f"a=mid:{section.mid}"
    if section.bundle_only:
        yield "a=bundle-only"
    for extension in section.extensions:
        yield f"a=extmap:{extension.id} {extension.uri}"
    yield f"a={section.direction}"
    if section.msid is not None:
        yield "a=msid:" + " ".join(section.msid).rstrip()
    if section.rtcp_mux:
        yield "a=rtcp-mux"
    if section.rtcp_rsize:
        yield "a=rtcp-rsize"
    for codec in section.codecs:
        yield from _codec_lines(codec)
    for rid, direction in section.rids:
        yield f"a=rid:{rid} {direction}"
    if section.simulcast:
        yield f"a=simulcast:{section.simulcast}"
    for group in section.ssrc_groups:
        yield " ".join((f"a=ssrc-group:{group.semantics}", *map(str, group.ssrcs)))
    for ssrc in section.ssrcs:
        yield f"a=ssrc:{ssrc} cname:{section.cname or '-'}"
    if section.sctp_port is not None:
        yield f"a=sctp-port:{section.sctp_port}"
    if section.max_message_size is not None:
        yield f"a=max-message-size:{section.max_message_size}"
    for candidate in section.candidates:
        yield f"a=candidate:{candidate}"
    if section.end_of_candidates:
        yield "a=end-of-candidates"


def _codec_lines(codec: Codec) -> Iterable[str]:
    channels = f"/{codec.channels}" if codec.channels != 1 else ""
    yield f"a=rtpmap:{codec.payload_type} {codec.name}/{codec.clock_rate}{channels}"
    for feedback in codec.feedback:
        yield f"a=rtcp-fb:{codec.payload_type} {feedback}"
    if codec.fmtp:
        yield f"a=fmtp:{codec.payload_type} {codec.fmtp}"
