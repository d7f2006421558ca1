"""Test what rooms over the SFU do otherwise than a mesh, and the traps of their convention."""

from __future__ import annotations

import dataclasses
import functools
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

import pytest

from metered_sync import (
    Data,
    MediaError,
    MediaStream,
    MeteredPeer,
    MeteredTimeoutError,
    NegotiationError,
    PeerJoined,
    PeerLeft,
    RemoteTrack,
    ServerError,
    SfuAuthError,
    SfuClient,
    SfuMedia,
    SpeakersChanged,
    Track,
    TrackEnded,
)
from metered_sync.engine.sfu_rooms import messages, room_track
from metered_sync.local import LocalCloud
from metered_sync.testing import ToneSource, read_number
from metered_sync.wire.timings import DEFAULT_TIMINGS
from tests.conftest import wait_until
from tests.support.outage import outage
from tests.support.raw_client import Raw, raw
from tests.support.rooms import FAST, pattern
from tests.support.rooms import peer as any_peer
from tests.support.scripted_sfu import ScriptedSfu

peer = functools.partial(any_peer, through="sfu")
SOON = dataclasses.replace(DEFAULT_TIMINGS, room_limbo=1.0, room_ask=0.3, room_search=3.0)


def way(cloud: LocalCloud, scripted: ScriptedSfu) -> SfuMedia:
    """Return the way to the SFU that leads through a scripted one."""
    return SfuMedia(app_id=cloud.sfu_app_id, secret=cloud.sfu_secret, url=scripted.url)


def received(one: MeteredPeer) -> list[str]:
    """Return the ids of the tracks that a peer receives now."""
    link: Any = one._link
    return [track.id for track in link.media._receiver.received]


def published(cloud: LocalCloud, one: MeteredPeer) -> str:
    """Return the session in which a peer publishes."""
    link: Any = one._link
    wait_until(lambda: link.media._publisher.session_id is not None, 20)
    return str(link.media._publisher.session_id)


def state(boot: str, rev: Any, *tracks: dict[str, Any], session: Any = "s", **more: Any) -> Any:
    return {"$sfu": 1, "boot": boot, "rev": rev, "session": session, "tracks": list(tracks), **more}


def track(id: str, kind: str = "video", **more: Any) -> dict[str, Any]:
    return {
        "id": id,
        "kind": kind,
        "stream": "camera",
        "name": id,
        "on": True,
        "meta": None,
        **more,
    }


@pytest.fixture
def ann_and_bob(cloud: LocalCloud, room: str) -> Iterator[tuple[MeteredPeer, MeteredPeer]]:
    with peer(cloud, "ann", _timings=SOON) as ann, peer(cloud, "bob", _timings=SOON) as bob:
        ann.join(room)
        bob.join(room)
        yield ann, bob


@pytest.fixture
def stranger(cloud: LocalCloud, room: str) -> Iterator[Raw]:
    """A member that says whatever a test wants it to."""
    with raw(cloud, "eve", channels=[room]) as client:
        client.ask(type="subscribe", channel=room, requestId="1")
        yield client


def tell(client: Raw, peer_id: str, data: Any) -> None:
    client.send(type="send", to=peer_id, data=data, requestId="x")


# --- what is received -----------------------------------------------------------------


def test_a_track_is_received_while_somebody_reads_it(
    shared_cloud: LocalCloud, room: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room_track, "LINGER", 1.0)
    with (
        pattern() as source,
        peer(shared_cloud, "ann") as ann,
        peer(shared_cloud, "bob") as bob,
    ):
        ann.add_track(source, MediaStream(id="camera"), {"role": "camera"})
        ann.join(room)
        bob.join(room)
        there = bob.wait_for_peer(timeout=20)
        shown = there.track("video", timeout=20)
        assert (shown.stream_id, shown.metadata, there.pc) == ("camera", {"role": "camera"}, None)
        assert there.state == "connected"
        assert received(bob) == []
        link: Any = bob._link
        assert link.media._receiver.session is None  # no session for what nobody reads
        for read in (
            lambda: shown.read(timeout=20),
            lambda: shown.snapshot(timeout=20),
            lambda: shown.frames().get(timeout=20),  # and collected
        ):
            read()
            assert received(bob) == [shown.id]
            wait_until(lambda: received(bob) == [], 20)
        callback = shown.on_frame(lambda frame: None)
        wait_until(lambda: received(bob) == [shown.id], 20)
        time.sleep(1.5)
        assert received(bob) == [shown.id]  # for as long as it is there
        shown.read(timeout=20)
        callback.close()
        wait_until(lambda: received(bob) == [], 20)
        assert shown.restarts == 0
        let_go = time.monotonic()
        number = read_number(shown.read(timeout=20))  # not the last one from before
        assert number is not None
        assert (source.captured(number) or 0.0) > let_go


