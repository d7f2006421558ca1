"""Rooms shared with the published JavaScript client, in a real browser."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from metered_sync import (
    Data,
    DataChannelOpened,
    MediaStream,
    MeteredPeer,
    PeerLeft,
    ReconnectOptions,
    RemotePeer,
    RemoteTrack,
    StreamAdded,
    StreamRemoved,
)
from metered_sync.local import LocalCloud
from metered_sync.testing import PatternSource, ToneSource, dominant_frequency, read_number
from tests.conftest import wait_until
from tests.scenarios.browser.conftest import Tab, Tabs

pytestmark = pytest.mark.browser
THEM = "m-browser"
POLITE, IMPOLITE = "a-python", "z-python"
FAST = ReconnectOptions(initial_delay=0.05, max_delay=0.2)
PATIENCE = 45.0


class Room:
    """A browser's member of a room, and ours."""

    def __init__(self, cloud: LocalCloud, tab: Tab, us: MeteredPeer) -> None:
        self.cloud = cloud
        self.us = us
        self.tab = tab
        self._channel = "room/browser"

    def open(self) -> None:
        """Make the browser's peer: on a new page, or after a reload."""
        options = self.cloud.token_options(THEM)
        self.tab.run("open(url, token)", url=options["url"], token=options["token_provider"]())

    def join_them(self) -> None:
        self.tab.run("await peer.join(channel)", channel=self._channel)

    def join_us(self) -> None:
        self.us.join(self._channel)

    def join(self, *, browser_first: bool = True) -> RemotePeer:
        """Have both join; return what the browser is to us."""
        joins = [self.join_them, self.join_us]
        for join in joins if browser_first else reversed(joins):
            join()
        return self.us.wait_for_peer(THEM, timeout=PATIENCE)

    def make(self, name: str, width: int = 320, height: int = 240, tone: int = 0) -> str:
        """Make a stream in the browser; return its id. Without a tone, it is the camera's."""
        size = {"width": width, "height": height, "tone": tone}
        made = self.tab.run("return make(name, size)", name=name, size=size)
        assert isinstance(made, str)
        return made

    def add(self, name: str, metadata: dict[str, Any] | None = None) -> None:
        """Have the browser send a stream."""
        self.tab.run(
            "peer.addStream(sent.get(name), metadata ?? undefined)", name=name, metadata=metadata
        )

    def next(self, event: str, **fields: Any) -> dict[str, Any]:
        """Return the browser's next event of a kind with these fields."""
        found = self.tab.run("return next(event, fields)", event=event, fields=fields)
        assert isinstance(found, dict)
        return found

    def watches(self, stream: str, frames: int = 5) -> tuple[int, int]:
        """Check that the browser decodes more of a stream of ours; return the picture's size."""
        width, height = self.tab.run("return watch(stream, frames)", stream=stream, frames=frames)
        return width, height

    def reads(self, stream: str) -> int:
        """Return the number in a picture of a pattern that the browser shows."""
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            grey = self.tab.run("return picture(stream)", stream=stream)
            number = read_number(np.array(grey, np.uint8).reshape(48, 64))
            if number is not None:
                return number
        raise AssertionError("the browser shows no pattern")

    def hears(self, stream: str) -> float:
        """Return the frequency of the tone that the browser hears in a stream of ours."""
        heard = self.tab.run("return listen(stream)", stream=stream)
        return dominant_frequency(np.array(heard["samples"]), heard["rate"])


def watch(track: RemoteTrack, frames: int = 5) -> tuple[int, int]:
    """Check that a picture of the browser changes here; return its width and height."""
    deadline = time.monotonic() + PATIENCE
    last = track.read(timeout=PATIENCE)
    while frames:
        assert time.monotonic() < deadline, f"it does not change {frames} times more"
        image = track.read(timeout=PATIENCE)
        frames -= image.shape != last.shape or (image != last).mean() > 0.001
        last = image
    return last.shape[1], last.shape[0]


