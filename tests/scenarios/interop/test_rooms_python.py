"""Rooms shared with the published async Python client, which has aiortc inside."""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import queue
import re
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from metered_sync import (
    ClosedError,
    ConnectionReset,
    Data,
    DataChannelOpened,
    DisconnectedError,
    MediaStream,
    MeteredPeer,
    PeerJoined,
    PeerLeft,
    ReconnectOptions,
    RemotePeer,
    StreamRemoved,
    Track,
)
from metered_sync.local import LocalCloud
from metered_sync.testing import PatternSource, ToneSource, dominant_frequency, read_number
from tests.conftest import wait_until
from tests.scenarios.interop.conftest import python_command
from tests.scenarios.interop.parties import FAST, Driver, Party

PATIENCE = 20.0
ORDERS = [("a-ours", "b-theirs"), ("b-ours", "a-theirs")]
"""Ids of both: the smaller one's owner gives way where offers cross."""


class RoomParty(Party):
    """A published ``MeteredPeer``."""

    def join(self, channel: str) -> None:
        self._call("join", channel)

    def send_all(self, data: Any) -> None:
        self._call("send", data)

    def send_to(self, peer: str, data: Any) -> None:
        self._call("send_to", peer, data)

    def add(
        self,
        name: str,
        *,
        light: int | None = None,
        pitch: float | None = None,
        metadata: dict[str, Any] | None = None,
    ) -> None:
        """Send a stream: video of one grey, sound of one pitch."""
        self._call("add", name, light, pitch, metadata)

    def remove(self, name: str) -> None:
        self._call("remove", name)

    def create_channel(self, peer: str, label: str) -> None:
        self._call("create_channel", peer, label)

    def write(self, peer: str, label: str, data: str) -> None:
        self._call("write", peer, label, data)

    def now(self, event: str, **fields: Any) -> dict[str, Any]:
        """Return the next event of a kind that has not come yet."""
        with contextlib.suppress(queue.Empty):
            while True:
                self._events[event].get_nowait()
        return self.next(event, **fields)

    def sees(self, stream: str) -> list[int]:
        """Return the numbers of three pictures of ours that it gets from now on.

        One may come again: who asks for a key frame gets the newest, if no other follows soon.
        """
        numbers = []
        while len(numbers) < 3:
            seen = (self.next if numbers else self.now)("seen", stream=stream)
            grey = np.frombuffer(base64.b64decode(seen["grey"]), np.uint8)
            number = read_number(grey.reshape(seen["size"]))
            if number is not None and number not in numbers[-1:]:
                numbers.append(number)
        assert numbers == sorted(set(numbers))
        return numbers

    def hears(self, stream: str, pitch: float) -> None:
        self.now("heard", stream=stream)  # perhaps from when it began
        assert self.next("heard", stream=stream)["pitch"] == pytest.approx(pitch, abs=25)


