"""Publish and subscribe with an SfuClient at the local SFU."""

from __future__ import annotations

import dataclasses
import gc
import queue
import socket
import sys
import threading
import time
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import pytest

from metered_sync import (
    ClosedError,
    MediaError,
    MediaNotFoundError,
    MeteredError,
    NotConnectedError,
    SfuAuthError,
    SfuClient,
    SfuError,
    SfuNotFoundError,
    StateChange,
    TrackInfo,
    from_file,
)
from metered_sync.local import LocalCloud
from metered_sync.testing import PatternSource, ToneSource, dominant_frequency, read_number
from metered_sync.wire.timings import DEFAULT_TIMINGS
from tests.conftest import ROOT, wait_until
from tests.support.deadlines import expired

CLIP = ROOT / "metered_sync" / "demo" / "bunny.mp4"


@pytest.fixture
def pair(shared_cloud: LocalCloud) -> Any:
    options = shared_cloud.sfu_options()
    with SfuClient(**options) as sender, SfuClient(**options) as receiver:
        yield sender, receiver


def test_pictures_arrive_in_order(pair: Any) -> None:
    sender, receiver = pair
    with PatternSource(320, 240, 30) as pattern:
        camera = sender.publish(pattern.video, name="camera")
        assert (camera.kind, camera.name, camera.session_id) == (
            "video",
            "camera",
            sender.session_id,
        )
        track = receiver.subscribe(camera.session_id, camera.track_id)
        assert (track.kind, track.id, track.stream_id) == (
            "video",
            camera.track_id,
            camera.session_id,
        )
        first = track.read(timeout=20)
        assert first.shape == (240, 320, 3)
        assert first.dtype == np.uint8
        numbers = []
        with track.frames(mode="fifo") as frames:
            while len(numbers) < 30:
                numbers.append(read_number(frames.get(timeout=20).to_ndarray(format="bgr24")))
        seen = [n for n in numbers if n is not None]
        assert len(seen) > 25
        assert seen == sorted(set(seen))
        grey = track.read(timeout=20, format="gray")
        assert grey.shape == (240, 320)
        newest = read_number(track.read(timeout=20))
        assert newest is not None
        assert newest > seen[-1]  # never the same picture twice


def test_sound_arrives(pair: Any) -> None:
    sender, receiver = pair
    with ToneSource(frequency=1000) as tone:
        track = receiver.subscribe(sender.publish(tone.audio))
        frames = track.frames()
        samples: list[Any] = []
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            samples.append(frames.get(timeout=20).to_ndarray().reshape(-1, 2)[:, 0])
            heard = np.concatenate(samples[-25:])
            if len(samples) > 25 and abs(dominant_frequency(heard, 48000) - 1000) < 20:
                break
        else:
            pytest.fail("the tone was not heard")
        with pytest.raises(MediaError, match="frames"):
            track.read(timeout=1)


def test_a_clip_with_sound_goes_through(pair: Any) -> None:
    sender, receiver = pair
    with from_file(CLIP) as clip:
        publications = sender.publish(clip, name="bunny")
        assert [p.kind for p in publications] == ["video", "audio"]
        listed = receiver.tracks(sender.session_id)
        assert {(t.name, t.kind) for t in listed} == {("bunny", "video"), ("bunny", "audio")}
        video, audio = receiver.subscribe(publications)
        assert (video.kind, audio.kind) == ("video", "audio")
        assert video.read(timeout=20).shape == (720, 1280, 3)
        assert audio.frames().get(timeout=20).sample_rate == 48000
        wait_until(lambda: video.frames_received > 20 and audio.frames_received > 40, 60)


def test_a_list_gives_a_list_of_one(pair: Any) -> None:
    sender, receiver = pair
    with ToneSource(frequency=440) as tone:
        publications = sender.publish([tone])
        assert len(publications) == 1
        (track,) = receiver.subscribe(receiver.tracks(sender.session_id))
        assert track.frames().get(timeout=20) is not None


