"""Listen to an object's events: callbacks, queues and waiting, the same on every object.

Callbacks run on the object's dispatcher thread, one at a time and in order, and may block,
call any method of the library, close their own client, and register or remove callbacks.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, ParamSpec, Protocol, TypeVar, overload

from metered_sync.bridge.deadline import Deadline
from metered_sync.bridge.dispatch import ErrorHandler
from metered_sync.bridge.event_hub import EventHub, EventQueue, Registration, check_event_type
from metered_sync.bridge.guard import LiveObject
from metered_sync.bridge.reader import MAX_BYTES, Overflow
from metered_sync.errors import MeteredTimeoutError
from metered_sync.wire.arguments import check_function, unrun_result
from metered_sync.wire.events import Event

__all__ = ["EMITTED", "Observable", "holds"]

E = TypeVar("E", bound=Event)
T = TypeVar("T")
E2 = TypeVar("E2", bound=Event)
E3 = TypeVar("E3", bound=Event)
E4 = TypeVar("E4", bound=Event)
E_co = TypeVar("E_co", covariant=True)
E_contra = TypeVar("E_contra", contravariant=True)
P = ParamSpec("P")
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)

_CONNECTION = (
    "Connected",
    "Disconnected",
    "GoingAway",
    "Outage",
    "ServerError",
    "StateChange",
    "TokenProviderError",
)
_EVENT_MODULES = (
    "metered_sync.events",
    "metered_sync.wire.events",
    "metered_sync.wire.media_events",
)
"""Where the classes of events are."""
EMITTED = {
    "SignallingClient": (*_CONNECTION, "Message", "Direct", "Presence"),
    "MeteredPeer": (
        *_CONNECTION,
        "Joined",
        "Left",
        "PeerJoined",
        "PeerLeft",
        "Data",
        "SpeakersChanged",
        "FatalError",
    ),
    "RemotePeer": (
        "StateChange",
        "Track",
        "TrackEnded",
        "StreamAdded",
        "StreamRemoved",
        "DataChannelOpened",
        "ConnectionReset",
        "NegotiationError",
        "IceCandidateError",
    ),
    "RemoteTrack": ("TrackEnded",),
    "DataChannel": ("DCOpen", "DCMessage", "DCClose", "DCError"),
    "SfuClient": ("StateChange", "Outage", "Republished", "TrackEnded"),
    "EncodedSource": ("KeyFrameWanted", "BitrateWanted"),
}
"""The classes of events that each kind of object emits."""
_WAYS = {
    "SignallingClient": "make a SignallingClient, and listen on that",
    "MeteredPeer": "join a room with a MeteredPeer, and listen on that",
    "RemotePeer": "take a member from wait_for_peer(), or .peer of a PeerJoined event, and listen "
    "on that",
    "RemoteTrack": "take the track from remote.track(…) or sfu.subscribe(…), and listen on that",
    "DataChannel": "take a channel from remote.create_data_channel(…), or .channel of a "
    "DataChannelOpened event, and listen on that",
    "SfuClient": "connect with an SfuClient, and listen on that",
    "EncodedSource": "read what feedback() of an EncodedSource returns",
}
"""The way to an object of each kind."""
_INSTEAD = {
    ("MeteredPeer", "Message"): "here, listen to Data",
    ("MeteredPeer", "Direct"): "here, listen to Data",
    ("MeteredPeer", "Presence"): "here, listen to PeerJoined and PeerLeft",
    ("SignallingClient", "Data"): "here, listen to Message and Direct",
    ("SignallingClient", "PeerJoined"): "here, listen to Presence",
    ("SignallingClient", "PeerLeft"): "here, listen to Presence",
    ("RemotePeer", "Data"): "its messages are Data events of the MeteredPeer, by sender_peer_id",
    ("RemotePeer", "Connected"): "here, listen to StateChange",
    ("RemotePeer", "Disconnected"): "here, listen to StateChange",
    ("RemotePeer", "Outage"): "here, listen to StateChange",
    ("DataChannel", "Message"): "here, listen to DCMessage",
    ("DataChannel", "Data"): "here, listen to DCMessage",
    ("DataChannel", "StateChange"): "here, listen to DCOpen and DCClose",
    ("SfuClient", "Connected"): "here, listen to StateChange",
    ("SfuClient", "Disconnected"): "here, listen to StateChange",
}
"""The events that tell of the same on another kind of object."""


class EventCallback(Protocol[E_contra, P, R_co]):
    """A function that may be called with an event, for type checkers: with its own signature.

    A function fits if it fits each of the two: the first checks it, the second takes it down.
    """

    @overload
    def __call__(self, event: E_contra, /) -> object: ...
    @overload
    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R_co: ...


class CallbackDecorator(Protocol[E_co]):
    """A decorator for functions that may be called with an event; it returns them as they are."""

    def __call__(self, fn: EventCallback[E_co, P, R], /) -> Callable[P, R]: ...


class Observable(LiveObject):
    """Offer an object's events: by callback, by queue, by waiting for one."""

    _hub: EventHub
    _emitter: ClassVar[str]
    """Its kind in :data:`EMITTED`, for those derived from it, too."""

    @property
    def on_error(self) -> ErrorHandler | None:
        """The function ``on_error(event, exception)`` for what callbacks raise; settable.

        Runs on the dispatcher thread. The exception has been logged already.
        """
        return self._hub.on_error

    @on_error.setter
    def on_error(self, handler: ErrorHandler | None) -> None:
        if handler is not None:
            check_function("on_error", handler, arguments=2)
        self._hub.on_error = handler

    @overload
    def on(self, event_type: type[E]) -> CallbackDecorator[E]: ...
    @overload
    def on(self, event_type: type[E], fn: Callable[[E], object]) -> None: ...
    def on(self, event_type: type[E], fn: Callable[[E], object] | None = None) -> Any:
        """Call ``fn(event)`` for each event of a class, from now on; also a decorator.

        Callbacks of one object run one at a time, in order, on a thread of their own.
        They may block and call anything. What they raise is logged, goes to
        :attr:`on_error`, and stops nothing.

        Args:
            event_type: A class from :mod:`metered_sync.events`; ``Event`` means all.
            fn: A plain function. Left out, ``on`` is a decorator.

        Raises:
            TypeError: A class of events that this object never emits; or something whose call
                runs nothing, such as an ``async def``, or that takes no event.
            ClosedError: There will be no more events.
        """
        return self._register(event_type, fn, once=False)

    @overload
    def once(self, event_type: type[E]) -> CallbackDecorator[E]: ...
    @overload
    def once(self, event_type: type[E], fn: Callable[[E], object]) -> None: ...
    def once(self, event_type: type[E], fn: Callable[[E], object] | None = None) -> Any:
        """Call ``fn(event)`` for the next event of a class only; also a decorator."""
        return self._register(event_type, fn, once=True)

    def _register(self, event_type: type[Event], fn: Any, once: bool) -> Any:
        check_emitted(self._emitter, event_type)

        def register(function: Any) -> Any:
            self._hub.add(Registration(event_type, function, once), self)
            return function

        if fn is None:
            return register
        register(fn)
        return None

    def off(self, event_type: type[E], fn: Callable[[E], object] | None = None) -> None:
        """Remove a callback, or all callbacks of a class. It will not be called again."""
        check_emitted(self._emitter, event_type)
        self._hub.remove(event_type, fn)

    @overload
    def events(
        self,
        *,
        maxsize: int = 4096,
        max_bytes: int = MAX_BYTES,
        overflow: Overflow = "drop_oldest",
    ) -> EventQueue: ...
    @overload
    def events(
        self,
        type_: type[E],
        /,
        *,
        maxsize: int = 4096,
        max_bytes: int = MAX_BYTES,
        overflow: Overflow = "drop_oldest",
    ) -> EventQueue[E]: ...
    @overload
    def events(
        self,
        type_: type[E],
        type2: type[E2],
        /,
        *,
        maxsize: int = 4096,
        max_bytes: int = MAX_BYTES,
        overflow: Overflow = "drop_oldest",
    ) -> EventQueue[E | E2]: ...
    @overload
    def events(
        self,
        type_: type[E],
        type2: type[E2],
        type3: type[E3],
        /,
        *,
        maxsize: int = 4096,
        max_bytes: int = MAX_BYTES,
        overflow: Overflow = "drop_oldest",
    ) -> EventQueue[E | E2 | E3]: ...
    @overload
    def events(
        self,
        type_: type[E],
        type2: type[E2],
        type3: type[E3],
        type4: type[E4],
        /,
        *,
        maxsize: int = 4096,
        max_bytes: int = MAX_BYTES,
        overflow: Overflow = "drop_oldest",
    ) -> EventQueue[E | E2 | E3 | E4]: ...
    @overload
    def events(
        self,
        *types: type[Event],
        maxsize: int = 4096,
        max_bytes: int = MAX_BYTES,
        overflow: Overflow = "drop_oldest",
    ) -> EventQueue: ...
    def events(
        self,
        *types: type[Any],
        maxsize: int = 4096,
        max_bytes: int = MAX_BYTES,
        overflow: Overflow = "drop_oldest",
    ) -> Any:
        """Return a queue of the events of these classes (none named: all), from now on.

        Args:
            types: Classes from :mod:`metered_sync.events`.
            maxsize: How many events may wait; then message-like ones are dropped. Of the others
                ten times as many may wait; then the newest of each kind and member are kept.
            max_bytes: How many bytes the messages that wait may have together.
            overflow: ``"drop_oldest"`` or ``"drop_newest"``.
        """
        for type_ in types:
            check_emitted(self._emitter, type_)
        return self._hub.queue(types, maxsize=maxsize, max_bytes=max_bytes, overflow=overflow)

    def wait_for(
        self,
        event_type: type[E],
        *,
        where: Callable[[E], object] | None = None,
        timeout: float | None = None,
    ) -> E:
        """Wait for the next event of a class and return it.

        Events count from the call on. To miss none, open ``with client.events(Direct) as
        q:`` first, act, then ``q.get()``.

        Args:
            event_type: A class from :mod:`metered_sync.events`.
            where: Only an event for which this returns true ends the wait. It runs on
                the calling thread.
            timeout: Seconds; ``None`` waits until the event, close or Ctrl-C.

        Raises:
            MeteredTimeoutError: No such event came in time.
            ClosedError: The object was closed; :class:`DisconnectedError` if its connection
                ended for good.
        """
        deadline = Deadline.of(timeout)
        check_emitted(self._emitter, event_type)
        if where is not None:
            check_function("where", where, arguments=1)
        with self._hub.queue((event_type,)) as queue:
            while True:
                try:
                    event = queue.get(timeout=deadline.left())
                except MeteredTimeoutError:
                    raise MeteredTimeoutError(
                        f"{self._hub.label}: no {event_type.__name__} within {deadline}"
                    ) from None
                if isinstance(event, event_type) and (where is None or holds(where, event)):
                    return event


def holds(where: Callable[[T], object], thing: T) -> bool:
    """Return whether a user's condition holds for an event, or a track."""
    result = where(thing)
    unrun = unrun_result(result)
    if unrun is not None:
        raise TypeError(f"where: {unrun}")
    return bool(result)


def check_emitted(emitter: str, event_type: Any) -> None:
    """Raise ``TypeError`` unless objects of a kind emit events of a class.

    Args:
        emitter: The kind of the object that somebody wants to listen on.
        event_type: The class; ``Event`` stands for all.
    """
    check_event_type(event_type)
    name = event_type.__name__
    ours = event_type.__module__ in _EVENT_MODULES
    if ours and (name in EMITTED[emitter] or event_type is Event):
        return
    owners = [owner for owner, names in EMITTED.items() if ours and name in names]
    if not owners:
        raise TypeError(f"nothing emits {name} events: see metered_sync.events for those there are")
    advice = [_INSTEAD[emitter, name]] if (emitter, name) in _INSTEAD else []
    advice += [_WAYS[owner] for owner in owners if len(owners) <= 3]
    raise TypeError(
        f"a {emitter} never emits {name}, which is an event of {', '.join(owners)}"
        + (f": {'; or '.join(advice)}" if advice else "")
    )