def sees(track: Any, light: int) -> None:
    """Check that a track shows a grey from now on."""
    with track.frames() as frames:
        for _ in range(3):
            image = frames.get(timeout=PATIENCE).to_ndarray(format="yuv420p")
            assert np.mean(image[: 2 * len(image) // 3]) == pytest.approx(light, abs=6)


def hears(track: Any, pitch: float) -> None:
    with track.frames(mode="fifo", maxsize=200) as frames:
        heard = [frames.get(timeout=PATIENCE) for _ in range(40)][15:]
    samples = np.concatenate([frame.to_ndarray().reshape(-1)[::2] for frame in heard])
    assert dominant_frequency(samples, 48000) == pytest.approx(pitch, abs=25)


def room_party(driver: Driver, cloud: LocalCloud, peer_id: str, **claims: Any) -> RoomParty:
    told = cloud.token_options(peer_id, **claims)
    options = {
        "url": told["url"],
        "key": None,
        "inactivity": 60.0,
        "reconnect": FAST,
        "room": True,
    }
    return driver.open(RoomParty, told["token_provider"], options)


def our_peer(cloud: LocalCloud, peer_id: str, **options: Any) -> MeteredPeer:
    return MeteredPeer(
        **cloud.token_options(peer_id, peer_metadata={"of": "ours"}),
        ice_servers=[],
        reconnect=ReconnectOptions(initial_delay=0.05, max_delay=0.2),
        **options,
    )


@dataclasses.dataclass
class Meeting:
    """A room with the two of us, and a source on our side."""

    cloud: LocalCloud
    room: str
    ours: MeteredPeer
    them: RoomParty
    our_id: str
    their_id: str
    video: PatternSource
    tone: ToneSource

    def begin(self, *, theirs_first: bool = False) -> RemotePeer:
        if theirs_first:
            self.them.join(self.room)
        self.ours.join(self.room)
        if not theirs_first:
            self.them.join(self.room)
        return self.ours.wait_for_peer(self.their_id, timeout=PATIENCE)

    def send_camera(self) -> None:
        stream = MediaStream([self.video.video, self.tone.audio], id="camera")
        self.ours.add_stream(stream, metadata={"role": "ours"})


@pytest.fixture
def meet(
    python_client: Driver, cloud: LocalCloud, request: pytest.FixtureRequest
) -> Iterator[Callable[..., Meeting]]:
    """Makes a room of us two; it is left at the end."""
    with contextlib.ExitStack() as stack:

        def make(
            our_id: str = "a-ours", their_id: str = "b-theirs", driver: Driver = python_client
        ) -> Meeting:
            room = re.sub(r"\W", "-", request.node.name)
            video = stack.enter_context(PatternSource(160, 120, fps=10))
            tone = stack.enter_context(ToneSource(440))
            ours = stack.enter_context(our_peer(cloud, our_id))
            them = room_party(driver, cloud, their_id, peer_metadata={"of": "theirs"})
            if driver is python_client:
                stack.callback(them.close)
            return Meeting(cloud, room, ours, them, our_id, their_id, video, tone)

        yield make


@pytest.mark.parametrize(("our_id", "their_id"), ORDERS)
@pytest.mark.parametrize("theirs_first", [False, True])
def test_sound_and_pictures_both_ways(
    meet: Callable[..., Meeting], our_id: str, their_id: str, theirs_first: bool
) -> None:
    meeting = meet(our_id, their_id)
    them = meeting.them
    meeting.send_camera()
    them.add("their-camera", light=180, pitch=880, metadata={"role": "theirs"})
    there = meeting.begin(theirs_first=theirs_first)
    assert there.metadata == {"of": "theirs"}
    assert them.next("joined", peer=our_id)["metadata"] == {"of": "ours"}
    video = there.track("video", timeout=PATIENCE)
    assert (video.stream_id, video.metadata) == ("their-camera", {"role": "theirs"})
    sees(video, 180)
    hears(there.track("audio", stream_id="their-camera", timeout=PATIENCE), 880)
    for kind in ("video", "audio"):
        assert them.next("track", kind=kind, stream="camera")["metadata"] == {"role": "ours"}
    them.sees("camera")
    them.hears("camera", 440)
    assert there.state == "connected"
    assert not them.had("negotiation_error")


def test_messages(meet: Callable[..., Meeting]) -> None:
    meeting = meet()
    there, them = meeting.begin(), meeting.them
    them.next("joined", peer=meeting.our_id)
    with meeting.ours.events(Data) as inbox:
        them.send_all({"to": "all"})
        them.send_to(meeting.our_id, [1, None])
        got = [inbox.get(timeout=PATIENCE) for _ in range(2)]
    assert [(d.sender_peer_id, d.data, d.kind) for d in got] == [
        (meeting.their_id, {"to": "all"}, "broadcast"),
        (meeting.their_id, [1, None], "direct"),
    ]
    meeting.ours.send("all")
    there.send({"to": "you"})
    assert them.next("data", kind="broadcast")["data"] == "all"
    assert them.next("data", kind="direct")["data"] == {"to": "you"}


@pytest.mark.parametrize(("our_id", "their_id"), ORDERS)
def test_a_data_channel_of_ours_and_one_of_theirs(
    meet: Callable[..., Meeting], our_id: str, their_id: str
) -> None:
    meeting = meet(our_id, their_id)
    there, them = meeting.begin(), meeting.them
    them.next("joined", peer=our_id)
    with there.create_data_channel("ours", timeout=PATIENCE) as channel:
        for number in range(20):
            channel.send(f"{number}")
        assert [them.next("message", label="ours")["data"] for _ in range(20)] == [
            f"{n}" for n in range(20)
        ]
        them.write(our_id, "ours", "back")
        assert channel.get(timeout=PATIENCE) == "back"
        with there.events(DataChannelOpened) as opened:
            them.create_channel(our_id, "theirs")
            for number in range(20):
                them.write(our_id, "theirs", f"{number}")
            theirs = opened.get(timeout=PATIENCE).channel
            assert theirs.label == "theirs"
            assert [theirs.get(timeout=PATIENCE) for _ in range(20)] == [f"{n}" for n in range(20)]
            theirs.send("x" * 50_000)
            assert len(them.next("message", label="theirs")["data"]) == 50_000


@pytest.mark.parametrize(("our_id", "their_id"), ORDERS)
def test_streams_come_and_go_later(
    meet: Callable[..., Meeting], our_id: str, their_id: str
) -> None:
    meeting = meet(our_id, their_id)
    them, ours = meeting.them, meeting.ours
    meeting.send_camera()
    them.add("one", light=180, pitch=880)
    there = meeting.begin()
    sees(there.track("video", stream_id="one", timeout=PATIENCE), 180)
    them.sees("camera")
    with PatternSource(320, 240, fps=5) as screen:
        second = MediaStream([screen.video], id="screen")
        ours.add_stream(second, metadata={"role": "screen"})  # ours
        assert them.next("track", stream="screen")["metadata"] == {"role": "screen"}
        them.sees("screen")
        them.add("two", light=90, metadata={"role": "more"})  # theirs
        more = there.track("video", stream_id="two", timeout=PATIENCE)
        assert more.metadata == {"role": "more"}
        sees(more, 90)
        sees(there.track("video", stream_id="one"), 180)
        them.sees("camera")
        with there.events(StreamRemoved, Track) as events:
            them.remove("two")
            removed = events.get(timeout=PATIENCE)
            assert isinstance(removed, StreamRemoved)
            assert removed.stream.id == "two"
            them.add("two", light=60, metadata={"role": "again"})
            again = events.get(timeout=PATIENCE)
            assert isinstance(again, Track)
            assert again.metadata == {"role": "again"}
        more.wait_ended(timeout=PATIENCE)
        # (No pictures: the published client's sender still waits for the removed track's.)
        ours.remove_stream(second)
        sees(there.track("video", stream_id="one"), 180)
        them.sees("camera")
        them.hears("camera", 440)


@pytest.mark.parametrize(("our_id", "their_id"), ORDERS)
@pytest.mark.parametrize("whose", [pytest.param("ours", marks=pytest.mark.slow), "theirs", "both"])
def test_signalling_drops(
    meet: Callable[..., Meeting], our_id: str, their_id: str, whose: str
) -> None:
    meeting = meet(our_id, their_id)
    them = meeting.them
    meeting.send_camera()
    them.add("one", light=180, pitch=880, metadata={"role": "theirs"})
    there = meeting.begin()
    video = there.track("video", timeout=PATIENCE)
    audio = there.track("audio", timeout=PATIENCE)
    sees(video, 180)
    them.sees("camera")
    for _ in range(2):
        restarts = video.restarts
        with there.events(ConnectionReset) as resets:
            victim = {"ours": our_id, "theirs": their_id, "both": None}[whose]
            meeting.cloud.faults.drop_connections(victim)
            resets.get(timeout=PATIENCE)
        wait_until(lambda before=restarts: video.restarts > before, PATIENCE)
        wait_until(lambda: there.state == "connected", PATIENCE)
        sees(video, 180)
        hears(audio, 880)
        them.sees("camera")
        them.hears("camera", 440)
        assert meeting.ours.wait_for_peer(their_id, timeout=PATIENCE) is there
        assert there.track("video") is video
        assert video.metadata == {"role": "theirs"}


def test_a_replaced_track_goes_on_at_theirs(meet: Callable[..., Meeting]) -> None:
    meeting = meet()
    them, ours = meeting.them, meeting.ours
    ours.add_track(meeting.video.video, MediaStream(id="camera"))
    meeting.begin()
    them.sees("camera")
    with PatternSource(320, 240, fps=10) as other:
        ours.replace_track(meeting.video.video, other.video)
        them.next("seen", size=[240, 320])
        them.sees("camera")
        ours.replace_track(other.video, meeting.video.video)
        them.next("seen", size=[120, 160])
        them.sees("camera")


def test_two_of_ours_and_one_of_theirs(meet: Callable[..., Meeting]) -> None:
    meeting = meet("b-ours", "c-theirs")
    them = meeting.them
    meeting.send_camera()
    them.add("one", light=180, pitch=880)
    there = meeting.begin()
    sees(there.track("video", timeout=PATIENCE), 180)
    with our_peer(meeting.cloud, "a-more") as more, PatternSource(192, 120, fps=5) as source:
        more.add_track(source.video, MediaStream(id="more"))
        more.join(meeting.room)  # into a room that is busy
        sees(more.wait_for_peer("c-theirs", timeout=PATIENCE).track("video", timeout=PATIENCE), 180)
        ours = more.wait_for_peer("b-ours", timeout=PATIENCE).track("video", timeout=PATIENCE)
        assert ours.read(timeout=PATIENCE).shape == (120, 160, 3)
        assert them.next("seen", stream="more")["size"] == [120, 192]
        them.sees("more")
        them.sees("camera")
    assert them.next("left", peer="a-more")
    them.sees("camera")
    sees(there.track("video"), 180)


def test_a_crash_and_a_return(meet: Callable[..., Meeting]) -> None:
    driver = Driver("python", python_command())
    try:
        meeting = meet(driver=driver)
        them = meeting.them
        meeting.send_camera()
        them.add("one", light=180)
        there = meeting.begin()
        video = there.track("video", timeout=PATIENCE)
        sees(video, 180)
        with meeting.ours.events(PeerLeft, PeerJoined) as events:
            driver.kill()
            left = events.get(timeout=PATIENCE)
            assert isinstance(left, PeerLeft)
            assert left.peer is there
            with pytest.raises((ClosedError, DisconnectedError)), video.frames() as frames:
                until = time.monotonic() + PATIENCE
                while time.monotonic() < until:
                    frames.get(timeout=PATIENCE)
        driver.close()
        driver = Driver("python", python_command())
        with meeting.ours.events(PeerJoined) as joins:
            them = room_party(driver, meeting.cloud, meeting.their_id)
            them.add("one", light=90)
            them.join(meeting.room)
            back = joins.get(timeout=PATIENCE).peer
        sees(back.track("video", timeout=PATIENCE), 90)
        them.sees("camera")
        them.close()
    finally:
        driver.close()
