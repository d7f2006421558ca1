"""Stop at the awaits of the engine, one after the other, to see what an interruption leaves there.

The hook is asyncio's own: a task factory, which wraps the coroutine of each new task of the
clients' loop. Where one is suspended, the frames of the engine in it name the place: a
:data:`Place`. The first run of an operation lists its places, in order; then the operation is
run once more for each of them, and something happens just there:

``"waiting"``   as the coroutine begins to wait
``"ready"``     when that which it waits for is there, before it runs on: an interruption is not
                thrown into it any more then
``"held"``      as it begins to wait; and it waits on, until it is cancelled
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, Literal

import metered_sync.engine
from metered_sync.bridge.deadline import Deadline
from metered_sync.bridge.loop import Engine

__all__ = ["Interruption", "Moment", "Place", "interrupted"]

Moment = Literal["waiting", "ready", "held"]
Place = str
"""The engine's frames in a suspended coroutine, from the outermost: ``file.function:line < …``."""

ENGINE = str(Path(metered_sync.engine.__file__).parent)


def _frames(coroutine: Any) -> Iterator[FrameType]:
    """Yield the frames of a suspended coroutine, outermost first."""
    while coroutine is not None:
        for kind in ("cr", "gi", "ag"):
            frame = getattr(coroutine, f"{kind}_frame", None)
            if frame is not None:
                yield frame
                awaits = "gi_yieldfrom" if kind == "gi" else f"{kind}_await"
                coroutine = getattr(coroutine, awaits)
                break
        else:
            return


def _place(coroutine: Any) -> Place:
    """Return where a suspended coroutine waits; empty where no frame is the engine's."""
    ours = [frame for frame in _frames(coroutine) if frame.f_code.co_filename.startswith(ENGINE)]
    return " < ".join(
        f"{Path(f.f_code.co_filename).stem}.{f.f_code.co_name}:{f.f_lineno}" for f in ours
    )


class Interruption:
    """Something that happens once, at a place; without one it only lists the places."""

    def __init__(
        self,
        place: Place = "",
        moment: Moment = "waiting",
        act: Callable[[], object] = lambda: None,
    ) -> None:
        self.place = place
        self.moment = moment
        self.act = act
        self.places: list[Place] = []
        """The places that were passed, each once."""
        self.happened = False
        self.active = False
        """Whether the operation is under way."""
        self.holding: list[Any] = []
        """The futures that wait in the place of what is held."""

    def is_due(self, place: Place, moment: Moment) -> bool:
        """Say whether it has to happen here and now; from then on it has happened."""
        if self.happened or not self.active or (place, moment) != (self.place, self.moment):
            return False
        self.happened = True
        return True

    def release(self, engine: Engine) -> None:
        """Let what is held go on."""
        engine.post(lambda: [one.done() or one.set_result(None) for one in self.holding])

    def note(self, place: Place) -> None:
        """Note that a coroutine is suspended here."""
        if self.active and place and place not in self.places:
            self.places.append(place)


class _Watched(Coroutine[Any, Any, Any]):
    """A coroutine as its task sees it."""

    def __init__(self, coroutine: Any, interruption: Interruption) -> None:
        self._coroutine = coroutine
        self._interruption = interruption
        self._place = ""
        self._held: Any = None
        """The future that it waits for, while it is held."""

    def __getattr__(self, name: str) -> Any:  # cr_frame and its like, which anyio looks at
        return getattr(self._coroutine, name)

    def __await__(self) -> Generator[Any, Any, Any]:
        raise NotImplementedError

    def send(self, value: Any) -> Any:
        if self._held is not None:  # nobody has cancelled it
            awaited, self._held = self._held, None
            return awaited
        if self._interruption.is_due(self._place, "ready"):
            self._interruption.act()
            future = _future()
            future.set_result(None)
            return future
        return self._suspended(self._coroutine.send(value))

    def throw(self, *error: Any) -> Any:
        if self._held is not None:
            awaited, self._held = self._held, None
            if awaited.cancel(*error[-1].args):  # as cancelling does where nothing is held
                return awaited
        return self._suspended(self._coroutine.throw(*error))

    def close(self) -> None:
        self._coroutine.close()

    def _suspended(self, awaited: Any) -> Any:
        """Take note of where it waits; return the future to wait for."""
        self._place = _place(self._coroutine)
        self._interruption.note(self._place)
        if self._interruption.is_due(self._place, "waiting"):
            self._interruption.act()
        elif awaited is not None and self._interruption.is_due(self._place, "held"):
            self._held = awaited
            self._interruption.act()
            self._interruption.holding.append(hold := _future())
            return hold
        return awaited


def _future() -> Any:
    """Return a future as a coroutine yields it to its task."""
    future: Any = asyncio.get_running_loop().create_future()
    future._asyncio_future_blocking = True
    return future


@contextmanager
def interrupted(engine: Engine, interruption: Interruption) -> Iterator[None]:
    """Have an interruption happen in tasks that begin from now on."""

    def factory(loop: asyncio.AbstractEventLoop, coroutine: Any, **options: Any) -> Any:
        return asyncio.Task(_Watched(coroutine, interruption), loop=loop, **options)

    async def install(function: Any) -> None:
        asyncio.get_running_loop().set_task_factory(function)

    engine.call(install, factory, deadline=Deadline(5), what="watch the tasks")
    try:
        yield
    finally:
        interruption.active = False
        engine.call(install, None, deadline=Deadline(5), what="watch no tasks")
