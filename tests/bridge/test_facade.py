"""Test what blocking objects share: opening, calling, closing, and being collected."""

from __future__ import annotations

import gc
import threading
import warnings
from collections.abc import Iterator

import anyio
import pytest

from metered_sync.bridge import engines, guard
from metered_sync.bridge.facade import Facade
from metered_sync.bridge.link import Link
from metered_sync.errors import EngineError, ForkedError, MeteredTimeoutError
from tests.conftest import wait_until


class Door(Link):
    """A link that can be opened and closed, and may take its time for it."""

    label = "Door"

    def __init__(self) -> None:
        self.closed = 0
        self.hold = False
        self.error: BaseException | None = None

    async def open(self) -> str:
        async with self.opening():
            engines.current().links.add(self)
            if self.hold:
                await anyio.sleep_forever()
            return "open"

    async def aclose(self) -> None:
        if self.hold:
            await anyio.sleep_forever()
        self.closed += 1
        engines.current().links.discard(self)

    def abort(self, error: BaseException) -> None:
        self.error = error


class Blocking(Facade):
    def __init__(self, timeout: float = 5) -> None:
        super().__init__("Blocking", timeout)
        self.link = Door()

    def connect(self, *, timeout: float | None = None) -> None:
        self._opened(self.link)
        deadline = self._deadline(timeout)
        assert self._call(self.link.open, deadline=deadline, what="connect") == "open"

    def _enter(self) -> None:
        self.connect()

    def close(self, *, timeout: float | None = None) -> None:
        self._close(self.link, self._deadline(timeout))


@pytest.fixture
def doors() -> Iterator[None]:
    """Leave no link open on the engine of the tests."""
    yield
    links = engines.current().links
    for link in [one for one in tuple(links) if isinstance(one, Door)]:
        engines.current().post(links.discard, link)


def test_a_block_opens_and_closes() -> None:
    with Blocking() as one:
        link = one.link
        assert link in engines.current().links
    assert link.closed == 1
    one.close()  # once more


def test_a_block_that_cannot_be_entered_is_closed(doors: None) -> None:
    class Stuck(Blocking):
        def close(self, *, timeout: float | None = None) -> None:
            closed.set()

    closed = threading.Event()
    stuck = Stuck(timeout=0.05)
    stuck.link.hold = True
    with pytest.raises(MeteredTimeoutError, match=r"Blocking: connect: not finished within 0\.05"):
        stuck.__enter__()
    assert closed.is_set()
    stuck._finalizer.detach()


def test_what_was_never_opened_closes_at_once() -> None:
    one = Blocking()
    one.close()
    assert one._engine is None
    assert one.link.closed == 0


def test_one_that_is_collected_while_open_is_closed_and_says_so() -> None:
    one = Blocking()
    one.connect()
    link = one.link
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        del one
        gc.collect()
    assert [str(w.message) for w in caught if w.category is ResourceWarning] == [
        "Door was not closed; use `with`, or call close()"
    ]
    wait_until(lambda: link.closed == 1)


def test_a_close_that_timed_out_leaves_the_finalizer(doors: None) -> None:
    one = Blocking()
    one.connect()
    one.link.hold = True
    with pytest.raises(MeteredTimeoutError, match="Blocking: close"):
        one.close(timeout=0.05)
    assert one._finalizer.alive
    one.link.hold = False
    one.close()
    assert not one._finalizer.alive


def test_one_of_a_parent_process_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    one = Blocking()
    monkeypatch.setattr(one, "_born", guard.generation() - 1)
    with pytest.raises(ForkedError, match="Blocking was opened before"):
        one.connect()


def test_the_timeout_of_the_object_holds_for_its_calls_that_act() -> None:
    assert Blocking(3)._deadline(None).timeout == 3
    assert Blocking(3)._deadline(1).timeout == 1
    with pytest.raises(ValueError, match="timeout"):
        Blocking(-1)


def test_what_a_subclass_must_say() -> None:
    async def main() -> None:
        with pytest.raises(NotImplementedError):
            await Link().aclose()

    anyio.run(main)
    with pytest.raises(NotImplementedError):
        Link().abort(EngineError("the end"))
    for call in (Facade("Bare", 1)._enter, Facade("Bare", 1).close):
        with pytest.raises(NotImplementedError):
            call()


def test_a_link_that_has_ended_raises_a_copy_of_its_error() -> None:
    link = Door()
    link.check()
    link.error = EngineError("the end")
    for _ in range(2):
        with pytest.raises(EngineError, match="the end") as caught:
            link.check()
        assert caught.value is not link.error


def test_a_link_is_opened_by_one_at_a_time() -> None:
    link = Door()
    assert link.opening() is link.opening()
