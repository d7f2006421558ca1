"""Hand an object's events to the users who listen: to their queues and their callbacks.

The engine emits events into an :class:`EventHub`, which never blocks: it puts each into the
queues that asked for its class, and into the inbox of the object's dispatcher thread
(:mod:`metered_sync.bridge.dispatch`) if a callback did.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from metered_sync.bridge import guard
from metered_sync.bridge.dispatch import Callback, Dispatcher, ErrorHandler, run_callback
from metered_sync.bridge.event_reader import EventReader
from metered_sync.bridge.reader import MAX_BYTES, Overflow
from metered_sync.errors import ClosedError, raise_fresh
from metered_sync.wire.events import Event

if TYPE_CHECKING:  # a plain ``EventQueue`` is one of any events
    from typing_extensions import TypeVar

    E_co = TypeVar("E_co", bound=Event, default=Event, covariant=True)
else:
    from typing import TypeVar

    E_co = TypeVar("E_co", bound=Event, covariant=True)

__all__ = ["EventHub", "EventQueue", "Registration", "check_event_type"]


class EventQueue(EventReader[E_co]):
    """Read events of chosen classes, in a loop of your own.

    A full queue drops message-like events by its ``overflow`` policy and counts
    them in ``dropped``. Lifecycle events stay, up to ten times its size; beyond that, the newest
    of each kind and member do.
    """

    def __init__(
        self,
        label: str,
        types: tuple[type[E_co], ...],
        *,
        maxsize: int = 4096,
        max_bytes: int = MAX_BYTES,
        overflow: Overflow = "drop_oldest",
    ) -> None:
        super().__init__(label, maxsize=maxsize, max_bytes=max_bytes, overflow=overflow)
        self.types = types

    def _event(self, item: Any) -> Event:
        event: Event = item
        return event


class Registration(Callback):
    """Keep a callback with the class of events that it is called for."""

    def __init__(self, type_: type[Event], function: Callable[[Any], object], once: bool) -> None:
        super().__init__(function)
        self.type = type_
        self.once = once

    def repeats(self, older: Registration) -> bool:
        """Whether a notebook's cell that runs again has registered an older one again."""
        same = (older.type, older.once) == (self.type, self.once)
        return same and self.origin.replaces(older.origin)


class _Calls(EventReader[tuple[Any, tuple[Callback, ...]]]):
    """Queue events, each with the callbacks that were registered when it came."""

    def _event(self, item: Any) -> Event | None:
        return item[0] if isinstance(item[0], Event) else None


