"""Send a user's track: to a room's members, or as one publication of the SFU.

A sender of aiortc (1.14 to 1.16) ends for good with the first end of a track that it sees,
stopping that track. So what a user adds is a :class:`LocalTrack`, and each sender gets an
:class:`Outlet` of it: a track that never ends while its sender should live. An outlet can be
handed over to another local track; its sender notices new content only.

A user's track may be sent as many local tracks at once, each with its own stream, metadata and
encoding: they share the :class:`~metered_sync.engine.sending.source_reader.SourceReader` that
reads it, and one encoder wherever codec, bit rate and frame rate are the same.

Everything here but the making runs on the loop's thread.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from typing import Any

from aiortc import RTCRtpTransceiver
from aiortc.mediastreams import MediaStreamTrack

from metered_sync.engine.sending.fed_track import FedTrack, encoded_format
from metered_sync.engine.sending.outlet import Outlet
from metered_sync.engine.sending.shared_encoder import SharedEncoder
from metered_sync.engine.sending.source_reader import SourceReader
from metered_sync.engine.webrtc.aiortc_private.sending import plays_packets
from metered_sync.engine.webrtc.encoding import Encoding, prefer_codec
from metered_sync.engine.webrtc.stream_formats import StreamFormat
from metered_sync.errors import MediaError

__all__ = ["LocalTrack", "Outlet"]

DEFAULT_ENCODING = Encoding()
ENDING_POLL = 0.25
"""Seconds between two looks at a source that is about to end."""
REMEMBERED_IDS = 32
"""Ids remembered of tracks in a row, each replaced by the next."""


class LocalTrack:
    """A user's track as one room or one publication sends it."""

    def __init__(
        self,
        source: MediaStreamTrack,
        *,
        stream_id: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        encoding: Encoding = DEFAULT_ENCODING,
    ) -> None:
        """Prepare the track; its source is read once an outlet is consumed.

        Args:
            source: Any aiortc track. It is the user's: it is never stopped from here.
            stream_id: The stream it belongs to.
            metadata: What its receivers are told about it.
            encoding: How it is encoded.

        Raises:
            MediaError: It is encoded already, in a way in which it cannot be sent on.
            ValueError: It is encoded already, and the wishes come too late.
        """
        self.format = _format_of(source, encoding)
        """The format of what the source yields, where that is encoded already."""
        self.source = source
        self.id: str = source.id
        """The source's, unless another track is known by that (:meth:`set_apart`)."""
        self.ids: tuple[str, ...] = (source.id,)
        """The ids of the tracks that this one has replaced, and its own: where one of them was
        announced, the receiver knows the track by that."""
        self.kind: str = source.kind
        self.stream_id = stream_id
        self.metadata = metadata
        self.encoding = encoding
        self.video_bitrate, self.codec = encoding.video_bitrate, encoding.codec
        if self.format is not None:
            self.codec = self.format.codec
        self.closed = False
        self._outlets: set[Outlet] = set()
        self._reader: SourceReader | None = None
        """Set while this track is in use."""
        self._on_end: Callable[[LocalTrack], None] | None = None
        self._linger = 0.0
        self._ending: asyncio.TimerHandle | None = None
        self._unwatch: Callable[[], object] | None = None
        """Stops listening to the source."""

    def __repr__(self) -> str:
        state = "closed" if self.closed else "ended" if self.ended else "live"
        return f"<LocalTrack {self.kind} {self.id}: {state}, {len(self._outlets)} outlets>"

    @property
    def apart(self) -> bool:
        """Whether it needs a section of its own: nobody else's would do."""
        return self.metadata is not None or self.format is not None

    @property
    def ended(self) -> bool:
        """Whether the source has ended."""
        ended = self._reader is not None and self._reader.ended
        return ended or self.source.readyState == "ended"

    @property
    def encoders(self) -> list[SharedEncoder]:
        """The encoders of the source's pictures, for this track and others of the same source."""
        return [] if self._reader is None else self._reader.encoders

    def outlet(self, *, own_id: bool = False) -> Outlet:
        """Return a track for one sender; with the id of this track, or with an id of its own."""
        return Outlet(self, own_id=own_id)

    def prefer_codec(self, transceiver: RTCRtpTransceiver) -> None:
        """Offer the track's codec first from now on; what is encoded already, in that one alone."""
        prefer_codec(transceiver, self.codec, alone=self.format is not None)

    def successor(self, source: MediaStreamTrack) -> LocalTrack:
        """Return a track that replaces this one: in its stream, with its metadata and encoding."""
        new = LocalTrack(
            source, stream_id=self.stream_id, metadata=self.metadata, encoding=self.encoding
        )
        new.ids = tuple(dict.fromkeys((*self.ids, *new.ids)))[-REMEMBERED_IDS:]
        return new

    def set_apart(self, others: Iterable[LocalTrack]) -> None:
        """Take an id of its own where one of the tracks that are sent is known by this one's.

        It has replaced this one's source, which is sent once more elsewhere.
        """
        if any(self.id in other.ids for other in others):
            before, self.id = self.id, str(uuid.uuid4())
            self.ids = tuple(self.id if one == before else one for one in self.ids)

    # --- the end of the source ---

    def watch(self, on_end: Callable[[LocalTrack], None], linger: float) -> None:
        """Call ``on_end``, once, some seconds after the source has ended, unless closed by then.

        Whether somebody reads the source or not. Meanwhile its last frames are sent.
        """
        self._on_end, self._linger = on_end, linger
        loop = asyncio.get_running_loop()

        def ended() -> None:  # on any thread
            with suppress(RuntimeError):  # the loop has ended, and nothing is sent any more
                loop.call_soon_threadsafe(self.source_ended)

        source = self.source
        if isinstance(source, FedTrack):
            source.on_end(ended)
            self._unwatch = lambda: source.off_end(ended)
        else:
            source.add_listener("ended", ended)
            self._unwatch = lambda: source.remove_listener("ended", ended)
            if self.ended:
                self.source_ended()

    def source_ended(self) -> None:
        """Take note that the source has ended, or will once its last frames have been taken."""
        if self._on_end is not None and self._ending is None and not self.closed:
            loop = asyncio.get_running_loop()
            if self.ended:
                self._ending = loop.call_later(self._linger, self._tell_end)
            else:
                self._ending = loop.call_later(ENDING_POLL, self._look)

    def _look(self) -> None:
        """See whether the source has ended by now: perhaps nobody takes its last frames."""
        self._ending = None
        if isinstance(self.source, FedTrack):
            self.source.pass_time()
        self.source_ended()

    def _tell_end(self) -> None:
        on_end, self._on_end = self._on_end, None
        if on_end is not None:
            on_end(self)

    def _forget_source(self) -> None:
        self._on_end = None
        if self._ending is not None:
            self._ending.cancel()
        unwatch, self._unwatch = self._unwatch, None
        if unwatch is not None:
            with suppress(KeyError):  # (an emitter forgets its listeners once it has ended)
                unwatch()

    def close(self) -> None:
        """Let go of the source, for good. Outlets stay alive, and silent."""
        self.closed = True
        self._forget_source()
        for outlet in tuple(self._outlets):
            outlet.switch(None)
        reader, self._reader = self._reader, None
        if reader is not None:
            reader.release(self)

    # --- for outlets ---

    def add(self, outlet: Outlet) -> None:
        """Feed an outlet from now on."""
        self._outlets.add(outlet)
        if not self.closed:
            if self._reader is None:
                self._reader = SourceReader.hold(self.source, self, self.format)
            self._reader.add(outlet, self.encoding)

    def remove(self, outlet: Outlet) -> None:
        """Feed an outlet no longer."""
        self._outlets.discard(outlet)
        if self._reader is not None:
            self._reader.remove(outlet, self.encoding)

    def update(self) -> None:
        """Learn that an outlet has begun to be consumed."""
        if self._reader is not None:
            self._reader.update()


def _format_of(source: MediaStreamTrack, encoding: Encoding) -> StreamFormat | None:
    """Return the format of a source that is encoded already; see :class:`LocalTrack`."""
    if plays_packets(source):
        raise MediaError(
            f"the {source.kind} of a MediaPlayer with decode=False is encoded already, and its "
            "player does not tell how: from_file(…, encoded=True) and from_rtsp(…, encoded=True) "
            "send such media as it is; without decode=False it is decoded and encoded"
        )
    format = encoded_format(source)
    if format is not None and encoding.codec not in (None, format.codec):
        raise ValueError(
            f"codec={encoding.codec!r} cannot be: the {source.kind} is {format} already; open its "
            "source without encoded=True to have it encoded anew"
        )
    if format is not None and (encoding.video_bitrate, encoding.max_framerate) != (None, None):
        raise ValueError(
            f"video_bitrate and max_framerate are for an encoder, and the {source.kind} is encoded "
            "already: set them where that is done, or open its source without encoded=True"
        )
    return format
