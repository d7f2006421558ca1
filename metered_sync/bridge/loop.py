"""Carry the calls of blocking callers to the asynchronous engine, and their results back.

**Who owns what.** An :class:`Engine` is a daemon thread that runs one event loop. A process has
one (:mod:`metered_sync.bridge.engines`), started by the first object that needs it and never
before, so that a server may fork first; a local cloud has one more. Everything asynchronous
happens on that thread. What stays open between calls - a connection, a session - is
a :class:`~metered_sync.bridge.link.Link`: an engine-side object, registered with the engine
while it is open. The blocking object that a user holds
(:class:`metered_sync.bridge.facade.Facade`) owns a link and is never owned by it; so it can be
garbage collected, and its finalizer then closes the link.

**How a call crosses.** :meth:`Engine.call` hands a coroutine function to the loop and waits for
its end, its deadline or Ctrl-C. The function runs as a task of the engine's task group, in a
cancel scope of its own. On expiry the scope is cancelled, the clean-up gets a moment
(``CANCEL_GRACE``) and the caller gets :class:`MeteredTimeoutError`; on Ctrl-C the clean-up gets
``INTERRUPT_GRACE`` before ``KeyboardInterrupt`` goes on, and a second Ctrl-C ends that wait too.
A result that arrives at the last moment is returned, not thrown away. (This is what anyio's
``BlockingPortal`` does with two differences that matter here: the portal makes its caller wait,
without a deadline, until the loop has spawned the task; and ``start_blocking_portal`` joins its
thread without a bound.)

:meth:`Engine.post` runs a plain function on the loop and waits for nothing. It takes no lock, so
finalizers use it, and so do senders: a burst of messages costs one call of it.

**What comes back up** goes through :class:`~metered_sync.bridge.reader.Reader`: the engine puts,
callers take. Users' callbacks run on dispatcher threads (:mod:`metered_sync.bridge.dispatch`),
never here.

There are no locks: what the engine owns is touched on the loop thread only, and
``Engine._calls`` and ``Engine._holders`` are changed by single operations, which are atomic.

**Use.** The engine of a process ends once nothing uses it any more: no link is open, no call is
under way, no task is left, and nobody holds it (:meth:`Engine.hold`). That it looks for these and
that it says it has ended is one step; so whoever holds it first, and then finds no error, has it.

**Death.** If the loop ends by an error of its own, every waiting caller and every link is woken
with :class:`EngineError`, whose cause is that error; later calls on the same objects raise it
again. New objects get a new engine.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import math
import threading
import weakref
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

import anyio
import anyio.abc

from metered_sync.bridge import guard
from metered_sync.bridge.crossing import Crossing
from metered_sync.bridge.deadline import Deadline, Latch
from metered_sync.bridge.event_loop import new_event_loop
from metered_sync.bridge.link import Link
from metered_sync.bridge.logs import guarded_logger
from metered_sync.bridge.process import TOO_LATE, is_exiting
from metered_sync.bridge.threads import start_thread
from metered_sync.errors import (
    ClosedError,
    EngineError,
    MeteredError,
    MeteredTimeoutError,
    fresh,
    raise_fresh,
)
from metered_sync.wire.secrets import clear_locals

__all__ = ["Engine", "engine_here", "running"]

T = TypeVar("T")
logger = logging.getLogger("metered_sync")
guarded_logger("asyncio", guard.engine_threads)  # an error while it logs one would end the loop

CANCEL_GRACE = 0.02
"""How long an expired call waits for its cancelled work, in seconds."""
INTERRUPT_GRACE = 2.0
"""How long Ctrl-C waits for the cancelled work, in seconds."""
START_LIMIT = 10.0
"""How long an engine's thread may take to start or to end, in seconds."""

running: set[Engine] = set()
"""The engines whose threads run, in this process or in one it was forked from: a child must not
free what is inside."""