def test_publish_and_subscribe_in_any_order_in_one_session(shared_cloud: LocalCloud) -> None:
    options = shared_cloud.sfu_options()
    with (
        SfuClient(**options) as a,
        SfuClient(**options) as b,
        PatternSource(160, 120, 15) as one,
        PatternSource(160, 120, 15) as two,
        PatternSource(160, 120, 15) as three,
        ToneSource(frequency=440) as tone,
    ):
        from_a = b.subscribe(a.publish(one.video))
        from_b = a.subscribe(b.publish(two.video))
        again = b.subscribe(a.publish(three.video))
        sound = a.subscribe(b.publish(tone.audio))
        own = a.subscribe(a.publish(ToneSource(frequency=880).audio))  # one's own track
        for track in (from_a, from_b, again):
            assert read_number(track.read(timeout=20)) is not None
        for track in (sound, own):
            assert track.frames().get(timeout=20) is not None


def test_a_closed_publication_is_gone_and_others_go_on(pair: Any) -> None:
    sender, receiver = pair
    with PatternSource(160, 120, 15) as one, PatternSource(160, 120, 15) as two:
        first, second = sender.publish(one.video), sender.publish(two.video, name="second")
        track = receiver.subscribe(second)
        track.read(timeout=20)
        with first as same:
            assert same is first
        first.close()
        assert [t.name for t in receiver.tracks(sender.session_id)] == ["second"]
        with pytest.raises(SfuNotFoundError):
            receiver.subscribe(first)
        assert track.read(timeout=20) is not None
        with PatternSource(160, 120, 15) as three:
            assert receiver.subscribe(sender.publish(three.video)).read(timeout=20) is not None


def test_an_unsubscribed_track_ends_and_others_go_on(pair: Any) -> None:
    sender, receiver = pair
    with PatternSource(160, 120, 15) as one, ToneSource(frequency=440) as two:
        published = [sender.publish(one.video), sender.publish(two.audio)]
        picture, sound = receiver.subscribe(published)
        picture.read(timeout=20)
        frames = picture.frames()
        receiver.unsubscribe(picture)
        receiver.unsubscribe(picture)
        assert picture.ended
        list(frames)
        assert sound.frames().get(timeout=20) is not None
        # And again: a new track, for the old one has ended for good.
        again = receiver.subscribe(published[0])
        assert again.read(timeout=20) is not None
        assert again.kind == "video"
        with pytest.raises(ValueError, match="subscribed"):
            sender.unsubscribe(again)


def test_many_threads_negotiate_on_one_session(pair: Any) -> None:
    sender, receiver = pair
    sources = [ToneSource(frequency=300 + 50 * n) for n in range(6)]
    results: queue.Queue[Any] = queue.Queue()

    def work(source: ToneSource) -> None:
        try:
            track = receiver.subscribe(sender.publish(source.audio, timeout=30), timeout=30)
            results.put(track.frames().get(timeout=20))
        except BaseException as error:
            results.put(error)

    threads = [threading.Thread(target=work, args=(source,)) for source in sources]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    outcomes = [results.get(timeout=20) for _ in threads]
    assert not [o for o in outcomes if isinstance(o, BaseException)]
    for source in sources:
        source.stop()


def test_what_cannot_be_published_leaves_the_session_usable(
    shared_cloud: LocalCloud, pair: Any
) -> None:
    sender, receiver = pair
    with ToneSource(frequency=440) as tone, ToneSource(frequency=880) as over:
        sender.publish(tone.audio)
        over_track = over.audio
        over.stop()
        with pytest.raises(MediaError, match="has ended"):
            sender.publish(over_track)
        with pytest.raises(MediaError, match="has ended"):
            sender.publish([tone.audio, over_track])
        assert len(sender.tracks(str(sender.session_id))) <= 1  # listed with its first packet
        with ToneSource(frequency=660) as another:
            track = receiver.subscribe(sender.publish(another.audio))
            assert track.frames().get(timeout=20) is not None