def listen(track: RemoteTrack) -> float:
    """Wait for sound; return the frequency of the loudest tone."""
    deadline = time.monotonic() + PATIENCE
    with track.frames() as frames:
        while True:
            assert time.monotonic() < deadline, "nothing is heard"
            pieces = [frames.get(timeout=PATIENCE) for _ in range(10)]
            samples = np.concatenate([piece.to_ndarray().reshape(-1)[::2] for piece in pieces])
            if np.abs(samples[:1000]).max() > 300 and np.abs(samples[-1000:]).max() > 300:
                return dominant_frequency(samples, pieces[0].sample_rate)


def hears_beeps(track: RemoteTrack) -> None:
    """Check that the fake microphone is heard: it beeps, with silence in between."""
    deadline = time.monotonic() + PATIENCE
    with track.frames() as frames:
        levels = [0.0]
        while max(levels) < 500 or min(levels[1:]) > max(levels) / 5:
            assert time.monotonic() < deadline, f"no beep: {levels}"
            levels.append(float(np.abs(frames.get(timeout=PATIENCE).to_ndarray()).max()))


@pytest.fixture
def enter(cloud: LocalCloud, tabs: Tabs, client_bundle: Path) -> Iterator[Callable[[str], Room]]:
    """Makes a room, in which we have the given id. Nobody has joined yet."""
    peers: list[MeteredPeer] = []

    def make(peer_id: str) -> Room:
        driver = (Path(__file__).parent / "room.js").read_text()
        tab = tabs.open(
            "<!doctype html><title>Room</title><body>"
            f"<script>{client_bundle.read_text()}</script><script>{driver}</script>"
        )
        peers.append(MeteredPeer(**cloud.token_options(peer_id), reconnect=FAST))
        room = Room(cloud, tab, peers[-1])
        room.open()
        return room

    yield make
    for peer in peers:
        peer.close()


@pytest.mark.parametrize("us", [POLITE, IMPOLITE])
@pytest.mark.parametrize("browser_first", [True, False])
def test_pictures_sound_and_messages_both_ways(
    enter: Callable[[str], Room], us: str, browser_first: bool
) -> None:
    room = enter(us)
    theirs = room.make("camera")
    room.add("camera", {"role": "webcam"})
    with PatternSource(320, 240, fps=15) as video, ToneSource(440) as tone:
        ours = MediaStream([video.video, tone.audio], id="ours")
        room.us.add_stream(ours, {"role": "pattern"})
        there = room.join(browser_first=browser_first)
        assert room.next("peer-joined", peer=us)["polite"] == (us == IMPOLITE)

        picture = there.track("video", stream_id=theirs, timeout=PATIENCE)
        sound = there.track("audio", stream_id=theirs, timeout=PATIENCE)
        assert watch(picture) == (320, 240)
        hears_beeps(sound)
        assert picture.metadata == sound.metadata == {"role": "webcam"}
        assert [stream.id for stream in there.streams] == [theirs]
        assert picture.id == room.tab.run("return track('camera', 'video').id")

        assert room.watches("ours") == (320, 240)
        number = room.reads("ours")
        room.watches("ours")
        assert room.reads("ours") > number
        wait_until(lambda: room.hears("ours") == pytest.approx(440, abs=25), PATIENCE)
        for kind, local in (("video", video.video), ("audio", tone.audio)):
            came = room.next("track", kind=kind)
            assert (came["id"], came["stream"]) == (local.id, "ours")
            assert came["metadata"] == {"role": "pattern"}
        assert room.next("stream-added", stream="ours")["metadata"] == {"role": "pattern"}

        with room.us.events(Data) as data:
            room.tab.run("await peer.send({to: 'all'}); await remote().send([1, null])")
            assert data.get(timeout=PATIENCE) == Data(THEM, {"to": "all"}, "broadcast", None)
            assert data.get(timeout=PATIENCE) == Data(THEM, [1, None], "direct", None)
        room.us.send("to all")
        there.send({"to": "you"})
        assert room.next("data", kind="broadcast") == {
            "event": "data", "kind": "broadcast", "from": us, "data": "to all"
        }  # fmt: skip
        assert room.next("data", kind="direct")["data"] == {"to": "you"}
        there.wait_connected(timeout=PATIENCE)
        assert room.tab.run("return remote().state") == "connected"


