"""Send pictures that an encoder of the user's makes, one by one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from aiortc.mediastreams import MediaStreamTrack
from av import Packet

from metered_sync.bridge.clock import monotonic
from metered_sync.bridge.deadline import Deadline
from metered_sync.bridge.event_hub import EventHub, EventQueue
from metered_sync.engine.sending.access_units import access_units
from metered_sync.engine.sending.packet_queue import LivePacketQueue
from metered_sync.engine.webrtc.jitter import MAX_PICTURE_BYTES
from metered_sync.engine.webrtc.stream_formats import PLAIN_PROFILE, StreamFormat
from metered_sync.errors import ClosedError, MediaError
from metered_sync.media.sources.base import TrackSource
from metered_sync.media.sources.pace import Pace
from metered_sync.media.sources.packets import RATES, packet_of
from metered_sync.wire.arguments import check_choice, check_number
from metered_sync.wire.key_frames import is_vp8
from metered_sync.wire.media_events import BitrateWanted, KeyFrameWanted

if TYPE_CHECKING:
    from typing_extensions import Buffer

__all__ = ["EncodedSource"]

HEVC_START = b"\0\0\x01\x40\x01"
"""The parameters with which a stream of H.265 begins; H.264 has no such unit."""
WITHOUT_B_FRAMES = "have its encoder make none (bf=0, or Baseline profile)"


class EncodedSource(TrackSource[None, MediaStreamTrack]):
    """Send written pictures as they are: of a hardware encoder, of another program.

    The latest key frame and what follows it are kept, so that whoever joins sees a picture at
    once. What receivers ask of the encoder comes by :meth:`feedback`.

    >>> with EncodedSource("h264", fps=30) as source:
    ...     source.write(next(encoder))  # the first one tells the profile
    ...     peer.add_track(source)
    ...     for access_unit in encoder:
    ...         source.write(access_unit)
    """

    def __init__(self, codec: Literal["h264", "vp8"], fps: float = 30) -> None:
        """Make the source.

        Args:
            codec: ``"h264"`` or ``"vp8"``. Of H.264, receivers are told the profile of the key
                frame that was written before the track is sent, else Constrained Baseline.
            fps: Pictures per second that may be written, above 0 and at most 240.
        """
        codec = check_choice("codec", codec, ("h264", "vp8"))
        fps = check_number("fps", fps, 0, 240, above=True)
        label = f"EncodedSource({codec!r}, {fps:g})"
        profile = PLAIN_PROFILE if codec == "h264" else ""
        super().__init__(
            label,
            {"video": 1},
            None,
            queue=LivePacketQueue,
            formats={"video": StreamFormat(codec, profile)},
        )
        self._codec = codec
        self._units = access_units(codec, label, remedy=WITHOUT_B_FRAMES)
        self._queue: LivePacketQueue = self._feed.queues["video"]  # type: ignore[assignment]
        self._queue.wanted = True  # what is written before the track is handed out is kept
        self._pace = Pace(self._feed, fps)
        self._last = -1
        self._told = -1.0
        self._hub = hub = EventHub(label)
        self._tracks["video"].feedback = _Feedback(hub)
        self._queue.on_close(hub.end)

    @property
    def dropped(self) -> int:
        """Pictures that could not be decoded, for want of a key frame, or were not taken."""
        return self._queue.dropped

    def write(
        self, access_unit: Buffer | Packet[Any], *, key: bool = False, timeout: float | None = None
    ) -> None:
        """Send a picture, and wait until it is time for the next.

        It has the time of this call. Calls that come later than ``fps`` allows for are not held
        up, nor made up for. What comes before the first key frame is dropped, and counted.

        Args:
            access_unit: The whole of one encoded picture, in the order in which pictures are
                shown. H.264: in Annex B (each unit after a start code); SPS and PPS need not be
                repeated, they are put before each IDR picture. Or an ``av.Packet``.
            key: Whether it is a key frame. One that is by the codec's rules is seen to be one.
            timeout: Seconds to wait for the next picture's time; ``None``: as long as
                it takes; 0 does not wait.

        Raises:
            MeteredTimeoutError: It was not time yet. The picture is sent all the same.
            MediaError: It has B-frames, or is H.265 (HEVC), which cannot be sent; or the parameters
                (SPS, PPS) of this key frame have not been written.
            ClosedError: The source has been ended or stopped.
            TypeError, ValueError: Something that is not such a picture, or one of more than 4 MiB.
        """
        captured = monotonic()
        deadline = Deadline.of(timeout)
        feed, queue = self._feed, self._queue
        feed.check_call(deadline)
        data = self._checked(access_unit)
        with feed.lock:
            if queue.ending or feed.stopped:
                how = "ended" if queue.ending else "stopped"
                raise ClosedError(f"{self._label} has been {how}: make another one to write to")
            unit = self._units.read(data, key=key)
            if self._units.lacks_parameters:
                queue.dropped += 1
                raise MediaError(
                    f"{self._label}: this key frame came without its parameters (SPS and PPS), "
                    "without which nobody can decode it: write them first (an encoder's extradata, "
                    "in Annex B), or have the encoder repeat them before each key frame"
                )
            if self._units.format is not None:
                self._tracks["video"].format = self._units.format
            if unit is not None:
                feed.begin()
                due = feed.clock() - (monotonic() - captured)
                self._last = max(round(due * RATES["video"]), self._last + 1)
                queue.put(packet_of(unit, self._last, "video"), due, due)
            lacking = queue.lost and captured - self._told > 1
            if lacking:
                self._told = captured
        if lacking:
            self._hub.emit(KeyFrameWanted())
        with feed.lock:
            self._pace.wait(captured, deadline)

    def feedback(self, *, maxsize: int = 64) -> EventQueue[KeyFrameWanted | BitrateWanted]:
        """Return a queue of what receivers ask of the encoder, from now on.

        :class:`KeyFrameWanted` comes at most once a second, :class:`BitrateWanted` when the bit
        rate changes that receivers report. The queue ends with the source.
        """
        return self._hub.queue((KeyFrameWanted, BitrateWanted), maxsize=maxsize)

    def end(self) -> None:
        """Send what was written, then end the track; :meth:`wait` waits for that."""
        self._feed.check_process()
        with self._feed.lock:
            self._queue.end()

    def _checked(self, access_unit: Any) -> bytes:
        """Return an access unit's bytes; refuse what is none."""
        if isinstance(access_unit, Packet):
            data = bytes(access_unit)
        else:
            try:
                data = bytes(memoryview(access_unit).cast("B"))
            except TypeError:
                raise TypeError(
                    "bytes or an av.Packet can be written, not "
                    f"{type(access_unit).__name__}: pictures that are not encoded go to VideoSource"
                ) from None
        if not data:
            raise ValueError(f"{self._label}: an access unit without a byte is none")
        if len(data) > MAX_PICTURE_BYTES:
            raise ValueError(
                f"{self._label}: an access unit of {len(data)} bytes is more than receivers take "
                f"({MAX_PICTURE_BYTES}): write one picture at a time, or lower the bit rate"
            )
        if self._codec == "vp8" and not is_vp8(data):
            raise ValueError(
                f"{self._label}: this is no picture of VP8: another codec needs another source, "
                "and pictures that are not encoded go to VideoSource"
            )
        if self._codec == "h264" and HEVC_START in data:
            raise MediaError(f"{self._label}: this is H.265 (HEVC), and H.264 is needed here")
        if self._codec == "h264" and not data.startswith((b"\0\0\x01", b"\0\0\0\x01")):
            raise ValueError(
                f"{self._label}: this is not H.264 in Annex B, which begins with a start code "
                "(00 00 01): from MP4 and the like, FFmpeg's filter h264_mp4toannexb makes it"
            )
        return data


class _Feedback:
    """Emit what receivers ask for."""

    def __init__(self, hub: EventHub) -> None:
        self._hub = hub
        self._bitrate = 0

    def key_frame_wanted(self) -> None:
        self._hub.emit(KeyFrameWanted())

    def bitrate_wanted(self, bitrate: int) -> None:
        if bitrate != self._bitrate:
            self._bitrate = bitrate
            self._hub.emit(BitrateWanted(bitrate))
