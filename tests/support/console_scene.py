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
    """Take the pictures, while others do what there is to see."""
    loop = asyncio.get_running_loop()
    async with chromium() as browser:
        for view, scheme, height in (("log", "light", 560), ("sfu", "dark", 620)):
            page = await browser.chrome.new_page(
                color_scheme=scheme, viewport={"width": 1000, "height": height}
            )
            await page.goto(f"{cloud.console_url}#{view}")
            await until(page, "document.getElementById('status').dataset.state === 'live'")
            if view == "log":
                await loop.run_in_executor(None, visit, cloud)
                await until(page, "document.querySelectorAll('.entry.refused').length >= 3")
                await page.locator("#entries .refused:has-text('stock') summary").first.click()
            else:
                await page.get_by_role("button", name="Watch door").click()
                await until(page, "document.querySelector('video')?.videoWidth")
                await until(page, "document.querySelector('table').innerText.includes('bit/s')")
            await page.mouse.move(0, 0)
            await page.evaluate("document.activeElement.blur(), scrollTo(0, 0)")
            await page.screenshot(path=folder / f"console-{view}.png")


def visit(cloud: LocalCloud) -> None:
    """Have the peers come, talk and go."""
    with traffic(cloud):
        pass


def main(folder: str) -> None:
    with LocalCloud(console=True) as cloud, publisher(cloud):
        asyncio.run(take(cloud, Path(folder)))


if __name__ == "__main__":
    main(sys.argv[1])
