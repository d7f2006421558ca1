"""Reach what aiortc and aioice keep to themselves: every private name of theirs is in this file.

They are made for peers that are written with them, and a room needs more: see
``docs/architecture/aiortc.md``. Versions that were tried: aiortc 1.14 to 1.16, aioice 0.10 to 0.13.

:func:`capabilities` looks once, before the first use, for all that is used here. Where a version
lacks something, one line is logged that names it and tells what is lost by it; and the functions
below do without. None of them fails for want of a name.

Everything here runs on the loop's thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import queue
import ssl
from collections.abc import Callable, Container, Coroutine, Iterable, Iterator
from enum import Enum
from types import FunctionType, SimpleNamespace
from typing import Any, NamedTuple

import aioice
import aioice.ice
import aioice.stun
import aiortc
from aiortc import (
    RTCDataChannel,
    RTCDtlsTransport,
    RTCIceGatherer,
    RTCIceTransport,
    RTCPeerConnection,
    RTCRtpCodecParameters,
    RTCRtpReceiver,
    RTCRtpSender,
    RTCRtpTransceiver,
    RTCSctpTransport,
)
from aiortc.codecs.h264 import H264Encoder
from aiortc.codecs.vpx import Vp8Encoder
from aiortc.mediastreams import MediaStreamTrack

from metered_sync.wire.data_channels import DEFAULT_CAP

__all__ = ["Capability", "capabilities"]

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
    STARTING = "tracks that are added while a connection is made may be missing"
    INTAKES = "pictures come later than they could, and are decoded whether they are read or not"
    PACKETS = "statistics of received tracks stay 0"
    PATHS = "stats() has no paths, and connections that fail may leave sockets open"
    PROBES = "a media path that has died is noticed after some 30 s"
    RELAYS = "relay_only cannot be kept"
    GATHERING = "a STUN server that does not answer costs 5 s"
    LOOPBACK = "WebRTC does not work on a machine without a network"
    CHANNELS = "closing a data channel may lose what is on its way"
    REASSEMBLY = "a member may fill the memory through a data channel"
    EXTENSIONS = "pictures of browsers may have wrong colours, or lie on their side"
    QUEUES = "tracks that are queued elsewhere grow while nobody receives them"


ENCODER = "_RTCRtpSender__encoder"
SET_SIGNALING_STATE = "_RTCPeerConnection__setSignalingState"
PENDING_DESCRIPTION = "_RTCPeerConnection__pendingLocalDescription"
CONNECT = "_RTCPeerConnection__connect"
TRANSCEIVERS = "_RTCPeerConnection__transceivers"
REMOTE_ICE = "_RTCPeerConnection__remoteIce"
REMOTE_DTLS = "_RTCPeerConnection__remoteDtls"
ICE_START = "_RTCIceTransport__start"
JITTER_BUFFER = "_RTCRtpReceiver__jitter_buffer"
NACK_GENERATOR = "_RTCRtpReceiver__nack_generator"
RECEIVER_CODECS = "_RTCRtpReceiver__codecs"
DECODER_QUEUE = "_RTCRtpReceiver__decoder_queue"
DECODER_THREAD = "_RTCRtpReceiver__decoder_thread"
EXTENSIONS_MAP = "_rtp_header_extensions_map"
ONE_BYTE_HEADERS = 0xBEDE
"""Marks header extensions with a number and a length in a byte (RFC 8285, section 4.2)."""
TIMESTAMP_MAPPER = "_RTCRtpReceiver__timestamp_mapper"
RECEIVED_PACKETS = "_RTCDtlsTransport__rx_packets"


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
        _Need(
            can.INTAKES,
            RTCRtpReceiver,
            "__init__",
            (
                JITTER_BUFFER, NACK_GENERATOR, RECEIVER_CODECS, DECODER_QUEUE, DECODER_THREAD,
                TIMESTAMP_MAPPER,
            ),
        ),
        _Need(can.PACKETS, RTCRtpReceiver, None, ("_handle_rtp_packet",)),
        _Need(can.PATHS, RTCIceGatherer, "__init__", ("_connection",)),
        _Need(can.PATHS, connection, "__init__", ("_nominated", "_check_list_done")),
        _Need(can.PATHS, RTCIceTransport, "__init__", (ICE_START,)),
        _Need(can.PROBES, RTCDtlsTransport, "__init__", (RECEIVED_PACKETS,)),
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
            _check_intakes()
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


def _can(capability: Capability) -> bool:
    return capability in capabilities()


# --- senders --------------------------------------------------------------------------


def set_encoder(sender: RTCRtpSender, encoder: Any) -> None:
    """Have a sender encode, or pack, its frames with an encoder of ours."""
    if getattr(sender, ENCODER, None) is not encoder:
        setattr(sender, ENCODER, encoder)


def encoder_of(sender: RTCRtpSender) -> Any:
    """Return a sender's encoder; ``None`` before it has one."""
    return getattr(sender, ENCODER, None)