def test_the_user_decides_what_is_received_unread(shared_cloud: LocalCloud, room: str) -> None:
    def only_screens(track: RemoteTrack) -> bool:
        return track.metadata == {"role": "screen"}

    with ExitStack() as stack:
        ann = stack.enter_context(peer(shared_cloud, "ann"))
        for role in "camera", "screen":
            ann.add_track(stack.enter_context(pattern()), metadata={"role": role})
        ann.join(room)
        wanted: dict[str, tuple[Any, int]] = {
            "every": ("all", 2),
            "nobody": ("none", 0),
            "some": (only_screens, 1),
        }
        for name, (subscribe, count) in wanted.items():
            one = stack.enter_context(peer(shared_cloud, name, subscribe=subscribe))
            one.join(room)
            there = one.wait_for_peer("ann", timeout=20)
            wait_until(lambda there=there: len(there.tracks) == 2, 20)
            wait_until(lambda one=one, count=count: len(received(one)) == count, 20)
            if subscribe == "none":
                with pytest.raises(MediaError, match='subscribe="none"'):
                    there.tracks[0].read(timeout=5)
            else:
                screen = there.track(metadata={"role": "screen"}, timeout=20)
                assert read_number(screen.read(timeout=20)) >= 0


def test_no_more_pictures_than_asked_for(shared_cloud: LocalCloud, room: str) -> None:
    with ExitStack() as stack:
        bob = stack.enter_context(peer(shared_cloud, "bob", max_video=2))
        bob.join(room)
        for name in "ann", "cyd", "dan":
            one = stack.enter_context(peer(shared_cloud, name))
            one.add_track(stack.enter_context(pattern()))
            one.join(room)
        tracks = {
            name: bob.wait_for_peer(name, timeout=20).track("video", timeout=20)
            for name in ("ann", "cyd", "dan")
        }
        readers = {name: tracks[name].frames() for name in ("ann", "cyd")}
        wait_until(lambda: set(received(bob)) == {tracks["ann"].id, tracks["cyd"].id}, 20)
        tracks["dan"].read(timeout=20)  # the latest reader comes first
        wait_until(lambda: set(received(bob)) == {tracks["cyd"].id, tracks["dan"].id}, 20)
        with pytest.raises(MeteredTimeoutError):  # what is beyond waits, and fails of nothing else
            while True:
                readers["ann"].get(timeout=0.5)
        tracks["ann"].read(timeout=20)


def test_those_who_speak_come_first(shared_cloud: LocalCloud, room: str) -> None:
    with (
        ToneSource(440) as tone,
        pattern() as one,
        pattern() as two,
        peer(shared_cloud, "ann") as ann,
        peer(shared_cloud, "cyd") as cyd,
        peer(shared_cloud, "bob", max_video=1) as bob,
        bob.events(SpeakersChanged) as changes,
    ):
        ann.add_track(one)
        cyd.add_track(two)
        for member in ann, cyd, bob:
            member.join(room)
        silent = bob.wait_for_peer("cyd", timeout=20).track("video", timeout=20)
        loud = bob.wait_for_peer("ann", timeout=20).track("video", timeout=20)
        keeps = loud.frames(), silent.frames()
        wait_until(lambda: received(bob) == [silent.id], 20)  # opened last
        assert bob.speakers == []
        ann.add_track(tone)
        assert changes.get(timeout=20) == SpeakersChanged(("ann",))
        assert bob.speakers == ["ann"]
        wait_until(lambda: received(bob) == [loud.id], 20)
        sound = bob.wait_for_peer("ann").track("audio", timeout=20)
        with sound.frames():  # measured, where it is received
            wait_until(lambda: sound.id in received(bob), 20)
            ann.remove_track(tone)
            assert changes.get(timeout=20) == SpeakersChanged(())
        assert keeps[0].dropped >= 0


