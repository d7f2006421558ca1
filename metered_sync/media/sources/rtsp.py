"""Play a network camera, and connect again when it is lost."""

from __future__ import annotations

import contextlib
import errno
import logging
import random
import re
from collections.abc import Iterator, Mapping
from typing import Any, Literal
from urllib.parse import urlsplit

import av
import av.error

from metered_sync.bridge.clock import monotonic
from metered_sync.bridge.deadline import Deadline
from metered_sync.engine.sending.feed import PRODUCER_POLL, Feed
from metered_sync.engine.sending.packet_queue import LivePacketQueue
from metered_sync.errors import MediaError, MeteredTimeoutError
from metered_sync.media.opening import open_in_time
from metered_sync.media.pyav import OPEN_ERRORS, READ_ERRORS, media_error, reason_of
from metered_sync.media.sources.demuxing import streams_of
from metered_sync.media.sources.live import LiveSource
from metered_sync.media.sources.packets import PacketPlayout, Sendable, sendable_streams
from metered_sync.media.sources.playout import Playout, StreamLostError, read
from metered_sync.wire.arguments import shown
from metered_sync.wire.secrets import hides_arguments

__all__ = ["RtspSource", "from_rtsp"]

logger = logging.getLogger("metered_sync")

CONNECT_TIMEOUT = 10.0
"""Seconds that connecting may take unless told otherwise."""
READ_TIMEOUT = 0.7
"""Seconds after which a read without data returns. (What comes at that very moment may be
torn, and the connection is made anew: so not a time at which cameras of 1 or 2 fps send.)"""
MAX_SILENCE = 10.0
"""Seconds without data after which a connection is taken to be lost."""
FIRST_PAUSE = 0.5
LONGEST_PAUSE = 15.0
"""Seconds before an attempt to connect again: doubled each time, less up to a fifth."""
EXAMINED = 8
EXAMINED_SECONDS = 1.0
"""Pictures that are looked at before they are sent as they are, and seconds of them, at most."""
STEADY_AFTER = 10.0
"""Seconds after which a connection has shown that it lasts, and pauses begin small again."""
RTSP_OPTIONS = {
    "allowed_media_types": "video+audio",
    "analyzeduration": "500000",  # µs in which to find out what is sent
    "fpsprobesize": "0",
    "max_delay": "100000",  # µs for which a packet that UDP brought too early waits
}
"""FFmpeg's options for reading from an RTSP server."""
TRANSPORTS = ("tcp", "udp", "udp_multicast", "http")
"""The ways in which media may come, as FFmpeg names them."""
REFUSALS = {
    av.error.HTTPUnauthorizedError: "401, user or password are missing or wrong: give them as "
    "rtsp://user:password@host/…, special characters percent-encoded",
    av.error.HTTPForbiddenError: "403, this user may not see it",
    av.error.HTTPNotFoundError: "404, the server knows no such path: the camera's manual names it",
    av.error.ConnectionRefusedError: "nothing listens there: check host and port",
    av.error.InvalidDataError: "what answers there is no RTSP server, or sends nothing readable",
}
"""The meaning of FFmpeg's errors here, each with a remedy."""

Transport = Literal["tcp", "udp", "udp_multicast", "http"]


@hides_arguments
def from_rtsp(
    url: str,
    *,
    transport: Transport = "tcp",
    encoded: bool = False,
    timeout: float | None = None,
) -> RtspSource:
    """Connect to a camera, or another RTSP server; return a source of its pictures and sound.

    It is live: it runs from now on, and the newest picture is what is sent. When the
    connection is lost, the tracks pause, and it is made anew for ever, after 0.5, 1, 2, …
    up to 15 s; see :attr:`RtspSource.state`.

    Args:
        url: ``rtsp://`` or ``rtsps://``. User and password in it are never shown or logged.
        transport: How media comes: ``"tcp"`` (over the same connection), ``"udp"``,
            ``"udp_multicast"`` or ``"http"`` (a tunnel).
        encoded: Whether to send H.264, VP8 and Opus as they are, without decoding and encoding:
            at next to no cost, in the quality of the camera. Its tracks can be sent and recorded,
            not looked at. A track in another codec, or with B-frames, is refused when it is asked
            for, with what to do.
        timeout: Seconds for the first connection; ``None``: 10.

    Raises:
        MediaError: There is no such server or path, it refuses, or sends nothing that can
            be played; with ``encoded``, that can be sent as it is.
        MeteredTimeoutError: It did not answer in time.
        ValueError: Another kind of URL or transport.
    """
    return RtspSource(url, transport=transport, encoded=encoded, timeout=timeout)


class RtspSource(LiveSource):
    """Play an RTSP server. Made by :func:`from_rtsp`."""

    @hides_arguments
    def __init__(
        self,
        url: str,
        *,
        transport: Transport = "tcp",
        encoded: bool = False,
        timeout: float | None = None,
    ) -> None:
        """Connect; see :func:`from_rtsp`."""
        deadline = Deadline.of(timeout, CONNECT_TIMEOUT)
        self._connection = connection = _RtspConnection(url, transport, encoded)

        def connect() -> tuple[Any, Sendable | None]:
            container = connection.open(deadline)
            return container, connection.examine(container) if encoded else None

        try:
            container, sendable = open_in_time(connect, deadline, connection.label)
        except TimeoutError:
            raise MeteredTimeoutError(
                f"{connection.label} did not answer within {deadline}: check address, port and "
                "network"
            ) from None
        connection.container = container
        if sendable is None:
            super().__init__(connection.label, list(streams_of(container)), connection.run)
        else:
            super().__init__(
                connection.label,
                list(sendable.formats),
                connection.run,
                queue=LivePacketQueue,
                **sendable._asdict(),
            )

    @property
    def state(self) -> Literal["connected", "reconnecting", "stopped"]:
        """The connection's state: ``"connected"``, ``"reconnecting"`` or ``"stopped"``."""
        if self._feed.stopped:
            return "stopped"
        return "connected" if self._connection.connected else "reconnecting"

    @property
    def restarts(self) -> int:
        """The number of times a lost connection has been made anew."""
        return self._connection.restarts