def before_first_frame(sender: RTCRtpSender, function: Callable[[str], None]) -> None:
    """Have a function called with the sender's codec before the sender fetches its next frame.

    The name is in lower case. A sender that sends keeps its codec, so it is called once.
    """

    async def first(codec: Any) -> Any:
        vars(sender).pop("_next_encoded_frame", None)
        function(codec.name.lower())
        return await sender._next_encoded_frame(codec)

    setattr(sender, "_next_encoded_frame", first)  # noqa: B010 - on this one only


def on_key_frame_request(sender: RTCRtpSender, function: Callable[[], None]) -> None:
    """Have a function called when the receiver asks for a key frame, in aiortc's place."""
    setattr(sender, "_send_keyframe", function)  # noqa: B010 - on this one only


def discards(sender: RTCRtpSender | None) -> bool:
    """Say whether a sender throws away its frames: it may not send, by what was negotiated."""
    return not getattr(sender, "_enabled", True)


def name_stream(sender: RTCRtpSender, stream_id: str) -> None:
    """Name the stream that a sender's track belongs to, as from the next description on."""
    if _can(Capability.STREAMS):
        sender._stream_id = stream_id


# --- transceivers and sections --------------------------------------------------------


def first_codec(transceiver: RTCRtpTransceiver) -> str:
    """Return the codec that is sent with, once negotiated, in lower case; or an empty text."""
    codecs = getattr(transceiver, "_codecs", ())
    return str(codecs[0].name).lower() if codecs else ""


def put_codec_first(transceiver: RTCRtpTransceiver, codec: str | None) -> None:
    """Send with a codec, if an offer has it. (Preferences count before an offer is taken.)"""
    codecs = getattr(transceiver, "_codecs", None)
    if codec is not None and codecs:
        codecs.sort(key=lambda one: one.name.lower() != codec)


def keep_agreed(pc: RTCPeerConnection) -> Callable[[], None]:
    """Return a function that restores the codecs and header extensions that are agreed on now.

    For making an offer forgets them, and senders and receivers may be started any time.
    """
    if not _can(Capability.CODECS):
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
    index = transceiver._get_mline_index() if _can(Capability.SECTIONS) else None
    return default if index is None else index


def set_section_index(transceiver: RTCRtpTransceiver, index: int | None) -> None:
    """Give a transceiver a section; ``None``: the next new one."""
    if _can(Capability.SECTIONS):
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
    if _can(Capability.FORGETTING):
        getattr(pc, TRANSCEIVERS).remove(transceiver)
        getattr(pc, REMOTE_ICE).pop(transceiver, None)
        getattr(pc, REMOTE_DTLS).pop(transceiver, None)


def set_mid(transceiver: RTCRtpTransceiver, mid: str | None) -> None:
    """Name a transceiver's section; ``None``: it has none yet."""
    if _can(Capability.SECTIONS):
        transceiver._set_mid(mid)  # type: ignore[arg-type]


def set_offered(transceiver: RTCRtpTransceiver, direction: str) -> None:
    """Note the direction that the other side has offered for a transceiver."""
    if _can(Capability.SECTIONS):
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
    if _can(Capability.BUNDLES):
        for one in (*pc.getTransceivers(), pc.sctp):
            if one is not None:
                one._bundled = True


# --- peer connections -----------------------------------------------------------------


def can_take_offer_back() -> bool:
    """Return whether :func:`take_offer_back` is possible."""
    return _can(Capability.ROLLBACK)


def take_offer_back(pc: RTCPeerConnection, undecided: Iterable[RTCIceTransport]) -> bool:
    """Take our offer back; say whether that was possible.

    All that an offer leaves behind are its description, a state, its new sections (which are
    the caller's affair) and, where it was the first, the ICE role of the side that offers.

    Args:
        pc: The peer connection.
        undecided: Transports whose role the other side's offer decides.
    """
    if not _can(Capability.ROLLBACK):
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
    if _can(Capability.STARTING):
        await getattr(pc, CONNECT)()


