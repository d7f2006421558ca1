"""Test the console's page in a real Chromium."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
from anyio.from_thread import BlockingPortal, start_blocking_portal

from metered_sync import MeteredError, SfuClient, SignallingClient
from metered_sync.events import Disconnected
from metered_sync.local import LocalCloud
from metered_sync.testing import PatternSource
from tests.support.chromium import Browser, chromium
from tests.support.console_scene import HOSTILE, until

pytestmark = pytest.mark.browser


class Tab:
    """A tab of a browser that runs in another thread."""

    def __init__(self, portal: BlockingPortal, page: Any) -> None:
        self._portal = portal
        self.page = page
        self.complaints: list[str] = []
        """What the browser complains of: errors of scripts, and what the policy forbids."""
        portal.call(self._listen)  # (playwright's methods belong to the thread of its loop)

    def _listen(self) -> None:
        self.page.on("console", lambda told: self._complain(told.type, told.text))
        self.page.on("pageerror", lambda error: self._complain("error", str(error)))

    def _complain(self, kind: str, text: str) -> None:
        if kind == "error":
            self.complaints.append(text)

    def do(self, method: Callable[..., Any], *args: Any, **options: Any) -> Any:
        """Call a method of playwright's."""
        return self._portal.call(partial(method, *args, **options))

    def run(self, expression: str) -> Any:
        """Return the value of an expression of the page's."""
        return self.do(self.page.evaluate, expression)

    def until(self, condition: str) -> None:
        """Wait until an expression of the page's is true."""
        self._portal.call(until, self.page, condition)

    def show(self, view: str) -> None:
        """Go to a view."""
        self.run(f"location.hash = '#{view}'")
        self.until(f"!document.getElementById('{view}').hidden")

    def press(self, name: str) -> None:
        """Press a button."""
        self.do(self.page.get_by_role("button", name=name, exact=True).click)

    def text(self, selector: str) -> str:
        return str(self.run(f"document.querySelector({json.dumps(selector)})?.innerText ?? ''"))

    def has(self, selector: str, text: str) -> None:
        """Wait until an element has this text in it."""
        found = f"[...document.querySelectorAll({json.dumps(selector)})]"
        self.until(f"{found}.some((one) => one.innerText.includes({json.dumps(text)}))")


@pytest.fixture(scope="module")
def cloud() -> Iterator[LocalCloud]:
    with LocalCloud(console=True, limits=False) as cloud:
        yield cloud


@pytest.fixture(scope="module")
def running() -> Iterator[tuple[BlockingPortal, Browser]]:
    with (
        start_blocking_portal() as portal,
        portal.wrap_async_context_manager(chromium()) as browser,
    ):
        yield portal, browser


def open_tab(running: tuple[BlockingPortal, Browser], cloud: LocalCloud, **options: Any) -> Tab:
    portal, browser = running
    tab = Tab(portal, portal.call(partial(browser.chrome.new_page, **options)))
    tab.do(tab.page.goto, cloud.console_url)
    tab.until("document.getElementById('status').dataset.state === 'live'")
    return tab


@pytest.fixture(scope="module")
def shared_tab(running: tuple[BlockingPortal, Browser], cloud: LocalCloud) -> Tab:
    return open_tab(running, cloud)


@pytest.fixture
def tab(shared_tab: Tab) -> Iterator[Tab]:
    shared_tab.complaints.clear()
    yield shared_tab
    assert shared_tab.complaints == []


def member(cloud: LocalCloud, name: str, **claims: Any) -> SignallingClient:
    return SignallingClient(**cloud.token_options(name, **claims), reconnect=False)


def test_rows_appear_and_payloads_stay_text(cloud: LocalCloud, tab: Tab) -> None:
    tab.show("log")
    with member(cloud, "ada", peer_metadata={"name": HOSTILE}) as ada:
        ada.subscribe(HOSTILE)
        ada.publish(HOSTILE, {"deep": [{"note": HOSTILE}]})
        tab.has("#entries .entry .what", "publish")
        # By the keyboard alone: the row opens, and so does what is in it.
        rows = "[...document.querySelectorAll('#entries .entry')]"
        row = f"{rows}.find((one) => one.innerText.includes('deep'))"
        tab.run(f"{row}.querySelector('summary').focus()")
        tab.do(tab.page.keyboard.press, "Enter")
        for name in ("data", "deep", "0"):
            nodes = f"[...{row}.querySelectorAll('.tree > summary')]"
            node = f"{nodes}.find((one) => one.innerText.startsWith('{name}:'))"
            tab.until(node)
            tab.run(f"{node}.focus()")
            tab.do(tab.page.keyboard.press, "Enter")
        tab.has("#entries .leaf", f"note: {json.dumps(HOSTILE)}")
        for view in ("channels", "peers"):
            tab.show(view)
            tab.has(f"#{view}", HOSTILE)
    assert tab.run("document.title") == "Local cloud"
    assert tab.run("document.querySelectorAll('script, img').length") == 1


def test_the_reason_of_a_refusal_is_shown(cloud: LocalCloud, tab: Tab) -> None:
    with member(cloud, "bob", channels=["lobby"]) as bob, pytest.raises(MeteredError):
        bob.publish("vault", 1)
    why = "channel_not_authorized: 'vault' is not among the channels of 'bob': 'lobby'"
    tab.show("log")
    tab.has("#entries .entry.refused .why", why)
    tab.show("overview")
    tab.has("#refused .entry.refused .why", why)
    colour = tab.run("getComputedStyle(document.querySelector('#refused .why')).color")
    assert colour == "rgb(180, 35, 24)"