@pytest.mark.parametrize("us", [POLITE, IMPOLITE])
@pytest.mark.parametrize("ours", [True, False])
def test_a_data_channel_opened_by_either(enter: Callable[[str], Room], us: str, ours: bool) -> None:
    room = enter(us)
    there = room.join()
    if ours:
        channel = there.create_data_channel("chat", timeout=PATIENCE)
    else:
        room.next("peer-joined", peer=us)
        with there.events(DataChannelOpened) as opened:
            room.tab.run("keep(remote().pc.createDataChannel('chat'))")
            channel = opened.get(timeout=PATIENCE).channel
    room.next("open", label="chat")
    for number in range(20):
        channel.send(f"{number}")
    assert [room.next("message")["data"] for _ in range(20)] == [f"{n}" for n in range(20)]
    channel.send(b"\x00\x01\xff")
    assert room.next("message")["data"] == [0, 1, 255]
    room.tab.run(
        "const chat = channels.get('chat');"
        "for (let n = 0; n < 20; n++) await chat.send(`${n}`);"
        "await chat.send(new Uint8Array(50000).fill(7).buffer);"
    )
    assert [channel.get(timeout=PATIENCE) for _ in range(20)] == [f"{n}" for n in range(20)]
    assert channel.get(timeout=PATIENCE) == b"\x07" * 50000
    if ours:
        channel.close()
        room.next("close", label="chat")
    else:
        room.tab.run("channels.get('chat').close()")
        wait_until(lambda: channel.state == "closed", PATIENCE)


@pytest.mark.parametrize("us", [POLITE, IMPOLITE])
def test_streams_come_later_and_go(enter: Callable[[str], Room], us: str) -> None:
    room = enter(us)
    with (
        PatternSource(160, 120, fps=10) as one,
        PatternSource(240, 180, fps=10) as two,
        ToneSource(660) as tone,
    ):
        first, second = MediaStream([one.video], id="one"), MediaStream(id="two")
        second.add_track(two.video)
        second.add_track(tone.audio)
        room.us.add_stream(first)
        there = room.join()
        room.watches("one")
        theirs = room.make("camera")
        room.add("camera")  # into a running connection, without metadata
        assert watch(there.track("video", stream_id=theirs, timeout=PATIENCE)) == (320, 240)
        room.us.add_stream(second, {"n": 2})
        assert room.next("stream-added", stream="two")["metadata"] == {"n": 2}
        assert room.watches("two") == (240, 180)
        wait_until(lambda: room.hears("two") == pytest.approx(660, abs=25), PATIENCE)
        drawing = room.make("drawing", 200, 150, 880)
        with there.events(StreamAdded) as added:
            room.add("drawing")
            assert added.get(timeout=PATIENCE).stream.id == drawing
        assert watch(there.track("video", stream_id=drawing, timeout=PATIENCE)) == (200, 150)
        sound = there.track("audio", stream_id=drawing, timeout=PATIENCE)
        wait_until(lambda: listen(sound) == pytest.approx(880, abs=25), PATIENCE)

        room.us.remove_stream(second)
        assert room.next("stream-removed", stream="two")
        with there.events(StreamRemoved) as removed:
            room.tab.run("peer.removeStream(sent.get('drawing'))")
            assert removed.get(timeout=PATIENCE).stream.id == drawing
        sound.wait_ended(timeout=PATIENCE)
        assert {stream.id for stream in there.streams} == {theirs}
        room.watches("one")
        watch(there.track("video", stream_id=theirs))
        room.us.add_stream(second)  # and again
        room.next("stream-added", stream="two")
        assert room.watches("two") == (240, 180)
        room.add("drawing")
        assert watch(there.track("video", stream_id=drawing, timeout=PATIENCE)) == (200, 150)


