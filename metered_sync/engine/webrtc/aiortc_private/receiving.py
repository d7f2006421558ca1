"""Reach into receivers: their packets, and the threads of their decoders."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

from aiortc import RTCRtpReceiver
from aiortc.mediastreams import MediaStreamTrack

from metered_sync.engine.webrtc.aiortc_private.capabilities import Capability, can
from metered_sync.engine.webrtc.aiortc_private.decoding import decode_by_ourselves
from metered_sync.engine.webrtc.aiortc_private.names import DECODER_THREAD, TIMESTAMP_MAPPER
from metered_sync.engine.webrtc.aiortc_private.packet_path import PacketPath
from metered_sync.engine.webrtc.aiortc_private.routing import bound_streams
from metered_sync.engine.webrtc.aiortc_private.sending import fills_a_queue

__all__ = [
    "frames_offered",
    "keep_starting",
    "key_frame_requests",
    "packet_path",
    "timestamp_origin",
    "watch_packets",
]

logger = logging.getLogger("metered_sync")

THREAD_RETRY = 1.0
"""Seconds after which a receiver that got no thread for its decoder asks for one again."""


def watch_packets(receiver: RTCRtpReceiver, function: Callable[[Any], None]) -> None:
    """Have a function called with each packet on its way into a receiver, and no other one."""
    if not can(Capability.PACKETS):
        return
    vars(receiver).pop("_handle_rtp_packet", None)  # (of another track, before)
    handle = receiver._handle_rtp_packet

    def watched(packet: Any, *args: Any, **kwargs: Any) -> Coroutine[Any, Any, None]:
        function(packet)
        return handle(packet, *args, **kwargs)

    # Set on this object, where aiortc's router looks it up with each packet.
    receiver._handle_rtp_packet = watched  # type: ignore[method-assign]


@contextlib.contextmanager
def frames_offered(track: MediaStreamTrack, take: Callable[[Any], bool]) -> Iterator[None]:
    """Offer the frames of a received track to a function, on the loop, before they are queued.

    What it does not take (it returns false) is had from ``recv()``, as is all that comes after it
    until that has been had; so is the end. It saves a task's turn and two futures a frame.
    """
    if not fills_a_queue(track):
        yield
        return
    queue: Any = vars(track)["_queue"]
    put = queue.put_nowait

    def offer(frame: Any) -> None:
        if frame is None or queue.qsize() or not take(frame):
            put(frame)

    queue.put_nowait = offer
    try:
        yield
    finally:
        del queue.put_nowait


def timestamp_origin(receiver: RTCRtpReceiver | None) -> int | None:
    """Return the packet timestamp that frames are counted from; ``None`` before the first."""
    return getattr(getattr(receiver, TIMESTAMP_MAPPER, None), "_origin", None)


def packet_path(receiver: RTCRtpReceiver) -> PacketPath | None:
    """Return a receiver's way to its decoder; ``None`` where this version has another one.

    It gets a decoder of ours, if it has not begun; see ``decoding``.
    """
    if not can(Capability.INTAKES):
        return None
    decode_by_ourselves(receiver)
    return PacketPath(receiver)


def key_frame_requests(receiver: RTCRtpReceiver) -> Callable[[int], None]:
    """Return a function that asks the sender of a stream for a key frame, by the stream's SSRC.

    (aiortc asks when a packet comes, and not before.)
    """
    requests: set[asyncio.Task[None]] = set()

    def ask(ssrc: int) -> None:
        if can(Capability.REQUESTS):
            request = asyncio.get_running_loop().create_task(receiver._send_rtcp_pli(ssrc))
            requests.add(request)
            request.add_done_callback(requests.discard)

    return ask


def keep_starting(receiver: RTCRtpReceiver) -> None:
    """Have a receiver that gets no thread for its decoder try again, until it has one or stops.

    aiortc would leave it, and all that was to be started after it, as they are: for ever. One that
    is stopped before it has begun does not begin any more, and its track ends: aiortc may begin it
    all the same, while its connection closes. What it remembers of streams is bounded by then.
    """
    if not can(Capability.INTAKES) or "receive" in vars(receiver):
        return
    inner: Any = receiver
    start, stop = inner.receive, inner.stop
    waiting: list[asyncio.TimerHandle] = []
    attempts: set[asyncio.Task[None]] = set()
    told = stopped = begun = False

    async def receive(parameters: Any) -> None:
        nonlocal told, begun
        try:
            if not stopped:
                bound_streams(receiver)
                await start(parameters)
                begun = True
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
        """End the track, as the decoder's thread does at its end, if one was ever offered."""
        if inner._track is not None:
            inner._track._queue.put_nowait(None)

    async def stop_trying() -> None:
        nonlocal stopped
        if not (begun or stopped):
            end()
        stopped = True
        while waiting:
            waiting.pop().cancel()
        await stop()

    inner.receive, inner.stop = receive, stop_trying
