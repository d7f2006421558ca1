"""Look once for all that is used of aiortc and aioice, and tell what a version lacks."""

from __future__ import annotations

import functools
import logging
from collections.abc import Iterator
from enum import Enum
from types import FunctionType
from typing import Any, NamedTuple

import aioice
import aioice.ice
import aiortc
from aiortc import (
    RTCDtlsTransport,
    RTCIceGatherer,
    RTCIceTransport,
    RTCPeerConnection,
    RTCRtpReceiver,
    RTCRtpSender,
    RTCRtpTransceiver,
    RTCSctpTransport,
)
from aiortc.codecs.h264 import H264Encoder
from aiortc.codecs.vpx import Vp8Encoder

from metered_sync.engine.webrtc.aiortc_private.names import (
    ACTIVE_SSRC,
    BITRATE_ESTIMATOR,
    CONNECT,
    DECODER_QUEUE,
    DECODER_THREAD,
    DTLS_TRANSPORTS,
    ENCODER,
    EXTENSIONS_MAP,
    GATHERER_STATE,
    ICE_START,
    JITTER_BUFFER,
    LAST_REPORT_TIMES,
    LAST_REPORTS,
    NACK_GENERATOR,
    PENDING_DESCRIPTION,
    RECEIVED_PACKETS,
    RECEIVER_CODECS,
    REMOTE_DTLS,
    REMOTE_ICE,
    REMOTE_STREAMS,
    ROUTER,
    SENT_PACKETS,
    SET_SIGNALING_STATE,
    TIMESTAMP_MAPPER,
    TRANSCEIVERS,
)
from metered_sync.engine.webrtc.aiortc_private.trial import check_receivers

__all__ = ["Capability", "can", "capabilities"]

logger = logging.getLogger("metered_sync")


class Capability(Enum):
    """A group of names, and what is lost where a version lacks one of them."""

    ENCODERS = "a track that goes to several receivers is encoded for each of them"
    BITRATES = "video_bitrate has no effect"
    CODECS = "a codec may not be preferred in an answer, and media may stop after a further offer"
    STREAMS = "tracks arrive in streams without their names"
    SECTIONS = "rooms may not agree with browsers on tracks that come and go"
    FORGETTING = "a connection keeps something of each track that it ever received"
    BUNDLES = "connections may stop when their first track does"
    ROLLBACK = "connections whose offers cross are made anew"
    STARTING = "tracks that are added while connecting may be missing; closing then leaves tasks"
    INTAKES = "pictures come later than they could, and are decoded whether they are read or not"
    DECODING = "decoding takes more of the processor"
    PACKETS = "statistics of received tracks stay 0"
    ROUTING = "packets that come late for a track that has ended may stop another one"
    SOURCES = "a member may fill the memory with ever more streams"
    PATHS = "stats() has no paths, and connections that fail may leave sockets open"
    PROBES = "a media path that has died is noticed after some 30 s"
    RELAYS = "relay_only cannot be kept"
    GATHERING = "a STUN server that does not answer costs 5 s"
    LOOPBACK = "WebRTC does not work on a machine without a network"
    CHANNELS = "closing a data channel may lose what is on its way"
    REASSEMBLY = "a member may fill the memory through a data channel"
    REQUESTS = "who begins to read pictures that come seldom waits for the next one"
    EXTENSIONS = "pictures of browsers may have wrong colours, or lie on their side"
    QUEUES = "tracks that are queued elsewhere grow while nobody receives them"


class _Need(NamedTuple):
    """Names that a class must have, or that one of its methods must use."""

    capability: Capability
    owner: Any
    method: str | None
    """The method that uses the names; ``None``: they are the class's own."""
    names: tuple[str, ...]

    def missing(self) -> Iterator[str]:
        """Yield the names that are missing."""
        for name in self.names:
            if self.method is None:
                found = hasattr(self.owner, name)
            else:
                function = getattr(self.owner, self.method, None)
                found = isinstance(function, FunctionType) and name in (
                    *function.__code__.co_names,
                    *function.__code__.co_varnames,
                )
            if not found:
                owner = self.owner.__name__
                where = f"{owner}." if self.method is None else f"{owner}.{self.method}: "
                yield where + name.replace(f"_{owner}__", "__")