class Engine:
    """Run an event loop on a daemon thread of its own."""

    def __init__(self, name: str = "metered-sync", *, look_every: float = math.inf) -> None:
        """Prepare an engine.

        Args:
            name: Of its thread.
            look_every: Seconds between two looks whether it is still used. It ends when at two
                looks in a row it was not; ``inf``: never.
        """
        self.name = name
        self.links: set[Link] = set()
        self.error: MeteredError | None = None
        """What has ended it: a :class:`ClosedError` where nothing used it any more."""
        self.born = guard.generation()
        self._look_every = look_every
        self._used = True
        """Whether it has been used since the last look."""
        self._calls: set[Crossing[Any]] = set()
        self._holders: dict[int, weakref.ref[Any]] = {}
        """By identity: what holds may be a user's, which has an ``__eq__`` of its own."""
        self.started = Latch()
        self._stopping: anyio.Event
        self._loop: Any = None  # asyncio's or uvloop's
        self._tasks: anyio.abc.TaskGroup
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._to_start = [self._thread]
        """The thread, until a call of :meth:`start` takes it."""

    def __repr__(self) -> str:
        return f"<Engine on thread {self.name!r}, {len(self.links)} links open>"

    def start(self) -> Engine:
        """Start the thread, unless another call has, and wait until its loop runs."""
        try:
            thread = self._to_start.pop()
            running.add(self)
            start_thread(thread)
        except IndexError:
            pass
        except EngineError as error:
            running.discard(self)
            self.error = error
            self.started.set()
            raise
        except BaseException:  # Ctrl-C: if the thread does start, it ends again
            self.error = EngineError(f"the start of the thread {self.name!r} was interrupted")
            self.started.set()
            raise
        if not self.started.wait(Deadline(START_LIMIT)):
            raise EngineError(
                f"the thread {self.name!r} did not start within {START_LIMIT:g} s; "
                "under uWSGI, set enable-threads = true"
            )
        raise_fresh(self.error)
        return self

    def stop(self) -> None:
        """End the loop and its thread, once what runs on it has been cancelled; on the loop."""
        stopped = f"the event loop of {self.name!r} has been stopped"
        self.error = EngineError(f"{stopped}: {TOO_LATE}" if is_exiting() else stopped)
        self._stopping.set()

    def join(self, deadline: Deadline) -> None:
        """Wait until the thread of a stopped loop has ended."""
        if self._thread.is_alive():
            self._thread.join(min(deadline.left(), START_LIMIT))

    def _run(self) -> None:
        guard.engine_threads.add(threading.get_ident())
        cause: BaseException | None = None
        try:
            anyio.run(self._serve, backend_options={"loop_factory": new_event_loop})
        except BaseException as error:
            clear_locals(error)
            cause = error
        finally:
            guard.engine_threads.discard(threading.get_ident())
            self._die(cause)
            running.discard(self)

    async def _serve(self) -> None:
        self._stopping = anyio.Event()
        async with anyio.create_task_group() as self._tasks:
            self._loop = asyncio.get_running_loop()
            self.started.set()
            while self.error is None and not self._stopping.is_set():
                with anyio.move_on_after(self._look_every):
                    await self._stopping.wait()
                if self.error is None:
                    self._end_if_unused()
            self._tasks.cancel_scope.cancel()

    def _end_if_unused(self) -> None:
        error = ClosedError(
            f"the event loop of {self.name!r} has ended with the last that was open; what it "
            "belonged to is closed, make a new one"
        )
        tasks = len(asyncio.all_tasks()) > 1  # (one is this)
        before, self._used = self._used, tasks
        if before or tasks:
            return
        # No call from here to the mark, and so they are one step. (See Atomic.swap.)
        if self._calls or self._holders or self.links:
            self._used = True
        else:
            self.error = error

    def _die(self, cause: BaseException | None) -> None:
        if self.error is None:
            self.error = EngineError(f"the event loop on thread {self.name!r} has died: {cause!r}")
            self.error.__cause__ = cause
            logger.error("the event loop of %s has died", self.name, exc_info=cause)
        for call in tuple(self._calls):
            call.fail(fresh(self.error))
        for link in tuple(self.links):
            try:
                link.abort(fresh(self.error))
            except Exception:
                logger.exception("aborting %s failed", link.label)
        self.links.clear()
        self.started.set()

    def call(
        self,
        function: Callable[..., Awaitable[T]],
        *args: Any,
        deadline: Deadline,
        what: str,
        progress: Callable[[], tuple[str, bool]] | None = None,
    ) -> T:
        """Run ``await function(*args)`` on the loop and wait for what it returns.

        Args:
            deadline: When to give up and cancel it.
            what: What is being done, for the message of the timeout.
            progress: Says how far it has come, and whether a request has left, for the same.

        Raises:
            MeteredTimeoutError: The deadline passed; the function has been cancelled.
            EngineError: There is no loop any more.
            ForkedError, WrongThreadError: See :mod:`metered_sync.bridge.guard`.
        """
        self.check(what)
        call = Crossing(function, args)
        self._calls.add(call)
        self._used = True
        try:
            self._post(functools.partial(self._start, call.run, call.fail))
            if self.error is not None:
                call.fail(fresh(self.error))
            if not call.ended.wait(deadline):
                self._post(call.cancel)
                call.ended.wait(Deadline(CANCEL_GRACE))
        except BaseException:  # Ctrl-C
            self._post(call.cancel)
            call.ended.wait(Deadline(INTERRUPT_GRACE))
            raise
        finally:
            self._calls.discard(call)
        stage, sent = ("", False) if progress is None else progress()
        where = f" (it came to: {stage})" if stage else ""
        message = f"{what}: not finished within {deadline}{where}"
        return call.outcome(MeteredTimeoutError(message, sent=sent))

    def hold(self, holder: object) -> bool:
        """Use the loop for as long as ``holder`` lives, or until :meth:`release`.

        Where there is an :attr:`error` afterwards, it had ended before. Takes no lock.

        Returns:
            Whether it did not hold the loop already.
        """
        holders, key = self._holders, id(holder)
        new = key not in holders
        holders[key] = weakref.ref(holder, lambda _: holders.pop(key, None))
        return new

    def release(self, key: int) -> None:
        """Use the loop no longer for an object with this identity."""
        self._used = True  # until just now
        self._holders.pop(key, None)

    def check(self, what: str) -> None:
        """Raise if a blocking call cannot be made from here and now."""
        guard.check_blocking(self.born, what)
        self.check_running()

    def check_running(self) -> None:
        """Raise what has ended the loop, if it has ended."""
        raise_fresh(self.error)

    def post(self, function: Callable[..., object], *args: Any) -> None:
        """Run ``function(*args)`` on the loop, soon. Takes no lock, waits for nothing.

        Does nothing in a forked child and where the loop is gone.
        """
        if self.born == guard.generation():
            self._post(functools.partial(function, *args) if args else function)

    def _post(self, function: Callable[[], object]) -> None:
        try:
            self._loop.call_soon_threadsafe(function)
        except RuntimeError:  # the loop is closed; _die() has woken or will wake the waiters
            pass

    def spawn(self, link: Link, function: Callable[[], Awaitable[None]]) -> None:
        """Run a task of a link in the background. An error in it aborts the link."""

        async def run() -> None:
            try:
                await function()
            except Exception as error:
                clear_locals(error)
                logger.exception("%s failed", link.label)
                failure = EngineError(f"{link.label} failed: {error!r}")
                failure.__cause__ = error
                link.abort(failure)

        self._start(run, link.abort)

    def _start(
        self, run: Callable[[], Coroutine[Any, Any, None]], refuse: Callable[[MeteredError], None]
    ) -> None:
        """Start a task, or refuse it where the loop is about to end; on the loop."""

        async def start() -> None:
            try:
                await run()
            except asyncio.CancelledError as error:
                if self._tasks.cancel_scope.cancel_called:
                    raise
                # It waited for what somebody else has cancelled, which would end all tasks.
                clear_locals(error)
                failure = EngineError("a task waited for what another one has cancelled")
                failure.__cause__ = error
                refuse(failure)

        try:
            raise_fresh(self.error)
            self._tasks.start_soon(start)
        except MeteredError as error:
            refuse(error)
        except RuntimeError:  # the tasks have ended by an error, which _die() tells everybody
            pass

    def abandon(self, link: Link) -> None:
        """Close a link whose owner is gone."""
        self.spawn(link, link.aclose)

    async def close_links(self) -> None:
        """Close all that is open, side by side."""

        async def close(link: Link) -> None:
            try:
                await link.aclose()
            except Exception:
                logger.debug("closing %s failed", link.label, exc_info=True)

        async with anyio.create_task_group() as group:
            for link in tuple(self.links):
                group.start_soon(close, link)


def engine_here() -> Engine | None:
    """Return the engine whose thread this is."""
    here = threading.current_thread()
    return next((engine for engine in tuple(running) if engine._thread is here), None)
