"""Hold rooms to the rules: peers, their remote peers, tracks and data channels."""

from __future__ import annotations

import asyncio
import dataclasses
import gc
import io
import json
import threading
import time
import warnings
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest

from metered_sync import (
    ClosedError,
    DataChannelOpened,
    DCMessage,
    MeteredError,
    MeteredPeer,
    MeteredTimeoutError,
    PeerJoined,
    PeerLeft,
    SfuMedia,
    TrackEnded,
    WrongThreadError,
)
from metered_sync.local import LocalCloud
from metered_sync.testing import PatternSource, ToneSource
from metered_sync.wire.timings import DEFAULT_TIMINGS
from tests.conftest import run_script, wait_until
from tests.rules.test_fork import START as FORK
from tests.rules.test_interrupt import SERVER, interrupt
from tests.rules.test_leaks import check
from tests.support.outage import outage

START = """
import itertools, json, sys, threading, time
from metered_sync import *
from metered_sync import MeteredPeer, MediaStream
from metered_sync.testing import PatternSource, ToneSource
options = dict(url=sys.argv[1], api_key=sys.argv[2], ice_servers=[])
"""

BOTH_WAYS = """
one, two = MeteredPeer(**options), MeteredPeer(**options)
room = f"exit/{time.time()}"
one.add_track(PatternSource(160, 120, fps=15).video)
two.add_track(ToneSource(440).audio)
one.join(room); two.join(room)
there, back = two.wait_for_peer(timeout=20), one.wait_for_peer(timeout=20)
picture, sound = there.track("video", timeout=20), back.track("audio", timeout=20)
picture.read(timeout=20)
sound.frames().get(timeout=20)
"""


@pytest.fixture
def options(served_cloud: dict[str, str]) -> dict[str, Any]:
    """A cloud in another process: what it holds is not ours."""
    return {
        "api_key": served_cloud["publishable_key"],
        "url": served_cloud["url"],
        "ice_servers": [],
    }


def args(cloud: dict[str, str]) -> tuple[str, str]:
    return cloud["url"], cloud["publishable_key"]


# --- 1: deadlines ---------------------------------------------------------------------


def test_every_wait_has_an_end(options: dict[str, Any]) -> None:
    with MeteredPeer(**options) as one, MeteredPeer(**options) as two:
        one.join("deadlines")
        two.join("deadlines")
        there = one.wait_for_peer(timeout=20)
        for call in (
            lambda: one.wait_for_peer("nobody", timeout=0.2),
            lambda: there.track("video", timeout=0.2),
            lambda: there.wait_connected(timeout=0.2),
            lambda: there.wait_for(TrackEnded, timeout=0.2),
            lambda: there.create_data_channel("x", timeout=0),
        ):
            started = time.monotonic()
            with pytest.raises(MeteredTimeoutError):
                call()
            assert time.monotonic() - started < 15
        with there.create_data_channel("usable all the same", timeout=20):
            pass


def test_join_gives_up_and_may_be_repeated(options: dict[str, Any]) -> None:
    for timeout in (0, 0.001, 0.003, 0.006, 0.01):
        with MeteredPeer(**options) as peer:
            with suppress(MeteredTimeoutError):
                peer.join("late", timeout=timeout)
            wait_until(lambda: peer.state != "joining")  # (what was cancelled is put away)
            if peer.state == "idle":
                assert peer.channel is None
                peer.join("late", timeout=10)
            assert peer.state == "joined"