def test_calls_during_connect_and_close_are_told(shared_cloud: LocalCloud) -> None:
    # Accepts, and says nothing: connect() goes on until close() ends it.
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
        client = SfuClient(app_id="a", secret="b", url=url, timeout=60)
        outcome: queue.Queue[Any] = queue.Queue()

        def connect() -> None:
            try:
                client.connect()
            except BaseException as error:
                outcome.put(error)

        thread = threading.Thread(target=connect)
        thread.start()
        wait_until(lambda: client.state == "connecting")
        with ToneSource(frequency=440) as tone, pytest.raises(NotConnectedError):
            client.publish(tone.audio)
        started = time.monotonic()
        client.close()
        assert isinstance(outcome.get(timeout=20), ClosedError)
        assert time.monotonic() - started < 5
        thread.join(20)


def test_a_timeout_says_whether_the_request_had_left() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
        client = SfuClient(app_id="a", secret="b", url=url)
        expiry = expired(
            lambda timeout: client.connect(timeout=timeout), lambda error: error.sent, first=0.5
        )
        assert expiry.sent
        client.close()


def test_sessions_are_listed_with_their_metadata(shared_cloud: LocalCloud) -> None:
    options = shared_cloud.sfu_options()
    with SfuClient(**options, metadata="door camera") as a, SfuClient(**options) as b:
        listed = {s.session_id: s for s in b.sessions()}
        assert listed[str(a.session_id)].metadata == "door camera"
        assert listed[str(a.session_id)].state == "connected"
        assert str(b.session_id) in listed
        assert b.tracks(str(a.session_id)) == []
        gone = str(a.session_id)
        a.close()
        wait_until(lambda: gone not in [s.session_id for s in b.sessions()], 30)
        with pytest.raises(SfuNotFoundError):
            b.tracks(gone)


def test_a_slow_reader_sees_fresh_pictures_and_an_absent_one_costs_nothing(pair: Any) -> None:
    sender, receiver = pair
    with PatternSource(160, 120, 30) as pattern:
        track = receiver.subscribe(sender.publish(pattern.video))
        track.read(timeout=20)
        frames = track.frames()
        ages = []
        for _ in range(10):
            frames.get(timeout=20)
            ages.append(frames.age)
            time.sleep(0.15)
        assert sorted(ages)[5] < 1
        assert frames.dropped > 5
        assert len(frames) <= 1


# --- closing and failing --------------------------------------------------------------


def test_closing_wakes_readers(pair: Any) -> None:
    sender, receiver = pair
    with PatternSource(160, 120, 15) as pattern:
        track = receiver.subscribe(sender.publish(pattern.video))
        assert track.read(timeout=20) is not None
        pattern.stop()
        frames = track.frames(mode="fifo")
        took: queue.Queue[float] = queue.Queue()

        def read() -> None:
            list(frames)
            took.put(time.monotonic())

        thread = threading.Thread(target=read)
        thread.start()
        closed = time.monotonic()
        receiver.close()
        assert took.get(timeout=20) - closed < 15
        thread.join(20)
        assert track.ended
        with pytest.raises(ClosedError):
            for _ in range(2):  # (a picture that came before the end is still to be had)
                track.read(timeout=1)
        with pytest.raises(ClosedError):
            track.frames().get(timeout=1)
        with pytest.raises(ClosedError):
            receiver.sessions()
        with pytest.raises(ClosedError):
            receiver.connect()
        receiver.close()


def test_states_are_told(shared_cloud: LocalCloud) -> None:
    client = SfuClient(**shared_cloud.sfu_options())
    assert (client.state, client.session_id) == ("idle", None)
    events = client.events(StateChange)
    with pytest.raises(NotConnectedError, match="connect"):
        client.sessions()
    with client:
        assert client.state == "connected"
        client.connect()
    assert [e.to for e in events if isinstance(e, StateChange)] == [
        "connecting",
        "connected",
        "closed",
    ]


def test_a_session_that_the_sfu_ends_wakes_readers_with_the_reason(cloud: LocalCloud) -> None:
    options = cloud.sfu_options()
    with SfuClient(**options) as sender, SfuClient(**options, recover=False) as receiver:
        track = receiver.subscribe(sender.publish(ToneSource(frequency=440).audio))
        frames = track.frames()
        frames.get(timeout=20)
        cloud.faults.kill_sfu_session(str(receiver.session_id))
        with pytest.raises(MeteredError, match="lost"):
            while True:
                frames.get(timeout=60)
        assert receiver.state == "closed"
        with pytest.raises(MeteredError, match="lost"):
            receiver.subscribe("a", "b")


