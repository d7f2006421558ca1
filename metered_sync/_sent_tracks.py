"""Keep the tracks that a peer sends to its room, by what its user gave."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from aiortc.mediastreams import MediaStreamTrack

from metered_sync.bridge import guard
from metered_sync.engine.rooms.our_tracks import OurTracks, metadata_signal
from metered_sync.engine.sending.local_track import LocalTrack
from metered_sync.engine.webrtc.encoding import Encoding
from metered_sync.errors import MediaError, MeteredPeerStateError, OversizedPayloadError
from metered_sync.media.sources.base import Source
from metered_sync.media.tracks.given import AnyTrack, sendable
from metered_sync.media.tracks.stream import MediaStream
from metered_sync.media.tracks.track import RemoteTrack
from metered_sync.wire import frames
from metered_sync.wire.arguments import shown
from metered_sync.wire.fields import copied
from metered_sync.wire.json_codec import encode
from metered_sync.wire.limits import MAX_FRAME

__all__ = ["SentTracks", "check_stream"]

Post = Callable[..., None]
"""Has the loop call a function with arguments, in the order of the posts."""


class SentTracks:
    """The tracks that one peer sends; safe to use from many threads at once.

    A track that arrives is kept alive here while it is sent on, and with it its client.
    """

    def __init__(self) -> None:
        # Guards _sent; what changes is posted with it held. Nothing of a user's is called then.
        self._lock = guard.reentrant_lock()
        self._sent: dict[int, tuple[AnyTrack, LocalTrack]] = {}
        """By the track's ``id()``: a user's own may compare in ways of their own."""

    @property
    def tracks(self) -> list[AnyTrack]:
        """The tracks, as they were given."""
        return [track for track, _ in list(self._sent.values())]

    def _local(self, track: AnyTrack) -> LocalTrack | None:
        """Return what a track is sent as, if it is."""
        found = self._sent.get(id(track))
        return None if found is None else found[1]

    def add(
        self,
        tracks: Sequence[AnyTrack],
        stream_id: str | None,
        metadata: dict[str, Any] | None,
        encodings: Mapping[str, Encoding],
        *,
        state: str,
        post: Post,
        to: OurTracks,
    ) -> None:
        """Send further tracks; those that are sent already, in the same way, are left alone.

        Args:
            tracks: What to send.
            stream_id: The id of their stream; ``None``: none, or the one that a track has.
            metadata: What members are told of each.
            encodings: How they are encoded, by kind.
            state: The peer's, for errors.
            post: Reaches the loop.
            to: Sends them there.
        """
        new: dict[int, tuple[AnyTrack, LocalTrack]] = {}
        for track in tracks:
            encoding = encodings[track.kind]
            known = self._local(track)
            if known is not None:
                _check_same(known, stream_id, metadata, encoding, state)
                continue
            local = LocalTrack(
                _live(track, "add_track"),
                stream_id=stream_id,
                metadata=None if metadata is None else dict(metadata),
                encoding=encoding,
            )
            _check_size(local)  # (what has no end is refused here)
            local.metadata = copied(local.metadata)
            new[id(track)] = (track, local)
        with self._lock:
            # (Another thread may have added one just now.)
            new = {key: sent for key, sent in new.items() if key not in self._sent}
            for key, (track, local) in new.items():
                local.set_apart(other for _, other in self._sent.values())
                self._sent[key] = (track, local)
            if new:
                post(to.add, [local for _, local in new.values()])

    def of_stream(self, stream_id: str) -> list[AnyTrack]:
        """Return the tracks that are sent in a stream."""
        sent = list(self._sent.values())
        return [track for track, local in sent if local.stream_id == stream_id]

    def metadata(self, tracks: Iterable[AnyTrack]) -> dict[str, Any] | None:
        """Return a copy of the metadata of the first of these tracks that is sent."""
        known = [local for track in tracks if (local := self._local(track)) is not None]
        metadata = known[0].metadata if known else None
        return None if metadata is None else copied(dict(metadata))

    def remove(self, tracks: Iterable[AnyTrack], post: Post, to: OurTracks) -> bool:
        """Send tracks no longer; say whether any of them was sent."""
        with self._lock:
            gone = [sent for t in tracks if (sent := self._sent.pop(id(t), None)) is not None]
            if gone:
                post(to.remove, [local for _, local in gone])
        return bool(gone)

    def forget(self, local: LocalTrack) -> None:
        """Let go of a track whose source has ended; on the loop, where it has been removed."""
        gone = []  # and what is freed with it is freed without the lock
        with self._lock:
            for key, sent in list(self._sent.items()):
                if sent[1] is local:
                    gone.append(self._sent.pop(key))

    def replace(
        self, old: AnyTrack, new: AnyTrack | None, *, state: str, post: Post, to: OurTracks
    ) -> None:
        """Send another track in the place of one; ``None``: nothing."""
        known = self._local(old)
        if known is None:
            raise _not_sent(state)
        if new is old:
            return
        replacement = None
        sent_already = f"the new {old.kind} track is sent already"
        if new is not None:
            if new.kind != old.kind:
                raise TypeError(f"replace_track: {old.kind} cannot become {new.kind}")
            if self._local(new) is not None:
                raise _attached("replace_track", sent_already, state)
            replacement = known.successor(_live(new, "replace_track"))
            if replacement.format != known.format:
                was, becomes = (str(t.format or "encoded here") for t in (known, replacement))
                raise MediaError(
                    f"replace_track: the old {old.kind} track is {was}, the new one {becomes}: "
                    "receivers must be told of that; remove the old one, and add the new one"
                )
        with self._lock:
            was_sent = new is not None and id(new) in self._sent
            if not was_sent and self._local(old) is known:
                del self._sent[id(old)]
                if new is not None and replacement is not None:
                    replacement.set_apart(other for _, other in self._sent.values())
                    self._sent[id(new)] = (new, replacement)
                post(to.replace, known, replacement)
                return
        # Another thread was quicker.
        raise _attached("replace_track", sent_already, state) if was_sent else _not_sent(state)


def check_stream(method: str, stream: object) -> None:
    """Raise ``TypeError`` unless this is a stream; say how to make one of it."""
    if isinstance(stream, MediaStream):
        return
    if isinstance(stream, str):
        remedy = f"MediaStream(id={shown(stream)})"
    elif isinstance(stream, (Source, RemoteTrack, MediaStreamTrack, list, tuple)):
        remedy = "MediaStream(…) makes one of tracks or a source"
    else:
        remedy = "make one with MediaStream(…)"
    raise TypeError(f"{method}() takes a MediaStream, not {type(stream).__name__}: {remedy}")


def _live(track: AnyTrack, method: str) -> MediaStreamTrack:
    """Return the track of aiortc's to send, unless it has ended."""
    source = sendable(track)
    if source.readyState == "ended":
        raise MediaError(f"{method}: {track!r} has ended: there is nothing to send")
    return source


