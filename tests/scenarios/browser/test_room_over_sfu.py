"""A room over the SFU with pages in plain JavaScript (examples/browser_room) and Python members."""

from __future__ import annotations

import dataclasses
import importlib.util
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from anyio.from_thread import BlockingPortal
from flask import Flask

from metered_sync import (
    MediaStream,
    MeteredPeer,
    PeerLeft,
    SfuClient,
    SfuMedia,
    TrackEnded,
)
from metered_sync.local import LocalCloud
from metered_sync.testing import PatternSource, ToneSource, read_number
from metered_sync.wire.timings import DEFAULT_TIMINGS
from tests.conftest import ROOT, wait_until
from tests.scenarios.browser.conftest import Tabs
from tests.scenarios.browser.page_member import PATIENCE, PageMember, beeps, camera, changes
from tests.scenarios.interop.conftest import javascript_folder
from tests.support.chromium import Browser
from tests.support.gates import gate_of
from tests.support.raw_client import raw
from tests.support.rooms import FAST
from tests.support.rooms import peer as any_peer
from tests.support.wsgi import served

pytestmark = pytest.mark.browser
CHANNEL = "rooms/tests"
SOON = dataclasses.replace(DEFAULT_TIMINGS, room_limbo=4.0)
TONES = {"ann": 440, "bob": 660}


@dataclasses.dataclass
class Room:
    """A room with two pages, and two members in Python."""

    cloud: LocalCloud
    tabs: Tabs
    url: str
    pages: list[PageMember]
    ann: MeteredPeer
    bob: MeteredPeer

    def enter(self) -> PageMember:
        """Have one more page join."""
        page = PageMember(self.tabs.visit(f"{self.url}/?room=tests"), "guest-")
        page.join()
        return page

    def members(self) -> tuple[str, str]:
        """Return the ids of the two pages."""
        return self.pages[1].other(), self.pages[0].other()

    def check(self) -> None:
        """Check that all see each other."""
        ids = self.members()
        for page, other in zip(self.pages, reversed(ids), strict=True):
            for peer in (*TONES, other):
                page.sees(peer)
        for one in self.ann, self.bob:
            for peer_id in ids:
                changes(camera(one, peer_id))