# --- ICE ------------------------------------------------------------------------------


def _connection(transport: RTCIceTransport) -> Any:
    return getattr(transport.iceGatherer, "_connection", None)


def nominated_pair(transport: RTCIceTransport) -> Any:
    """Return the pair of candidates in use; ``None`` before there is one."""
    pairs = getattr(_connection(transport), "_nominated", None) or {}
    return next(iter(pairs.values()), None)


def can_probe() -> bool:
    """Say whether :func:`packets_received` and :func:`probe` tell something."""
    return _can(Capability.PROBES)


def packets_received(transport: RTCDtlsTransport) -> int:
    """Return how many packets have come so far: media, reports, data, all but STUN."""
    return int(getattr(transport, RECEIVED_PACKETS))


async def probe(transport: RTCIceTransport) -> None:
    """Ask the other end of the path in use for an answer (STUN); return once there is one.

    It is what aioice does for consent, which asks once every five seconds, and gives up after
    six answers that did not come within half a second.
    """
    connection, pair = _connection(transport), nominated_pair(transport)
    while True:
        try:
            await pair.protocol.request(
                connection.build_request(pair, nominate=False),
                pair.remote_addr,
                integrity_key=connection.remote_password.encode(),
                retransmissions=2,
            )
            return
        except aioice.stun.TransactionFailed:  # an answer as well
            return
        except aioice.stun.TransactionTimeout:
            continue


async def end_checks(transport: RTCIceTransport) -> None:
    """Close a transport again that was closed while it was connecting.

    Its connection may succeed all the same, and goes on to ask for consent; or it waits for
    candidates for ever (aioice 0.10).
    """
    started: asyncio.Event | None = getattr(transport, ICE_START, None)
    connection = _connection(transport)
    if started is not None and connection is not None:
        connection._check_list_done = True
        await started.wait()
        await connection.close()


def can_relay_only() -> bool:
    """Say whether direct paths can be left out. (aiortc offers that from 1.16 on.)"""
    return _can(Capability.RELAYS)


def use_relays_only(transport: RTCIceTransport) -> bool:
    """Leave direct paths out before gathering; say whether there is a TURN server for it."""
    connection = _connection(transport)
    connection._transport_policy = aioice.ice.TransportPolicy.RELAY
    return connection.turn_server is not None


def trust_relay(transport: RTCIceTransport, context: Callable[[], ssl.SSLContext]) -> None:
    """Have a context made for the TURN server that is reached over TLS, if there is one."""
    connection = _connection(transport)
    if getattr(connection, "turn_ssl", False) is True:
        connection.turn_ssl = context()  # (aioice hands it to asyncio, which takes either)


def bound_gathering(transport: RTCIceTransport, seconds: float) -> None:
    """Let a STUN or TURN server that does not answer cost at most ``seconds``.

    aioice has a bound of its own, 5 s, as the default of a parameter that nobody passes.
    """
    if _can(Capability.GATHERING):
        connection = _connection(transport)
        find = type(connection).get_component_candidates
        connection.get_component_candidates = functools.partial(find, connection, timeout=seconds)


def change_host_addresses(change: Callable[[Callable[[], list[str]], bool], list[str]]) -> None:
    """Have a function choose the addresses on which candidates are gathered.

    It stands in for aioice's, for all of this process. It is called with a function that
    returns aioice's choice, and with whether IPv4 is used.
    """
    original = getattr(aioice.ice, "get_host_addresses", None)
    if original is not None:
        find: Callable[[bool, bool], list[str]] = original

        def get_host_addresses(use_ipv4: bool, use_ipv6: bool) -> list[str]:
            return change(lambda: find(use_ipv4, use_ipv6), use_ipv4)

        aioice.ice.get_host_addresses = get_host_addresses


# --- receivers ------------------------------------------------------------------------


def watch_packets(receiver: RTCRtpReceiver, function: Callable[[Any], None]) -> None:
    """Have a function called with each packet on its way into a receiver, and no other one."""
    if not _can(Capability.PACKETS):
        return
    vars(receiver).pop("_handle_rtp_packet", None)  # (of another track, before)
    handle = receiver._handle_rtp_packet

    async def watched(packet: Any, *args: Any, **kwargs: Any) -> None:
        function(packet)
        await handle(packet, *args, **kwargs)

    # Set on this object, where aiortc's router looks it up with each packet.
    receiver._handle_rtp_packet = watched  # type: ignore[method-assign]


