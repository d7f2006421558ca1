"""Hand an object's events to the users who listen: to their queues and their callbacks.

The engine emits events into an :class:`EventHub`, which never blocks: it puts each into the
queues that asked for its class, and into the inbox of the object's dispatcher thread
(:mod:`metered_sync.bridge.dispatch`) if a callback did.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from metered_sync.bridge import guard
from metered_sync.bridge.atomic import Atomic
from metered_sync.bridge.dispatch import Callback, Dispatcher, ErrorHandler, run_callback
from metered_sync.bridge.event_reader import EventReader
from metered_sync.bridge.reader import MAX_BYTES, Overflow
from metered_sync.errors import ClosedError, raise_fresh
from metered_sync.wire.arguments import shown
from metered_sync.wire.events import Event, own_copy

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


class _Claim:
    """One call of a function, for whichever thread is first."""

    def __init__(self, callback: Callback) -> None:
        self._callbacks = [callback]

    def take(self) -> list[Callback]:
        """Return the function, to be called by this thread; nothing where another was quicker."""
        try:
            return [self._callbacks.pop()]
        except IndexError:
            return []


class _Calls(EventReader[tuple[Any, tuple[Callback | _Claim, ...]]]):
    """Queue events, each with the callbacks that were registered when it came."""

    def _event(self, item: Any) -> Event | None:
        return item[0] if isinstance(item[0], Event) else None


class _Listeners(NamedTuple):
    """The users who listen to an object."""

    registrations: tuple[Registration, ...] = ()
    queues: tuple[weakref.ref[EventQueue], ...] = ()
    dispatcher: Dispatcher[Any] | None = None
    owner: object = None
    """Keeps an object with callbacks alive: the engine holds its hub while it is open."""
    ended: bool = False
    error: BaseException | None = None

    def active(self) -> _Listeners:
        """Return these without the callbacks that are not called any more."""
        registrations = tuple(r for r in self.registrations if r.active)
        owner = self.owner if registrations else None
        return self._replace(registrations=registrations, owner=owner)


class EventHub:
    """Pass one object's events from the engine to its users.

    Those who listen are replaced as a whole (:class:`~metered_sync.bridge.atomic.Atomic`), so
    :meth:`emit` finds them without a lock; a signal handler may listen and cease to, and what
    is freed with a callback may, too.
    """

    def __init__(self, label: str) -> None:
        self.label = label
        self.on_error: ErrorHandler | None = None
        self._listeners = Atomic(_Listeners())
        self._born = guard.generation()

    # --- the engine's side ---

    def emit(self, event: Event) -> None:
        """Hand an event to the queues and callbacks that want it, to each its own. Never blocks."""
        listeners = self._listeners.value
        # (The last one gets the event itself: nobody may change it while it is copied.)
        last: EventQueue | None = None
        for ref in listeners.queues:
            queue = ref()
            if queue is not None and isinstance(event, queue.types):
                if last is not None:
                    last.put(own_copy(event))
                last = queue
        if listeners.registrations:
            wanted = tuple(r for r in listeners.registrations if isinstance(event, r.type))
            if wanted and listeners.dispatcher is not None:
                if last is not None:
                    last.put(own_copy(event))
                listeners.dispatcher.inbox.put((event, wanted))
                return
        if last is not None:
            last.put(event)

    def wants(self, event: Event) -> bool:
        """Say whether anybody will be handed an event."""
        listeners = self._listeners.value
        if not (listeners.queues or listeners.registrations):
            return False
        queues = (ref() for ref in listeners.queues)
        return any(isinstance(event, r.type) for r in listeners.registrations) or any(
            queue is not None and isinstance(event, queue.types) for queue in queues
        )

    def end(self, error: BaseException | None = None) -> None:
        """End all queues, and the dispatcher once it has run what is queued."""
        before = self._listeners.swap(
            lambda there: _Listeners(dispatcher=there.dispatcher, ended=True, error=error)
        )
        for ref in before.queues:
            queue = ref()
            if queue is not None:
                queue.end(error)
        if before.dispatcher is not None:
            before.dispatcher.inbox.end()

    # --- the users' side ---

    @property
    def dropped(self) -> int:
        """How many events were dropped because callbacks were too slow for them."""
        dispatcher = self._listeners.value.dispatcher
        return dispatcher.inbox.dropped if dispatcher is not None else 0

    def has_callback(self, type_: type[Event]) -> bool:
        """Say whether a callback is registered for just this class, and for more than one event."""
        return any(r.type is type_ and not r.once for r in self._listeners.value.registrations)

    def add(self, registration: Registration, owner: object) -> None:
        """Register a callback; start the dispatcher with the first.

        It takes the place of one that the same cell of a notebook has registered before.
        """
        guard.check_process(self._born, self.label)
        self._check_open(self._listeners.value)
        self._start()
        again: list[Registration] = []

        def added(there: _Listeners) -> _Listeners:
            self._check_open(there)
            again[:] = [r for r in there.registrations if registration.repeats(r)]
            kept = (r for r in there.registrations if all(r is not older for older in again))
            return there._replace(registrations=(*kept, registration), owner=owner)

        self._listeners.swap(added)
        for older in again:
            older.active = False
            registration.note_replaced(older, self.label)

    def _check_open(self, listeners: _Listeners) -> None:
        raise_fresh(listeners.error)
        if listeners.ended:
            raise ClosedError(f"{self.label} is closed: it will emit no more events")

    def _start(self) -> None:
        """Start the dispatcher, if it has not been, and there may still be something to call."""
        if self._listeners.value.dispatcher is not None:
            return
        inbox = _Calls(f"callbacks of {self.label}")
        new = Dispatcher(self.label, inbox, self._due, lambda: self.on_error)

        def started(there: _Listeners) -> _Listeners:
            return there._replace(dispatcher=new) if self._lacks_dispatcher(there) else there

        if self._lacks_dispatcher(self._listeners.swap(started)):
            try:
                new.start()
            except BaseException:  # there are too many threads: the next call tries again
                self._listeners.swap(
                    lambda there: (
                        there._replace(dispatcher=None) if there.dispatcher is new else there
                    )
                )
                raise

    def _lacks_dispatcher(self, listeners: _Listeners) -> bool:
        return listeners.dispatcher is None and not listeners.ended

    def deferred(self, function: Callable[[Any], object]) -> Callable[[Any], None]:
        """Return a function that has the dispatcher call ``function`` with its argument.

        Once there is no dispatcher any more, ``function`` is called at once.
        """
        guard.check_process(self._born, self.label)
        callback = Callback(function)
        self._start()

        def post(argument: Any) -> None:
            dispatcher, claim = self._listeners.value.dispatcher, _Claim(callback)
            if dispatcher is not None:
                dispatcher.inbox.put((argument, (claim,)))
                if not self._listeners.value.ended:
                    return
            # The end may have come before, and then nobody else will call it.
            for mine in claim.take():
                run_callback(mine, argument, self.label, self.on_error)

        return post

    def remove(self, type_: type[Event], function: Callable[[Any], object] | None) -> None:
        """Remove a class's registrations of a function, or all of them."""
        guard.check_process(self._born, self.label)
        for registration in self._listeners.value.registrations:
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
        ref: weakref.ref[Any] = weakref.ref(queue)

        def added(there: _Listeners) -> _Listeners:
            alive = (other for other in there.queues if _is_open(other()))
            return there if there.ended else there._replace(queues=(*alive, ref))

        before = self._listeners.swap(added)
        if before.ended:
            queue.end(before.error)
        return queue

    def _due(
        self, item: tuple[Any, tuple[Callback | _Claim, ...]]
    ) -> Iterator[tuple[Callback, Any]]:
        """Yield an event's callbacks to the dispatcher; those that asked for one event, once."""
        event, callbacks = item
        for callback in callbacks:
            if isinstance(callback, _Claim):
                for claimed in callback.take():
                    yield claimed, event
            elif callback.active:
                if isinstance(callback, Registration) and callback.once:
                    callback.active = False
                    self._prune()
                own = event if callback is callbacks[-1] else own_copy(event)
                yield callback, own

    def _prune(self) -> None:
        """Forget callbacks that are not active."""
        self._listeners.swap(_Listeners.active)


def _is_open(queue: EventQueue | None) -> bool:
    return queue is not None and not queue.ended


def check_event_type(type_: object) -> None:
    """Raise unless this is a class of events."""
    if not (isinstance(type_, type) and issubclass(type_, Event)):
        raise TypeError(
            f"{shown(type_)} is not a class of events, such as metered_sync.Message: see "
            "metered_sync.events"
        )
