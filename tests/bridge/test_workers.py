"""Test the threads that run blocking functions for the engine."""

from __future__ import annotations

import asyncio
import contextvars
import threading

import pytest

from metered_sync.bridge import workers
from metered_sync.bridge.workers import run_in_worker
from tests.conftest import wait_until

variable: contextvars.ContextVar[int] = contextvars.ContextVar("variable", default=0)


def test_results_errors_and_context() -> None:
    async def main() -> None:
        variable.set(7)
        assert await run_in_worker(lambda a: (a, variable.get()), 1) == (1, 7)
        with pytest.raises(ZeroDivisionError):
            await run_in_worker(lambda: 1 // 0)
        for ending in (SystemExit(3), StopIteration(), KeyboardInterrupt()):
            with pytest.raises(RuntimeError, match="ended with"):
                await run_in_worker(_raise, ending)
        names = await run_in_worker(lambda: threading.current_thread().daemon)
        assert names is True

    asyncio.run(main())


def _raise(error: BaseException) -> None:
    raise error


def test_an_abandoned_job_does_not_hold_anybody() -> None:
    release = threading.Event()

    async def main() -> None:
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(run_in_worker(release.wait, 30), 0.05)

    asyncio.run(main())
    release.set()  # its late result meets a loop that is gone


def test_threads_are_used_again_and_end_when_idle(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "IDLE_LIMIT", 0.1)

    async def main() -> None:
        for _ in range(200):
            await run_in_worker(lambda: None)
        await asyncio.gather(*(run_in_worker(lambda: None) for _ in range(50)))

    def mine() -> int:
        return sum(t.name == "metered-sync-worker" for t in threading.enumerate())

    before = mine()
    asyncio.run(main())
    assert mine() <= before + 51
    wait_until(lambda: mine() <= before)
    asyncio.run(main())  # and new ones start
