"""A Chromium for all tests of this folder, and its pages as blocking objects."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future
from functools import partial
from typing import Any

import pytest
from anyio.from_thread import BlockingPortal, start_blocking_portal

from metered_sync import SfuClient
from metered_sync.local import LocalCloud
from tests.conftest import need
from tests.support.chromium import Browser, Page, chromium

TIMEOUT = 30.0
"""Seconds for anything that a page does; it gives up by itself before, and says at what."""


class Tab:
    """A page, used from this thread."""

    def __init__(self, portal: BlockingPortal, page: Page) -> None:
        self._portal = portal
        self._page = page

    @property
    def errors(self) -> list[str]:
        """Return what the page did not catch, and what its policy refused."""
        return self._page.errors

    def start(self, script: str, **names: object) -> Future[Any]:
        """Begin to run the body of an async function, with these names bound to values."""
        return self._portal.start_task_soon(partial(self._page.run, script, **names))

    def run(self, script: str, **names: object) -> Any:
        """Run it, and return what it returns."""
        return self.start(script, **names).result(TIMEOUT)

    def reload(self) -> None:
        """Load the page again, as a user would."""
        self._portal.start_task_soon(self._page.reload).result(TIMEOUT)

    def press(self, *keys: str) -> None:
        """Press keys, one after the other."""
        for key in keys:
            self._portal.start_task_soon(self._page.press, key).result(TIMEOUT)

    def look(self, width: int, height: int, colours: str = "light") -> None:
        """Show the page in a window of this size, to somebody who likes ``light`` or ``dark``."""
        self._portal.start_task_soon(self._page.look, width, height, colours).result(TIMEOUT)

    def crash(self) -> None:
        """End the page's process: none of its code runs any more."""
        self._portal.start_task_soon(self._page.crash).result(TIMEOUT)

    def close(self) -> None:
        """Close the tab, as a user would."""
        self._portal.start_task_soon(self._page.close).result(TIMEOUT)


class Tabs:
    """What opens tabs."""

    def __init__(self, portal: BlockingPortal, browser: Browser) -> None:
        self._portal = portal
        self._browser = browser
        self._opened: list[Tab] = []

    def open(self, html: str) -> Tab:
        """Show a page."""
        return self._tab(self._browser.open, html)

    def visit(self, url: str) -> Tab:
        """Show a page of another server."""
        return self._tab(self._browser.visit, url)

    def open_client(self, cloud: LocalCloud) -> Tab:
        """Show the page of ``tests/support/chromium.py``."""
        return self._tab(
            self._browser.open_client, cloud.http_url, cloud.sfu_app_id, cloud.sfu_secret
        )

    def _tab(self, opening: Callable[..., Any], *args: object) -> Tab:
        page = self._portal.start_task_soon(opening, *args).result(TIMEOUT)
        self._opened.append(Tab(self._portal, page))
        return self._opened[-1]

    def close(self) -> None:
        """Close all tabs."""
        while self._opened:
            self._opened.pop().close()


@pytest.fixture(scope="package")
def shared_cloud() -> Iterator[LocalCloud]:
    """One for this folder: tabs that are closed leave their sessions behind for a while."""
    with LocalCloud() as cloud:
        yield cloud


@pytest.fixture(scope="package")
def running_chromium() -> Iterator[tuple[BlockingPortal, Browser]]:
    need("chromium", "chromium")
    with (
        start_blocking_portal() as portal,
        portal.wrap_async_context_manager(chromium()) as browser,
    ):
        yield portal, browser


@pytest.fixture
def tabs(running_chromium: tuple[BlockingPortal, Browser]) -> Iterator[Tabs]:
    """Opens tabs, which are closed after the test."""
    tabs = Tabs(*running_chromium)
    yield tabs
    tabs.close()


@pytest.fixture
def tab(tabs: Tabs, shared_cloud: LocalCloud) -> Tab:
    """A page that is a client of the local cloud, without a session yet."""
    return tabs.open_client(shared_cloud)


@pytest.fixture
def sfu(shared_cloud: LocalCloud) -> Iterator[SfuClient]:
    """Our client."""
    with SfuClient(**shared_cloud.sfu_options()) as client:
        yield client
