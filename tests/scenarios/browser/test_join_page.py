"""The local cloud's page to join a room by, in Chromium, with members in Python."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from anyio.from_thread import BlockingPortal

from metered_sync import Data, MediaStream, MeteredPeer, SignallingClient
from metered_sync.local import LocalCloud
from metered_sync.testing import PatternSource, ToneSource
from tests.conftest import wait_until
from tests.scenarios.browser.conftest import Tabs
from tests.scenarios.browser.page_member import (
    HELPERS,
    PATIENCE,
    PageMember,
    beeps,
    camera,
    changes,
)
from tests.support.chromium import Browser
from tests.support.raw_client import raw
from tests.support.rooms import FAST

pytestmark = pytest.mark.browser
HOSTILE = "<img src=x onerror=alert(1)><script>document.title = 'no'</script>"


@dataclasses.dataclass
class Room:
    """A room with two pages, and a member in Python whose name is hostile."""

    cloud: LocalCloud
    tabs: Tabs
    media: str
    ann: MeteredPeer
    pages: list[PageMember]

    def visit(self, name: str | None = None) -> PageMember:
        """Open one more page."""
        url = self.cloud.join_url("a team", name, media=self.media)
        return PageMember(self.tabs.visit(url), "browser-")

    def members(self) -> tuple[str, str]:
        """Return the ids of the two pages."""
        return self.pages[1].other(), self.pages[0].other()

    def check(self) -> None:
        """Check that all see each other."""
        for page, other in zip(self.pages, reversed(self.members()), strict=True):
            page.sees("ann")
            page.sees(other)
        for peer_id in self.members():
            changes(camera(self.ann, peer_id))


@pytest.fixture(scope="module", params=["mesh", "sfu"])
def room(
    request: pytest.FixtureRequest, running_chromium: tuple[BlockingPortal, Browser]
) -> Iterator[Room]:
    with ExitStack() as stack:
        cloud = stack.enter_context(LocalCloud(console=True))
        tabs = Tabs(*running_chromium)
        stack.callback(tabs.close)
        make = cloud.token_options if request.param == "mesh" else cloud.room_options
        options: dict[str, Any] = {"reconnect": FAST, "ice_servers": []}
        ann = stack.enter_context(
            MeteredPeer(**make("ann", peer_metadata={"name": HOSTILE}), **options)
        )
        pattern = stack.enter_context(PatternSource(160, 120, fps=10))
        tone = stack.enter_context(ToneSource(440))
        ann.add_stream(MediaStream([pattern.video, tone.audio], id="ours"))
        ann.join("a team")
        made = Room(cloud, tabs, request.param, ann, [])
        for name in ("Zoë", HOSTILE):
            made.pages.append(made.visit(name))
            made.pages[-1].join()
        yield made
        assert [page.tab.errors for page in made.pages] == [[], []]


def test_all_see_and_hear_each_other(room: Room) -> None:
    first, second = room.pages
    mine, theirs = room.members()
    assert first.sees("ann") == (160, 120)
    number = first.reads("ann")
    second.sees("ann")
    second.sees(mine)
    first.sees(theirs)
    assert first.reads("ann") > number
    first.hears("ann", 440)
    second.hears(mine)
    for peer_id, name in ((mine, "Zoë"), (theirs, HOSTILE)):
        assert room.ann.wait_for_peer(peer_id, timeout=PATIENCE).metadata == {"name": name}
        picture = camera(room.ann, peer_id)
        assert picture.metadata == {"role": "camera"}
        height, width, _ = picture.read(timeout=PATIENCE).shape
        assert width * 3 == height * 4  # (a browser sends a smaller one where it is busy)
        changes(picture)
    beeps(camera(room.ann, mine, "audio"))


LINES = """
const lines = () => [...document.querySelectorAll('#chat li')].map((one) => one.textContent);
const typed = (text) => {
  document.getElementById('text').value = text;
  document.querySelector('#say button').click();
};
"""


def test_a_chat(room: Room) -> None:
    first, second = room.pages
    with room.ann.events(Data) as events:
        first.run(LINES + "typed(text)", text=HOSTILE)
        event = events.get(timeout=PATIENCE)
        assert (event.sender_peer_id, event.data) == (room.members()[0], HOSTILE)
    room.ann.send({"text": "not of the chat"})
    room.ann.send(None)
    room.ann.send("hello")
    room.ann.wait_for_peer(room.members()[1], timeout=PATIENCE).send("to you alone")
    for page, expected in (
        (first, ["You" + HOSTILE, HOSTILE[:64] + "hello"]),
        (second, ["Zoë" + HOSTILE, HOSTILE[:64] + "hello", HOSTILE[:64] + "to you alone"]),
    ):
        shown = page.run(
            LINES + "await until('the messages', () => lines().join().includes(last));"
            "return lines().filter((line) => !line.includes('has joined'))",
            last=expected[-1],
        )
        assert shown == expected


def test_what_others_sent_is_text(room: Room) -> None:
    for page in room.pages:
        page.run("await until('a name', () => document.body.innerText.includes('onerror'))")
        assert page.run("return [document.title, document.scripts.length]") == ["Room a team", 1]
        assert page.run("return document.querySelectorAll('img, #room script, iframe').length") == 0


def test_a_camera_is_switched_off_and_on(room: Room) -> None:
    page, peer_id = room.pages[0], room.members()[0]
    track = camera(room.ann, peer_id)
    for does, dark in (("Turn camera on", True), ("Turn camera off", False)):
        page.run("document.getElementById('video').click()")
        assert page.run("return document.getElementById('video').textContent") == does
        wait_until(
            lambda dark=dark: bool(track.read(timeout=PATIENCE)[..., 1].mean() < 30) == dark,
            PATIENCE,
            "the picture is dark, and then it is not",
        )


def test_who_comes_without_a_camera_sees_the_others(room: Room) -> None:
    page = room.visit()
    page.run(
        "for (const kind of ['audio', 'video']) document.getElementById(`with-${kind}`).click()"
    )
    page.join()
    page.sees("ann")
    page.sees(room.members()[0])
    page.tab.look(900, 400)  # where four tiles have no room
    shapes = page.run(
        "return [...document.querySelectorAll('figure')].map((one) => one.getBoundingClientRect())"
        ".map(({width, height}) => width / height)"
    )
    assert shapes == pytest.approx([4 / 3] * 4, rel=0.02)  # they scroll, and do not overlap
    ids = {one.id for one in room.ann.remote_peers} - set(room.members())
    (there,) = [one for one in room.ann.remote_peers if one.id in ids]
    assert there.metadata is None
    assert there.tracks == []
    page.run("document.getElementById('video').click()")  # after all
    changes(there.track("video", timeout=PATIENCE))
    page.run("document.getElementById('leave').click()")
    assert page.run("return document.getElementById('lobby').hidden") is False
    for other in room.pages:
        other.run("await until('a goodbye', () => !tiles().includes(peer))", peer=there.id)


def test_the_connection_is_lost(room: Room) -> None:
    room.check()
    ids = room.members()
    room.cloud.faults.drop_connections()
    for page in room.pages:
        page.run(
            "await until('a reconnect', () => document.getElementById('lost').hidden"
            " && document.getElementById('status').textContent === '2 others are here')"
        )
    room.check()
    assert room.members() == ids


TRACK = {"id": "x", "kind": "video", "stream": "camera"}


def test_what_others_say_is_taken_for_a_claim(room: Room) -> None:
    page, _ = room.pages
    state: dict[str, Any] = {"$sfu": 1, "boot": "b", "session": "none", "tracks": [TRACK] * 40}
    offer = {"type": "rtc-description", "description": {"type": "offer", "sdp": "v=0"}}
    room.check()
    receiving = page.session("track/subscribe") if room.media == "sfu" else None
    with raw(room.cloud, "eve", channels=["a team"]) as eve:
        eve.ask(type="subscribe", channel="a team", requestId="1")
        for data in (
            {**state, "rev": 1},
            {**state, "rev": 3, "session": "s" * 5000, "tracks": [{**TRACK, "id": "i" * 5000}]},
            {**state, "rev": 4, "tracks": [None, 7, {"id": 7}, [], "x", TRACK]},
            {"$sfu": 1, "boot": None, "rev": "1", "session": None, "tracks": {}},
            {"$sfu": 2, "tracks": "other"},
            {**state, "rev": 5, "session": 7},
            *[{"$sfu": 1, "ask": True}] * 20,
            offer,
            {**offer, "description": {"type": "answer", "sdp": "v=0"}},
            {"type": "rtc-description", "description": None},
            {"type": "rtc-ice", "candidate": {"candidate": "none", "sdpMid": 7}},
            {"type": "rtc-ice"},
            {"__meteredTrackMeta": 7},
        ):
            eve.ask(type="send", to=room.members()[0], data=data, requestId="2")
        page.run("await new Promise((resolve) => setTimeout(resolve, 600))")  # it takes them in
        room.check()
        if receiving is not None:
            assert page.session("track/subscribe") == receiving  # which nobody's claims end
        assert page.run("return tiles().filter((title) => title === 'eve').length") <= 1


@pytest.mark.parametrize("room", ["sfu"], indirect=True)
def test_a_session_with_the_sfu_is_lost(room: Room) -> None:
    page, _ = room.pages
    with camera(room.ann, room.members()[0]).frames():
        for call in ("tracks", "track/subscribe"):
            session = page.session(call)
            room.cloud.faults.kill_sfu_session(session)
            wait_until(lambda call=call, old=session: page.session(call) != old, PATIENCE)
        room.check()


# --- a page alone ---

WITHOUT = "for (const kind of ['audio', 'video']) $(`with-${kind}`).click();"
ELEMENT = "const $ = (id) => document.getElementById(id);"


@pytest.fixture(scope="module")
def cloud() -> Iterator[LocalCloud]:
    with LocalCloud(console=True) as cloud:
        yield cloud


def alone(tabs: Tabs, cloud: LocalCloud, before: str = "") -> PageMember:
    """Have a page join a room of its own; ``before`` is run first."""
    page = PageMember(tabs.visit(cloud.join_url("alone")), "browser-")
    page.run(ELEMENT + before)
    page.join()
    return page


def shown(page: PageMember, what: str, text: str) -> None:
    """Wait until an element shows a text, in full view."""
    page.run(
        ELEMENT + "await until(text, () => $(what).checkVisibility() && $(what).innerText"
        ".includes(text))",
        what=what,
        text=text,
    )


def test_the_cloud_goes_away_and_another_comes(tabs: Tabs) -> None:
    with LocalCloud(console=True) as cloud:
        page = alone(tabs, cloud, WITHOUT)
        shown(page, "status", "no others are here")
        port = cloud.port
    shown(page, "lost", "does not answer")
    with LocalCloud(console=True, port=port):
        shown(page, "trouble", "cloud.join_url")
        assert page.run(ELEMENT + "return $('lobby').hidden") is False
        page.run("document.querySelector('button').click()")
        shown(page, "trouble", "the token of this address is missing or wrong")


@pytest.mark.parametrize(
    ("refused", "error", "says", "kinds"),
    [
        ("true", "NotAllowedError", "The microphone and the camera are refused", []),
        ("wanted.video", "NotFoundError", "The camera is not there", ["audio"]),
        ("wanted.audio", "NotReadableError", "The microphone is in use", ["video"]),
    ],
)
def test_no_camera_or_microphone(
    tabs: Tabs, cloud: LocalCloud, refused: str, error: str, says: str, kinds: list[str]
) -> None:
    """The browser's function is stood in for where it would not be refused here."""
    page = alone(
        tabs,
        cloud,
        "const media = navigator.mediaDevices, real = media.getUserMedia.bind(media);"
        f"media.getUserMedia = (wanted) => {refused} ?"
        f" Promise.reject(new DOMException('', '{error}')) : real(wanted);",
    )
    shown(page, "trouble", says)
    shown(page, "status", "no others are here")
    on = page.run(
        ELEMENT + "return ['audio', 'video'].filter((kind) => $(kind).textContent.endsWith(' off'))"
    )
    assert on == kinds