def timestamp_origin(receiver: RTCRtpReceiver | None) -> int | None:
    """Return the packet timestamp that frames are counted from; ``None`` before the first."""
    return getattr(getattr(receiver, TIMESTAMP_MAPPER, None), "_origin", None)


class _ExtensionsMap:
    """A transport's reader of header extensions, which reads further ones."""

    def __init__(self, inner: Any) -> None:
        self.uris: dict[int, str] = {}
        """The extensions to be read, by their numbers."""
        self._inner = inner

    def configure(self, parameters: Any) -> None:
        """Take over numbers, as the transport's own reader does."""
        self._inner.configure(parameters)

    def get(self, profile: int, value: bytes) -> Any:
        """Return the values of a packet's extensions, with ours among them."""
        values = self._inner.get(profile, value)
        if _may_have(profile, value, self.uris):
            values.further = {
                self.uris[number]: data
                for number, data in aiortc.rtp.unpack_header_extensions(profile, value)
                if number in self.uris
            }
        return values


def _may_have(profile: int, value: bytes, numbers: Container[int]) -> bool:
    """Return false where a packet has no extension of these numbers: most have none."""
    if profile != ONE_BYTE_HEADERS:
        return bool(value)
    at = 0
    while at < len(value):
        head = value[at]
        if head >> 4 in numbers:
            return True
        at += (head & 15) + 2 if head else 1  # zeros fill up
    return False


def read_extensions(pc: RTCPeerConnection, uris: dict[int, str]) -> None:
    """Have a connection's receivers read header extensions that aiortc does not know."""
    if not _can(Capability.EXTENSIONS):
        return
    for transceiver in pc.getTransceivers():
        transport = transceiver.receiver.transport
        reader = getattr(transport, EXTENSIONS_MAP)
        if not isinstance(reader, _ExtensionsMap):
            reader = _ExtensionsMap(reader)
            setattr(transport, EXTENSIONS_MAP, reader)
        reader.uris = uris


def extensions_of(packet: Any) -> dict[str, bytes]:
    """Return the values of a packet's extensions that aiortc does not know, by URI."""
    values: dict[str, bytes] = getattr(packet.extensions, "further", {})
    return values


class PacketPath:
    """A receiver's way from packets to its decoder."""

    def __init__(self, receiver: RTCRtpReceiver) -> None:
        self._receiver: Any = receiver
        self.codecs: dict[int, Any] = getattr(receiver, RECEIVER_CODECS)
        """Codecs by payload type."""

    @property
    def buffer(self) -> Any:
        """What takes packets (``add``) in the receiver's place."""
        return getattr(self._receiver, JITTER_BUFFER)

    @buffer.setter
    def buffer(self, buffer: Any) -> None:
        setattr(self._receiver, JITTER_BUFFER, buffer)

    @property
    def nacks(self) -> Any:
        """What asks for missing packets; ``None`` for sound, where nothing does."""
        return getattr(self._receiver, NACK_GENERATOR)

    @nacks.setter
    def nacks(self, nacks: Any) -> None:
        setattr(self._receiver, NACK_GENERATOR, nacks)

    def hand_over(self, packets: list[Any]) -> None:
        """Give the packets of one frame to the decoder, as the receiver does."""
        if getattr(self._receiver, DECODER_THREAD):
            data = b"".join(map(payload, packets))
            timestamp = getattr(self._receiver, TIMESTAMP_MAPPER).map(packets[0].timestamp)
            codec = self.codecs[packets[0].payload_type]
            getattr(self._receiver, DECODER_QUEUE).put((codec, _Frame(data, timestamp)))

    def pts_of(self, packet: Any) -> int:
        """Return the timestamp that a packet's frame will have."""
        pts: int = getattr(self._receiver, TIMESTAMP_MAPPER).map(packet.timestamp)
        return pts

    @property
    def waiting(self) -> int:
        """How many frames wait for the decoder, the one aside that it is at."""
        return int(getattr(self._receiver, DECODER_QUEUE).qsize())

    def drop_waiting(self) -> int:
        """Take back the frames that wait for the decoder; return how many those were."""
        frames = getattr(self._receiver, DECODER_QUEUE)
        dropped = 0
        with contextlib.suppress(queue.Empty):
            while True:
                if frames.get_nowait() is None:  # the end of the decoder's thread
                    frames.put(None)
                    break
                dropped += 1
        return dropped


