"""Listen to an object's events: callbacks, queues and waiting, the same on every object.

Callbacks run on the object's dispatcher thread, one at a time and in order, and may block,
call any method of the library, close their own client, and register or remove callbacks.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ParamSpec, Protocol, TypeVar, overload

from metered_sync.bridge.deadline import Deadline
from metered_sync.bridge.dispatch import ErrorHandler
from metered_sync.bridge.event_hub import EventHub, EventQueue, Registration, check_event_type
from metered_sync.bridge.reader import Overflow
from metered_sync.errors import MeteredTimeoutError
from metered_sync.wire.events import Event

__all__ = ["Observable"]

E = TypeVar("E", bound=Event)
E2 = TypeVar("E2", bound=Event)
E3 = TypeVar("E3", bound=Event)
E4 = TypeVar("E4", bound=Event)
E_co = TypeVar("E_co", covariant=True)
E_contra = TypeVar("E_contra", contravariant=True)
P = ParamSpec("P")
R = TypeVar("R")
R_co = TypeVar("R_co", covariant=True)


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


class Observable:
    """Offer an object's events: by callback, by queue, by waiting for one."""

    _hub: EventHub

    @property
    def on_error(self) -> ErrorHandler | None:
        """The function ``on_error(event, exception)`` for what callbacks raise; settable.

        Runs on the dispatcher thread. The exception has been logged already.
        """
        return self._hub.on_error

    @on_error.setter
    def on_error(self, handler: ErrorHandler | None) -> None:
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
            fn: The callable. Left out, ``on`` is a decorator.
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
        check_event_type(event_type)

        def register(function: Any) -> Any:
            self._hub.add(Registration(event_type, function, once), self)
            return function

        if fn is None:
            return register
        register(fn)
        return None

    def off(self, event_type: type[E], fn: Callable[[E], object] | None = None) -> None:
        """Remove a callback, or all callbacks of a class. It will not be called again."""
        check_event_type(event_type)
        self._hub.remove(event_type, fn)

    @overload
    def events(self, *, maxsize: int = 4096, overflow: Overflow = "drop_oldest") -> EventQueue: ...
    @overload
    def events(
        self, type_: type[E], /, *, maxsize: int = 4096, overflow: Overflow = "drop_oldest"
    ) -> EventQueue[E]: ...
    @overload
    def events(
        self,
        type_: type[E],
        type2: type[E2],
        /,
        *,
        maxsize: int = 4096,
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
        overflow: Overflow = "drop_oldest",
    ) -> EventQueue[E | E2 | E3 | E4]: ...
    @overload
    def events(
        self, *types: type[Event], maxsize: int = 4096, overflow: Overflow = "drop_oldest"
    ) -> EventQueue: ...
    def events(
        self, *types: type[Any], maxsize: int = 4096, overflow: Overflow = "drop_oldest"
    ) -> Any:
        """Return a queue of the events of these classes (none named: all), from now on.

        Args:
            types: Classes from :mod:`metered_sync.events`.
            maxsize: How many events may wait; then message-like ones are dropped.
            overflow: ``"drop_oldest"`` or ``"drop_newest"``.
        """
        return self._hub.queue(types, maxsize, overflow)

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
        with self._hub.queue((event_type,)) as queue:
            while True:
                try:
                    event = queue.get(timeout=deadline.left())
                except MeteredTimeoutError:
                    raise MeteredTimeoutError(
                        f"{self._hub.label}: no {event_type.__name__} within {deadline}"
                    ) from None
                if isinstance(event, event_type) and (where is None or where(event)):
                    return event
