"""A local cloud in which something goes on, for the console to show.

``python -m tests.support.console_scene FOLDER`` takes pictures of it, for docs/console.md.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from metered_sync import (
    MeteredError,
    SfuClient,
    SignallingClient,
    SignallingConnectError,
    mint_token,
)
from metered_sync.local import LocalCloud
from metered_sync.testing import PatternSource, ToneSource
from tests.support.chromium import chromium

HOSTILE = "<script>document.title = 'taken over'</script><img src=x onerror=alert(1)>"


@contextlib.contextmanager
def traffic(cloud: LocalCloud) -> Iterator[tuple[SignallingClient, SignallingClient]]:
    """Have two peers talk, and be refused something; on leaving, they go."""
    visitor = cloud.token_options(
        "visitor-7",
        channels=["orders-*"],
        permissions=["subscribe", "publish"],
        peer_metadata={"name": "Visitor", "note": HOSTILE},
    )
    shop = cloud.token_options("shop", peer_metadata={"name": "Shop", "role": "seller"})
    with SignallingClient(**shop) as seller, SignallingClient(**visitor) as buyer:
        inbox = seller.subscribe("orders-2042", include_sender_metadata=True)
        seller.subscribe("orders-*")
        buyer.subscribe("orders-2042")
        buyer.publish("orders-2042", {"order": 2042, "items": [{"sku": "A-17", "count": 2}]})
        inbox.get(timeout=10)
        buyer.publish("orders-2042", {"note": HOSTILE})
        seller.publish("orders-2042", {"order": 2042, "state": "packed"})
        for refused in (
            lambda: buyer.publish("stock", {"sku": "A-17", "count": 0}),
            lambda: buyer.send("shop", "hello"),
        ):
            with contextlib.suppress(MeteredError):
                refused()
        forged = mint_token(cloud.key_id, "sk_secret_" + "0" * 48, peer_id="late")
        old = SignallingClient(token_provider=forged, url=cloud.url, reconnect=False)
        with contextlib.suppress(SignallingConnectError), old:
            pass
        yield seller, buyer


@contextlib.contextmanager
def publisher(cloud: LocalCloud, codec: str = "vp8") -> Iterator[SfuClient]:
    """Publish a numbered pattern and a tone through the SFU."""
    with SfuClient(**cloud.sfu_options(), metadata="front door") as client:
        client.publish(PatternSource(640, 360, 15), name="door", codec=codec)
        client.publish(ToneSource(440), name="bell")
        yield client


async def until(page: Any, condition: str) -> None:
    """Wait until an expression of the page is true; its own ``wait_for_function`` needs eval."""
    await page.evaluate(
        "new Promise((resolve, reject) => {"
        f"const look = () => ({condition}) ? resolve() : setTimeout(look, 50);"
        "look(); setTimeout(() => reject(new Error('not within 20 s')), 20000); })"
    )


async def take(cloud: LocalCloud, folder: Path) -> None:
    """Take the pictures."""
    async with chromium() as browser:
        for scheme in ("light", "dark"):
            context = await browser.chrome.new_context(
                color_scheme=scheme, viewport={"width": 1100, "height": 700}
            )
            page = await context.new_page()
            await page.goto(cloud.console_url)
            await page.wait_for_selector("#status[data-state=live]")
            for view in ("overview", "log", "channels", "peers", "rooms", "sfu", "faults"):
                await page.evaluate(f"location.hash = '{view}'")
                if view == "log":
                    await page.locator("#entries .entry.refused").first.click()
                if view == "sfu":
                    await page.get_by_role("button", name="Watch door").click()
                    await until(page, "document.querySelector('video')?.videoWidth")
                    await page.wait_for_timeout(1500)
                await page.screenshot(path=folder / f"console-{view}-{scheme}.png")
                if scheme == "dark":
                    await page.set_viewport_size({"width": 400, "height": 800})
                    await page.screenshot(path=folder / f"console-{view}-narrow.png")
                    await page.set_viewport_size({"width": 1100, "height": 700})


def main(folder: str) -> None:
    with LocalCloud(console=True) as cloud, traffic(cloud), publisher(cloud):
        asyncio.run(take(cloud, Path(folder)))


if __name__ == "__main__":
    main(sys.argv[1])