class _Frame(NamedTuple):
    """A frame as decoders take it."""

    data: bytes
    timestamp: int


def payload(packet: Any) -> bytes:
    """Return a packet's payload without what its codec puts around it."""
    data: bytes = packet._data
    return data


def packet_path(receiver: RTCRtpReceiver) -> PacketPath | None:
    """Return a receiver's way to its decoder; ``None`` where this version has another one."""
    return PacketPath(receiver) if _can(Capability.INTAKES) else None


THREAD_RETRY = 1.0
"""Seconds after which a receiver that got no thread for its decoder asks for one again."""


def keep_starting(receiver: RTCRtpReceiver) -> None:
    """Have a receiver that gets no thread for its decoder try again, until it has one or stops.

    aiortc would leave it, and all that was to be started after it, as they are: for ever.
    """
    if not _can(Capability.INTAKES) or "receive" in vars(receiver):
        return
    inner: Any = receiver
    start, stop = inner.receive, inner.stop
    waiting: list[asyncio.TimerHandle] = []
    attempts: set[asyncio.Task[None]] = set()
    told = stopped = False

    async def receive(parameters: Any) -> None:
        nonlocal told
        try:
            if not stopped:
                await start(parameters)
        except RuntimeError as error:
            setattr(receiver, DECODER_THREAD, None)  # one that was not started cannot be joined
            if not told:
                told = True
                logger.error(
                    "no thread can be started to decode the %s that arrives (%s): it is tried "
                    "again each second; the process, its user or its container has as many "
                    "threads as it may",
                    receiver.track.kind,
                    error,
                )
            if not waiting:
                loop = asyncio.get_running_loop()
                waiting.append(loop.call_later(THREAD_RETRY, again, parameters))

    def again(parameters: Any) -> None:
        waiting.clear()
        if receiver.transport.state in ("closed", "failed"):
            end()
        else:
            attempt = asyncio.get_running_loop().create_task(receive(parameters))
            attempts.add(attempt)
            attempt.add_done_callback(attempts.discard)

    def end() -> None:
        """End the track, as the decoder's thread does at its end."""
        inner._track._queue.put_nowait(None)

    async def stop_trying() -> None:
        nonlocal stopped
        stopped = True
        while waiting:
            waiting.pop().cancel()
            end()
        await stop()

    inner.receive, inner.stop = receive, stop_trying


class _PlainBuffer:
    """The simplest buffer there is: packets come in order, a marker ends a picture."""

    def __init__(self, receiver: Any, kind: str) -> None:
        self._path = PacketPath(receiver)
        self._kind = kind
        self._parts: list[Any] = []

    def add(self, packet: Any) -> tuple[bool, None]:
        self._parts.append(packet)
        if packet.marker or self._kind == "audio":
            self._path.hand_over(self._parts)
            self._parts = []
        return False, None


def _check_intakes() -> None:
    """Give packets to receivers with their own buffers and with another; raise if they differ."""
    from aiortc.rtp import RtpPacket  # (here, lest a version without it fails to import this)

    # The first picture has two packets. The numbers wrap.
    for kind, name, payloads, times in (
        ("video", "VP8", (b"\x10\x00a", b"\x00b", b"\x10\x01c", b"\x10\x01d"), (0, 0, 1, 2)),
        ("audio", "PCMU", (b"a", b"b", b"c", b"d", b"e", b"f"), range(6)),
    ):
        ends = [later != now for now, later in zip(times, (*times[1:], -1), strict=True)]
        packets = [
            (96, int(end), 0xFFFE + n & 0xFFFF, 3000 * at, 1, data)
            for n, (data, at, end) in enumerate(zip(payloads, times, ends, strict=True))
        ]
        handed_over = []
        for own in (True, False):
            receiver = _receiver(kind, name)
            if not own:
                PacketPath(receiver).buffer = _PlainBuffer(receiver, kind)
            for packet in packets:
                _feed(receiver, RtpPacket(*packet))
            queue = getattr(receiver, DECODER_QUEUE)
            items = [queue.get_nowait() for _ in range(queue.qsize())]
            handed_over.append([(c.name, frame.data, frame.timestamp) for c, frame in items])
        theirs, ours = handed_over
        if not theirs or ours[: len(theirs)] != theirs or len(ours) != sum(ends):
            raise RuntimeError(f"{kind}: {ours}, not {theirs} and the rest")