def test_a_keyboard_and_a_narrow_window_will_do(tabs: Tabs, cloud: LocalCloud) -> None:
    with SignallingClient(**cloud.token_options("bob")) as bob:
        inbox = bob.subscribe("alone")
        tab = tabs.visit(cloud.join_url("alone", "x" * 200))
        tab.look(400, 700, "dark")
        fits = "document.documentElement.scrollWidth <= innerWidth"
        assert tab.run(f"return {fits}")
        page = PageMember(tab, "browser-")
        page.run(HELPERS + ELEMENT + WITHOUT + "$('name').focus()")
        tab.press("Enter")
        shown(page, "status", "1 other is here")
        assert tab.run("return document.activeElement.id") == "text"
        tab.press("h", "i", "Enter")
        assert inbox.get(timeout=PATIENCE).data == "hi"
        bob.publish("alone", "w" * 500)
        shown(page, "chat", "w" * 500)
        assert tab.run(f"return {fits}")
        for name in ("", "audio", "video", "leave"):
            tab.press("Tab")
            assert tab.run("return document.activeElement.id") == name
        tab.press("Space")
        shown(page, "lobby", "Your name")
        assert tab.run("return getComputedStyle(document.body).backgroundColor") != (
            "rgb(246, 247, 249)"
        )
