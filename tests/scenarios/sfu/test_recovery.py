"""Lose sessions, and have them made again with their publications and subscriptions."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import itertools
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from aiortc.mediastreams import AudioStreamTrack

from metered_sync import (
    MeteredError,
    Outage,
    Publication,
    Republished,
    SfuClient,
    SfuError,
    SfuNotFoundError,
    StateChange,
    VideoSource,
)
from metered_sync.local import LocalCloud
from metered_sync.testing import PatternSource, ToneSource, read_number
from metered_sync.wire.timings import DEFAULT_TIMINGS
from tests.conftest import ROOT, run_script, wait_until
from tests.support.scripted_sfu import ScriptedSfu
from tests.support.sfu_front import sfu_front

QUICK = dataclasses.replace(
    DEFAULT_TIMINGS,
    watch=0.1,
    quiet=0.5,
    search=1.5,
    dead=1.0,
    recover_delay=0.05,
    recover_budget=2.0,
)


@pytest.fixture
def pair(cloud: LocalCloud) -> Iterator[tuple[SfuClient, SfuClient]]:
    options = cloud.sfu_options()
    with SfuClient(**options) as sender, SfuClient(**options) as receiver:
        yield sender, receiver


def next_number(frames: Any, timeout: float = 20.0) -> int:
    """Return the number in the next picture that shows one."""
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        number = read_number(frames.get(timeout=timeout).to_ndarray(format="gray"))
        if number is not None:
            return number
    pytest.fail("no picture could be read")


# --- a path that dies ---


@pytest.mark.parametrize(
    ("dead", "ways"),
    [
        ("receiver", ("forth", "back")),
        ("sender", ("forth", "back")),
        ("sender", ("forth",)),  # its reports go on to come
        ("idle", ("forth", "back")),
    ],
)
def test_a_dead_path_is_noticed_though_the_sfu_is_there(
    cloud: LocalCloud, dead: str, ways: tuple[str, ...]
) -> None:
    """The calls go on; and what an SFU says of a session does not tell whether its path works."""
    silence = 0.4 if len(ways) == 2 else 0.8  # (reports come once a second)
    timings = dataclasses.replace(DEFAULT_TIMINGS, path_silence=silence, path_probe=silence)
    options = cloud.sfu_options()
    with sfu_front(options["url"]) as front, contextlib.ExitStack() as stack:
        there = {**options, "url": front.url, "_timings": timings}
        sender, receiver = (
            stack.enter_context(SfuClient(**(there if dead in (name, "idle") else options)))
            for name in ("sender", "receiver")
        )
        if dead == "idle":
            with receiver.events(Outage) as outages:
                front.cut(*ways)
                outages.get(timeout=20)
            assert receiver.state == "connected"
            return
        with PatternSource(160, 120, 15) as pattern:
            camera = sender.publish(pattern.video, name="camera")
            track, session_id = receiver.subscribe(camera), camera.session_id
            with track.frames(mode="fifo") as frames:
                before = next_number(frames)
                with (sender if dead == "sender" else receiver).events(Outage) as outages:
                    front.cut(*ways)
                    outages.get(timeout=10)  # (the SFU itself ends the session after 12 s)
                if dead == "sender":  # as one finds it who looks, or hears of it in a room
                    cloud.faults.kill_sfu_session(session_id)
                wait_until(lambda: track.restarts >= 1, 30)
                assert next_number(frames) > before


# --- one side, the other, both --------------------------------------------------------


@pytest.mark.parametrize("lost", ["receiver", "sender", "both"])
def test_a_lost_session_is_made_again(cloud: LocalCloud, pair: Any, lost: str) -> None:
    sender, receiver = pair
    with PatternSource(160, 120, 15) as pattern, ToneSource(frequency=440) as tone:
        camera = sender.publish(pattern.video, name="camera")
        mic = sender.publish(tone.audio, name="mic")
        picture, sound = receiver.subscribe([camera, mic])
        pictures, sounds = picture.frames(mode="fifo"), sound.frames()
        before = next_number(pictures)
        sounds.get(timeout=20)
        old = {client: client.session_id for client in pair}
        old_ids = {p: (p.session_id, p.track_id) for p in (camera, mic)}
        losers = {"receiver": [receiver], "sender": [sender], "both": pair}[lost]
        with sender.events() as told, receiver.events() as heard:
            for client in losers:
                cloud.faults.kill_sfu_session(str(client.session_id))
            wait_until(lambda: picture.restarts >= 1 and sound.restarts >= 1, 30)
            while len(pictures):
                pictures.get()
            after = next_number(pictures)
            while len(sounds):
                sounds.get()
            assert sounds.get(timeout=20) is not None
            # The source went on: it was not started anew.
            assert after > before
            assert pattern.position > 0
            for client, events in ((sender, told), (receiver, heard)):
                kinds = []
                while len(events):
                    kinds.append(events.get())
                if client not in losers:
                    assert kinds == []
                    assert client.session_id == old[client]
                    continue
                assert client.session_id != old[client]
                states = [(e.from_, e.to) for e in kinds if isinstance(e, StateChange)]
                assert states == [("connected", "reconnecting"), ("reconnecting", "connected")]
                (outage,) = [e for e in kinds if isinstance(e, Outage)]
                assert 0 < outage.duration < 20
                again = [e for e in kinds if isinstance(e, Republished)]
                assert [e.publication for e in again] == ([camera, mic] if client is sender else [])
                for event in again:
                    ids = (event.old_session_id, event.old_track_id)
                    assert ids == old_ids[event.publication]
        # Objects show their new ids.
        assert camera.session_id == sender.session_id
        assert (picture.stream_id, picture.id) == (camera.session_id, camera.track_id)
        assert {t.track_id for t in receiver.tracks(camera.session_id)} == {
            camera.track_id,
            mic.track_id,
        }
        assert sender.state == receiver.state == "connected"
        # And it can be used as before.
        with ToneSource(frequency=880) as another:
            track = receiver.subscribe(sender.publish(another.audio))
            assert track.frames().get(timeout=20) is not None
        camera.close()
        assert [t.name for t in receiver.tracks(camera.session_id)] == ["mic", None]


def test_timestamps_rise_through_recoveries(cloud: LocalCloud, pair: Any) -> None:
    sender, receiver = pair
    with PatternSource(160, 120, 15) as pattern, ToneSource(frequency=440) as tone:
        picture, sound = receiver.subscribe(
            [sender.publish(pattern.video, name="v"), sender.publish(tone.audio, name="a")]
        )
        pictures, sounds = picture.frames(mode="fifo", maxsize=10_000), sound.frames()
        started = time.monotonic()
        for round_, client in enumerate((receiver, sender, receiver), start=1):
            seen = picture.frames_received
            wait_until(lambda seen=seen: picture.frames_received > seen + 5, 20)
            cloud.faults.kill_sfu_session(str(client.session_id))
            wait_until(lambda n=round_: picture.restarts >= n and sound.restarts >= n, 30)
        seen = picture.frames_received
        wait_until(lambda: picture.frames_received > seen + 5, 20)
        passed = time.monotonic() - started
        for frames in (pictures, sounds):
            times = [float(frames.get().time) for _ in range(len(frames))]
            assert len(times) > 20
            assert all(b > a for a, b in itertools.pairwise(times))
            # The pauses are in them.
            assert times[-1] - times[0] == pytest.approx(passed, abs=3)


def test_a_client_that_receives_its_own_track(cloud: LocalCloud) -> None:
    with SfuClient(**cloud.sfu_options()) as client, ToneSource(frequency=440) as tone:
        track = client.subscribe(client.publish(tone.audio))  # without a name
        frames = track.frames()
        frames.get(timeout=20)
        cloud.faults.kill_sfu_session(str(client.session_id))
        wait_until(lambda: track.restarts == 1, 20)
        while len(frames):
            frames.get()
        assert frames.get(timeout=20) is not None


def test_the_name_of_a_track_subscribed_to_by_ids_is_learnt(cloud: LocalCloud, pair: Any) -> None:
    sender, receiver = pair
    with ToneSource(frequency=440) as tone:
        mic = sender.publish(tone.audio, name="mic")
        track = receiver.subscribe(mic.session_id, mic.track_id)
        wait_until(lambda: track.name == "mic", 20)
        cloud.faults.kill_sfu_session(str(sender.session_id))
        wait_until(lambda: track.restarts == 1, 20)
        assert track.id == mic.track_id


# --- what cannot be found again -------------------------------------------------------


def test_without_a_name_a_track_ends(cloud: LocalCloud, pair: Any) -> None:
    sender, receiver = pair
    with ToneSource(frequency=440) as tone:
        track = receiver.subscribe(sender.publish(tone.audio))
        frames = track.frames()
        frames.get(timeout=20)
        cloud.faults.kill_sfu_session(str(sender.session_id))
        with pytest.raises(SfuNotFoundError, match="no name"):
            while True:
                frames.get(timeout=20)
        assert track.ended
        assert receiver.state == "connected"
        receiver.unsubscribe(track)  # does nothing


def test_with_a_name_that_two_have_a_track_ends(cloud: LocalCloud) -> None:
    options = cloud.sfu_options()
    with (
        SfuClient(**options) as one,
        SfuClient(**options) as two,
        SfuClient(**options, _timings=QUICK) as receiver,
        ToneSource(frequency=440) as tone,
        ToneSource(frequency=440) as tone_two,
        ToneSource(frequency=440) as tone_three,
    ):
        track = receiver.subscribe(one.publish(tone.audio, name="mic"))
        track.frames().get(timeout=20)
        two.publish(tone_two.audio, name="mic")
        two.publish(tone_three.audio, name="mic")
        one.close()
        with pytest.raises(SfuNotFoundError, match="2 tracks are published"):
            while True:
                track.frames().get(timeout=20)


def test_a_publisher_that_does_not_come_back(cloud: LocalCloud) -> None:
    options = cloud.sfu_options()
    sender = SfuClient(**options)
    with SfuClient(**options, _timings=QUICK) as receiver, ToneSource(frequency=440) as tone:
        sender.connect()
        track = receiver.subscribe(sender.publish(tone.audio, name="mic"))
        frames = track.frames()
        frames.get(timeout=20)
        sender.close()
        started = time.monotonic()
        with pytest.raises(SfuNotFoundError, match=r"nobody published it again in 1\.5 s"):
            while True:
                frames.get(timeout=20)
        assert time.monotonic() - started < 15


def test_another_publisher_may_take_a_name_over(cloud: LocalCloud) -> None:
    options = cloud.sfu_options()
    sender = SfuClient(**options)
    sender.connect()
    with (
        SfuClient(**options) as receiver,
        PatternSource(160, 120, 15) as one,
        PatternSource(320, 240, 15) as two,
    ):
        track = receiver.subscribe(sender.publish(one.video, name="camera"))
        assert track.read(timeout=20).shape == (120, 160, 3)
        sender.close()
        with SfuClient(**options) as successor:
            successor.publish(two.video, name="camera")
            wait_until(lambda: track.restarts == 1, 20)
            wait_until(lambda: track.read(timeout=20).shape == (240, 320, 3), 20)


@pytest.mark.parametrize("when", ["before it is subscribed to", "after that"])
def test_a_publisher_may_take_back_the_track_that_was_found_by_its_name(
    cloud: LocalCloud, when: str
) -> None:
    """As one does whose new session's first round of tracks is refused in part."""
    options = cloud.sfu_options()
    timings = dataclasses.replace(QUICK, search=60.0, settle=60.0)
    with (
        ScriptedSfu(options["url"]) as sfu,
        SfuClient(**options) as first,
        SfuClient(**options) as second,
        SfuClient(**{**options, "url": sfu.url}, _timings=timings) as receiver,
        ToneSource(frequency=440) as tone,
        ToneSource(frequency=880) as again,
    ):
        track = receiver.subscribe(first.publish(tone.audio, name="mic"))
        frames = track.frames()
        frames.get(timeout=20)
        taken_back = second.publish(tone.audio, name="mic")
        wait_until(lambda: second.tracks(str(second.session_id)), 20)
        published: list[Publication] = []

        def publish_anew() -> None:
            taken_back.close()
            published.append(second.publish(again.audio, name="mic"))

        if when == "after that":
            first.close()
            wait_until(lambda: track.restarts == 1, 20)
            publish_anew()
        else:
            sfu.before["track/subscribe"] = publish_anew
            first.close()
        wait_until(lambda: published and track.id == published[0].track_id, 20)
        wait_until(lambda: track.restarts == 1 + (when == "after that"), 20)
        while len(frames):
            frames.get()
        assert frames.get(timeout=20) is not None