def test_a_source_in_a_room_and_on_the_sfu_is_encoded_once(
    shared_cloud: LocalCloud, room: str
) -> None:
    with (
        pattern() as source,
        peer(shared_cloud, "ann") as ann,
        peer(shared_cloud, "bob") as bob,
        SfuClient(**shared_cloud.sfu_options()) as sfu,
        SfuClient(**shared_cloud.sfu_options()) as viewer,
    ):
        ann.add_track(source)
        ann.join(room)
        bob.join(room)
        publication = sfu.publish(source, name=f"{room}/camera")
        shown = viewer.subscribe(viewer.wait_for_track(name=f"{room}/camera", timeout=20))
        in_room = bob.wait_for_peer("ann", timeout=20).track("video", timeout=20)
        assert read_number(in_room.read(timeout=20)) >= 0
        assert read_number(shown.read(timeout=20)) >= 0
        ((_, local),) = ann._sent._sent.values()
        assert len(local.encoders) == 1
        publication.close()
        in_room.read(timeout=20)
        ann.close()
        assert source.video.readyState == "live"


def test_both_open_data_channels_at_once(shared_cloud: LocalCloud, room: str) -> None:
    with (
        peer(shared_cloud, "ann") as ann,
        peer(shared_cloud, "bob") as bob,
        ThreadPoolExecutor() as threads,
    ):
        ann.join(room)
        bob.join(room)
        there, back = bob.wait_for_peer(timeout=20), ann.wait_for_peer(timeout=20)
        opening = [
            threads.submit(one.create_data_channel, one.id, timeout=20) for one in (there, back)
        ]
        for one, number in zip([one.result(30) for one in opening], (0, 1), strict=True):
            one.send(f"message {number}")
        wait_until(lambda: len(there.channels) == len(back.channels) == 2, 20)
        texts = {c.get(timeout=20) for r in (there, back) for c in r.channels if c.label != r.id}
        assert texts == {"message 0", "message 1"}


# --- outages --------------------------------------------------------------------------


def test_signalling_drops_do_not_touch_media(cloud: LocalCloud, room: str) -> None:
    with (
        pattern() as source,
        peer(cloud, "ann") as ann,
        peer(cloud, "bob") as bob,
        bob.events(PeerJoined, PeerLeft) as presence,
    ):
        ann.add_track(source)
        ann.join(room)
        bob.join(room)
        there = bob.wait_for_peer(timeout=20)
        shown = there.track("video", timeout=20)
        frames = shown.frames(mode="fifo", maxsize=500)
        frames.get(timeout=20)
        assert isinstance(presence.get(timeout=20), PeerJoined)
        for lost in ("ann",), ("bob",), (None,):
            with outage(cloud, *(ann, bob) if lost == (None,) else (), peer_id=lost[0]):
                for _ in range(15):  # 1.5 s
                    frames.get(timeout=20)
                assert there.state == "connected"
                assert bob.remote_peers == [there]
            wait_until(lambda: ann.state == bob.state == "joined", 20)
        for _ in range(5):
            frames.get(timeout=20)
        assert (shown.restarts, shown.ended, len(presence)) == (0, False, 0)
        assert bob.wait_for_peer("ann").track("video") is shown


def test_sfu_losses_do_not_touch_presence(cloud: LocalCloud, room: str) -> None:
    with (
        pattern() as source,
        peer(cloud, "ann") as ann,
        peer(cloud, "bob") as bob,
        bob.events(PeerLeft) as events,
    ):
        ann.add_track(source)
        ann.join(room)
        bob.join(room)
        there = bob.wait_for_peer(timeout=20)
        shown = there.track("video", timeout=20)
        frames = shown.frames()
        frames.get(timeout=20)
        # The publisher's session, by which the track gets another id; then the receiver's.
        before = shown.id
        cloud.faults.kill_sfu_session(published(cloud, ann))
        wait_until(lambda: shown.id != before and shown.restarts == 1, 20)
        frames.get(timeout=20)
        link: Any = bob._link
        cloud.faults.kill_sfu_session(link.media._receiver.session.id)
        wait_until(lambda: shown.restarts == 2, 20)
        frames.get(timeout=20)
        assert there.track("video") is shown
        assert (there.state, bob.remote_peers, len(events)) == ("connected", [there], 0)


