"""Offer the tracks that others send, and every way to read them."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Generic, Literal, NoReturn, cast, overload

from av import AudioFrame, VideoFrame

from metered_sync._observable import Observable
from metered_sync.bridge import guard
from metered_sync.bridge.deadline import Deadline
from metered_sync.engine.webrtc.incoming import IncomingTrack
from metered_sync.errors import MediaError, MeteredError, MeteredTimeoutError
from metered_sync.media.pixels import EightBitFormat, check_format
from metered_sync.media.snapshot import Snapshot
from metered_sync.media.tracks.callbacks import FrameCallback, FrameCallbacks
from metered_sync.media.tracks.capture import VideoCapture
from metered_sync.media.tracks.core import TrackCore
from metered_sync.media.tracks.frame_queue import F_co, FrameQueue, SharedFrameQueue, read_frames
from metered_sync.media.tracks.pcm import PcmReader
from metered_sync.wire.arguments import shown
from metered_sync.wire.events import Event
from metered_sync.wire.fields import copied

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from metered_sync.media.notebook.preview import Preview

__all__ = ["RemoteTrack", "core_of"]


FOREIGN_NAMES = {
    "recv": "nothing is awaited here; use track.frames().get(), track.read() or track.pcm()",
    "stop": "use track.close()",
    "readyState": "use track.ended",
    "get": "use track.frames().get(), track.read() or track.pcm()",
    "to_ndarray": "use track.read(), or .to_ndarray() of a frame of track.frames()",
}
"""Names of other libraries' tracks, with what to use here."""