def _receiver(kind: str, codec: str) -> Any:
    receiver: Any = RTCRtpReceiver(kind, SimpleNamespace(state="new"))  # type: ignore[arg-type]
    getattr(receiver, RECEIVER_CODECS)[96] = RTCRtpCodecParameters(
        mimeType=f"{kind}/{codec}", clockRate=90000, payloadType=96
    )
    if getattr(receiver, DECODER_THREAD) is None:  # it is made when a connection is
        setattr(receiver, DECODER_THREAD, True)
    return receiver


def _feed(receiver: Any, packet: Any) -> None:
    handling: Coroutine[Any, Any, None] = receiver._handle_rtp_packet(packet, 0)
    try:
        handling.send(None)
    except StopIteration:
        return
    handling.close()
    raise RuntimeError("a packet is not handled at once")


# --- data channels --------------------------------------------------------------------

OPENING_PROTOCOL = 50
"""The protocol that opens channels, as SCTP marks it (RFC 8832, section 8.1)."""


def loop_of(channel: RTCDataChannel) -> asyncio.AbstractEventLoop | None:
    """Return the event loop that a channel belongs to; ``None`` where it does not tell."""
    return getattr(channel.transport, "_loop", None)


def unacknowledged(channel: RTCDataChannel) -> int:
    """Return the bytes of a channel that were sent and not acknowledged.

    (Up to aiortc 1.15 a channel that is closed loses those.)
    """
    queues = (getattr(channel.transport, name, ()) for name in ("_outbound_queue", "_sent_queue"))
    chunks = (chunk for queue in queues for chunk in tuple(queue))
    stream = channel.id
    return sum(
        len(chunk.user_data)
        for chunk in chunks
        if chunk.stream_id == stream and chunk.protocol != OPENING_PROTOCOL
    )


def max_message_size(channel: RTCDataChannel) -> int:
    """Return the largest message that the far side takes, in bytes; 0: any.

    (Up to aiortc 1.15 only the local limit is known; it is the default, too.)
    """
    size = getattr(channel.transport, "_remote_max_message_size", DEFAULT_CAP)
    return size if isinstance(size, int) else DEFAULT_CAP


MAX_PARTS = 512
"""Parts of messages, of all channels of a connection, that wait for others to come."""
MAX_STREAMS = 1024
"""Streams of a connection for which such parts are kept."""


def bound_reassembly(transport: RTCSctpTransport) -> None:
    """Keep of messages that are not complete what the receive window permits, and no more.

    aiortc (1.14 to 1.16) announces a window of 1 MiB, and keeps whatever comes. What is left out
    here is not acknowledged, so a sender that keeps to the window sends it again.
    """
    if not _can(Capability.REASSEMBLY) or "_receive_data_chunk" in vars(transport):
        return
    inner: Any = transport
    receive, streams = inner._receive_data_chunk, inner._inbound_streams
    parts: dict[int, int] = {}
    total = refused = 0

    async def bounded(chunk: Any) -> None:
        nonlocal total, refused
        number = chunk.stream_id
        # The one that all others wait for may take some more: it may complete them.
        is_next = chunk.tsn == (inner._last_received_tsn + 1) % (1 << 32)
        if (
            inner._advertised_rwnd + is_next * DEFAULT_CAP < len(chunk.user_data)
            or max(total, len(inner._sack_misordered)) >= MAX_PARTS * (1 + is_next)
            or (number not in streams and len(streams) >= MAX_STREAMS)
        ):
            refused += 1
            if refused % MAX_PARTS == 1:  # perhaps some parts have been given up meanwhile
                parts.clear()
                parts.update((key, len(one.reassembly)) for key, one in streams.items())
                total = sum(parts.values())
            return
        await receive(chunk)
        left = len(streams[number].reassembly) if number in streams else 0
        total += left - parts.get(number, 0)
        parts[number] = left

    inner._receive_data_chunk = bounded


# --- tracks ---------------------------------------------------------------------------


def fills_a_queue(track: MediaStreamTrack) -> bool:
    """Say whether a track goes on filling a queue of its own while nobody reads it."""
    return isinstance(getattr(track, "_queue", None), asyncio.Queue)


def plays_packets(track: MediaStreamTrack) -> bool:
    """Say whether a track, perhaps through relays, is one of a player that does not decode."""
    source: Any = track
    for _ in range(8):
        player = getattr(source, "_player", None)
        if player is not None:
            return getattr(player, "_MediaPlayer__decode", True) is False
        source = getattr(source, "_source", None)
    return False
