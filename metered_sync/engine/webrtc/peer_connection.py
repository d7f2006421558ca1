"""WebRTC on the engine: peer connections, and frames on their way to readers."""

from __future__ import annotations

import asyncio
import contextvars
import functools
import logging
import math
import threading
import time
import weakref
from collections.abc import Callable, Collection, Iterable
from typing import Any

import aioice.ice
import anyio
from aiortc import RTCConfiguration, RTCIceServer, RTCPeerConnection, RTCRtpReceiver
from aiortc.mediastreams import MediaStreamError, MediaStreamTrack
from aiortc.rtcconfiguration import RTCBundlePolicy
from av import AudioFrame, VideoFrame

from metered_sync.bridge.reader import Reader
from metered_sync.engine.logs import scrub_loggers
from metered_sync.engine.webrtc import jitter
from metered_sync.engine.webrtc.stats import Received
from metered_sync.errors import NegotiationFailedError
from metered_sync.wire.events import IceServer

__all__ = [
    "Frame",
    "IncomingTrack",
    "bound_gathering",
    "close_quietly",
    "gather_on",
    "peer_connection",
    "wait_connected",
]

logger = logging.getLogger("metered_sync")
scrub_loggers("aiortc", "aioice")
Frame = AudioFrame | VideoFrame

LINGER = 10.0
"""Seconds for which a track is decoded with nobody reading it, so that somebody who reads now
and then, or begins to, gets a picture at once."""

gather_on: contextvars.ContextVar[str | None] = contextvars.ContextVar("gather_on", default=None)
"""The only address to gather candidates on, in the current task: a loopback one, or ``None``."""


def _gather_on_loopback_too() -> None:
    """Let aioice use loopback addresses where there are no others, or where we ask for them.

    aioice (0.10 to 0.13) leaves 127.0.0.1 and ::1 out, so that a machine in flight mode
    has no candidate at all. Ours stands in for its function; other users of aioice in
    this process see a difference only where they would have had no address.
    """
    original: Callable[[bool, bool], list[str]] | None
    original = getattr(aioice.ice, "get_host_addresses", None)
    if original is None:
        logger.warning(
            "this version of aioice hides how it finds addresses: WebRTC will not work "
            "on a machine without a network"
        )
        return
    find = original

    def get_host_addresses(use_ipv4: bool, use_ipv6: bool) -> list[str]:
        address = gather_on.get()
        if address is not None:
            return [address]
        return find(use_ipv4, use_ipv6) or (["127.0.0.1"] if use_ipv4 else [])

    aioice.ice.get_host_addresses = get_host_addresses


_gather_on_loopback_too()


def peer_connection(ice_servers: Iterable[IceServer]) -> RTCPeerConnection:
    """Return a peer connection with one transport for everything."""
    servers = [
        RTCIceServer(urls=list(s.urls), username=s.username, credential=s.credential)
        for s in ice_servers
    ]
    # An empty list, not None: None means a public STUN server to aiortc.
    return RTCPeerConnection(RTCConfiguration(servers, bundlePolicy=RTCBundlePolicy.MAX_BUNDLE))


def bound_gathering(pc: RTCPeerConnection, seconds: float) -> None:
    """Let a STUN or TURN server that does not answer cost at most ``seconds``.

    What aioice has by then goes into the offer. It has a bound of its own, 5 s, as the
    default of a parameter that nobody passes (0.10 to 0.13).
    """
    found: list[Any] = [transceiver.receiver for transceiver in pc.getTransceivers()]
    for end in (*found, *([pc.sctp] if pc.sctp else ())):
        connection: Any = getattr(end.transport.transport.iceGatherer, "_connection", None)
        find = getattr(type(connection), "get_component_candidates", None)
        if find is not None and "timeout" in find.__code__.co_varnames:
            connection.get_component_candidates = functools.partial(
                find, connection, timeout=seconds
            )


async def wait_connected(pc: RTCPeerConnection, stage: Callable[[str], None]) -> None:
    """Wait until ICE and DTLS are up.

    ``stage`` is told how far it has come. Raises :class:`NegotiationFailedError`.
    """
    changed = asyncio.Event()

    def note() -> None:
        changed.set()

    for event in ("connectionstatechange", "iceconnectionstatechange"):
        pc.on(event, note)
    try:
        while pc.connectionState != "connected":
            ice = pc.iceConnectionState == "completed"
            stage("DTLS" if ice else "ICE")
            if pc.connectionState in ("failed", "closed"):
                what = (
                    "the DTLS handshake failed"
                    if ice
                    else "no network path was found (ICE): a firewall may block UDP"
                )
                raise NegotiationFailedError(
                    f"the media connection could not be made: {what}",
                    stage="DTLS" if ice else "ICE",
                )
            await changed.wait()
            changed.clear()
    finally:
        for event in ("connectionstatechange", "iceconnectionstatechange"):
            pc.remove_listener(event, note)


