"""Test rooms between peers of this library, on the local cloud and loopback."""

from __future__ import annotations

import dataclasses
import queue
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import numpy as np
import pytest
from aiortc import RTCIceServer

from metered_sync import (
    ClosedError,
    ConnectionReset,
    Data,
    DataChannelOpened,
    Disconnected,
    DisconnectedError,
    FatalError,
    IceServer,
    Joined,
    Left,
    MediaStream,
    MeteredPeer,
    MeteredPeerSendError,
    MeteredPeerStateError,
    MeteredTimeoutError,
    PeerJoined,
    PeerLeft,
    ServerRequestError,
    SfuMedia,
    StateChange,
    StreamAdded,
    StreamRemoved,
    Track,
)
from metered_sync.local import LocalCloud
from metered_sync.testing import ToneSource, dominant_frequency, read_number
from metered_sync.wire.timings import DEFAULT_TIMINGS
from tests.conftest import wait_until
from tests.support.outage import outage
from tests.support.rooms import PeerFactory, pattern, peer

BRIEF = dataclasses.replace(DEFAULT_TIMINGS, limbo=0.5, room_limbo=0.5)
"""Members that have gone are forgotten soon."""


@pytest.fixture
def room(request: pytest.FixtureRequest) -> str:
    """A channel of the test's own."""
    return f"room/{request.node.name}"


# --- what a peer is made with ---------------------------------------------------------


@pytest.mark.parametrize(
    "servers",
    [
        [{"urls": "stun:127.0.0.1:1"}],
        [{"urls": ["stun:127.0.0.1:1"]}, RTCIceServer("stun:127.0.0.1:2")],
        "stun:127.0.0.1:1",
        [IceServer("stun:127.0.0.1:1")],  # type: ignore[arg-type]
    ],
)
def test_servers_as_browsers_write_them(shared_cloud: LocalCloud, room: str, servers: Any) -> None:
    with (
        pattern() as source,
        peer(shared_cloud, "ann", ice_servers=servers, gather_timeout=0.1) as ann,
        peer(shared_cloud, "bob") as bob,
        ann.events(Disconnected) as losses,
    ):
        ann.add_track(source.video)
        ann.join(room)
        bob.join(room)
        assert bob.wait_for_peer(timeout=20).track(timeout=20).read(timeout=20).any()
        assert len(losses) == 0


# --- joining --------------------------------------------------------------------------


def test_peers_see_each_other_come_and_go(
    shared_cloud: LocalCloud, room: str, peer: PeerFactory
) -> None:
    claims = {"peer_metadata": {"name": "Ann"}}
    with peer(shared_cloud, "ann", claims=claims, _timings=BRIEF) as ann:
        assert (ann.state, ann.peer_id, ann.channel, ann.remote_peers) == ("idle", None, None, [])
        with ann.events(Joined, PeerJoined, PeerLeft, Left, StateChange) as events:
            ann.join(room)
            assert (ann.state, ann.peer_id, ann.channel) == ("joined", "ann", room)
            assert events.get(timeout=20) == StateChange("idle", "joining")
            assert events.get(timeout=20) == StateChange("joining", "joined")
            assert events.get(timeout=20) == Joined("ann", room)
            with peer(shared_cloud, "bob") as bob:
                bob.join(room)
                there = bob.wait_for_peer(timeout=20)
                assert (there.id, there.metadata, there.state) == ("ann", {"name": "Ann"}, "idle")
                assert bob.wait_for_peer("ann") is there
                assert bob.remote_peers == [there]
                came = events.get(timeout=20)
                assert isinstance(came, PeerJoined)
                assert came.peer.id == "bob"
                assert ann.wait_for_peer("bob", timeout=20) is came.peer
            left = events.get(timeout=20)
            assert isinstance(left, PeerLeft)
            assert left.peer is came.peer
            wait_until(lambda: came.peer.state == "closed")
            assert ann.remote_peers == []
            ann.close(reason="enough")
            assert [type(e).__name__ for e in events] == ["StateChange", "Left", "StateChange"]
        assert ann.state == "closed"