class _RtspConnection:
    """Connect to a server, and play it into a feed, without knowing the source."""

    def __init__(self, url: str, transport: str, encoded: bool) -> None:
        self.label = f"from_rtsp({_shown(url)!r})"
        if transport not in TRANSPORTS:
            raise ValueError(
                f"transport must be one of {', '.join(TRANSPORTS)}, not {shown(transport)}"
            )
        self._url = url
        self._transport = transport
        self._encoded = encoded
        self._seen: list[Any] = []
        """Packets of the first connection that have been read already."""
        self.container: Any = None  # the first one, until it is read
        self.connected = True
        self.restarts = 0
        self._pause = FIRST_PAUSE

    def open(self, deadline: Deadline) -> Any:
        """Connect, on any thread; return the container.

        Raises:
            MediaError: It failed.
        """
        options = {**RTSP_OPTIONS, "rtsp_transport": self._transport}
        limit = deadline.left() + 0.5  # whoever waits up to the deadline is not told of this one
        try:
            container = av.open(
                self._url, format="rtsp", options=options, timeout=(limit, READ_TIMEOUT)
            )
        except OPEN_ERRORS as error:
            reason = self._reason(error, deadline)
            raise media_error(self.label, error, reason=reason) from error
        if streams_of(container):
            return container
        container.close()
        raise MediaError(f"{self.label}: it offers neither audio nor video that can be played")

    def examine(self, container: Any) -> Sendable:
        """Return which streams can be sent as they are; keep the packets that were read for that.

        Raises:
            MediaError: None of them can.
        """
        streams = streams_of(container)
        try:
            return sendable_streams(streams, self.label, self._first(container, streams))
        except BaseException:
            self._seen.clear()
            container.close()
            raise

    def _first(self, container: Any, streams: Mapping[str, Any]) -> Iterator[Any]:
        """Yield the first packets, and keep them: as many pictures as show what is to come."""
        video = streams.get("video")
        if video is None:
            return
        enough = monotonic() + EXAMINED_SECONDS
        with contextlib.suppress(*READ_ERRORS):
            for packet in container.demux(*streams.values()):
                if packet.size:
                    self._seen.append(packet)
                    yield packet
                pictures = sum(one.stream is video for one in self._seen)
                if pictures >= EXAMINED or monotonic() > enough:
                    return

    def run(self, feed: Feed) -> None:
        """Play, connect again, and so on, until the stop; on the producer's thread."""
        playout = PacketPlayout(feed, self.label) if self._encoded else Playout(feed)
        container, self.container = self.container, None
        while container is not None:
            began = monotonic()
            try:
                with container:
                    while self._seen:
                        playout.put(self._seen.pop(0))
                    if not read(container, feed, playout, MAX_SILENCE):
                        return
                why = "the server has ended it"
            except StreamLostError as error:
                why = str(error)
            except READ_ERRORS as error:
                why = reason_of(error)
            container = None
            if feed.stopped:
                return
            logger.warning("%s: lost, connecting again: %s", self.label, why)
            self.connected = False
            lost = monotonic()
            if lost > began + STEADY_AFTER:
                self._pause = FIRST_PAUSE
            container = self._again(feed)
            if container is not None:
                logger.info("%s: back after %.1f s", self.label, monotonic() - lost)
                self.restarts += 1
                self.connected = True
                playout.begin()

    def _again(self, feed: Feed) -> Any:
        """Connect again, however long it takes; ``None`` once the feed is stopped."""
        told = ""
        while True:
            deadline = Deadline(self._pause * random.uniform(0.8, 1.0))
            while deadline.left() > 0 or feed.interrupted:
                if feed.interrupted and feed.take_seek() is None:
                    return None
                with feed.lock:
                    feed.moved.wait(min(deadline.left(), PRODUCER_POLL))
            self._pause = min(self._pause * 2, LONGEST_PAUSE)
            try:
                return self.open(Deadline(CONNECT_TIMEOUT))
            except MediaError as error:
                level = logging.DEBUG if str(error) == told else logging.WARNING
                logger.log(level, "%s", error)
                told = str(error)

    def _reason(self, error: Exception, deadline: Deadline) -> str:
        if deadline.left() == 0:
            return f"no answer within {deadline}"
        for kind, reason in REFUSALS.items():
            if isinstance(error, kind):
                return reason
        number = getattr(error, "errno", None)
        if number == errno.EPROTONOSUPPORT:
            return f"the server does not offer the transport {self._transport!r}: try another"
        if number == errno.EIO:
            return "the host is not known or not reachable: check the address and the network"
        return reason_of(error)


def _shown(url: object) -> str:
    """Return an RTSP URL without user, password, and values that may be secret."""
    if not isinstance(url, str):
        raise TypeError(f"url must be a str, not {type(url).__name__}")
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        parts, host, port = urlsplit(""), None, None
    if parts.scheme not in ("rtsp", "rtsps") or not host or re.search(r"[\s\x00-\x1f\x7f]", url):
        raise ValueError(
            "url must be like rtsp://host/path or rtsps://host/path, special characters in user "
            "and password percent-encoded; from_file() plays files, from_camera() cameras here"
        )
    path = re.sub(r"=[^/&;]+", "=…", parts.path) + ("?…" if parts.query else "")
    host = f"[{host}]" if ":" in host else host
    return f"{parts.scheme}://{host}{f':{port}' if port else ''}{path}"
