"""Ask the user's function for a token, and check what it returns."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from metered_sync.bridge.workers import run_in_worker
from metered_sync.wire.arguments import unrun_result
from metered_sync.wire.control import Token
from metered_sync.wire.secrets import check_token, scrub

__all__ = ["TokenProvider", "reason"]


class NoTokenError(Exception):
    """A token provider has not answered, or with something else."""


def _checked(given: object) -> str:
    """Return the text of the token that a provider has returned, before it goes anywhere."""
    unrun = unrun_result(given)
    if unrun is not None:
        raise NoTokenError(unrun)
    text = given.token if isinstance(given, Token) else given
    if not isinstance(text, str) or not text:
        raise NoTokenError(f"it returned {type(text).__name__}, not a non-empty str")
    try:
        return check_token(text)
    except ValueError as error:
        del given, text  # no frame of the traceback shows them
        raise NoTokenError(f"it returned a text that {error}") from None


def reason(error: Exception) -> str:
    """Return in words why a provider has given no token."""
    return scrub(str(error) if isinstance(error, NoTokenError) else repr(error))


class TokenProvider:
    """The user's function, run on a worker thread; on the loop."""

    def __init__(self, provide: Callable[[], str | Token]) -> None:
        self._provide = provide
        self._asking: asyncio.Task[str | Token] | None = None

    async def token(self, within: float, limit: str) -> str:
        """Return the text of a new token. A call that hangs is not joined by a second one.

        Args:
            within: How long to wait, in seconds.
            limit: What that is, and what to do about it, for the error.

        Raises:
            Exception: What the function raised, or that it gave no token in time.
        """
        return _checked(await self._answer(within, limit))

    async def _answer(self, within: float, limit: str) -> object:
        if self._asking is None:
            self._asking = asyncio.create_task(run_in_worker(self._provide))
            # Retrieves an error that comes when nobody asks any more.
            self._asking.add_done_callback(lambda task: task.cancelled() or task.exception())
        task = self._asking
        try:
            done, _ = await asyncio.wait({task}, timeout=within)
        except BaseException:
            self.stop()
            raise
        if not done:
            raise NoTokenError(f"it took too long, longer than {limit}")
        self._asking = None
        return task.result()

    def stop(self) -> None:
        """Give up on a function that is still being asked."""
        if self._asking is not None:
            self._asking.cancel()
            self._asking = None
