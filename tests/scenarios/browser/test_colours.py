"""Colours and directions of pictures between browsers and us."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from metered_sync import SfuClient, from_file
from metered_sync.local import LocalCloud
from tests.conftest import wait_until
from tests.scenarios.browser.conftest import Tab, Tabs
from tests.scenarios.test_colours import Repeated
from tests.support.colours import (
    HEIGHT,
    PATCHES,
    WIDTH,
    PhoneExtensions,
    apart,
    colour_files,
    colours,
    video_senders,
)

pytestmark = pytest.mark.browser
JOIN = "window.eval(code); window.patches = p; pc.createDataChannel('idle'); await connect();"
CODE = """
function paint(context, size, number) {
  const side = size[0] / patches.length;
  patches.forEach((c, i) => {
    context.fillStyle = `rgb(${c})`;
    context.fillRect(i * side, 0, side, size[1]);
  });
  context.fillStyle = 'black';
  context.fillRect(0, 0, 8 + number % 2 * 4, 8);
}
function generated(size) {
  const canvas = new OffscreenCanvas(...size), context = canvas.getContext('2d');
  const generator = new MediaStreamTrackGenerator({kind: 'video'});
  const writer = generator.writable.getWriter();
  let number = 0;
  setInterval(() => {
    paint(context, size, ++number);
    writer.write(new VideoFrame(canvas, {timestamp: number * 66667}));
  }, 66);
  return generator;
}
function captured(size) {
  const canvas = document.createElement('canvas');
  [canvas.width, canvas.height] = size;
  const context = canvas.getContext('2d');
  let number = 0;
  setInterval(() => paint(context, size, ++number), 66);
  return canvas.captureStream(15).getVideoTracks()[0];
}
function pixels(mid) {
  const video = received[mid];
  const canvas = new OffscreenCanvas(video.videoWidth, video.videoHeight);
  const context = canvas.getContext('2d');
  context.drawImage(video, 0, 0);
  const {data} = context.getImageData(0, 0, canvas.width, canvas.height);
  return [canvas.height, canvas.width, [...data]];
}
"""
NEAR = 8


def join(tab: Tab) -> None:
    tab.run(JOIN, code=CODE, p=PATCHES)


def shown(tab: Tab, mid: str) -> Any:
    """Return what a page shows of a section, as RGB."""
    height, width, data = tab.run("return pixels(mid)", mid=mid)
    return np.array(data, np.uint8).reshape(height, width, 4)[..., :3]


def settled(look: Callable[[], Any], right: Callable[[Any], bool], what: str) -> None:
    """Wait until a picture is right; tell what it was like otherwise."""
    seen: list[Any] = []

    def is_right() -> bool:
        seen[:] = [look()]
        return right(seen[0])

    try:
        wait_until(is_right, 20)
    except pytest.fail.Exception:
        pytest.fail(f"{what}: {seen[0].shape}, {colours(seen[0]).round().tolist()}")


def near(rgb: Any) -> bool:
    return bool(np.abs(colours(rgb) - PATCHES).max() <= NEAR)


@pytest.mark.parametrize("name", ["captured", pytest.param("generated", marks=pytest.mark.slow)])
def test_canvases_of_a_browser(
    tabs: Tabs, shared_cloud: LocalCloud, sfu: SfuClient, name: str
) -> None:
    tab, other = tabs.open_client(shared_cloud), tabs.open_client(shared_cloud)
    join(tab)
    join(other)
    track = tab.run(f"return publish({name}([384, 128]), name)", name=name)
    remote = sfu.subscribe(sfu.wait_for_track(name=name, timeout=20))
    settled(lambda: remote.read(timeout=20)[..., ::-1], near, name)
    assert near(remote.snapshot(timeout=20).array[..., ::-1])
    [mid] = other.run("return subscribe([t])", t=track)
    other.run("return decoded(mid, 3)", mid=mid)
    settled(lambda: shown(other, mid), near, f"{name} in a browser")


@pytest.mark.parametrize("codec", ["vp8", "h264"])
def test_films_in_a_browser(tab: Tab, sfu: SfuClient, codec: str) -> None:
    join(tab)
    files = colour_files()
    for name in ("bt709.mp4", "hevc10full.mp4", "bt709full.mp4"):
        whole = files.path(name)
        source: Any = Repeated(whole) if name == "bt709full.mp4" else from_file(whole, loop=True)
        publication = sfu.publish(
            getattr(source, "video", source), codec=codec, video_bitrate=1_000_000
        )
        track = {"sessionId": publication.session_id, "trackId": publication.track_id}
        [mid] = tab.run("return subscribe([t])", t=track)
        tab.run("return decoded(mid, 3)", mid=mid)
        right = files.shown(name)
        settled(
            lambda m=mid: shown(tab, m),  # type: ignore[misc]
            lambda rgb, r=right: apart(rgb, r) <= NEAR,  # type: ignore[misc]
            f"{name} as {codec}",
        )
        source.stop()


def test_turned_pictures_are_shown_as_the_browser_shows_them(
    tab: Tab, sfu: SfuClient, shared_cloud: LocalCloud
) -> None:
    """As telephones send them: the pictures lie, and the packets say so. (It ignores flips.)"""
    join(tab)
    before = video_senders()
    name = "yuvj420p.mkv"
    with (
        from_file(colour_files().path(name), loop=True) as source,
        SfuClient(**shared_cloud.sfu_options()) as phone,
    ):
        publication = phone.publish(source.video)
        remote = sfu.subscribe(publication)
        remote.read(timeout=20)
        [sender] = [one for one in video_senders() if one not in before]
        extensions = PhoneExtensions(sender)
        track = {"sessionId": publication.session_id, "trackId": publication.track_id}
        [mid] = tab.run("return subscribe([t])", t=track)
        tab.run("return decoded(mid, 3)", mid=mid)
        for orientation in (1, 2, 7):
            extensions.orientation = orientation

            def upright(rgb: Any, turns: int = orientation & 3) -> bool:
                back = np.rot90(rgb, turns)
                return back.shape == (HEIGHT, WIDTH, 3) and near(back)

            settled(lambda: remote.read(timeout=20)[..., ::-1], upright, f"{orientation} here")
            settled(lambda: shown(tab, mid), upright, f"{orientation} in the browser")
