"""Events for users: callbacks, queues and waiting, the same on every object.

The engine hands each event to an object's :class:`EventHub`, which never
blocks: it puts the event into the queues that asked for its class, and into
the inbox of the dispatcher thread if a callback did. The dispatcher is a daemon
thread per hub, started with the first callback. It runs callbacks one at a
time, in order, holding no lock; so a callback may block, call any method of the
library, close its own client, and register or remove callbacks.
"""

from __future__ import annotations

import contextvars
import logging
import threading
import time
import weakref
from collections.abc import Callable
from typing import Any, TypeVar, overload

from metered_sync.bridge import guard
from metered_sync.bridge.deadline import Deadline
from metered_sync.bridge.loop import at_exit
from metered_sync.bridge.reader import Overflow, Reader
from metered_sync.errors import ClosedError, MeteredTimeoutError, fresh
from metered_sync.wire.events import Event

__all__ = ["EventHub", "EventQueue", "Observable"]

E = TypeVar("E", bound=Event)
F = TypeVar("F", bound=Callable[[Any], object])
ErrorHandler = Callable[[Any, BaseException], object]
logger = logging.getLogger("metered_sync")

_dispatching: set[EventHub] = set()
"""Hubs whose dispatcher has something to run; ``add`` and ``discard`` are atomic."""


class EventQueue(Reader[Event]):
    """Events of chosen classes, to read in a loop of your own.

    A full queue drops message-like events by its ``overflow`` policy and counts
    them in ``dropped``; lifecycle events are never dropped.
    """

    def __init__(
        self, label: str, types: tuple[type[Event], ...], *, maxsize: int, overflow: Overflow
    ) -> None:
        super().__init__(label, maxsize=maxsize, overflow=overflow)
        self.types = types

    def _droppable(self, item: Event) -> bool:
        return item.droppable


class _Callback:
    """One registration."""

    def __init__(self, type_: type[Event], function: Callable[[Any], object], once: bool) -> None:
        self.type = type_
        self.function = function
        self.once = once
        self.active = True
        # What the registering code sees (request ids, a notebook cell's output) its
        # callback sees too.
        self.context = contextvars.copy_context()


class _Inbox(Reader[tuple[Any, tuple[_Callback, ...]]]):
    """What waits for the dispatcher: an event, and who was registered when it came."""

    def _droppable(self, item: tuple[Any, tuple[_Callback, ...]]) -> bool:
        return isinstance(item[0], Event) and item[0].droppable


class EventHub:
    """The events of one object: the engine emits, users listen.

    ``_lock`` guards the registrations; both collections are replaced, not changed,
    so :meth:`emit` reads them without it.
    """

    def __init__(self, label: str) -> None:
        self.label = label
        self.on_error: ErrorHandler | None = None
        self.owner: object = None
        """Keeps an object with callbacks alive: the engine holds its hub while it is open."""
        self._lock = threading.Lock()
        self._callbacks: tuple[_Callback, ...] = ()
        self._queues: tuple[weakref.ref[EventQueue], ...] = ()
        self._inbox: _Inbox | None = None
        self._ended = False
        self._error: BaseException | None = None
        self._born = guard.generation()

    # --- the engine's side ---

    def emit(self, event: Event) -> None:
        """Hand an event to whoever listens. Never blocks."""
        for ref in self._queues:
            queue = ref()
            if queue is not None and isinstance(event, queue.types):
                queue.put(event)
        if self._callbacks:
            wanted = tuple(c for c in self._callbacks if isinstance(event, c.type))
            if wanted and self._inbox is not None:
                _dispatching.add(self)
                self._inbox.put((event, wanted))

    def end(self, error: BaseException | None = None) -> None:
        """End all queues, and the dispatcher once it has run what is queued."""
        with self._lock:
            self._ended, self._error = True, error
            queues, self._queues = self._queues, ()
            inbox, self.owner = self._inbox, None
        for ref in queues:
            queue = ref()
            if queue is not None:
                queue.end(error)
        if inbox is not None:
            inbox.end()

    # --- the users' side ---

    def add(self, callback: _Callback, owner: object) -> None:
        """Register a callback; start the dispatcher with the first."""
        guard.check_process(self._born, self.label)
        with self._lock:
            if self._error is not None:
                raise fresh(self._error)
            if self._ended:
                raise ClosedError(f"{self.label} is closed: it will emit no more events")
            self._start()
            self._callbacks += (callback,)
            self.owner = owner

    def _start(self) -> _Inbox:
        """Return the dispatcher's inbox, and start it if need be; the lock is held."""
        if self._inbox is None:
            self._inbox = _Inbox(f"callbacks of {self.label}")
            name = f"metered-sync-callbacks ({self.label})"
            threading.Thread(target=self._dispatch, name=name, daemon=True).start()
        return self._inbox

    def deferred(self, function: Callable[[Any], object]) -> Callable[[Any], None]:
        """Return what has the dispatcher call ``function`` with an argument.

        Once there is no dispatcher any more, it is called at once.
        """
        guard.check_process(self._born, self.label)
        callback = _Callback(Event, function, once=False)
        with self._lock:
            if not self._ended:
                self._start()

        def post(argument: Any) -> None:
            with self._lock:  # so that the dispatcher does not end in between
                if not self._ended and self._inbox is not None:
                    _dispatching.add(self)
                    self._inbox.put((argument, (callback,)))
                    return
            self._run(callback, argument)

        return post

    def remove(self, type_: type[Event], function: Callable[[Any], object] | None) -> None:
        """Remove a class's registrations of a function, or all of them."""
        guard.check_process(self._born, self.label)
        with self._lock:
            for callback in self._callbacks:
                # Bound methods are equal, not identical.
                if callback.type is type_ and function in (None, callback.function):
                    callback.active = False
            self._prune()

    def queue(
        self,
        types: tuple[type[Event], ...],
        maxsize: int = 4096,
        overflow: Overflow = "drop_oldest",
    ) -> EventQueue:
        """Return a new queue of events from now on."""
        guard.check_process(self._born, self.label)
        for type_ in types:
            _check_type(type_)
        names = ", ".join(type_.__name__ for type_ in types) or "all"
        queue = EventQueue(
            f"events of {self.label} ({names})",
            types or (Event,),
            maxsize=maxsize,
            overflow=overflow,
        )
        with self._lock:
            if self._ended:
                queue.end(self._error)
            else:
                alive = tuple(ref for ref in self._queues if _is_open(ref()))
                self._queues = (*alive, weakref.ref(queue))
        return queue

    def _dispatch(self) -> None:
        inbox = self._inbox
        assert inbox is not None
        for event, callbacks in inbox:
            _dispatching.add(self)
            for callback in callbacks:
                if callback.active:
                    if callback.once:
                        self._retire(callback)
                    self._run(callback, event)
            # Until the next one, nothing of this must be kept alive from here.
            event = callbacks = callback = None  # type: ignore[assignment]
            if not len(inbox):
                _dispatching.discard(self)
                if len(inbox):  # queued just now
                    _dispatching.add(self)
        _dispatching.discard(self)

    def _retire(self, callback: _Callback) -> None:
        callback.active = False
        with self._lock:
            self._prune()

    def _prune(self) -> None:
        """Forget callbacks that are not active; the lock is held."""
        self._callbacks = tuple(c for c in self._callbacks if c.active)
        if not self._callbacks:
            self.owner = None

    def _run(self, callback: _Callback, event: Any) -> None:
        what = f"a callback of {self.label} for {type(event).__name__}"
        run_callback(callback.context, callback.function, event, what, self.on_error)