# --- 2: Ctrl-C ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "wait",
    [
        "one.wait_for_peer('nobody')",
        "there.track('audio', timeout=60)",
        "there.track('audio')",
        "one.send('x', timeout=60)",
        "one.wait_for(PeerJoined)",
        "there.wait_for(StateChange)",
        "channel.get()",
        "frames.get()",
    ],
)
def test_ctrl_c_ends_waits(wait: str, served_cloud: dict[str, str]) -> None:
    source = f"""{START}
try:
    with MeteredPeer(**options) as one, MeteredPeer(**options) as two:
        one.join("interrupts"); two.join("interrupts")
        there = one.wait_for_peer(two.peer_id, timeout=20)
        channel = there.create_data_channel("c", timeout=20)
        pattern = PatternSource(160, 120, fps=15)
        two.add_track(pattern.video)
        frames = there.track("video", timeout=20).frames()
        frames.get(timeout=20)
        pattern.stop()
        print("ready", flush=True)
        try:
            while True:
                {wait}
        except KeyboardInterrupt:
            print("interrupted", one.state)
            raise
except KeyboardInterrupt:
    print("closed", one.state)
    sys.exit(7)
"""
    status, lines, err, seconds = interrupt(source, *args(served_cloud))
    assert (status, lines, err) == (7, ["interrupted joined", "closed closed"], "")
    assert seconds < 20  # (a machine may be busy; a hang takes longer)


@pytest.mark.parametrize("mute", [True, False], ids=["join", "no connection"])
def test_ctrl_c_ends_joining_and_opening(mute: bool) -> None:
    # A server that welcomes and says nothing more; or a member that never answers.
    act = "peer.join('c', timeout=60)"
    lines = ["interrupted idle", "closed"]
    if not mute:
        act = "there.create_data_channel('x', timeout=60)"
        lines = ["interrupted joined", "closed"]
    source = f"""{SERVER}
import sys
from metered_sync import MeteredPeer
from metered_sync.wire import frames
from metered_sync.bridge.engines import current
from metered_sync.events import Presence, PresencePeer
with _Server() as server:
    server.mute = {mute}
    peer = MeteredPeer(api_key="pk_live_x", url=server.url)
    try:
        with peer:
            if not {mute}:
                peer.join("c")
                listed = Presence("c", (PresencePeer("other", None),), ())
                current().post(peer._link.emit, listed)
                there = peer.wait_for_peer(timeout=20)
            print("ready", flush=True)
            try:
                {act}
            except KeyboardInterrupt:
                print("interrupted", peer.state)
                raise
    except KeyboardInterrupt:
        print(peer.state)
        sys.exit(7)
"""
    status, printed, err, seconds = interrupt(source)
    assert (status, printed, err) == (7, lines, "")
    assert seconds < 20  # (a machine may be busy; a hang takes longer)


# --- 4: a running loop ----------------------------------------------------------------


def test_under_asyncio_run(options: dict[str, Any]) -> None:
    async def main() -> Any:
        with MeteredPeer(**options) as one, MeteredPeer(**options) as two:
            one.join("loop")
            two.join("loop")
            with one.wait_for_peer(timeout=20).create_data_channel("x", timeout=20) as channel:
                channel.send("1")
            return channel.label

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        assert asyncio.run(main()) == "x"


# --- 5: callbacks and the loop thread -------------------------------------------------


def test_callbacks_may_call_anything(options: dict[str, Any]) -> None:
    heard: list[Any] = []
    failed: list[BaseException] = []
    with (
        PatternSource(160, 120, fps=10) as pattern,
        MeteredPeer(**options) as one,
        MeteredPeer(**options) as two,
    ):

        @one.on(PeerJoined)
        def greet(event: PeerJoined) -> None:
            one.add_track(pattern.video)
            event.peer.send("hello")
            one.send("everybody")
            assert one.wait_for_peer() is event.peer
            channel = event.peer.create_data_channel("greeting", timeout=20)
            channel.on(DCMessage, lambda m: heard.append(m.data))
            channel.send("first")

        @two.on(PeerJoined)
        def answer(event: PeerJoined) -> None:
            @event.peer.on(DataChannelOpened)
            def take(opened: DataChannelOpened) -> None:
                opened.channel.send(opened.channel.get(timeout=20))

        one.on_error = two.on_error = lambda _, error: failed.append(error)
        two.join("callbacks")
        one.join("callbacks")
        wait_until(lambda: heard or failed, 20)
        assert (heard, failed) == (["first"], [])
        there = two.wait_for_peer(timeout=20)
        assert there.track("video", timeout=20).read(timeout=20).any()
        gone = threading.Event()

        @one.on(PeerLeft)
        def leave(event: PeerLeft) -> None:
            one.close(reason="alone")
            gone.set()

        two.close()
        assert gone.wait(20)
        assert one.state == "closed"