def test_the_log_is_filtered_and_paused(cloud: LocalCloud, tab: Tab) -> None:
    tab.show("log")
    with member(cloud, "cleo") as cleo:
        tab.do(tab.page.fill, "#words", "needle")
        tab.until("!document.querySelector('#entries .entry')")
        cleo.publish("hay", "straw")
        cleo.publish("hay", "a needle")
        tab.has("#entries .what", "a needle")
        assert "straw" not in tab.text("#entries")
        tab.press("Pause")
        cleo.publish("hay", "a second needle")
        tab.has("#pause", "more)")
        assert "second" not in tab.text("#entries")
        tab.do(tab.page.click, "#pause")
        tab.has("#entries .what", "a second needle")
        tab.do(tab.page.fill, "#words", "")
        tab.has("#entries .what", "straw")


def test_a_peer_is_disconnected(cloud: LocalCloud, tab: Tab) -> None:
    tab.show("peers")
    with member(cloud, "dora") as dora, dora.events(Disconnected) as events:
        tab.press("Disconnect dora")
        assert events.get(timeout=15).code == 4020
        tab.until("!document.querySelector('#peer-list').innerText.includes('dora')")


def test_a_fault_button_drops_connections(cloud: LocalCloud, tab: Tab) -> None:
    tab.show("faults")
    with member(cloud, "emil") as emil, emil.events(Disconnected) as events:
        tab.press("Drop connections")
        assert events.get(timeout=15).code == 1006
    tab.press("Delay frames")
    tab.until("document.querySelector('.fault.active')?.dataset.name === 'delay'")
    tab.press("End it")
    tab.until("!document.querySelector('.fault.active')")


@pytest.mark.parametrize("codec", ["VP8", "H264"])
def test_a_picture_plays(cloud: LocalCloud, tab: Tab, codec: str) -> None:
    tab.show("sfu")
    with SfuClient(**cloud.sfu_options(), metadata=HOSTILE) as client:
        client.publish(PatternSource(320, 240, 15), name=codec, codec=codec.lower())
        tab.has("#session-list td", codec)
        tab.has("#session-list td", "320 \N{MULTIPLICATION SIGN} 240")
        tab.has("#session-list", HOSTILE)
        tab.press(f"Watch {codec}")
        tab.until("document.querySelector('video')?.getVideoPlaybackQuality().totalVideoFrames > 3")
        assert tab.run("document.querySelector('video').videoWidth") == 320
        tab.has("#session-list td", "bit/s")
        # Its own sessions are not shown.
        assert tab.run("document.querySelectorAll('#session-list > *').length") == 1
    tab.until("!document.querySelector('video')")


def test_two_tabs_and_a_narrow_one(
    running: tuple[BlockingPortal, Browser], cloud: LocalCloud, tab: Tab
) -> None:
    narrow = open_tab(running, cloud, viewport={"width": 400, "height": 700})
    with member(cloud, "fay", channels=["a" * 60 + "*"], peer_metadata={"x": "y" * 300}) as fay:
        fay.subscribe("a" * 64)
        fay.publish("a" * 64, "for both")
        for one in (tab, narrow):
            one.show("log")
            one.has("#entries .what", "for both")
        for view in ("overview", "log", "channels", "peers", "rooms", "sfu", "faults"):
            narrow.show(view)
            assert narrow.run("document.documentElement.scrollWidth") <= 400, view
    narrow.do(narrow.page.close)
    tab.until("!document.querySelector('#peer-list').textContent.includes('fay')")


def test_keys_are_copied(cloud: LocalCloud, tab: Tab) -> None:
    tab.do(tab.page.context.grant_permissions, ["clipboard-read", "clipboard-write"])
    tab.show("overview")
    assert cloud.key_secret not in tab.run("document.documentElement.outerHTML")
    for name, text in (
        ("Copy for a shell", f"export METERED_KEY_SECRET={cloud.key_secret}\n"),
        ("Copy for Python", f'api_key="{cloud.publishable_key}", url="{cloud.url}")'),
        ("Copy for JavaScript", f'WebSocket("{cloud.url}/v1?key={cloud.publishable_key}")'),
    ):
        tab.press(name)
        tab.has("[data-copy]", "Copied")
        assert text in tab.run("navigator.clipboard.readText()")
        tab.until("!document.body.innerText.includes('Copied')")


def test_a_notebook_on_this_machine_shows_it_in_a_frame(
    running: tuple[BlockingPortal, Browser], cloud: LocalCloud
) -> None:
    portal, browser = running
    html = f'<!doctype html><iframe src="{cloud.console_url}" width="600" height="400"></iframe>'
    page = portal.call(browser.open, html)  # of http://localhost:…
    try:
        frame = page._page.frames[1]
        portal.call(until, frame, "document.getElementById('status')?.dataset.state === 'live'")
    finally:
        portal.call(page.close)


def test_the_end_of_the_cloud_is_shown(running: tuple[BlockingPortal, Browser]) -> None:
    with LocalCloud(console=True) as cloud:
        tab = open_tab(running, cloud)
    tab.until("document.getElementById('status').dataset.state === 'lost'")
    tab.do(tab.page.close)