@pytest.mark.parametrize("first", ["signalling", "sfu"])
def test_both_lost_at_once_end_in_the_same_state(cloud: LocalCloud, room: str, first: str) -> None:
    with pattern() as source, peer(cloud, "ann") as ann, peer(cloud, "bob") as bob:
        ann.add_track(source)
        ann.join(room)
        bob.join(room)
        there = bob.wait_for_peer(timeout=20)
        shown = there.track("video", timeout=20)
        frames = shown.frames()
        frames.get(timeout=20)
        session, receiving = published(cloud, ann), bob._link
        assert receiving is not None
        media: Any = receiving.media
        with outage(cloud, ann, bob):
            cloud.faults.kill_sfu_session(session)
            cloud.faults.kill_sfu_session(media._receiver.session.id)
            if first == "sfu":  # its publisher is back before the others can be told
                wait_until(lambda: published(cloud, ann) != session, 20)
        wait_until(lambda: ann.state == bob.state == "joined", 20)
        wait_until(lambda: published(cloud, ann) != session, 20)
        wait_until(lambda: shown.restarts >= 1, 20)
        for _ in range(3):
            frames.get(timeout=20)
        assert bob.wait_for_peer("ann") is there
        assert there.track("video") is shown


def test_who_is_away_for_long_has_left(cloud: LocalCloud, room: str) -> None:
    with (
        pattern() as source,
        peer(cloud, "ann", reconnect=False) as ann,
        peer(cloud, "bob", _timings=SOON) as bob,
    ):
        ann.add_track(source)
        ann.join(room)
        bob.join(room)
        there = bob.wait_for_peer(timeout=20)
        shown = there.track("video", timeout=20)
        with bob.events(PeerLeft) as leaves, there.events(TrackEnded) as ends:
            dropped = time.monotonic()
            cloud.faults.drop_connections("ann")
            assert leaves.get(timeout=20).peer is there
            assert time.monotonic() - dropped > 0.9 * SOON.room_limbo
            assert ends.get(timeout=20) == TrackEnded(shown)
        assert (bob.remote_peers, there.state) == ([], "closed")


def test_tracks_move_with_a_member_that_comes_back_as_another(
    cloud: LocalCloud, room: str, stranger: Raw
) -> None:
    with (
        pattern() as source,
        SfuClient(**cloud.sfu_options()) as sfu,
        peer(cloud, "bob", _timings=dataclasses.replace(SOON, room_limbo=30.0)) as bob,
    ):
        publication = sfu.publish(source, name="cam")
        bob.join(room)
        old = bob.wait_for_peer("eve", timeout=20)
        said = state(
            "boot", 1, track(publication.track_id, name="cam"), session=publication.session_id
        )
        tell(stranger, "bob", said)
        shown = old.track("video", timeout=20)
        frames = shown.frames()
        frames.get(timeout=20)
        with raw(cloud, "eve-2", channels=[room]) as again, bob.events(PeerLeft) as leaves:
            again.ask(type="subscribe", channel=room, requestId="1")
            new = bob.wait_for_peer("eve-2", timeout=20)
            tell(again, "bob", said)  # while the other one is there: it keeps them
            wait_until(lambda: new.state == "connected", 20)
            assert (new.tracks, old.tracks) == ([], [shown])
            stranger.connection.close()
            assert leaves.get(timeout=20).peer is old  # and now they are the new one's
            wait_until(lambda: new.tracks == [shown], 20)
            frames.get(timeout=20)
            assert (shown.restarts, shown.ended) == (0, False)


# --- strangers ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "nonsense",
    [
        {"$sfu": 2, "boot": "b", "rev": 1, "tracks": []},
        {"$sfu": 1},
        {"$sfu": 1, "ask": 1},
        {"$sfu": 1, "watch": "all"},
        state("b" * 65, 1),
        state("b", True),
        state("b", 1.5),
        state("b", 2**53),
        state("b", -1),
        state("b", "1"),
        state(7, 1),  # type: ignore[arg-type]
        state("b", 1, session=7),
        {**state("b", 1), "tracks": {}},
    ],
)
def test_messages_of_other_types_are_ignored(nonsense: Any) -> None:
    assert messages.parse_room_message(nonsense) is None
    assert messages.is_room_message(nonsense)  # so that nobody sees it as data