def test_blocking_calls_on_the_loop_thread_are_refused(options: dict[str, Any]) -> None:
    with (
        PatternSource(160, 120, fps=10) as pattern,
        MeteredPeer(**options) as one,
        MeteredPeer(**options) as two,
    ):
        one.join("wrong")
        two.join("wrong")
        there = one.wait_for_peer(timeout=20)
        errors: list[BaseException | None] = []
        done = threading.Event()
        calls: tuple[Callable[[], object], ...] = (
            lambda: one.join("x"),
            lambda: one.send(1),
            lambda: there.send(1),
            lambda: one.add_track(pattern.video),
            one.wait_for_peer,
            there.track,
            there.wait_connected,
            there.stats,
            lambda: there.create_data_channel("x"),
            one.close,
        )

        def on_the_loop() -> None:
            for call in calls:
                try:
                    call()
                except BaseException as error:
                    errors.append(error)
                else:
                    errors.append(None)
            done.set()

        engine: Any = one._engine
        engine.post(on_the_loop)
        assert done.wait(20)
        kinds = [type(error) for error in errors[1:]]
        assert kinds == [WrongThreadError] * (len(calls) - 1), errors
        assert isinstance(errors[0], MeteredError)  # (joined already)


# --- 7: fork --------------------------------------------------------------------------


def test_fork(served_cloud: dict[str, str]) -> None:
    source = """
from metered_sync import MeteredPeer
from metered_sync.testing import PatternSource
room = dict(options, ice_servers=[])
pattern = PatternSource(160, 120, fps=10)
one, two = MeteredPeer(**room), MeteredPeer(**room)
one.add_track(pattern.video)
one.join("fork"); two.join("fork")
there = two.wait_for_peer(timeout=20)
track = there.track("video", timeout=20)
frames = track.frames()
frames.get(timeout=20)
channel = there.create_data_channel("x", timeout=20)
idle = MeteredPeer(**room)
def child():
    for call in (
        lambda: one.join("x"), lambda: idle.join("x"), one.close, lambda: two.send(1),
        lambda: there.send(1), lambda: two.wait_for_peer(), lambda: there.track("audio"),
        there.wait_connected, there.stats, lambda: there.create_data_channel("x"),
        frames.get, track.read, channel.get, lambda: channel.send("x"), channel.close,
        lambda: two.on(PeerLeft, print), lambda: there.on(Track, print), there.events,
        lambda: one.add_track(ToneSource(440).audio), lambda: one.remove_track(pattern.video),
        lambda: one.replace_track(pattern.video, None),
    ):
        refused(call)
    repr(one), repr(there), repr(track), repr(channel)
    mine, other = MeteredPeer(**room), MeteredPeer(**room)
    with mine, other:
        mine.join("fork-child"); other.join("fork-child")
        with mine.wait_for_peer(timeout=20).create_data_channel("y", timeout=20) as own:
            own.send("1")
from metered_sync.testing import ToneSource
assert in_child(child) == 0
for _ in range(5):
    frames.get(timeout=20)
channel.send("still here")
one.close(); two.close(); pattern.stop()
"""
    done = run_script(FORK + source, *args(served_cloud))
    assert (done.returncode, done.stderr) == (0, ""), done.stderr


# --- 8: exit, and objects that are collected ------------------------------------------

