"""A room with two members that show a film, for the page that joins it.

``python -m tests.support.join_scene FOLDER`` takes a picture of the page, for docs/rooms.md.
"""

from __future__ import annotations

import asyncio
import sys
from contextlib import ExitStack
from pathlib import Path

from metered_sync import MediaStream, MeteredPeer, PeerJoined, from_file
from metered_sync.demo.publisher import CLIP
from metered_sync.local import LocalCloud
from tests.support.chromium import chromium
from tests.support.console_scene import until

HELLO = {"Ann": "Hi Kim! In time for the film.", "Bob": "It is the one with the bunny."}


async def take(url: str, folder: Path) -> None:
    """Join, say something, and take a picture once all play."""
    async with chromium() as browser:
        page = await browser.chrome.new_page(viewport={"width": 900, "height": 560})
        await page.goto(url)
        await page.click("#join")
        plays = "[...document.querySelectorAll('video')].filter((one) => one.videoWidth)"
        await until(page, f"{plays}.length === 3")
        await until(page, f"document.getElementById('chat').childElementCount === {len(HELLO)}")
        await page.fill("#text", "Hello you two. I bring popcorn.")
        await page.keyboard.press("Enter")
        await until(page, "document.getElementById('text').value === ''")
        await page.screenshot(path=folder / "join.jpg", quality=85)


def main(folder: str) -> None:
    with LocalCloud(console=True) as cloud, ExitStack() as stack:
        for position, (name, hello) in zip((0.0, 3.0), HELLO.items(), strict=True):
            options = cloud.token_options(name, peer_metadata={"name": name})
            member = stack.enter_context(MeteredPeer(**options))
            film = stack.enter_context(from_file(CLIP, loop=True))
            film.seek(position)
            member.add_stream(MediaStream(film, id="film"))
            member.join("film club")

            @member.on(PeerJoined)
            def greet(event: PeerJoined, member: MeteredPeer = member, hello: str = hello) -> None:
                if event.peer.id not in HELLO:
                    member.send(hello)

        asyncio.run(take(cloud.join_url("film club", "Kim"), Path(folder)))


if __name__ == "__main__":
    main(sys.argv[1])