def test_what_a_member_may_claim(
    cloud: LocalCloud, room: str, stranger: Raw, caplog: pytest.LogCaptureFixture
) -> None:
    with peer(cloud, "bob", _timings=SOON, subscribe="all") as bob:
        bob.join(room)
        there = bob.wait_for_peer("eve", timeout=20)
        many = [track(f"t{n}", "audio" if n % 2 else "video") for n in range(500)]
        odd = [7, track("x", "smell"), track(""), {**track("y"), "id": None}, track("z" * 999)]
        tell(stranger, "bob", state("b", 3, *odd, *many))  # type: ignore[arg-type]
        wait_until(lambda: len(there.tracks) == messages.MAX_STATE_TRACKS, 20)
        tell(stranger, "bob", state("b", 2))  # older: ignored
        tell(stranger, "bob", state("b", 4, *many))
        large = [track(f"t{n}", meta={"text": "x" * 2000}) for n in range(10)]
        tell(stranger, "bob", state("b", 5, *large))
        wait_until(lambda: 0 < len(there.tracks) < 5, 20)
        assert caplog.text.count("than a room takes of one member") == 1
        with there.events(Track) as events, bob.events(Data) as data:
            tell(stranger, "bob", state("other", 0, track("new")))  # begun anew
            assert events.get(timeout=20).track.id == "new"
            tell(stranger, "bob", "hello")
            assert data.get(timeout=20).data == "hello"
        assert there.state == "connected"


def test_a_track_that_the_sfu_does_not_have(cloud: LocalCloud, room: str, stranger: Raw) -> None:
    with (
        pattern() as source,
        SfuClient(**cloud.sfu_options()) as sfu,
        peer(cloud, "bob", _timings=SOON) as bob,
    ):
        there_is = sfu.publish(source, name="cam")
        bob.join(room)
        there = bob.wait_for_peer("eve", timeout=20)
        session = there_is.session_id
        missing = [track(f"missing-{n}", name=f"missing-{n}") for n in range(3)]
        said = [*missing, track(there_is.track_id, name="cam")]
        with there.events(NegotiationError) as errors:
            tell(stranger, "bob", state("b", 1, *said, session=session))
            wait_until(lambda: len(there.tracks) == 4, 20)
            readers = [one.frames() for one in there.tracks]
            readers[3].get(timeout=20)  # one that is missing does not hold up the others
            asked = [stranger.receive() for _ in range(2)]
            while not any(one.get("data", {}).get("ask") for one in asked):
                asked.append(stranger.receive())
            error = errors.get(timeout=20).err
            assert "does not have the video track 'missing-" in str(error)
        # The next state is a new try.
        again = sfu.publish(source, name="later")
        moved = track(again.track_id, name="missing-0")
        tell(stranger, "bob", state("b", 2, moved, *said[1:], session=session))
        readers[0].get(timeout=20)


@pytest.mark.parametrize("there_is", [False, True], ids=["refused", "received"])
def test_a_state_that_comes_while_a_track_is_subscribed_to_counts(
    cloud: LocalCloud, room: str, stranger: Raw, there_is: bool
) -> None:
    timings = dataclasses.replace(SOON, room_search=0.0)  # given up with the second attempt
    with (
        ScriptedSfu(cloud.http_url) as scripted,
        pattern() as before,
        pattern(320, 240) as after,
        SfuClient(**cloud.sfu_options()) as sfu,
        peer(cloud, "bob", _timings=timings, media=way(cloud, scripted)) as bob,
    ):
        old, new = sfu.publish(before, name="old"), sfu.publish(after, name="new")
        first = track(old.track_id if there_is else "missing", name="cam")
        then = track(new.track_id, name="cam")
        bob.join(room)
        there = bob.wait_for_peer("eve", timeout=20)
        attempts = 0

        def meanwhile(status: int, answer: Any) -> Any:
            nonlocal attempts
            attempts += 1
            if attempts == (1 if there_is else 2):
                tell(stranger, "bob", state("b", 2, then, session=new.session_id))
                wait_until(lambda: there.tracks[0].id == new.track_id, 20)
            return status, answer

        scripted.spoil["track/subscribe"] = meanwhile
        tell(stranger, "bob", state("b", 1, first, session=old.session_id))
        shown = there.track("video", timeout=20)
        with shown.frames() as frames:
            wait_until(lambda: frames.get(timeout=20).width == 320, 20)