def example(cloud: LocalCloud, gate: Any) -> Flask:
    """Return the example's application."""
    path = ROOT / "examples" / "browser_room" / "server.py"
    spec = importlib.util.spec_from_file_location("browser_room_server", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    app = module.create_app(gate, cloud.key_id, cloud.key_secret, cloud.url, javascript_folder())
    assert isinstance(app, Flask)
    return app


@pytest.fixture(scope="module")
def room(running_chromium: tuple[BlockingPortal, Browser]) -> Iterator[Room]:
    with ExitStack() as stack:
        cloud = stack.enter_context(LocalCloud())
        gate = gate_of(cloud)
        stack.callback(gate.close)
        url = stack.enter_context(served(example(cloud, gate)))
        tabs = Tabs(*running_chromium)
        stack.callback(tabs.close)
        options: dict[str, Any] = {"reconnect": FAST, "ice_servers": [], "_timings": SOON}
        members = {
            "ann": MeteredPeer(
                **cloud.token_options("ann"), media=SfuMedia(gate=f"{url}/sfu"), **options
            ),
            "bob": MeteredPeer(**cloud.room_options("bob"), **options),
        }
        made = Room(cloud, tabs, url, [], **members)
        made.pages.append(made.enter())
        for name, one in members.items():
            stack.enter_context(one)
            pattern = stack.enter_context(PatternSource(160, 120, fps=10))
            tone = stack.enter_context(ToneSource(TONES[name]))
            one.add_stream(MediaStream([pattern.video, tone.audio], id="ours"))
            one.join(CHANNEL)
        made.pages.append(made.enter())
        yield made


def test_all_see_and_hear_each_other(room: Room) -> None:
    ids = room.members()
    for page, other in zip(room.pages, reversed(ids), strict=True):
        for peer, tone in TONES.items():
            assert page.sees(peer) == (160, 120)
            number = page.reads(peer)
            page.sees(peer)
            assert page.reads(peer) > number
            page.hears(peer, tone)
        assert page.sees(other) == (640, 480)
        page.hears(other)  # beeps
    for one in room.ann, room.bob:
        for peer_id in ids:
            picture = camera(one, peer_id)
            assert picture.stream_id == "camera"
            assert picture.read(timeout=PATIENCE).shape == (480, 640, 3)
            changes(picture)
            beeps(camera(one, peer_id, "audio"))
    for one, name in (room.ann, "bob"), (room.bob, "ann"):
        assert read_number(camera(one, name).read(timeout=PATIENCE)) >= 0


@pytest.mark.parametrize("call", ["tracks", "track/subscribe"], ids=["publishing", "receiving"])
def test_a_session_of_a_page_is_killed(room: Room, call: str) -> None:
    page, _ = room.pages
    mine, _ = room.members()
    seen = camera(room.ann, mine)
    restarts, session = seen.restarts, page.session(call)
    with seen.frames():
        room.cloud.faults.kill_sfu_session(session)
        wait_until(lambda: page.session(call) != session, PATIENCE)
        if call == "tracks":
            wait_until(lambda: seen.restarts > restarts, PATIENCE)
        room.check()
    assert camera(room.ann, mine) is seen  # the same member, the same track
    assert room.members()[0] == mine


def test_signalling_is_dropped_and_media_go_on(room: Room) -> None:
    ids = room.members()
    sessions = [page.session(call) for page in room.pages for call in ("tracks", "track/subscribe")]
    tracks = [camera(one, peer_id) for one in (room.ann, room.bob) for peer_id in ids]
    with ExitStack() as stack:
        for track in tracks:
            stack.enter_context(track.frames())
        before = [track.restarts for track in tracks]
        for page in room.pages:
            page.run(
                "const output = document.querySelector('output'); window.states = [];"
                "new MutationObserver(() => states.push(output.textContent))"
                ".observe(output, {childList: true})"
            )
        room.cloud.faults.drop_connections()
        room.check()
        for page in room.pages:
            page.run(
                "await until('a reconnect', () => states.includes('reconnecting')"
                " && states.at(-1) === 'connected')"
            )
        wait_until(lambda: room.ann.state == room.bob.state == "joined", PATIENCE)
        room.check()
        assert [track.restarts for track in tracks] == before
        assert not any(track.ended for track in tracks)
    assert room.members() == ids
    assert sessions == [
        page.session(call) for page in room.pages for call in ("tracks", "track/subscribe")
    ]


def test_a_page_is_reloaded(room: Room) -> None:
    first, second = room.pages
    mine, others = room.members()
    stays, goes = camera(room.ann, others), camera(room.ann, mine)
    sound = camera(room.ann, mine, "audio")
    with stays.frames(), goes.frames(), sound.frames(), room.ann.events(PeerLeft) as leaves:
        restarts = stays.restarts
        first.tab.reload()
        wait_until(lambda: goes.ended and sound.ended, PATIENCE)  # by its last word
        assert leaves.get(timeout=PATIENCE).peer.id == mine
        first.join()
        assert second.other(mine) == room.members()[0]
        room.check()
        assert (stays.restarts, stays.ended) == (restarts, False)


def test_a_page_that_dies_is_let_go_of(room: Room) -> None:
    known = {"ann", *room.members()}
    page = room.enter()
    wait_until(lambda: {one.id for one in room.bob.remote_peers} - known, PATIENCE)
    (there,) = [one for one in room.bob.remote_peers if one.id not in known]
    seen = there.track("video", timeout=PATIENCE)
    changes(seen)
    for one in room.pages:
        one.sees(there.id)
    with there.events(TrackEnded) as ends, room.bob.events(PeerLeft) as leaves:
        page.tab.crash()
        assert leaves.get(timeout=PATIENCE).peer is there
        assert seen in {ends.get(timeout=PATIENCE).track for _ in ("audio", "video")}
    for one in room.pages:
        one.run(
            "await until('its end', () => !tiles().some((one) => one.startsWith(peer)))",
            peer=there.id,
        )
    room.check()


def test_a_track_comes_again_after_it_was_let_go_of(room: Room) -> None:
    page, _ = room.pages
    page.sees("ann")
    receiving = page.session("track/subscribe")
    with (
        SfuClient(**room.cloud.sfu_options()) as sender,
        PatternSource(160, 120, fps=10) as pattern,
        raw(room.cloud, "eve", channels=[CHANNEL]) as eve,
    ):
        eve.ask(type="subscribe", channel=CHANNEL, requestId="1")
        sent = sender.publish(pattern.video)
        listed = {"id": sent.track_id, "kind": "video", "stream": "s", "name": "v", "meta": None}
        for revision in range(5):  # the SFU offers again what was given up
            here = revision % 2 == 0
            state = {"$sfu": 1, "boot": "b", "rev": revision, "tracks": [listed] if here else []}
            state["session"] = sent.session_id if here else None
            eve.ask(type="publish", channel=CHANNEL, data=state, requestId="2")
            if here:
                page.sees("eve")
            else:
                page.run("await until('its end', () => !tiles().some((one) => /^eve/.test(one)))")
        page.sees("ann")
        assert page.session("track/subscribe") == receiving


def test_what_others_say_is_taken_for_a_claim(room: Room) -> None:
    page, _ = room.pages
    ann: Any = room.ann._link
    session = ann.media._publisher.session_id
    listed = [track.body() for track in ann.media._publisher.announced]
    room.check()
    receiving = page.session("track/subscribe")
    with (
        any_peer(room.cloud, "mesh") as mesh,
        PatternSource(160, 120, fps=10) as pattern,
        raw(room.cloud, "eve", channels=[CHANNEL]) as eve,
    ):
        mesh.add_track(pattern)
        mesh.join(CHANNEL)  # and offers to everybody, to no avail
        eve.ask(type="subscribe", channel=CHANNEL, requestId="1")
        for data in (
            {"$sfu": 1, "boot": "b", "rev": 1, "session": session, "tracks": listed},
            {"$sfu": 1, "boot": "c", "rev": 1, "session": 7, "tracks": [None, 7, {"id": 7}, []]},
            {"$sfu": 1, "boot": "d", "rev": 1, "session": "none", "tracks": [{"id": "no"}] * 40},
            {"$sfu": 1, "boot": None, "rev": "1", "session": None, "tracks": {}},
            {"$sfu": 1, "ask": True},
            {"$sfu": 2, "tracks": "other"},
            None,
            {"$sfu": 1, "boot": "f", "rev": 1, "session": "s" * 5000, "tracks": [{"id": "x"}]},
            {"$sfu": 1, "boot": "e", "rev": 1, "session": 7, "tracks": [{"id": "x"}]},
        ):
            eve.ask(type="publish", channel=CHANNEL, data=data, requestId="2")
        room.check()
        assert page.session("track/subscribe") == receiving  # which nobody's claims end
        assert not [
            title for title in page.run("return tiles()") if title.startswith(("eve", "mesh"))
        ]