async def close_quietly(pc: RTCPeerConnection, within: float) -> None:
    """Close a peer connection; log what goes wrong."""
    try:
        with anyio.move_on_after(within, shield=True):
            await pc.close()
    except Exception:
        logger.debug("closing a peer connection failed", exc_info=True)


class IncomingTrack:
    """A remote track's frames, spread over its readers.

    Frames are taken from aiortc as they come, whether somebody reads or not: its own
    queue is unbounded. They are decoded while somebody reads, and ``LINGER`` seconds
    longer; see :mod:`metered_sync.engine.webrtc.jitter`. Readers are held weakly, for they hold
    their client, which the engine must not keep alive; the tuple is replaced, not changed,
    so that the loop reads it without the lock that guards replacing it.

    The media connection under it may be rebuilt: :meth:`run` then goes on with another
    receiver. Readers see a pause, and timestamps that go on rising.
    """

    def __init__(
        self, kind: str, *, id: str, name: str | None = None, stream_id: str | None = None
    ) -> None:
        self.kind = kind
        self.id = id
        self.name = name
        self.stream_id = stream_id
        self.frames = 0
        """Frames that came so far, decoded or not."""
        self.decoded = 0
        """Frames decoded so far."""
        self.restarts = 0
        """How often the connection under it was rebuilt."""
        self.last = -math.inf
        """When the latest frame came (``time.monotonic()``)."""
        self.latency = 0.0
        """Seconds between the latest frame's first packet and the frame: buffers, decoding."""
        self.ended = False
        self.error: BaseException | None = None
        self.received = Received()
        self._readers: tuple[weakref.ref[Reader[Any]], ...] = ()
        self._lock = threading.Lock()
        self._until: float | None = None
        """Up to when to decode if nobody reads."""
        self._offset: int | None = 0
        """What to add to timestamps; ``None``: find out with the next frame."""
        self._time = 0.0
        """The timestamp of the latest frame that was decoded, in seconds."""
        self._spread_at = -math.inf
        """When that came."""

    @property
    def readers(self) -> list[Reader[Any]]:
        """Readers that somebody still holds."""
        return [reader for ref in self._readers if (reader := ref()) is not None]

    def add(self, reader: Reader[Any]) -> None:
        """Spread frames to one more reader, from now on; any thread."""
        with self._lock:
            alive = [r for r in self.readers if not r.ended]
            self._readers = tuple(weakref.ref(r) for r in (*alive, reader))
        if self.ended:  # perhaps just now, without having seen this reader
            reader.end(self.error)

    def remove(self, reader: Reader[Any]) -> None:
        """Leave a reader out; any thread."""
        with self._lock:
            self._readers = tuple(weakref.ref(r) for r in self.readers if r is not reader)

    def take_over(self, receiver: RTCRtpReceiver, retransmissions: Collection[int]) -> None:
        """Decide from now on what a receiver decodes, and count its packets.

        ``retransmissions`` are payload types.
        """
        self.received.watch(receiver, retransmissions)
        jitter.take_over(receiver, self)

    def wanted(self) -> bool:
        """Whether frames are to be decoded: somebody reads, or did so a moment ago."""
        now = time.monotonic()
        if self._until is None or any(ref() is not None for ref in self._readers):
            self._until = now + LINGER
        return now < self._until

    def leave_out(self) -> None:
        """Count a frame that came, and is not decoded."""
        self.last = time.monotonic()
        self.frames += 1

    async def run(self, track: MediaStreamTrack) -> None:
        """Take frames until no more come. Whoever runs this knows why, and what to do then."""
        if self.decoded:
            self._offset = None
        try:
            while not self.ended:
                frame: Any = await track.recv()
                self._spread(frame)
        except MediaStreamError:
            pass

    def _spread(self, frame: Frame) -> None:
        # On its own, lest a name in run() holds a reader until the next frame comes.
        now = time.monotonic()
        if frame.pts is not None and frame.time_base:
            arrived = self.received.arrived(frame.pts)
            if arrived is not None:
                self.latency = now - arrived
            if self._offset is None:
                # The new receiver's clock begins anew; the pause has passed on ours.
                due = self._time + max(now - self._spread_at, float(frame.time_base))
                self._offset = math.ceil(due / frame.time_base) - frame.pts
            frame.pts += self._offset
            self._time = float(frame.pts * frame.time_base)
        self.last = self._spread_at = now
        self.frames += 1
        self.decoded += 1
        for reader in self.readers:
            reader.put(frame)

    def end(self, error: BaseException | None = None) -> None:
        """End all readers: they drain, then get ``error`` or ``ClosedError``."""
        if not self.ended:
            self.ended, self.error = True, error
            for reader in self.readers:
                reader.end(error)

    def stats(self) -> dict[str, Any]:
        """Return what was received so far; any thread."""
        return {
            "kind": self.kind,
            "id": self.id,
            "name": self.name,
            **self.received.stats(),
            "frames_decoded": self.decoded,
            "restarts": self.restarts,
        }