def test_a_mesh_member_is_not_answered(
    cloud: LocalCloud, room: str, caplog: pytest.LogCaptureFixture
) -> None:
    with (
        pattern() as source,
        any_peer(cloud, "meshed") as meshed,
        peer(cloud, "bob") as bob,
        meshed.events(Data) as data,
    ):
        bob.add_track(source)
        meshed.add_track(source)
        bob.join(room)
        meshed.join(room)
        there = bob.wait_for_peer("meshed", timeout=20)
        with there.events(NegotiationError) as errors:
            error = errors.get(timeout=20)
            assert "speaks mesh" in str(error.err)
            assert data.get(timeout=20).data["$sfu"] == 1  # harmless
            with pytest.raises(MeteredTimeoutError):
                errors.get(timeout=3)  # once, though it offers again
        assert caplog.text.count("speaks mesh") == 1
        assert (there.state, there.tracks, there.pc) == ("idle", [], None)


def test_without_the_permission_to_send(cloud: LocalCloud, room: str) -> None:
    claims = {"permissions": ["subscribe", "presence", "publish"]}
    with ExitStack() as stack:
        source = stack.enter_context(pattern())
        ann = stack.enter_context(peer(cloud, "ann", claims=claims))
        ann.add_track(source)
        ann.join(room)
        published(cloud, ann)
        for name in "bob", "cyd", "dan":  # they hear of it by a broadcast, whoever has come by then
            one = stack.enter_context(peer(cloud, name, claims=claims))
            one.join(room)
            shown = one.wait_for_peer("ann", timeout=20).track("video", timeout=20)
            assert read_number(shown.read(timeout=20)) >= 0


def test_an_sfu_that_refuses_is_told_once(
    shared_cloud: LocalCloud, room: str, caplog: pytest.LogCaptureFixture
) -> None:
    wrong = SfuMedia(
        app_id=shared_cloud.sfu_app_id, secret="not-our-secret", url=shared_cloud.http_url
    )
    with (
        pattern() as source,
        peer(shared_cloud, "ann") as ann,
        MeteredPeer(
            **shared_cloud.token_options("bob"), ice_servers=[], reconnect=FAST, media=wrong
        ) as bob,
        bob.events(ServerError) as errors,
    ):
        ann.add_track(source)
        ann.join(room)
        bob.join(room)
        shown = bob.wait_for_peer("ann", timeout=20).track("video", timeout=20)
        with pytest.raises(SfuAuthError):
            shown.read(timeout=20)
        error = errors.get(timeout=20)
        assert error.code == "sfu_refused"
        assert "not-our-secret" not in caplog.text


def test_what_the_room_is_made_with(shared_cloud: LocalCloud, monkeypatch: Any) -> None:
    for name in "METERED_SFU_APP_ID", "METERED_SFU_SECRET", "METERED_SFU_URL":
        monkeypatch.delenv(name, raising=False)
    options = shared_cloud.token_options("ann")
    with pytest.raises(ValueError, match="SfuMedia needs app_id"):
        MeteredPeer(**options, media="sfu")
    for name, value in shared_cloud.sfu_options().items():
        monkeypatch.setenv(f"METERED_SFU_{name.upper()}", value)
    assert MeteredPeer(**options, media="sfu").speakers == []
    for bad in "SFU", None, 7:
        with pytest.raises(ValueError, match="media must be"):
            MeteredPeer(**options, media=bad)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="subscribe must be"):
        MeteredPeer(**options, subscribe="some")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="max_video"):
        MeteredPeer(**options, max_video=-1)
    with pytest.raises(ValueError, match="gate="):
        SfuMedia(gate="https://my.app", app_id="x")
    media = SfuMedia(**shared_cloud.sfu_options())
    assert shared_cloud.sfu_secret not in repr(media) + repr(vars(MeteredPeer(**options)))