def _needs() -> tuple[_Need, ...]:
    """Return all that is used. (A function, so that tests can give the names another meaning.)"""
    can, connection = Capability, aioice.ice.Connection
    return (
        _Need(can.ENCODERS, RTCRtpSender, "__init__", (ENCODER, "_enabled")),
        _Need(can.ENCODERS, RTCRtpSender, "_run_rtp", ("_next_encoded_frame",)),
        _Need(can.ENCODERS, RTCRtpSender, "_next_encoded_frame", (ENCODER, "recv", "pack")),
        _Need(
            can.ENCODERS,
            RTCRtpSender,
            "_handle_rtcp_packet",
            (ENCODER, "_send_keyframe", "target_bitrate"),
        ),
        _Need(can.BITRATES, RTCRtpSender, "__init__", (ENCODER,)),
        _Need(can.BITRATES, RTCRtpSender, "_next_encoded_frame", (ENCODER,)),
        _Need(can.BITRATES, Vp8Encoder, None, ("target_bitrate",)),
        _Need(can.BITRATES, H264Encoder, None, ("target_bitrate",)),
        _Need(can.BITRATES, RTCRtpTransceiver, "__init__", ("_codecs",)),
        _Need(can.CODECS, RTCRtpTransceiver, "__init__", ("_codecs", "_headerExtensions")),
        _Need(can.STREAMS, RTCRtpSender, "__init__", ("_stream_id",)),
        _Need(
            can.SECTIONS,
            RTCRtpTransceiver,
            None,
            ("_get_mline_index", "_set_mline_index", "_set_mid"),
        ),
        _Need(can.SECTIONS, RTCRtpTransceiver, "__init__", ("_offerDirection",)),
        _Need(
            can.FORGETTING, RTCPeerConnection, "__init__", (TRANSCEIVERS, REMOTE_ICE, REMOTE_DTLS)
        ),
        _Need(can.BUNDLES, RTCRtpTransceiver, "__init__", ("_bundled",)),
        _Need(can.BUNDLES, RTCSctpTransport, "__init__", ("_bundled",)),
        _Need(can.ROLLBACK, RTCPeerConnection, None, (SET_SIGNALING_STATE,)),
        _Need(can.ROLLBACK, RTCPeerConnection, "__init__", (PENDING_DESCRIPTION,)),
        _Need(can.ROLLBACK, RTCIceTransport, "__init__", ("_role_set",)),
        _Need(can.STARTING, RTCPeerConnection, None, (CONNECT,)),
        _Need(can.STARTING, RTCPeerConnection, "__init__", (DTLS_TRANSPORTS,)),
        _Need(
            can.INTAKES,
            RTCRtpReceiver,
            "__init__",
            (
                JITTER_BUFFER, NACK_GENERATOR, RECEIVER_CODECS, DECODER_QUEUE, DECODER_THREAD,
                TIMESTAMP_MAPPER,
            ),
        ),
        _Need(can.DECODING, RTCRtpReceiver, "__init__", (DECODER_QUEUE, DECODER_THREAD)),
        _Need(can.DECODING, RTCRtpReceiver, "receive", (DECODER_QUEUE, "decoder_worker", "_queue")),
        _Need(can.DECODING, aiortc.rtcrtpreceiver, "decoder_worker", ("get",)),
        _Need(can.PACKETS, RTCRtpReceiver, None, ("_handle_rtp_packet",)),
        _Need(can.ROUTING, RTCDtlsTransport, "__init__", (ROUTER,)),
        _Need(
            can.ROUTING,
            aiortc.rtcdtlstransport.RtpRouter,
            "route_rtp",
            ("ssrc_table", "payload_type_table"),
        ),
        _Need(
            can.SOURCES,
            RTCRtpReceiver,
            "__init__",
            (
                REMOTE_STREAMS, ACTIVE_SSRC, LAST_REPORTS, LAST_REPORT_TIMES, BITRATE_ESTIMATOR,
            ),
        ),
        _Need(can.SOURCES, RTCDtlsTransport, "__init__", (ROUTER,)),
        _Need(can.SOURCES, aiortc.rtcdtlstransport.RtpRouter, "__init__", ("ssrc_table",)),
        _Need(can.PATHS, RTCIceGatherer, "__init__", ("_connection", GATHERER_STATE)),
        _Need(can.PATHS, connection, "__init__", ("_nominated", "_check_list_done")),
        _Need(can.PATHS, RTCIceTransport, "__init__", (ICE_START,)),
        _Need(can.PROBES, RTCDtlsTransport, "__init__", (RECEIVED_PACKETS, SENT_PACKETS)),
        _Need(can.PROBES, RTCIceGatherer, "__init__", ("_connection",)),
        _Need(can.PROBES, connection, "__init__", ("_nominated", "remote_password")),
        _Need(can.PROBES, connection, None, ("build_request",)),
        _Need(can.PROBES, aioice.ice.StunProtocol, "request", ("retransmissions",)),
        _Need(can.RELAYS, RTCIceGatherer, "__init__", ("_connection",)),
        _Need(can.RELAYS, connection, "__init__", ("_transport_policy", "turn_server")),
        _Need(can.GATHERING, RTCIceGatherer, "__init__", ("_connection",)),
        _Need(can.GATHERING, connection, "get_component_candidates", ("timeout",)),
        _Need(can.LOOPBACK, aioice.ice, None, ("get_host_addresses",)),
        _Need(
            can.CHANNELS, RTCSctpTransport, "__init__", ("_outbound_queue", "_sent_queue", "_loop")
        ),
        _Need(can.REASSEMBLY, RTCSctpTransport, None, ("_receive_data_chunk",)),
        _Need(
            can.REASSEMBLY,
            RTCSctpTransport,
            "__init__",
            ("_inbound_streams", "_sack_misordered", "_advertised_rwnd"),
        ),
        _Need(can.REQUESTS, RTCRtpReceiver, None, ("_send_rtcp_pli",)),
        _Need(can.EXTENSIONS, RTCDtlsTransport, "_handle_rtp_data", (EXTENSIONS_MAP,)),
        _Need(can.EXTENSIONS, aiortc.rtp, None, ("unpack_header_extensions",)),
        _Need(can.QUEUES, aiortc.rtcrtpreceiver.RemoteStreamTrack, "__init__", ("_queue",)),
    )  # fmt: skip


@functools.cache
def capabilities() -> frozenset[Capability]:
    """Return what this version offers; log one line about what it does not."""
    missing: dict[Capability, list[str]] = {}
    for need in _needs():
        for name in need.missing():
            missing.setdefault(need.capability, []).append(name)
    if Capability.INTAKES not in missing:
        try:
            check_receivers()
        except Exception as error:
            missing[Capability.INTAKES] = [f"RTCRtpReceiver's way of handing frames over ({error})"]
    if missing:
        names = dict.fromkeys(name for names in missing.values() for name in names)
        logger.warning(
            "aiortc %s with aioice %s lacks what is used of it: %s. So %s",
            aiortc.__version__,
            aioice.__version__,
            ", ".join(names),
            "; ".join(capability.value for capability in missing),
        )
    return frozenset(Capability) - missing.keys()


def can(capability: Capability) -> bool:
    """Say whether this version has all that a capability needs."""
    return capability in capabilities()