def _check_same(
    known: LocalTrack,
    stream_id: str | None,
    metadata: dict[str, Any] | None,
    encoding: Encoding,
    state: str,
) -> None:
    """Raise if a track that is sent is added again in another way."""
    if stream_id is not None and known.stream_id != stream_id:
        what = f"in the stream {known.stream_id!r}" if known.stream_id else "in no stream"
    elif metadata is not None and known.metadata != metadata:
        what = "with other metadata"
    elif encoding not in (Encoding(), known.encoding):
        what = "with other options"
    else:
        return
    raise _attached("add_track", f"the {known.kind} track is sent already, {what}", state)


def _not_sent(state: str) -> MeteredPeerStateError:
    return MeteredPeerStateError(
        "replace_track: the old track is not sent, or has ended; add the new one",
        code="invalid_state",
        method="replace_track",
        current_state=state,
    )


def _attached(method: str, what: str, state: str) -> MeteredPeerStateError:
    return MeteredPeerStateError(
        f"{method}: {what}; remove it first",
        code="track_already_attached",
        method=method,
        current_state=state,
    )


def _check_size(track: LocalTrack) -> None:
    """Raise if a track's metadata is too large for the message that tells them."""
    if track.metadata is None:
        return
    encode(track.metadata, "metadata")  # (whose errors are about it alone)
    text = frames.build_send("x" * 128, metadata_signal(track), "x" * 40)
    if (size := len(text.encode())) > MAX_FRAME:
        raise OversizedPayloadError(
            f"the metadata makes a message of {size} bytes, the service accepts {MAX_FRAME}",
            size=size,
            cap=MAX_FRAME,
        )