LEAVE = {
    "media flows both ways": (BOTH_WAYS, 0),
    "nobody else is there": ("one = MeteredPeer(**options)\none.join('alone')\n", 0),
    "a reader and callbacks": (
        BOTH_WAYS
        + "one.on(PeerLeft, lambda e: None)\nthere.on(StateChange, lambda e: None)\n"
        + "def read():\n    try:\n        list(picture.frames())\n    except MeteredError: pass\n"
        "threading.Thread(target=read).start()\ntime.sleep(0.3)",
        0,
    ),
    "a data channel in use": (
        BOTH_WAYS + "channel = there.create_data_channel('x', timeout=20)\n"
        "def flood():\n    try:\n        while True: channel.send(bytes(10000))\n"
        "    except MeteredError: pass\n"
        "threading.Thread(target=flood, daemon=True).start()\ntime.sleep(0.3)",
        0,
    ),
    "while connecting": (
        "one, two = MeteredPeer(**options), MeteredPeer(**options)\n"
        "one.add_track(PatternSource(160, 120, fps=15).video)\n"
        "one.join('early'); two.join('early'); two.wait_for_peer(timeout=20)",
        0,
    ),
    "right after close()": (BOTH_WAYS + "one.close(); two.close()", 0),
    "after sys.exit": (BOTH_WAYS + "sys.exit(5)", 5),
}


@pytest.mark.parametrize("rounds", [1, pytest.param(5, marks=pytest.mark.slow)])
@pytest.mark.parametrize(("source", "status"), LEAVE.values(), ids=LEAVE.keys())
def test_exit(source: str, status: int, rounds: int, served_cloud: dict[str, str]) -> None:
    for _ in range(rounds):
        marked = START + source.replace("sys.exit", "print(time.monotonic(), flush=True); sys.exit")
        if "sys.exit" not in source:
            marked += "\nprint(time.monotonic(), flush=True)"
        done = run_script(marked, *args(served_cloud))
        ended = time.monotonic()
        assert (done.returncode, done.stderr) == (status, ""), done.stderr
        assert ended - float(done.stdout.split()[-1]) < 15  # (3 are the limit)


def test_a_forgotten_peer_is_closed_and_says_so(options: dict[str, Any]) -> None:
    with PatternSource(160, 120, fps=10) as pattern, MeteredPeer(**options) as other:
        other.add_track(pattern.video)
        other.join("forgotten")
        peer = MeteredPeer(**options)
        met = threading.Event()
        peer.once(PeerJoined, lambda _: met.set())
        peer.add_track(pattern.video)
        peer.join("forgotten")
        link = peer._link
        assert link is not None
        there = peer.wait_for_peer(timeout=20)
        frames = there.track("video", timeout=20).frames()
        frames.get(timeout=20)
        there.create_data_channel("x", timeout=20).close()
        events = there.events()
        assert met.wait(20)
        del peer
        gc.collect()
        assert link.state == "joined"  # its remote peers are held, and its readers
        frames.get(timeout=20)
        del there
        gc.collect()
        frames.get(timeout=20)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            del frames
            wait_until(lambda: gc.collect() is not None and link.state == "closed")
        assert any("MeteredPeer was not closed" in str(w.message) for w in caught)
        with pytest.raises(ClosedError):
            while True:
                events.get(timeout=20)


def test_a_peer_that_joined_nothing_is_collected_in_silence(
    options: dict[str, Any], recwarn: pytest.WarningsRecorder
) -> None:
    peer = MeteredPeer(**options)
    with PatternSource(160, 120, fps=10) as pattern:
        peer.add_track(pattern.video)
    del peer
    refused = MeteredPeer(**{**options, "api_key": "pk_live_wrong"})
    with pytest.raises(MeteredError):
        refused.join("x")
    del refused
    with MeteredPeer(**options) as closed:
        closed.join("silence")
    del closed
    gc.collect()
    assert not [w for w in recwarn if issubclass(w.category, ResourceWarning)]