def test_a_track_that_its_publisher_closes_ends(cloud: LocalCloud, pair: Any) -> None:
    sender, receiver = pair
    with ToneSource(frequency=440) as tone, ToneSource(frequency=880) as other:
        mic, second = sender.publish(tone.audio, name="mic"), sender.publish(other.audio)
        track, going_on = receiver.subscribe([mic, second])
        frames = track.frames()
        frames.get(timeout=20)
        mic.close()
        list(frames)  # ends, without an error
        assert track.ended
        assert going_on.frames().get(timeout=20) is not None


# --- the SFU restarts -----------------------------------------------------------------

SERVER = """
import sys
from metered_sync.local import LocalCloud
cloud = LocalCloud(port=int(sys.argv[1]), limits=False)
cloud.sfu_app_id, cloud.sfu_secret = "app", "secret-of-the-app"
with cloud:
    print("ready", flush=True)
    sys.stdin.read()
"""


@contextmanager
def served(port: int) -> Iterator[subprocess.Popen[str]]:
    """Run a cloud with known keys in a process of its own."""
    with subprocess.Popen(
        [sys.executable, "-c", SERVER, str(port)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        try:
            yield process
        finally:
            process.stdin.close()
            process.wait(20)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


@pytest.mark.parametrize("how", ["stopped", "killed"])
def test_an_sfu_that_restarts(how: str) -> None:
    port = free_port()
    options: Any = {"app_id": "app", "secret": "secret-of-the-app"}
    options["url"] = f"http://127.0.0.1:{port}"
    with (
        contextlib.ExitStack() as closing,
        PatternSource(160, 120, 15) as pattern,
        ToneSource(frequency=440) as tone,
        ToneSource(frequency=880) as late,
    ):
        sender, receiver = SfuClient(**options), SfuClient(**options)
        closing.callback(sender.close)
        closing.callback(receiver.close)
        outages = sender.events(Outage)
        with served(port) as first:
            sender.connect()
            receiver.connect()
            camera = sender.publish(pattern.video, name="camera")
            mic = sender.publish(tone.audio, name="mic")
            picture, sound = receiver.subscribe([camera, mic])
            pictures, sounds = picture.frames(), sound.frames()
            before = next_number(pictures)
            sounds.get(timeout=20)
            if how == "killed":  # it is noticed by its silence
                first.kill()
        outcome: list[Any] = []

        def publish() -> None:
            try:
                outcome.append(sender.publish(late.audio, name="late", timeout=60))
            except MeteredError as error:
                outcome.append(error)

        thread = threading.Thread(target=publish)
        if how == "stopped":  # told by DTLS
            wait_until(lambda: sender.state == "reconnecting", 20)
            # A call that is made meanwhile waits for the next session.
            thread.start()
        with served(port):
            outages.get(timeout=60)
            wait_until(lambda: picture.restarts == 1 and sound.restarts == 1, 60)
            while len(pictures):
                pictures.get()
            assert next_number(pictures) > before
            assert receiver.state == "connected"
            if how == "stopped":
                thread.join(60)
                found = receiver.wait_for_track(name="late", timeout=20)
                assert found.track_id == outcome[0].track_id
            closing.close()


def test_it_gives_up_in_the_end() -> None:
    port = free_port()
    options: Any = {"app_id": "app", "secret": "secret-of-the-app"}
    options["url"] = f"http://127.0.0.1:{port}"
    client = SfuClient(**options, _timings=QUICK)
    with ToneSource(frequency=440) as tone, ToneSource(frequency=880) as other:
        with served(port):
            client.connect()
            mic = client.publish(tone.audio)
            track = client.subscribe(mic)
            frames = track.frames()
            frames.get(timeout=20)
            events = client.events(StateChange)
            outcome: list[Any] = []
        wait_until(lambda: client.state == "reconnecting", 20)

        def publish() -> None:
            try:
                client.publish(other.audio, timeout=60)
            except MeteredError as error:
                outcome.append(error)

        thread = threading.Thread(target=publish)
        thread.start()
        # Every waiter and reader gets the reason.
        with pytest.raises(SfuError, match="refused"):
            while True:
                frames.get(timeout=60)
        thread.join(20)
        assert isinstance(outcome[0], SfuError)
        assert client.state == "closed"
        with pytest.raises(SfuError, match="none could be made"):
            client.sessions()
        with pytest.raises(SfuError):
            while True:
                events.get(timeout=20)
        client.close()
        assert tone.audio.readyState == "live"  # it is the user's


def test_a_secret_that_is_withdrawn_ends_it_at_once(shared_cloud: LocalCloud) -> None:
    with ScriptedSfu(shared_cloud.http_url) as sfu:
        client = SfuClient(**{**shared_cloud.sfu_options(), "url": sfu.url})
        with client:
            sfu.answers["session/new"] = (401, {"error": "unauthorized"})
            started = time.monotonic()
            shared_cloud.faults.kill_sfu_session(str(client.session_id))
            wait_until(lambda: client.state == "closed", 20)
            assert time.monotonic() - started < 10
            with pytest.raises(SfuError, match="401") as caught:
                client.sessions()
            assert caught.value.status == 401


def test_a_session_that_the_sfu_forgot_without_a_word(shared_cloud: LocalCloud) -> None:
    # Its answers say 404; media stops. Told by nothing but that.
    with ScriptedSfu(shared_cloud.http_url) as sfu:
        options = {**shared_cloud.sfu_options(), "url": sfu.url}
        with SfuClient(**options, _timings=QUICK) as client, VideoSource(64, 64) as screen:
            client.publish(screen)  # no picture: only ICE arrives, there is nothing to report on
            first = client.session_id
            sfu.answers["tracks"] = (404, {"error": "not_found"})
            wait_until(lambda: client.session_id != first, 30)
            del sfu.answers["tracks"]
            wait_until(lambda: client.state == "connected", 20)


class Muted(AudioStreamTrack):
    """A microphone that is muted after half a second."""

    frames = 0

    async def recv(self) -> Any:
        self.frames += 1
        if self.frames > 25:
            await asyncio.Event().wait()
        return await super().recv()


def test_a_silent_track_is_no_lost_one(cloud: LocalCloud) -> None:
    options = cloud.sfu_options()
    with (
        SfuClient(**options) as sender,
        SfuClient(**options, _timings=QUICK) as receiver,
    ):
        track = receiver.subscribe(sender.publish(Muted(), name="short"))
        track.frames().get(timeout=20)
        time.sleep(2.5)  # several looks
        assert not track.ended
        assert (track.restarts, receiver.state) == (0, "connected")


# --- closing meanwhile ----------------------------------------------------------------


def test_what_is_closed_meanwhile_does_not_come_back(cloud: LocalCloud) -> None:
    with ScriptedSfu(cloud.http_url) as sfu:
        options = {**cloud.sfu_options(), "url": sfu.url}
        with (
            SfuClient(**options) as sender,
            ToneSource(frequency=440) as tone,
            ToneSource(frequency=880) as other,
        ):
            one, two = sender.publish(tone.audio, name="one"), sender.publish(other.audio)
            track, going_on = sender.subscribe([one, two])
            track.frames().get(timeout=20)
            sfu.answers["session/new"] = (503, {"error": "busy"})
            cloud.faults.kill_sfu_session(str(sender.session_id))
            wait_until(lambda: sender.state == "reconnecting", 20)
            one.close()
            sender.unsubscribe(track)
            assert track.ended
            del sfu.answers["session/new"]
            wait_until(lambda: sender.state == "connected", 30)
            assert [t.name for t in sender.tracks(str(sender.session_id))] == [None]
            assert going_on.frames().get(timeout=20) is not None
            assert tone.audio.readyState == "live"


def test_closing_while_it_recovers(cloud: LocalCloud) -> None:
    with ScriptedSfu(cloud.http_url) as sfu:
        client = SfuClient(**{**cloud.sfu_options(), "url": sfu.url})
        client.connect()
        with ToneSource(frequency=440) as tone:
            frames = client.subscribe(client.publish(tone.audio)).frames()
            sfu.hold.add("session/new")
            cloud.faults.kill_sfu_session(str(client.session_id))
            wait_until(lambda: client.state == "reconnecting", 20)
            started = time.monotonic()
            client.close()
            list(frames)
            assert client.state == "closed"
            assert time.monotonic() - started < 5


@pytest.mark.parametrize("state", ["reconnecting", "connected"])
def test_a_script_may_end_meanwhile(state: str) -> None:
    started = time.monotonic()
    done = run_script(
        f"""
import time
from metered_sync import SfuClient
from metered_sync.local import LocalCloud
from metered_sync.testing import PatternSource
source = PatternSource(160, 120, 15)
with LocalCloud() as cloud:
    client = SfuClient(**cloud.sfu_options())
    client.connect()
    track = client.subscribe(client.publish(source.video, name="x"))
    track.read(timeout=20)
    if {state!r} == "connected":
        cloud.faults.kill_sfu_session(client.session_id)
        while not track.restarts:
            time.sleep(0.01)
if {state!r} == "reconnecting":
    while client.state != "reconnecting":
        time.sleep(0.01)
    time.sleep(0.5)
print(client.state)
"""
    )
    assert done.stderr == ""
    assert done.stdout
    assert done.returncode == 0
    assert time.monotonic() - started < 30


def test_a_source_that_ends_meanwhile(cloud: LocalCloud, pair: Any) -> None:
    sender, receiver = pair
    with ToneSource(frequency=440, duration=1.0) as short, ToneSource(frequency=880) as long:
        sender.publish(short.audio, name="short")
        sender.publish(long.audio, name="long")
        short.wait(timeout=20)
        with sender.events(Outage) as outages:
            cloud.faults.kill_sfu_session(str(sender.session_id))
            outages.get(timeout=30)
        names = [t.name for t in receiver.tracks(str(sender.session_id))]
        assert names == ["long"]


@pytest.mark.parametrize("times", [5])
def test_again_and_again(cloud: LocalCloud, pair: Any, times: int) -> None:
    sender, receiver = pair
    with PatternSource(160, 120, 15) as pattern:
        track = receiver.subscribe(sender.publish(pattern.video, name="camera"))
        track.read(timeout=20)
        threads = threading.active_count()
        for number in range(times):
            client = pair[number % 2]
            before = track.restarts
            cloud.faults.kill_sfu_session(str(client.session_id))
            wait_until(lambda before=before: track.restarts > before, 30)
            assert track.read(timeout=20) is not None
        wait_until(lambda: threading.active_count() <= threads + 6, 20)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("gather", 5.0),
        ("quiet", 2.0),
        ("dead", 5.0),
        ("recover_budget", 120.0),
        ("search", 30.0),
        ("request_interval", 0.05),
    ],
)
def test_intervals_are_as_the_guide_says(name: str, value: float) -> None:
    assert getattr(DEFAULT_TIMINGS, name) == value