def test_replaced_tracks_play_on(enter: Callable[[str], Room]) -> None:
    room = enter(POLITE)
    theirs = room.make("camera")
    room.make("drawing", 200, 150, 880)
    room.add("camera")
    with (
        PatternSource(160, 120, fps=10) as one,
        PatternSource(240, 180, fps=10) as two,
        ToneSource(440) as low,
        ToneSource(1000) as high,
    ):
        room.us.add_stream(MediaStream([one.video, low.audio], id="ours"))
        there = room.join()
        assert room.watches("ours") == (160, 120)
        room.us.replace_track(one.video, two.video)
        room.us.replace_track(low.audio, high.audio)
        room.tab.run("await sized(stream, 240)", stream="ours")
        room.watches("ours")
        wait_until(lambda: room.hears("ours") == pytest.approx(1000, abs=25), PATIENCE)

        picture = there.track("video", stream_id=theirs, timeout=PATIENCE)
        sound = there.track("audio", stream_id=theirs, timeout=PATIENCE)
        watch(picture)
        room.tab.run(
            "for (const kind of ['video', 'audio'])"
            " await peer.replaceTrack(track('camera', kind), track('drawing', kind))"
        )
        wait_until(lambda: picture.read(timeout=PATIENCE).shape[:2] == (150, 200), PATIENCE)
        watch(picture)
        wait_until(lambda: listen(sound) == pytest.approx(880, abs=25), PATIENCE)
        assert there.track("video") is picture


@pytest.mark.parametrize("us", [POLITE, IMPOLITE])
def test_a_page_that_is_loaded_again(enter: Callable[[str], Room], us: str) -> None:
    room = enter(us)
    with PatternSource(160, 120, fps=10) as source, room.us.events(PeerLeft) as left:
        room.us.add_stream(MediaStream([source.video], id="ours"), {"n": 1})
        before = room.make("camera")
        room.add("camera")
        there = room.join()
        watch(there.track("video", stream_id=before, timeout=PATIENCE))
        room.watches("ours")
        room.tab.reload()
        assert left.get(timeout=PATIENCE).peer is there
        room.open()
        after = room.make("camera")
        room.add("camera", {"n": 2})
        room.join_them()
        there = room.us.wait_for_peer(THEM, timeout=PATIENCE)
        track = there.track("video", stream_id=after, timeout=PATIENCE)
        assert watch(track) == (320, 240)
        assert track.metadata == {"n": 2}
        assert room.next("stream-added", stream="ours")["metadata"] == {"n": 1}
        assert room.watches("ours") == (160, 120)


@pytest.mark.parametrize("us", [POLITE, IMPOLITE])
@pytest.mark.parametrize("whose", [pytest.param("ours", marks=pytest.mark.slow), "theirs", "both"])
def test_signalling_that_drops(enter: Callable[[str], Room], us: str, whose: str) -> None:
    room = enter(us)
    theirs = room.make("camera")
    room.add("camera", {"n": 1})
    with PatternSource(160, 120, fps=10) as one, PatternSource(240, 180, fps=10) as two:
        room.us.add_stream(MediaStream([one.video], id="one"), {"n": 1})
        room.us.add_stream(MediaStream([two.video], id="two"))
        there = room.join()
        track = there.track("video", stream_id=theirs, timeout=PATIENCE)
        watch(track)
        room.watches("one")
        room.watches("two")
        restarts = track.restarts
        dropped = {"theirs": THEM, "ours": us, "both": None}[whose]
        room.cloud.faults.drop_connections(dropped)
        wait_until(lambda: track.restarts > restarts, PATIENCE)
        there.wait_connected(timeout=PATIENCE)
        assert room.us.wait_for_peer(THEM, timeout=PATIENCE) is there
        assert there.track("video", stream_id=theirs, timeout=PATIENCE) is track
        assert watch(track) == (320, 240)
        assert room.watches("one", 10) == (160, 120)
        assert room.watches("two", 10) == (240, 180)
        assert track.metadata == {"n": 1}
