"""Let blocking callers make REST calls on the engine."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from metered_sync.bridge import engines
from metered_sync.bridge.deadline import Deadline, check_timeout
from metered_sync.bridge.guard import LiveObject
from metered_sync.engine.rest import Rest
from metered_sync.errors import ClosedError

__all__ = ["RestClient"]

T = TypeVar("T")
Self = TypeVar("Self", bound="RestClient")


class RestClient(LiveObject):
    """Calls that stand alone: between them, nothing is open but idle connections.

    Unlike a :class:`~metered_sync.bridge.facade.Facade` it owns nothing on the engine. Each call
    borrows the engine that the process has at that moment, for what the engine does for any
    call: its deadline, Ctrl-C, and saying where one may not wait. So an object made before
    ``os.fork()`` works on both sides, one that is forgotten needs no warning, and there is
    no lock here.
    """

    _origin = "…"
    """The service's origin, for ``repr``; there before the arguments have been checked, too."""

    def __init__(self, label: str, timeout: float) -> None:
        self._label = label
        self._timeout = check_timeout("timeout", timeout)
        self._closed = False

    def close(self) -> None:
        """Close idle connections. Calls under way go on to their end. Repeatable."""
        self._closed = True

    def __enter__(self: Self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _ask(
        self,
        rest: Rest,
        method: str,
        path: str,
        parse: Callable[[Any], T],
        *,
        what: str,
        timeout: float | None,
        **options: Any,
    ) -> T:
        """Make a call, for ``options`` see :meth:`~metered_sync.engine.rest.Rest.call`."""

        def ask(deadline: Deadline) -> Awaitable[T]:
            return rest.call(method, path, parse, what=what, deadline=deadline, **options)

        return self._cross(ask, what=what, timeout=timeout)

    def _cross(
        self, ask: Callable[[Deadline], Awaitable[T]], *, what: str, timeout: float | None
    ) -> T:
        """Run a call on the engine and return its result.

        Args:
            ask: Makes the call; takes its deadline.
            what: What is being done, for errors.
            timeout: Seconds; ``None`` is the object's default.
        """
        deadline = Deadline.of(timeout, self._timeout)
        what = f"{self._label}: {what}"
        if self._closed:
            raise ClosedError(f"{what}: it is closed; make a new one")
        sent = False

        def run() -> Awaitable[T]:
            nonlocal sent
            sent = True
            return ask(deadline)

        with engines.in_use() as engine:
            return engine.call(
                run, deadline=deadline, what=what, progress=lambda: ("sending", sent)
            )