class RemoteTrack(Observable, Generic[F_co]):
    """Read a track that somebody else sends.

    Any number of readers, on any threads, each see every frame (or the newest one).
    Decoding happens in the background, while somebody reads and for ten seconds after that. Who
    reads later gets the first picture a moment later: with a key frame, which is asked for at once.

    It **ends** when its sender has removed it, or replaced it by nothing, when its source has
    ended, and when the sender has left for good: readers drain, iteration ends, and a
    :class:`~metered_sync.TrackEnded` event tells. A connection that is rebuilt is a pause.

    It can be sent on, to a room or to the SFU, as it is: ``sfu.publish(track)``,
    ``peer.add_track(track)``.
    """

    _emitter = "RemoteTrack"

    def __init__(
        self,
        incoming: IncomingTrack,
        owner: object,
        *,
        metadata: dict[str, Any] | None = None,
    ) -> None:
        self._core = TrackCore(incoming, owner)
        self._core.metadata = metadata
        self._hub = self._core.hub
        self._newest: SharedFrameQueue | None = None
        self._callbacks = FrameCallbacks(self._core, self)

    def __repr__(self) -> str:
        name = f" {self.name!r}" if self.name else ""
        state = "ended" if self.ended else "live"
        return f"<RemoteTrack {self.kind}{name}: {state}, {self.frames_received} frames>"

    if not TYPE_CHECKING:  # a type checker would take them for what there is

        def __iter__(self) -> NoReturn:
            raise TypeError(
                "a RemoteTrack is not iterated over itself: use track.frames(), track.pcm() or "
                "iter_frames(track)"
            )

        def __next__(self) -> NoReturn:
            raise TypeError(
                "a RemoteTrack has no next item itself: use track.read(), or next() of "
                "track.frames(), track.pcm() or iter_frames(track)"
            )

        def __getattr__(self, name: str) -> NoReturn:
            hint = f": {FOREIGN_NAMES[name]}" if name in FOREIGN_NAMES else ""
            words = f"{type(self).__name__!r} object has no attribute {name!r}{hint}"
            raise AttributeError(words, name=name, obj=self)

    @property
    def id(self) -> str:
        """The track's id at its publisher; another one after the publisher's recovery."""
        return self._core.incoming.id

    @property
    def name(self) -> str | None:
        """The name that the track was published under, where it is known."""
        return self._core.incoming.name

    @property
    def metadata(self) -> dict[str, Any] | None:
        """What its sender has told about it, where it has; a copy each time."""
        return copied(self._core.metadata)

    @property
    def stream_id(self) -> str | None:
        """The id of the stream that the track belongs to: for the SFU, the publisher's session."""
        return self._core.incoming.stream_id

    @property
    def kind(self) -> Literal["audio", "video"]:
        """The track's kind: ``"audio"`` or ``"video"``."""
        return cast(Literal["audio", "video"], self._core.incoming.kind)

    @property
    def ended(self) -> bool:
        """Whether no more frames will come."""
        return self._core.incoming.ended

    @property
    def restarts(self) -> int:
        """The number of times the media connection under this track was rebuilt.

        Readers see a pause each time, and timestamps that go on rising.
        """
        return self._core.incoming.restarts

    @property
    def frames_received(self) -> int:
        """The number of frames that came so far, read or not."""
        return self._core.incoming.frames

    def frames(
        self, *, mode: Literal["latest", "fifo"] | None = None, maxsize: int | None = None
    ) -> FrameQueue[F_co]:
        """Return a new, independent reader of the track's frames, from now on.

        Args:
            mode: ``"latest"`` (the newest frame only; the default for video) or ``"fifo"``
                (every frame, the oldest dropped when full; the default for audio).
            maxsize: How many frames a ``"fifo"`` reader holds; 30 pictures or 500 pieces
                of sound (10 s) unless said otherwise.
        """
        return read_frames(self._core, mode=mode, maxsize=maxsize)

    @overload
    def read(
        self, timeout: float | None = None, format: EightBitFormat = "bgr24"
    ) -> NDArray[np.uint8]: ...
    @overload
    def read(self, timeout: float | None = None, format: str = "bgr24") -> NDArray[Any]: ...
    def read(self, timeout: float | None = None, format: str = "bgr24") -> NDArray[Any]:
        """Wait for the newest picture that this method has not returned yet.

        Args:
            timeout: Seconds to wait; ``None`` waits for a picture, the end or Ctrl-C.
            format: The pixel format, as FFmpeg names it: ``"bgr24"``, ``"rgb24"``, ``"gray"``
                (0 to 255, as OpenCV's), ``"bgra"``, ``"yuv420p"``, ``"nv12"``, ….

        Returns:
            An array of shape (height, width, 3), or (height, width) for ``"gray"``, and
            (height * 3 / 2, width) for ``"yuv420p"`` and ``"nv12"``; uint8. It is contiguous
            and the caller's own: writable, and nothing is written into it later. It is the
            memory that the picture was converted into, and not copied again unless its rows
            were padded there: in widths that are no multiple of 32.

        Raises:
            MeteredTimeoutError: No new picture in time.
            ClosedError: The track has ended; the error that ended its connection, if one did.
            MediaError: This is an audio track, or the picture's odd size does not fit.
            ValueError: A format that cannot be had; the error names those that can.
        """
        self._check_video("read() returns pictures", "use pcm() or frames()")
        if isinstance(timeout, str):
            raise TypeError(
                "read() takes its timeout first, and the format by name: "
                f"read(format={shown(timeout)})"
            )
        check_format(format)
        deadline = Deadline.of(timeout)
        self._core.check_process()
        newest = self._newest
        if newest is None:
            made = SharedFrameQueue(f"latest frames of {self._core.label}", self._core, maxsize=1)
            self._core.incoming.add(made)
            if self._newest is None:  # (no call between the two: they are one step)
                self._newest = made
            else:
                made.close()
            newest = self._newest
        self._core.incoming.touch()
        newest.idle_since = None
        try:
            frame = newest.get(timeout=deadline.left())
        except MeteredTimeoutError:
            if self._core.incoming.lacks_key_frame:
                raise MeteredTimeoutError(
                    f"no picture of {self._core.label} within {deadline}: its sender sends no key "
                    "frame, though it is asked for one, and without one nothing can be decoded"
                ) from None
            if self.frames_received:
                raise
            raise MeteredTimeoutError(
                f"no first frame of {self._core.label} within {deadline}: it is negotiated; does "
                "its publisher send?"
            ) from None
        finally:
            newest.idle_since = time.monotonic()
        return self._core.converter.convert(frame, format)

    def capture(self, *, timeout: float | None = None) -> VideoCapture:
        """Return a reader like OpenCV's ``cv2.VideoCapture`` of a camera.

        Args:
            timeout: Seconds that each of its calls waits unless told otherwise; ``None``
                waits for a picture, the end or Ctrl-C.

        Raises:
            MediaError: This is an audio track.
        """
        self._check_video("capture() reads pictures", "use pcm() or frames()")
        self._core.check_process()
        return VideoCapture(self._core, timeout=timeout)

    def pcm(
        self, *, rate: int = 16000, layout: Literal["mono", "stereo"] = "mono", chunk: float = 0.02
    ) -> PcmReader:
        """Return an iterator over the track's sound, from now on, in chunks of one length.

        A chunk is an array of int16: of shape (samples,) for ``"mono"`` and (samples, 2) for
        ``"stereo"``, contiguous, writable, and the caller's own. All have ``chunk * rate``
        samples; the last one, when the track ends, is filled up with silence.

        **Time.** Samples count the source's time: where less than 1 s of it is missing
        (a lost packet, a microphone that sends nothing while it is quiet) there is silence
        instead. A longer pause is left out, and so is what was dropped because nobody took
        it: ten seconds of sound are kept.

        Args:
            rate: Samples per second, from 1000 to 384000.
            layout: ``"mono"`` (channels are mixed) or ``"stereo"``.
            chunk: Seconds; rounded to whole samples.

        Raises:
            MediaError: This is a video track.
            ValueError: An argument makes no sense.
        """
        if self.kind != "audio":
            raise MediaError(
                f"pcm() returns sound, and {self._core.label} has none: use read() or frames()"
            )
        frames: FrameQueue[AudioFrame] = read_frames(self._core, mode="fifo")
        return PcmReader(frames, f"pcm of {self._core.label}", rate, layout, chunk)

    def on_frame(
        self, fn: Callable[[VideoFrame], object] | Callable[[AudioFrame], object]
    ) -> FrameCallback:
        """Call ``fn(frame)`` with the track's newest frame, again and again; also a decorator.

        The callbacks of one track run one at a time, on a thread of its own. They may block
        and call anything, and close their own client. Frames that come while they are at it
        are dropped, but for the newest, and counted: use :meth:`pcm` for sound that must be
        whole. What they raise is logged, goes to the track's ``on_error``, or else to that of
        its client or remote peer, as ``on_error(frame, exception)``, and stops nothing. While
        there are callbacks, the track and its client stay alive.

        Returns:
            A handle: ``close()`` ends the calls, ``dropped`` counts, and calling it calls
            ``fn``.

        Raises:
            ClosedError: The track has ended; the error that ended its connection, if one did.
        """
        self._core.check_process()
        return self._callbacks.add(fn)

    def snapshot(self, timeout: float | None = None) -> Snapshot:
        """Wait for the next picture that arrives, and return it to be looked at or saved.

        Args:
            timeout: Seconds to wait; ``None`` waits for a picture, the end or Ctrl-C.

        Raises:
            MeteredTimeoutError: No picture in time.
            ClosedError: The track has ended; the error that ended its connection, if one did.
            MediaError: This is an audio track.
        """
        self._check_video("snapshot() takes a picture", "display() shows how loud it is")
        frames: FrameQueue[VideoFrame] = read_frames(self._core, mode="latest")
        with frames:
            return Snapshot(frames.get(timeout=timeout), self._core.label)

    def display(self, *, fps: float = 15, width: int = 480, quality: int = 70) -> Preview:
        """Show the track in a Jupyter notebook, live, and return at once.

        The output of this cell shows the newest picture, or how loud the sound is, until
        the track ends or the preview is stopped; other cells run meanwhile. With ipywidgets
        it is smoother: the front end says what it can keep up with. Without, and while the
        kernel is too busy to hear that, it gets five pictures a second.

        Args:
            fps: Pictures a second, at most; above 0, up to 60.
            width: Wider pictures are made smaller, to this many pixels; up to 4096.
            quality: Of the JPEGs, from 1 (small) to 100 (good).

        Returns:
            The preview: ``stop()`` it, or use it in a ``with`` statement.

        Raises:
            MediaError: This is not a notebook.
            ClosedError: The track has ended; the error that ended its connection, if one did.
        """
        from metered_sync.media.notebook.preview import Preview

        return Preview(self._core, fps=fps, width=width, quality=quality)

    def wait_ended(self, *, timeout: float | None = None) -> None:
        """Wait until the track has ended; see the class for when that is.

        Args:
            timeout: Seconds to wait; ``None`` waits for the end or Ctrl-C; 0 polls.

        Raises:
            MeteredTimeoutError: It did not end in time.
        """
        deadline = Deadline.of(timeout)
        guard.check_blocking(self._core.born, self._core.label)
        with self._hub.queue((Event,)) as events:
            while not self.ended:
                try:
                    events.get(timeout=deadline.left())
                except MeteredTimeoutError:
                    raise MeteredTimeoutError(
                        f"{self._core.label} did not end within {deadline}"
                    ) from None
                except MeteredError:
                    pass  # why the track ended is for those who read it

    def close(self, *, timeout: float | None = None) -> None:
        """Stop receiving the track, for good: it ends. Repeatable.

        From the SFU it is unsubscribed. A member of a room goes on sending it to this peer, where
        it is not decoded any more.

        Raises:
            SfuError: The SFU refuses, as in :meth:`SfuClient.unsubscribe`.
            MeteredTimeoutError: Not done before the deadline.
        """
        self._core.check_process()
        if not self.ended:
            self._core.owner._close_track(self, timeout)

    def stats(self) -> dict[str, Any]:
        """Return counters of what was received so far.

        Returns:
            ``bytes_received`` (payload), ``packets_received``, ``packets_lost`` (never
            came, retransmissions included), ``packets_missed`` (not there when a later one
            came; most come when they are asked for again), ``bitrate`` (bits per second of
            the last two seconds), ``frames_decoded``, ``dropped`` (the decoder was too slow for
            them), ``oversized`` (key frames larger than ``max_pixels``), ``lacks_key_frame``
            (whether the sender owes one, without which nothing can be decoded), ``latency``
            (seconds from the latest frame's first packet until it was decoded), ``restarts``;
            ``kind``, ``id``, ``name``.
        """
        return self._core.incoming.stats()

    def _check_video(self, what: str, instead: str) -> None:
        if self.kind != "video":
            raise MediaError(f"{what}, and {self._core.label} has none: {instead}")


def core_of(track: RemoteTrack[Any]) -> TrackCore:
    """Return the core that a track shares with its readers, for readers made elsewhere."""
    return track._core