@pytest.mark.parametrize("servers", [None, [], "stun:127.0.0.1:3478"])
def test_the_way_to_the_sfu_needs_a_relay_of_ours_to_have_relays_only(
    shared_cloud: LocalCloud, servers: Any
) -> None:
    options = {**shared_cloud.client_options(), "media": SfuMedia(**shared_cloud.sfu_options())}
    with pytest.raises(
        ValueError, match=r"relay_only=True needs a TURN server.* ice_servers: pass"
    ):
        MeteredPeer(**options, relay_only=True, ice_servers=servers)
    relay = {"urls": "turns:127.0.0.1:3478", "username": "u", "credential": "c"}
    MeteredPeer(**options, relay_only=True, ice_servers=relay)
    MeteredPeer(**options, ice_servers=servers)


@pytest.mark.parametrize(
    ("named", "given", "told"),
    [
        ("stun:127.0.0.1:3478", None, "the service names none"),
        ("turn:127.0.0.1:3478", None, None),
        ("turn:127.0.0.1:3478", [], "ice_servers has none"),
        ("stun:127.0.0.1:3478", ["stun:127.0.0.1:3478"], "ice_servers has none"),
    ],
)
def test_relays_only_without_a_relay_is_told_of_at_joining(
    named: str, given: Any, told: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    """It is not refused: another welcome may name one, and messages need none."""
    with (
        LocalCloud(ice_servers=[named]) as cloud,
        MeteredPeer(**cloud.token_options("ann"), relay_only=True, ice_servers=given) as ann,
    ):
        ann.join("relays")
    said = "relay_only=True needs a TURN server, and " in caplog.text
    assert said == (told is not None)
    assert (told or "") in caplog.text


def test_joining_twice_or_badly_is_told(
    shared_cloud: LocalCloud, room: str, peer: PeerFactory
) -> None:
    with peer(shared_cloud, "ann", claims={"channels": ["room/**"]}) as ann:
        with pytest.raises(MeteredPeerStateError, match="join"):
            ann.wait_for_peer(timeout=0)
        with pytest.raises(MeteredPeerSendError, match="not in a room") as caught:
            ann.send("too early")
        assert caught.value.code == "not_joined"
        with pytest.raises(MeteredPeerSendError) as caught:
            ann.join("_METERED/x")
        assert caught.value.code == "reserved_channel"
        with pytest.raises(ServerRequestError) as refused:
            ann.join("elsewhere")
        assert refused.value.code == "channel_not_authorized"
        assert (ann.state, ann.channel) == ("idle", None)
        ann.join(room)  # a join that failed may be repeated
        with pytest.raises(MeteredPeerStateError, match="one room"):
            ann.join(room)
    with pytest.raises(ClosedError):
        ann.join(room)
    with pytest.raises(ValueError, match="auto_resubscribe"):
        peer(shared_cloud, "ann", auto_resubscribe=False)


def test_a_peer_joins_and_does_not_connect(shared_cloud: LocalCloud) -> None:
    assert not hasattr(MeteredPeer, "connect")
    assert "connect" not in dir(MeteredPeer)
    with peer(shared_cloud, "ann") as ann:
        assert not hasattr(ann, "connect")


def test_joined_is_a_block(shared_cloud: LocalCloud, room: str, peer: PeerFactory) -> None:
    ann = peer(shared_cloud, "ann")
    with ann.joined(room) as same:
        assert same is ann
        assert ann.state == "joined"
    assert ann.state == "closed"


def test_a_key_that_may_not_send_is_told_at_once(room: str) -> None:
    with (
        LocalCloud(permissions=["subscribe", "publish", "presence"]) as cloud,
        MeteredPeer(**cloud.client_options()) as ann,
        MeteredPeer(**cloud.client_options()) as bob,
    ):
        ann.join(room)
        bob.join(room)
        there = ann.wait_for_peer(timeout=20)
        started = time.monotonic()
        for call in (
            lambda: there.track("video", timeout=30),
            lambda: there.wait_connected(timeout=30),
            lambda: there.create_data_channel("x", timeout=30),
            lambda: bob.wait_for_peer(timeout=20).track(timeout=30),
        ):
            with pytest.raises(ServerRequestError, match="Send permission") as caught:
                call()
            assert caught.value.code == "action_not_permitted"
        assert time.monotonic() - started < 10
        ann.send("a broadcast needs Publish only")


def test_a_key_that_may_not_see_is_told(cloud: LocalCloud, room: str) -> None:
    timings = dataclasses.replace(DEFAULT_TIMINGS, reconcile=0.2)
    claims = {"permissions": ["subscribe", "publish", "send"]}
    with peer(cloud, "ann", claims=claims, _timings=timings) as ann:
        ann.join(room)
        with pytest.raises(TimeoutError, match="presence permission"):
            ann.wait_for_peer(timeout=30)


# --- messages -------------------------------------------------------------------------


def test_messages_to_all_and_to_one(shared_cloud: LocalCloud, room: str, peer: PeerFactory) -> None:
    with peer(shared_cloud, "ann") as ann, peer(shared_cloud, "bob") as bob:
        ann.join(room)
        bob.join(room, include_sender_metadata=True)
        there = bob.wait_for_peer(timeout=20)
        with ann.events(Data) as events, bob.events(Data) as own:
            bob.send({"to": "all"})
            assert events.get(timeout=20) == Data("bob", {"to": "all"}, "broadcast", None)
            there.send([1, None])
            assert events.get(timeout=20) == Data("bob", [1, None], "direct", None)
            bob.send_to("ann", "direct")
            assert events.get(timeout=20).data == "direct"
            assert len(own) == 0
        with pytest.raises(MeteredPeerSendError) as caught:
            bob.send_to("bob", 1)
        assert caught.value.code == "self_send"


# --- media ----------------------------------------------------------------------------


def test_video_both_ways_and_late_tracks(
    shared_cloud: LocalCloud, room: str, peer: PeerFactory
) -> None:
    with (
        pattern() as one,
        pattern(320, 240) as two,
        peer(shared_cloud, "ann") as ann,
        peer(shared_cloud, "bob") as bob,
    ):
        ann.add_track(one.video)  # before joining
        ann.join(room)
        bob.join(room)
        at_bob = bob.wait_for_peer("ann", timeout=20)
        track = at_bob.track("video", timeout=20)
        assert track.read(timeout=20).shape == (120, 160, 3)
        bob.add_track(two.video)  # into a running connection
        at_ann = ann.wait_for_peer("bob")
        assert at_ann.track("video", timeout=20).read(timeout=20).shape == (240, 320, 3)
        numbers = [read_number(f.to_ndarray(format="bgr24")) for f in _some(track, 5)]
        assert numbers == sorted(set(numbers))
        assert at_bob.state == at_ann.state == "connected"
        assert at_bob.track("video") is track
        at_bob.wait_connected(timeout=0)
        with pytest.raises(MeteredTimeoutError, match="audio track of 'ann'"):
            at_bob.track("audio", timeout=0.05)


def test_streams_have_ids_and_metadata(
    shared_cloud: LocalCloud, room: str, peer: PeerFactory
) -> None:
    with (
        pattern() as video,
        ToneSource(440) as tone,
        peer(shared_cloud, "ann") as ann,
        peer(shared_cloud, "bob") as bob,
    ):
        bob.join(room)
        stream = MediaStream([video.video, tone.audio], id="camera")
        ann.add_stream(stream, metadata={"role": "camera"})
        joined = bob.events(PeerJoined)
        ann.join(room)
        there = joined.get(timeout=20).peer
        track = there.track("video", stream_id="camera", timeout=20)
        assert (track.stream_id, track.metadata) == ("camera", {"role": "camera"})
        assert (track.id == video.video.id) is (there.pc is not None)  # the SFU's are its own
        sound = there.track("audio", timeout=20)
        frames = sound.frames()
        heard = [frames.get(timeout=20) for _ in range(30)][10:]
        samples = np.concatenate([frame.to_ndarray().reshape(-1)[::2] for frame in heard])
        assert dominant_frequency(samples, 48000) == pytest.approx(440, abs=25)
        assert [s.id for s in there.streams] == ["camera"]
        with there.events(StreamRemoved, StreamAdded, Track) as events:
            ann.remove_stream(stream)
            removed = events.get(timeout=20)
            assert isinstance(removed, StreamRemoved)
            assert removed.stream.id == "camera"
            assert there.tracks == []
            ann.add_stream(stream, metadata={"role": "again"})
            assert isinstance(events.get(timeout=20), Track)
            added = [events.get(timeout=20), events.get(timeout=20)]
            assert any(isinstance(e, StreamAdded) and e.stream.id == "camera" for e in added)
        again = there.track("video", timeout=20)
        assert again.metadata == {"role": "again"}
        assert again.read(timeout=20).shape == (120, 160, 3)


def test_the_metadata_that_is_sent(shared_cloud: LocalCloud, peer: PeerFactory) -> None:
    with (
        pattern() as one,
        pattern() as two,
        ToneSource(440) as tone,
        peer(shared_cloud, "ann") as ann,
    ):
        camera = MediaStream([one.video, tone.audio], id="camera")
        given = {"role": "camera", "tags": ["a"]}
        ann.add_stream(camera, metadata=given)
        ann.add_track(two.video)
        for track in camera.tracks:
            assert ann.get_track_metadata(track) == {"role": "camera", "tags": ["a"]}
        assert ann.get_track_metadata(two.video) is None
        assert ann.get_stream_metadata(camera) == given
        assert ann.get_stream_metadata(MediaStream(id="other")) is None
        ann.get_track_metadata(one.video)["tags"].append("b")
        assert ann.get_stream_metadata(camera) == given
        ann.remove_track(one.video)
        assert ann.get_track_metadata(one.video) is None
        assert ann.get_stream_metadata(camera) == given
        with pytest.raises(TypeError):
            ann.get_track_metadata("camera")
        with pytest.raises(TypeError, match=r"the metadata cannot .* \(at metadata\['at'\]: "):
            ann.add_track(one.video, metadata={"at": {1, 2}})


def test_replacing_a_track_keeps_frames_flowing(
    shared_cloud: LocalCloud, room: str, peer: PeerFactory
) -> None:
    with (
        pattern() as one,
        pattern(320, 240) as two,
        peer(shared_cloud, "ann") as ann,
        peer(shared_cloud, "bob") as bob,
    ):
        ann.add_track(one.video)
        ann.join(room)
        bob.join(room)
        track = bob.wait_for_peer(timeout=20).track("video", timeout=20)
        frames = track.frames(mode="fifo", maxsize=500)
        assert frames.get(timeout=20).width == 160
        ann.replace_track(one.video, two.video)
        pts = [frames.get(timeout=20).pts for _ in range(3)]
        while (frame := frames.get(timeout=20)).width == 160:
            pts.append(frame.pts)
        pts += [frame.pts, frames.get(timeout=20).pts]
        assert frame.width == 320
        assert pts == sorted(set(pts))
        with pytest.raises(MeteredPeerStateError):
            ann.replace_track(one.video, two.video)  # not sent any more


def test_a_third_peer_gets_what_is_there(
    shared_cloud: LocalCloud, room: str, peer: PeerFactory
) -> None:
    with ExitStack() as stack:
        source = stack.enter_context(pattern(fps=5))
        ann, bob, cis = (stack.enter_context(peer(shared_cloud, n)) for n in ("ann", "bob", "cis"))
        ann.add_track(source.video, metadata={"n": 1})
        ann.join(room)
        bob.join(room)
        assert bob.wait_for_peer(timeout=20).track(timeout=20).read(timeout=20).any()
        cis.join(room)
        track = cis.wait_for_peer("ann", timeout=20).track("video", timeout=20)
        assert track.metadata == {"n": 1}
        assert track.read(timeout=20).any()
        assert {p.id for p in cis.remote_peers} == {"ann", "bob"}


# --- data channels --------------------------------------------------------------------


def test_a_data_channel_both_ways(shared_cloud: LocalCloud, room: str, peer: PeerFactory) -> None:
    with peer(shared_cloud, "ann") as ann, peer(shared_cloud, "bob") as bob:
        ann.join(room)
        bob.join(room)
        there = ann.wait_for_peer(timeout=20)
        back = bob.wait_for_peer(timeout=20)
        with back.events(DataChannelOpened) as opened:
            channel = there.create_data_channel("chat", timeout=20)
            for number in range(50):
                channel.send(f"{number}")  # from the first millisecond on
            theirs = opened.get(timeout=20).channel
            assert (theirs.label, channel.state) == ("chat", "open")
            assert [theirs.get(timeout=20) for _ in range(50)] == [f"{n}" for n in range(50)]
            size = min(100_000, theirs._link.buffer.cap)  # (with aiortc 1.14 it is 65,536)
            theirs.send(bytes(size))
            assert channel.get(timeout=20) == bytes(size)


def test_channels_that_were_there_before_anybody_asked(
    shared_cloud: LocalCloud, room: str, peer: PeerFactory
) -> None:
    with peer(shared_cloud, "ann") as ann, peer(shared_cloud, "bob") as bob:
        ann.join(room)
        bob.join(room)
        there = ann.wait_for_peer(timeout=20)
        back = bob.wait_for_peer(timeout=20)
        assert there.channels == back.channels == []
        one = there.create_data_channel("one", timeout=20)
        one.send("early")
        wait_until(lambda: back.channels)
        (theirs,) = back.channels
        assert (theirs.label, theirs.get(timeout=20)) == ("one", "early")
        two = back.create_data_channel("two", timeout=20)
        wait_until(lambda: [c.label for c in there.channels] == ["one", "two"])
        assert there.channels[0] is one
        assert back.channels == [theirs, two]
        with (
            back.events(DataChannelOpened) as opened,
            there.create_data_channel("three", wait=False),
        ):
            three = opened.get(timeout=20).channel
            assert back.channels == [theirs, two, three]
        one.close()
        wait_until(lambda: back.channels == [two])
        assert [c.label for c in there.channels] == ["two"]
        two.close()


# --- losing it ------------------------------------------------------------------------


def test_our_signalling_drop_keeps_objects_and_readers(cloud: LocalCloud, room: str) -> None:
    with pattern() as source, peer(cloud, "ann") as ann, peer(cloud, "bob") as bob:
        ann.add_track(source.video)
        ann.join(room)
        bob.join(room)
        there = bob.wait_for_peer(timeout=20)
        track = there.track("video", timeout=20)
        frames = track.frames()
        frames.get(timeout=20)
        with there.events(ConnectionReset) as resets:
            cloud.faults.drop_connections("bob")
            resets.get(timeout=20)
            wait_until(lambda: there.state == "connected", 20)
        assert bob.wait_for_peer(timeout=20) is there
        assert there.track("video", timeout=20) is track
        assert track.restarts >= 1
        for _ in range(5):
            frames.get(timeout=20)


def test_their_signalling_drop_does_too(cloud: LocalCloud, room: str) -> None:
    with pattern() as source, peer(cloud, "ann") as ann, peer(cloud, "bob") as bob:
        ann.add_track(source.video)
        ann.join(room)
        bob.join(room)
        there = bob.wait_for_peer(timeout=20)
        track = there.track("video", timeout=20)
        frames = track.frames()
        frames.get(timeout=20)
        with bob.events(PeerJoined) as joins:
            cloud.faults.drop_connections("ann")
            assert joins.get(timeout=20).peer is there
        wait_until(lambda: track.restarts >= 1, 20)
        for _ in range(5):
            frames.get(timeout=20)
        assert there.track("video") is track


def test_both_drop_at_once_and_the_server_restarts(cloud: LocalCloud, room: str) -> None:
    with pattern() as source, peer(cloud, "ann") as ann, peer(cloud, "bob") as bob:
        ann.add_track(source.video)
        ann.join(room)
        bob.join(room)
        there = bob.wait_for_peer(timeout=20)
        frames = there.track("video", timeout=20).frames()
        frames.get(timeout=20)
        with outage(cloud, ann, bob):
            wait_until(lambda: there.state == "reconnecting")  # (members follow their room)
        wait_until(lambda: bob.state == ann.state == "joined", 20)
        wait_until(lambda: there.state == "connected", 30)
        for _ in range(5):
            frames.get(timeout=20)


def test_a_dead_media_path_is_made_anew(cloud: LocalCloud, room: str) -> None:
    with pattern() as source, peer(cloud, "ann") as ann, peer(cloud, "bob") as bob:
        ann.add_track(source.video)
        ann.join(room)
        bob.join(room)
        there = bob.wait_for_peer(timeout=20)
        frames = there.track("video", timeout=20).frames()
        frames.get(timeout=20)
        with there.events(ConnectionReset) as resets:
            pc: Any = ann.wait_for_peer("bob").pc
            engine: Any = ann._engine
            engine.post(lambda: engine._tasks.start_soon(pc.close))  # on the far side
            resets.get(timeout=30)
        for _ in range(5):
            frames.get(timeout=30)


def test_a_peer_that_crashes_ends_its_readers(
    cloud: LocalCloud, room: str, peer: PeerFactory
) -> None:
    with peer(cloud, "bob", _timings=BRIEF) as bob, pattern() as source:
        ann = peer(cloud, "ann", reconnect=False)
        ann.add_track(source.video)
        ann.join(room)
        bob.join(room)
        frames = bob.wait_for_peer(timeout=20).track("video", timeout=20).frames(mode="fifo")
        frames.get(timeout=20)
        with bob.events(PeerLeft) as leaves:
            cloud.faults.drop_connections("ann")
            leaves.get(timeout=20)
        with pytest.raises((ClosedError, DisconnectedError)):
            while True:
                frames.get(timeout=20)
        ann.close()


def test_idle_peers_are_never_stuck(cloud: LocalCloud, room: str, peer: PeerFactory) -> None:
    with peer(cloud, "ann") as ann, peer(cloud, "bob") as bob:
        ann.join(room)
        bob.join(room)
        there = bob.wait_for_peer(timeout=20)
        assert there.state == "idle"
        with outage(cloud, bob, peer_id="bob"):
            assert there.state == "idle"
        wait_until(lambda: bob.state == "joined", 20)
        assert there.state == "idle"
        # A data-only pair comes back, too, once its channel is opened again.
        with there.events(ConnectionReset) as resets:
            with there.create_data_channel("a", timeout=20) as channel:
                cloud.faults.drop_connections("bob")
                resets.get(timeout=20)
                with pytest.raises(ClosedError):
                    channel.get(timeout=20)
            with there.create_data_channel("b", timeout=20):
                assert there.state == "connected"


def test_terminal_ends_tell_everybody(cloud: LocalCloud, room: str, peer: PeerFactory) -> None:
    with peer(cloud, "ann") as ann, peer(cloud, "bob") as bob:
        ann.join(room)
        bob.join(room)
        there = ann.wait_for_peer(timeout=20)
        failures: queue.Queue[BaseException] = queue.Queue()

        def wait() -> None:
            try:
                there.track("video")
            except BaseException as error:
                failures.put(error)

        thread = threading.Thread(target=wait)
        with ann.events(FatalError, PeerLeft, Left) as events:
            thread.start()
            cloud.faults.close(4020, "ann")
            fatal = events.get(timeout=20)
            assert isinstance(fatal, FatalError)
            assert isinstance(fatal.err, DisconnectedError)
            assert fatal.err.code == 4020
            assert isinstance(events.get(timeout=20), PeerLeft)
            assert isinstance(events.get(timeout=20), Left)
            with pytest.raises(DisconnectedError):
                events.get(timeout=20)
        assert isinstance(failures.get(timeout=20), (DisconnectedError, ClosedError))
        thread.join()
        assert ann.state == "closed"
        with pytest.raises(DisconnectedError):
            ann.send(1)


def test_closing_wakes_everybody(shared_cloud: LocalCloud, room: str, peer: PeerFactory) -> None:
    ended: queue.Queue[BaseException] = queue.Queue()
    with peer(shared_cloud, "ann") as ann, peer(shared_cloud, "bob") as bob:
        ann.join(room)
        bob.join(room)
        there = ann.wait_for_peer(timeout=20)

        def run(call: Any) -> None:
            try:
                call()
            except BaseException as error:
                ended.put(error)

        calls = (
            lambda: there.track("video"),
            lambda: there.wait_connected(),
            lambda: ann.wait_for_peer("nobody"),
            lambda: ann.wait_for(Data),
        )
        threads = [threading.Thread(target=run, args=(call,)) for call in calls]
        for thread in threads:
            thread.start()
        time.sleep(0.1)
        ann.close()
        for thread in threads:
            thread.join(20)
        assert [type(ended.get(timeout=20)) for _ in calls] == [ClosedError] * 4


def test_stats_name_the_path_and_the_traffic(
    shared_cloud: LocalCloud, room: str, peer: PeerFactory
) -> None:
    with (
        pattern() as source,
        peer(shared_cloud, "ann") as ann,
        peer(shared_cloud, "bob") as bob,
    ):
        ann.add_track(source.video)
        ann.join(room)
        bob.join(room)
        there = bob.wait_for_peer(timeout=20)
        there.track("video", timeout=20).read(timeout=20)
        stats = there.stats()
        assert stats["state"] == "connected"
        assert stats["paths"]
        (track,) = stats["incoming"]
        assert track["frames_decoded"] >= 1
        assert track["bitrate"] > 0
        assert track["packets_lost"] == 0
        back = ann.wait_for_peer(timeout=20)
        wait_until(lambda: back.stats()["outgoing"][0]["round_trip_time"] is not None, 20)
        (sent,) = back.stats()["outgoing"]
        assert 0 <= sent["round_trip_time"] < 5
        assert sent["bytes_sent"] > 1000
        assert sent["frames_sent"] >= 1
        wait_until(lambda: back.stats()["outgoing"][0]["bitrate"] > 0, 20)


def _some(track: Any, count: int) -> Iterator[Any]:
    frames = track.frames()
    for _ in range(count):
        yield frames.get(timeout=20)


def test_a_wait_for_a_track_in_vain_says_what_is_there(
    shared_cloud: LocalCloud, room: str, peer: PeerFactory
) -> None:
    with (
        peer(shared_cloud, "ann") as ann,
        peer(shared_cloud, "bob") as bob,
        ToneSource() as tone,
    ):
        ann.join(room)
        bob.join(room)
        there = bob.wait_for_peer(timeout=20)
        with pytest.raises(MeteredTimeoutError, match=r"the peer is idle, and sends no track$"):
            there.track("video", timeout=0.1)
        ann.add_track(tone, MediaStream(id="desk"))
        there.track("audio", timeout=20)
        with pytest.raises(MeteredTimeoutError, match=r"and sends audio in stream 'desk'$"):
            there.track("video", timeout=0.1)
        wanted = r"any track stream_id='lamp' metadata=\{'a': 1\} of '[^']*': none within 0\.1 s"
        with pytest.raises(MeteredTimeoutError, match=wanted):
            there.track(stream_id="lamp", metadata={"a": 1}, timeout=0.1)

        async def fits() -> bool:
            return True

        with pytest.raises(TypeError, match="where: it returned a coroutine"):
            there.track(where=lambda track: fits(), timeout=5)
