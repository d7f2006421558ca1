"""Server-sent events in a browser's EventSource: the application of docs/flask.md, as it stands."""

from __future__ import annotations

import re
from collections.abc import Iterator
from concurrent import futures
from typing import Any

import pytest
import requests

from metered_sync.local import LocalCloud
from tests.conftest import ROOT
from tests.scenarios.browser.conftest import Tab, Tabs
from tests.support.wsgi import served

pytestmark = pytest.mark.browser
SHOWN = """return new Promise(resolve => {
  const look = () => {
    const items = [...document.querySelectorAll('li')].map(item => item.textContent);
    items.includes(text) ? resolve(items) : setTimeout(look, 20);
  };
  look();
});"""


@pytest.fixture
def app(shared_cloud: LocalCloud, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.setenv("METERED_URL", shared_cloud.url)
    monkeypatch.setenv("METERED_KEY_ID", shared_cloud.key_id)
    monkeypatch.setenv("METERED_KEY_SECRET", shared_cloud.key_secret)
    (source,) = re.findall(
        r"^```python\n(.*?)^```", (ROOT / "docs" / "flask.md").read_text(), re.DOTALL | re.MULTILINE
    )
    names: dict[str, Any] = {}
    exec(source, names)
    yield names["app"]
    resources = names["app"].extensions["metered"]
    for clients in (resources._client, resources._listener):
        for held in clients._held.values():
            if held.client is not None:
                held.client.close()


def say(url: str, text: str) -> None:
    assert requests.post(f"{url}/say", {"text": text}, timeout=30).status_code == 204


def say_until_heard(url: str, text: str, pages: list[Tab]) -> None:
    """Publish again and again, for a page that is not subscribed yet hears nothing."""
    heard = [page.start(SHOWN, text=text) for page in pages]
    for _ in range(150):
        say(url, text)
        if not futures.wait(heard, 0.2).not_done:
            return
    pytest.fail(f"{text!r} is not heard by all pages")


def test_a_page_reads_what_the_server_publishes(
    app: Any, shared_cloud: LocalCloud, tabs: Tabs
) -> None:
    with shared_cloud.control_plane() as control, served(app) as url:
        pages: list[Tab] = [tabs.visit(url) for _ in range(2)]
        say_until_heard(url, "begin", pages)
        odd = ["<b>bold</b>", "a\ndata: b", "clef 𝄞 \u2028"]
        for text in odd:
            say(url, text)
        for page in pages:
            shown = page.run(SHOWN, text=odd[-1])
            assert [text for text in shown if text != "begin"] == odd
        # The service ends the connection for good: so do the streams, and pages open others.
        (listener,) = control.peers("news")
        assert control.disconnect(listener) == 1
        say_until_heard(url, "after it", pages)
        tabs.close()