def test_a_peer_with_callbacks_stays_alive(options: dict[str, Any]) -> None:
    seen: list[str] = []

    def start() -> None:
        peer = MeteredPeer(**options)
        peer.on(PeerJoined, lambda event: (seen.append(event.peer.id), peer.close()))
        peer.join("alive")

    start()
    gc.collect()
    with MeteredPeer(**options) as other:
        other.join("alive")
        wait_until(lambda: seen)
        assert seen == [other.peer_id]


# --- 9: leaks -------------------------------------------------------------------------


@pytest.mark.parametrize("through", ["mesh", "sfu"])
def test_joining_and_leaving_leaves_nothing(
    options: dict[str, Any], served_cloud: dict[str, str], through: str
) -> None:
    options |= {"rate_limit": None}
    if through == "sfu":
        app, secret = served_cloud["sfu_app_id"], served_cloud["sfu_secret"]
        options["media"] = SfuMedia(app_id=app, secret=secret, url=served_cloud["http_url"])
    brief = dataclasses.replace(DEFAULT_TIMINGS, room_limbo=0.05)
    with MeteredPeer(**options, _timings=brief) as host, ToneSource(440) as tone:
        host.add_track(tone.audio)
        host.join("leaks")

        def round_() -> None:
            with MeteredPeer(**options) as guest:
                guest.on(PeerLeft, print)
                guest.join("leaks")
                there = guest.wait_for_peer(timeout=20)
                there.on(DataChannelOpened, print)
                with there.create_data_channel("x", timeout=20) as channel:
                    channel.send("1")
                    there.track("audio", timeout=20).frames().get(timeout=20)
            wait_until(lambda: not host.remote_peers)

        check(round_, rounds=15, per_round=4000)


def test_peers_that_fail_leave_nothing(options: dict[str, Any]) -> None:
    def refused() -> None:
        wrong = MeteredPeer(**{**options, "api_key": "pk_live_wrong"})
        with wrong, pytest.raises(MeteredError):
            wrong.join("x")

    def late() -> None:
        with MeteredPeer(**options) as peer, suppress(MeteredTimeoutError):
            peer.join("x", timeout=0.003)

    check(refused, rounds=50)
    check(late, rounds=50)


# --- 10: secrets ----------------------------------------------------------------------


def test_no_secret_is_shown(log: io.StringIO) -> None:
    output: list[str] = []
    with LocalCloud() as cloud, PatternSource(160, 120, fps=10) as pattern:
        servers = [{"urls": "turn:127.0.0.1:9", "username": "HUSHUSER", "credential": "HUSHHUSH"}]
        options = [
            cloud.token_options(name, metadata={"iceServers": servers}) for name in ("ann", "bob")
        ]
        token = options[0]["token_provider"]()
        with (
            MeteredPeer(**options[0], gather_timeout=0.1) as one,
            MeteredPeer(**options[1], gather_timeout=0.1) as two,
        ):
            events = one.events()
            one.add_track(pattern.video)
            one.join("hush")
            two.join("hush")
            there = two.wait_for_peer(timeout=20)
            track = there.track("video", timeout=30)
            track.read(timeout=30)
            with pytest.raises(MeteredTimeoutError) as late:
                there.track("audio", timeout=0.05)
            output += [repr(one), repr(there), repr(track), repr(one._link), repr(one._options)]
            output += [repr(there._member), repr(there._member.media), repr(late.value)]
            output += [json.dumps(there.stats(), default=repr)]
            pc: Any = there.pc
            passwords = [
                line.split(":", 1)[1].strip()
                for description in (pc.localDescription, pc.remoteDescription)
                for line in description.sdp.splitlines()
                if line.startswith("a=ice-pwd:")
            ]
            with outage(cloud, one):
                pass
            wait_until(lambda: one.state == "joined", 20)
        output += [repr(event) for event in events]
    everything = log.getvalue() + "\n".join(output)
    assert passwords
    for secret in (*passwords, "HUSHHUSH", cloud.key_secret, token.split(".")[2]):
        assert secret not in everything