def run_callback(
    context: contextvars.Context,
    function: Callable[[Any], object],
    argument: Any,
    what: str,
    on_error: Callable[[Any, BaseException], object] | None,
) -> None:
    """Call a user's function; log what it raises, and hand that to ``on_error``."""
    try:
        context.run(function, argument)
    except SystemExit:
        pass  # ends the callback, as it would end a thread
    except BaseException as error:
        logger.exception("%s raised an exception", what)
        if on_error is not None:
            try:
                on_error(argument, error)
            except BaseException:
                logger.exception("on_error, told of %s, raised an exception", what)


def _is_open(queue: EventQueue | None) -> bool:
    return queue is not None and not queue.ended


def _check_type(type_: object) -> None:
    if not (isinstance(type_, type) and issubclass(type_, Event)):
        raise TypeError(f"{type_!r} is not a class of events (see metered_sync.events)")


def _drain_at_exit(deadline: Deadline) -> None:
    """Let callbacks run that are queued when the interpreter exits."""
    while deadline.left() and any(h._born == guard.generation() for h in tuple(_dispatching)):
        time.sleep(0.005)


at_exit(_drain_at_exit)


class Observable:
    """What every object with events offers."""

    _hub: EventHub

    @property
    def on_error(self) -> ErrorHandler | None:
        """Called as ``on_error(event, exception)`` when a callback has raised; settable.

        Runs on the dispatcher thread. The exception has been logged already.
        """
        return self._hub.on_error

    @on_error.setter
    def on_error(self, handler: ErrorHandler | None) -> None:
        self._hub.on_error = handler

    @overload
    def on(self, event_type: type[E]) -> Callable[[F], F]: ...
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
    def once(self, event_type: type[E]) -> Callable[[F], F]: ...
    @overload
    def once(self, event_type: type[E], fn: Callable[[E], object]) -> None: ...
    def once(self, event_type: type[E], fn: Callable[[E], object] | None = None) -> Any:
        """Call ``fn(event)`` for the next event of a class only; also a decorator."""
        return self._register(event_type, fn, once=True)

    def _register(self, event_type: type[Event], fn: Any, once: bool) -> Any:
        _check_type(event_type)

        def register(function: F) -> F:
            if not callable(function):
                raise TypeError(f"{function!r} is not callable")
            self._hub.add(_Callback(event_type, function, once), self)
            return function

        if fn is None:
            return register
        register(fn)
        return None

    def off(self, event_type: type[Event], fn: Callable[[Any], object] | None = None) -> None:
        """Remove a callback, or all callbacks of a class. It will not be called again."""
        _check_type(event_type)
        self._hub.remove(event_type, fn)

    def events(
        self, *types: type[Event], maxsize: int = 4096, overflow: Overflow = "drop_oldest"
    ) -> EventQueue:
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
