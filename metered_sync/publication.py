"""A track that an SFU client publishes, for code that blocks."""

from __future__ import annotations

import weakref
from typing import Literal, Protocol, TypeVar, cast

from metered_sync.bridge.guard import LiveObject
from metered_sync.engine.sfu.tracks import Outgoing

__all__ = ["Publication"]

Self = TypeVar("Self", bound="Publication")


class Publisher(Protocol):
    """The client that publishes a track."""

    def _unpublish(self, publication: Publication, timeout: float | None) -> None: ...


class Publication(LiveObject):
    """A track that this client publishes, until it is closed or its source ends.

    ``with`` stops publishing at its end, as :meth:`close` does.

    After a recovery (see :class:`~metered_sync.SfuClient`) it shows the ids of the new session,
    and a :class:`~metered_sync.Republished` event has told the old ones.
    """

    def __init__(self, client: Publisher, outgoing: Outgoing, track: object = None) -> None:
        self._client = client
        self._outgoing = outgoing
        self._track = track  # one that arrives keeps its own client alive
        outgoing.handle = weakref.ref(self)  # the engine must not keep the client alive

    def __repr__(self) -> str:
        return f"<Publication {self.kind} {self.name or self.track_id!r}>"

    @property
    def session_id(self) -> str:
        """The id of the session that publishes the track; subscribers need it."""
        return self._outgoing.session_id

    @property
    def track_id(self) -> str:
        """The track's id in that session; subscribers need it."""
        return self._outgoing.track_id

    @property
    def mid(self) -> str:
        """The id of the media section that carries the track."""
        return self._outgoing.mid

    @property
    def name(self) -> str | None:
        """The name that :meth:`SfuClient.publish` was given."""
        return self._outgoing.name

    @property
    def kind(self) -> Literal["audio", "video"]:
        """``"audio"`` or ``"video"``."""
        return cast(Literal["audio", "video"], self._outgoing.local.kind)

    def __enter__(self: Self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self, *, timeout: float | None = None) -> None:
        """Stop publishing the track. Its source goes on until its user stops it. Repeatable."""
        self._client._unpublish(self, timeout)