class EventHub:
    """Pass one object's events from the engine to its users.

    ``_lock`` guards what follows it; both collections are replaced, not changed, so
    :meth:`emit` reads them without it. It is never held while anything of a user's is
    called, compared or freed.
    """

    def __init__(self, label: str) -> None:
        self.label = label
        self.on_error: ErrorHandler | None = None
        self.owner: object = None
        """Keeps an object with callbacks alive: the engine holds its hub while it is open."""
        self._lock = threading.Lock()
        self._registrations: tuple[Registration, ...] = ()
        self._queues: tuple[weakref.ref[EventQueue], ...] = ()
        self._dispatcher: Dispatcher[Any] | None = None
        self._ended = False
        self._error: BaseException | None = None
        self._born = guard.generation()

    # --- the engine's side ---

    def emit(self, event: Event) -> None:
        """Hand an event to the queues and callbacks that want it. Never blocks."""
        for ref in self._queues:
            queue = ref()
            if queue is not None and isinstance(event, queue.types):
                queue.put(event)
        if self._registrations:
            wanted = tuple(r for r in self._registrations if isinstance(event, r.type))
            if wanted and self._dispatcher is not None:
                self._dispatcher.inbox.put((event, wanted))

    def end(self, error: BaseException | None = None) -> None:
        """End all queues, and the dispatcher once it has run what is queued."""
        with self._lock:
            self._ended, self._error = True, error
            queues, self._queues = self._queues, ()
            registrations, self._registrations = self._registrations, ()
            owner, self.owner = self.owner, None
            dispatcher = self._dispatcher
        for ref in queues:
            queue = ref()
            if queue is not None:
                queue.end(error)
        if dispatcher is not None:
            dispatcher.inbox.end()
        del owner, registrations  # not with the lock held

    # --- the users' side ---

    @property
    def dropped(self) -> int:
        """How many events were dropped because callbacks were too slow for them."""
        return self._dispatcher.inbox.dropped if self._dispatcher is not None else 0

    def has_callback(self, type_: type[Event]) -> bool:
        """Say whether a callback is registered for just this class, and for more than one event."""
        return any(r.type is type_ and not r.once for r in self._registrations)

    def add(self, registration: Registration, owner: object) -> None:
        """Register a callback; start the dispatcher with the first.

        It takes the place of one that the same cell of a notebook has registered before.
        """
        guard.check_process(self._born, self.label)
        with self._lock:
            raise_fresh(self._error)
            if self._ended:
                raise ClosedError(f"{self.label} is closed: it will emit no more events")
            self._start()
            before = self._registrations
            again = [r for r in before if registration.repeats(r)]
            self._registrations = (*(r for r in before if r not in again), registration)
            self.owner = owner
        for older in again:
            older.active = False
            registration.note_replaced(older, self.label)
        del before  # not with the lock held: what is freed may be a user's

    def _start(self) -> None:
        """Start the dispatcher, if it has not been; the lock is held."""
        if self._dispatcher is None:
            inbox = _Calls(f"callbacks of {self.label}")
            dispatcher = Dispatcher(self.label, inbox, self._due, lambda: self.on_error)
            dispatcher.start()
            self._dispatcher = dispatcher

    def deferred(self, function: Callable[[Any], object]) -> Callable[[Any], None]:
        """Return a function that has the dispatcher call ``function`` with its argument.

        Once there is no dispatcher any more, ``function`` is called at once.
        """
        guard.check_process(self._born, self.label)
        callback = Callback(function)
        with self._lock:
            if not self._ended:
                self._start()

        def post(argument: Any) -> None:
            with self._lock:  # so that the dispatcher does not end in between
                if not self._ended and self._dispatcher is not None:
                    self._dispatcher.inbox.put((argument, (callback,)))
                    return
            run_callback(callback, argument, self.label, self.on_error)

        return post

    def remove(self, type_: type[Event], function: Callable[[Any], object] | None) -> None:
        """Remove a class's registrations of a function, or all of them."""
        guard.check_process(self._born, self.label)
        for registration in self._registrations:
            # Bound methods are equal, not identical.
            if registration.type is type_ and function in (None, registration.function):
                registration.active = False
        self._prune()

    def queue(
        self,
        types: tuple[type[E_co], ...],
        **options: Any,
    ) -> EventQueue[E_co]:
        """Return a new queue of events from now on, with the options of :class:`EventQueue`."""
        guard.check_process(self._born, self.label)
        for type_ in types:
            check_event_type(type_)
        names = ", ".join(type_.__name__ for type_ in types) or "all"
        wanted: tuple[type[Any], ...] = types or (Event,)
        label = f"events of {self.label} ({names})"
        queue: EventQueue[E_co] = EventQueue(label, wanted, **options)
        with self._lock:
            if self._ended:
                queue.end(self._error)
            else:
                alive = tuple(ref for ref in self._queues if _is_open(ref()))
                self._queues = (*alive, weakref.ref(queue))
        return queue

    def _due(self, item: tuple[Any, tuple[Callback, ...]]) -> Iterator[tuple[Callback, Any]]:
        """Yield an event's callbacks to the dispatcher; those that asked for one event, once."""
        event, callbacks = item
        for callback in callbacks:
            if callback.active:
                if isinstance(callback, Registration) and callback.once:
                    callback.active = False
                    self._prune()
                yield callback, event

    def _prune(self) -> None:
        """Forget callbacks that are not active."""
        with self._lock:
            before, owner = self._registrations, self.owner
            self._registrations = tuple(r for r in before if r.active)
            if not self._registrations:
                self.owner = None
        del before, owner  # not with the lock held: what is freed may be a user's


def _is_open(queue: EventQueue | None) -> bool:
    return queue is not None and not queue.ended


def check_event_type(type_: object) -> None:
    """Raise unless this is a class of events."""
    if not (isinstance(type_, type) and issubclass(type_, Event)):
        raise TypeError(
            f"{type_!r} is not a class of events, such as metered_sync.Message: see "
            "metered_sync.events"
        )
