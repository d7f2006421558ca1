"""A page in Chromium that is a member of a room, as a test looks at it."""

from __future__ import annotations

from typing import Any

import numpy as np

from metered_sync import MeteredPeer, RemoteTrack
from metered_sync.testing import dominant_frequency, read_number
from tests.conftest import wait_until
from tests.scenarios.browser.conftest import Tab

PATIENCE = 45.0
"""Seconds for anything that a page shows, or a member in Python gets of it."""

# What a test asks of the page. Members are named by how their peer ids begin.
HELPERS = """
window.tiles = () => [...document.querySelectorAll('video')].map((one) => one.title);
window.until = async (what, check) => {
  for (const end = performance.now() + 25000; performance.now() < end;) {
    const found = await check();
    if (found) return found;
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  throw new Error(`the page waited in vain for ${what}; it shows ${tiles()}`);
};
window.video = (peer) => until(`a video of ${peer}`, () =>
  [...document.querySelectorAll('video')].find((one) => one.title.startsWith(peer)));
window.decodes = async (peer, more) => {
  let count = 0, last = null, element = null;
  await until(`${more} pictures of ${peer}`, async () => {
    const now = await video(peer);
    const frames = now.getVideoPlaybackQuality().totalVideoFrames;
    if (now === element && frames > last) count += frames - last;
    [element, last] = [now, frames];
    return count >= more;
  });
  return [element.videoWidth, element.videoHeight];
};
window.picture = async (peer) => {
  const context = new OffscreenCanvas(64, 48).getContext('2d');
  context.drawImage(await video(peer), 0, 0, 64, 48);
  return [...context.getImageData(0, 0, 64, 48).data].filter((_, index) => index % 4 === 1);
};
window.listen = async (peer) => {
  const context = new AudioContext(), analyser = context.createAnalyser();
  try {
    analyser.fftSize = 8192;
    context.createMediaStreamSource((await video(peer)).srcObject).connect(analyser);
    await context.resume();
    const samples = new Float32Array(analyser.fftSize);
    await until(`sound of ${peer}`, () => {
      analyser.getFloatTimeDomainData(samples);
      return samples.some((sample) => Math.abs(sample) > 0.05);
    });
    return { rate: context.sampleRate, samples: [...samples] };
  } finally {
    await context.close();
  }
};
// The SFU's id of the session that such calls were made for last.
window.session = (call) => performance.getEntriesByType('resource')
  .map((one) => one.name.match(`/session/(\\\\w+)~[^/]*/${call}$`)?.[1]).filter(Boolean).at(-1);
// Others are let go of after 4 s, not 10. (A page may take seconds to connect again.)
const slow = window.setTimeout;
window.setTimeout = (run, ms, ...rest) => slow(run, ms === 10000 ? 4000 : ms, ...rest);
"""


class PageMember:
    """A page, as a member of the room.

    Args:
        tab: Shows the page.
        prefix: How the peer ids of pages begin.
    """

    def __init__(self, tab: Tab, prefix: str) -> None:
        self.tab = tab
        self.run = tab.run
        self._prefix = prefix

    def join(self) -> None:
        """Press the button."""
        self.run(HELPERS + "document.querySelector('button').click();")

    def sees(self, peer: str, frames: int = 3) -> tuple[int, int]:
        """Check that more pictures of a member are decoded; return their size."""
        width, height = self.run("return decodes(peer, frames)", peer=peer, frames=frames)
        return width, height

    def reads(self, peer: str) -> int:
        """Return the number in a picture of a pattern that is shown."""
        found: list[int] = []

        def look() -> bool:
            grey = self.run("return picture(peer)", peer=peer)
            number = read_number(np.array(grey, np.uint8).reshape(48, 64))
            found.extend([] if number is None else [number])
            return bool(found)

        wait_until(look, PATIENCE, f"a number in the picture of {peer}")
        return found[0]

    def hears(self, peer: str, tone: int | None = None) -> None:
        """Check that something is heard of a member: a tone of this frequency."""

        def listen() -> bool:
            heard = self.run("return listen(peer)", peer=peer)
            frequency = dominant_frequency(np.array(heard["samples"]), heard["rate"])
            return tone is None or abs(frequency - tone) < 25

        wait_until(listen, PATIENCE, f"{tone} Hz of {peer}")

    def other(self, *but: str) -> str:
        """Return the id of the only other page that is shown, which is none of these."""
        shown: set[str] = set()

        def look() -> bool:
            titles = [title for title in self.run("return tiles()") if title]
            shown.clear()
            shown.update(title.split()[0] for title in titles if title.startswith(self._prefix))
            return len(shown) == 1 and not shown & set(but)

        wait_until(look, PATIENCE, f"one other page, and not {but}")
        return shown.pop()

    def session(self, call: str) -> str:
        """Return the SFU's id of the session that such calls were last made for."""
        found = self.run("return session(call)", call=call)
        assert isinstance(found, str)
        return found


def camera(one: MeteredPeer, peer_id: str, kind: Any = "video") -> RemoteTrack:
    """Return what a member in Python receives of a page."""
    return one.wait_for_peer(peer_id, timeout=PATIENCE).track(kind, timeout=PATIENCE)


def changes(track: RemoteTrack, pictures: int = 2) -> None:
    """Check that a picture changes."""
    last = track.read(timeout=PATIENCE)

    def look() -> bool:
        nonlocal last, pictures
        image = track.read(timeout=PATIENCE)
        pictures -= image.shape == last.shape and bool((image != last).mean() > 0.001)
        last = image
        return pictures <= 0

    wait_until(look, PATIENCE, "the picture changes")


def beeps(track: RemoteTrack) -> None:
    """Check that the beep of a browser's fake microphone is heard."""
    with track.frames() as frames:
        wait_until(
            lambda: np.abs(frames.get(timeout=PATIENCE).to_ndarray()).max() > 500,
            PATIENCE,
            "a beep",
        )