@pytest.mark.parametrize(
    ("options", "kind"),
    [
        ({"secret": "wrong"}, SfuAuthError),
        ({"app_id": "wrong"}, SfuError),
        ({"url": "http://127.0.0.1:9"}, SfuError),
    ],
)
def test_a_refused_connection_says_why(
    shared_cloud: LocalCloud, options: dict[str, str], kind: type[SfuError]
) -> None:
    client = SfuClient(**{**shared_cloud.sfu_options(), **options})
    started = time.monotonic()
    with pytest.raises(kind, match=r"check|no such") as caught:
        client.connect()
    assert time.monotonic() - started < 5
    assert caught.value.endpoint.startswith("POST /api/sfu/")
    assert shared_cloud.sfu_secret not in str(caught.value)
    assert client.state == "idle"
    client.close()


def test_what_is_not_an_sfu(shared_cloud: LocalCloud) -> None:
    # Accepts, and says nothing.
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
        client = SfuClient(app_id="a", secret="b", url=url)
        expiry = expired(
            lambda timeout: client.connect(timeout=timeout), lambda error: "HTTP" in str(error)
        )
        assert "HTTP" in str(expiry)
        client.close()


def test_what_a_client_needs(monkeypatch: pytest.MonkeyPatch, shared_cloud: LocalCloud) -> None:
    for name in ("METERED_SFU_APP_ID", "METERED_SFU_SECRET", "METERED_SFU_URL"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(ValueError, match="METERED_SFU_APP_ID"):
        SfuClient()
    with pytest.raises(ValueError, match="METERED_SFU_SECRET"):
        SfuClient(app_id="x")
    with pytest.raises(ValueError, match="copied whole") as caught:
        SfuClient(app_id="x", secret="HUSH\n")
    assert "HUSH" not in str(caught.value)
    for bad in ({"url": "http://example.com"}, {"url": "https://h/path"}, {"timeout": -1}):
        with pytest.raises(ValueError):
            SfuClient(app_id="x", secret="y", **bad)  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        SfuClient(app_id="x", secret="y", metadata=7)  # type: ignore[arg-type]
    options = shared_cloud.sfu_options()
    monkeypatch.setenv("METERED_SFU_APP_ID", options["app_id"])
    monkeypatch.setenv("METERED_SFU_SECRET", options["secret"])
    monkeypatch.setenv("METERED_SFU_URL", options["url"])
    with SfuClient() as client:
        assert client.session_id


def test_bad_arguments_leave_the_session_usable(pair: Any, tmp_path: Path) -> None:
    sender, receiver = pair
    with pytest.raises(MediaNotFoundError):
        from_file(tmp_path / "missing.mp4")
    with ToneSource(frequency=440) as tone:
        for call, kind in (
            (lambda: sender.publish(tone.video), MediaError),
            (lambda: sender.publish(7), TypeError),
            (lambda: sender.publish(tone.audio, name=""), ValueError),
            (lambda: receiver.subscribe("only-one"), TypeError),
            (lambda: receiver.subscribe(7), TypeError),
            (lambda: receiver.subscribe("no", "such"), SfuNotFoundError),
            (lambda: receiver.tracks(""), ValueError),
            (lambda: receiver.tracks("no such"), SfuNotFoundError),
        ):
            with pytest.raises(kind):
                call()
        assert receiver.subscribe([]) == []
        track = receiver.subscribe(sender.publish(tone.audio))
        for options in ({"mode": "some"}, {"mode": "latest", "maxsize": 4}, {"maxsize": 0}):
            with pytest.raises(ValueError):
                track.frames(**options)
        assert track.frames().get(timeout=10) is not None


def test_a_track_keeps_its_client_alive(shared_cloud: LocalCloud) -> None:
    with SfuClient(**shared_cloud.sfu_options()) as sender, ToneSource(frequency=440) as tone:
        published = sender.publish(tone.audio)

        def watch() -> Any:
            client = SfuClient(**shared_cloud.sfu_options())
            client.connect()
            return client.subscribe(published)

        track = watch()
        gc.collect()
        assert track.frames().get(timeout=20) is not None
        track._core.owner.close()


def test_track_infos_are_values() -> None:
    info = TrackInfo("s", "t", "name", "video", "1")
    assert info == TrackInfo("s", "t", "name", "video", "1")
    assert len({info, info}) == 1


def test_unsubscribing_after_the_end_is_told(shared_cloud: LocalCloud) -> None:
    with SfuClient(**shared_cloud.sfu_options()) as sfu, PatternSource(160, 120) as pattern:
        track = sfu.subscribe(sfu.publish(pattern))
        sfu.unsubscribe(track)
        sfu.unsubscribe(track)  # repeatable
    with pytest.raises(ClosedError):
        sfu.unsubscribe(track)


def test_a_wrong_app_id_is_told_as_a_wrong_secret_is(shared_cloud: LocalCloud) -> None:
    for wrong in ({"app_id": "app_of_nobody"}, {"secret": "sfu_secret_of_nobody"}):
        client = SfuClient(**{**shared_cloud.sfu_options(), **wrong})
        with pytest.raises(SfuAuthError, match="check the app id and the secret") as caught:
            client.connect()
        assert caught.value.status == 401
        client.close()


def test_an_array_is_no_track_and_is_not_printed_whole(pair: Any) -> None:
    sender, _ = pair
    array = np.zeros((480, 640, 3), np.uint8)
    for call in (lambda: sender.publish(array), lambda: sender.publish([array])):
        with pytest.raises(TypeError, match="a track or a source is needed") as caught:
            call()
        assert len(str(caught.value)) < 400


LATE_STEP = 3
"""Of the moments at which Ctrl-C may come late, every how manieth is tried."""


@pytest.mark.parametrize("what", ["publish", "subscribe"])
def test_ctrl_c_that_comes_when_all_is_done_leaves_nothing(
    shared_cloud: LocalCloud, what: str
) -> None:
    options = shared_cloud.sfu_options()
    timings = dataclasses.replace(DEFAULT_TIMINGS, watch=60)
    with (
        PatternSource(64, 48, 5) as pattern,
        SfuClient(**options) as other,
        SfuClient(**options, _timings=timings) as client,
    ):
        theirs = other.publish(pattern.video)
        ours, track = client.publish(pattern.video), client.subscribe(theirs)
        link: Any = client._link
        made = link.outgoing if what == "publish" else link.incoming
        moments = 0

        def interrupt(frame: FrameType, event: str, _: object) -> None:
            """Interrupt our code at the n-th moment from which on the engine is done."""
            nonlocal moments
            in_ours = frame.f_globals.get("__name__", "").startswith("metered_sync")
            if event in ("call", "c_return") and in_ours and len(made) > 1:
                moments += 1
                if moments == at:
                    raise KeyboardInterrupt

        for at in range(1, 200, LATE_STEP):
            moments = 0
            sys.setprofile(interrupt)
            try:
                client.publish(pattern.video) if what == "publish" else client.subscribe(theirs)
            except KeyboardInterrupt:
                wait_until(lambda: len(made) == 1, 20, "nothing is left of the call")
            finally:
                sys.setprofile(None)
            if moments < at:
                break
        assert at > 2 * LATE_STEP
        assert track.read(timeout=20) is not None
        assert ours in client._publications


def test_tracks_that_are_not_known_are_named_with_what_lists_those_that_are(
    shared_cloud: LocalCloud,
) -> None:
    options = shared_cloud.sfu_options()
    with (
        SfuClient(**options) as sender,
        SfuClient(**options) as receiver,
        PatternSource(64, 48, 5) as pattern,
    ):
        camera = sender.publish(pattern.video, name="camera")
        for session_id, track_id in (("nobody", "x"), (camera.session_id, camera.name)):
            with pytest.raises(SfuNotFoundError) as caught:
                receiver.subscribe(session_id, track_id)
            asked = f"asked for: track {track_id!r} of session {session_id!r}. tracks(session_id) "
            assert asked in str(caught.value)
            assert caught.value.status == 404
            assert caught.value.endpoint.startswith("POST /api/sfu/")
        assert receiver.subscribe(camera).read(timeout=20) is not None  # nothing else is lost
