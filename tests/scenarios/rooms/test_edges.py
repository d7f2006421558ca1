"""Test what goes wrong at the edges of a room: joining, tracks, members that come and go."""

from __future__ import annotations

import dataclasses
import queue
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import pytest

from metered_sync import (
    ClosedError,
    Connected,
    ConnectionReset,
    DataChannelOpened,
    DisconnectedError,
    FatalError,
    IceCandidateError,
    Left,
    MediaError,
    MediaStream,
    MeteredError,
    MeteredPeer,
    MeteredPeerStateError,
    MeteredTimeoutError,
    NegotiationError,
    NegotiationFailedError,
    OversizedPayloadError,
    PeerJoined,
    PeerLeft,
    Presence,
    PresencePeer,
    ServerRequestError,
)
from metered_sync.local import LocalCloud
from metered_sync.testing import PatternSource, ToneSource
from metered_sync.wire.timings import DEFAULT_TIMINGS
from tests.conftest import wait_until
from tests.support.outage import outage
from tests.support.rooms import FAST, PeerFactory, pattern, peer
from tests.support.scripted_service import Scripted, ScriptedServer, polite


def outcomes(*calls: Callable[[], object]) -> list[BaseException | None]:
    """Make calls on threads of their own, at once; return what each raised."""
    ended: queue.Queue[tuple[int, BaseException | None]] = queue.Queue()

    def run(number: int, call: Callable[[], object]) -> None:
        try:
            call()
        except BaseException as error:
            ended.put((number, error))
        else:
            ended.put((number, None))

    for number, call in enumerate(calls):
        threading.Thread(target=run, args=(number, call), daemon=True).start()
    return [
        error for _, error in sorted((ended.get(timeout=20) for _ in calls), key=lambda x: x[0])
    ]


def emit(to: MeteredPeer, *events: Any) -> None:
    """Have a peer's room take events as if the service had sent them, in one go."""
    link: Any = to._link
    done = threading.Event()
    link._engine.post(lambda: ([link.emit(event) for event in events], done.set()))
    assert done.wait(20)


# --- joining --------------------------------------------------------------------------


def test_two_threads_that_join_at_once(
    shared_cloud: LocalCloud, room: str, peer: PeerFactory
) -> None:
    for round_ in range(5):
        with peer(shared_cloud, f"twice{round_}") as ann:
            errors = outcomes(lambda: ann.join(room), lambda: ann.join(f"{room}/other"))
            (error,) = [error for error in errors if error is not None]
            assert isinstance(error, MeteredPeerStateError)
            assert ann.state == "joined"
            assert ann.channel == (room if errors[0] is None else f"{room}/other")


def test_closing_while_joining(cloud: LocalCloud, room: str, peer: PeerFactory) -> None:
    server: Any = cloud._servers
    for delay in (0.0, 0.01, 0.05, 0.3):
        ann = peer(cloud, "ann")
        held = threading.Event()
        server._engine.post(held.wait, 10)  # the server's loop stands still
        timer = threading.Timer(delay, ann.close)
        started = time.monotonic()
        timer.start()
        try:
            (error,) = outcomes(lambda: ann.join(room, timeout=60))  # noqa: B023
            assert isinstance(error, ClosedError)
            assert time.monotonic() - started < 9
        finally:
            held.set()
        timer.join(20)
        assert ann.state == "closed"


def test_a_drop_while_joining(cloud: LocalCloud, room: str, peer: PeerFactory) -> None:
    with peer(cloud, "bob") as bob, peer(cloud, "ann") as ann:
        bob.join(room)
        with ann.events(Connected) as connects:
            ann.on(Connected, lambda _: cloud.faults.drop_connections("ann"))
            (error,) = outcomes(lambda: ann.join(room, timeout=20))
            ann.off(Connected)
            connects.get(timeout=20)
        assert error is None or isinstance(error, MeteredError)
        if error is not None:
            ann.join(room)
        wait_until(lambda: ann.state == "joined")
        assert ann.wait_for_peer(timeout=20).id == "bob"


# --- members --------------------------------------------------------------------------


def test_members_who_come_later_are_known_to_be_out_of_reach(room: str) -> None:
    with (
        LocalCloud(permissions=["subscribe", "publish", "presence"]) as cloud,
        MeteredPeer(**cloud.client_options()) as ann,
        ann.events(PeerJoined) as joins,
    ):
        ann.join(room)
        for _ in range(2):
            with MeteredPeer(**cloud.client_options()) as other:
                other.join(room)
                there = joins.get(timeout=20).peer
                with pytest.raises(ServerRequestError, match="Send permission"):
                    there.track("video", timeout=10)


def test_ones_own_former_id_is_nobody_else(cloud: LocalCloud, room: str) -> None:
    """With a publishable key each connection has another id; the old one lingers in lists."""
    with MeteredPeer(**cloud.client_options(), reconnect=FAST, ice_servers=[]) as ann:
        ann.join(room)
        before = ann.peer_id
        assert before is not None
        with ann.events(Connected) as connects:
            cloud.faults.drop_connections()
            connects.get(timeout=20)
        wait_until(lambda: ann.state == "joined")
        assert ann.peer_id != before
        emit(ann, Presence(room, (PresencePeer(before, None), PresencePeer("new", None)), ()))
        assert [there.id for there in ann.remote_peers] == ["new"]


def test_at_most_256_members_and_each_once(
    shared_cloud: LocalCloud, room: str, caplog: pytest.LogCaptureFixture
) -> None:
    with peer(shared_cloud, "ann") as ann, ann.events(PeerJoined, PeerLeft) as events:
        ann.join(room)
        many = tuple(PresencePeer(f"p{n % 300}", None) for n in range(600))
        emit(ann, Presence(room, many, ()))
        assert len(ann.remote_peers) == 256
        assert len(events) == 256
        assert caplog.text.count("more than 256 members") == 1
        emit(ann, Presence(room, many[:5], many[:5]))  # left and back again in one frame
        assert len(ann.remote_peers) == 256
        assert len(events) == 256 + 10


def test_a_list_that_is_not_due_tells_of_nobody_new(
    cloud: LocalCloud, room: str, peer: PeerFactory
) -> None:
    with pattern() as source, peer(cloud, "ann") as ann, peer(cloud, "bob") as bob:
        ann.add_track(source.video)
        ann.join(room)
        bob.join(room)
        there = bob.wait_for_peer(timeout=20)
        there.track(timeout=20).read(timeout=20)
        twice = Presence(room, (PresencePeer("ann", None), PresencePeer("ann", {"v": 2})), ())
        with there.events(ConnectionReset) as resets, bob.events(PeerJoined, PeerLeft) as seen:
            emit(bob, twice)
            assert len(resets) == len(seen) == 0


@pytest.mark.parametrize("code", ["channel_limit_exceeded", "channel_not_authorized"])
def test_a_room_that_refuses_us_after_a_reconnect_ends_for_us(code: str) -> None:
    def answer(connection: Scripted, frame: dict[str, Any]) -> None:
        if frame["type"] == "subscribe" and connection.number:
            connection.send(type="error", requestId=frame["requestId"], code=code, message="no")
        else:
            polite(connection, frame)

    timings = dataclasses.replace(DEFAULT_TIMINGS, reconcile=0.3, replay_retry=0.1)
    with (
        ScriptedServer(answer) as server,
        MeteredPeer(api_key="pk_live_x", url=server.url, reconnect=FAST, _timings=timings) as ann,
        ann.events(FatalError) as fatal,
    ):
        ann.join("room")
        server.accept().drop()
        error = fatal.get(timeout=20).err
        assert isinstance(error, ServerRequestError)
        assert error.code == code
        wait_until(lambda: ann.state == "closed")
        with pytest.raises(ServerRequestError):
            ann.wait_for_peer(timeout=20)


@pytest.mark.parametrize("code", ["account_suspended", "token_expired"])
def test_an_error_of_the_service_that_ends_the_room(code: str) -> None:
    with (
        ScriptedServer() as server,
        MeteredPeer(api_key="pk_live_x", url=server.url, reconnect=FAST) as ann,
        ann.events(FatalError, PeerLeft, Left) as events,
    ):
        ann.join("room")
        connection = server.accept()
        there = {"peerId": "bob"}
        connection.send(type="presence", channel="room", joined=[there], left=[])
        ann.wait_for_peer("bob", timeout=20)
        connection.send(type="error", code=code, message="see ?token=HUSHHUSH")
        fatal = events.get(timeout=20)
        assert isinstance(fatal, FatalError)
        assert isinstance(fatal.err, ServerRequestError)
        assert fatal.err.code == code
        assert isinstance(events.get(timeout=20), PeerLeft)
        left = events.get(timeout=20)
        assert isinstance(left, Left)
        assert code in left.reason
        assert "HUSHHUSH" not in f"{left!r} {fatal!r}"
        wait_until(lambda: ann.state == "closed")
        with pytest.raises(ServerRequestError):
            ann.join("room")
        assert connection.ended() == (1000, "client requested close")


@pytest.mark.parametrize("code", [4001, 4003, 4012, 4020])
def test_closes_that_end_the_room(code: int) -> None:
    with (
        ScriptedServer() as server,
        MeteredPeer(api_key="pk_live_x", url=server.url, reconnect=FAST) as ann,
        ann.events(FatalError, Left) as events,
    ):
        ann.join("room")
        server.accept().close(code, "because")
        fatal = events.get(timeout=20)
        assert isinstance(fatal, FatalError)
        assert isinstance(fatal.err, DisconnectedError)
        assert fatal.err.code == code
        assert isinstance(events.get(timeout=20), Left)
        wait_until(lambda: ann.state == "closed")


def test_metadata_and_its_clearing_come_in_order() -> None:
    with (
        pattern() as one,
        ScriptedServer() as server,
        MeteredPeer(api_key="pk_live_x", url=server.url, ice_servers=[], reconnect=FAST) as ann,
    ):
        ann.join("room")
        connection = server.accept()
        connection.send(type="presence", channel="room", joined=[{"peerId": "~"}], left=[])
        ann.wait_for_peer("~", timeout=20)
        ann.add_track(one.video, metadata={"n": 1})
        wait_until(lambda: any("rtc-description" in str(text) for text in connection.texts), 20)
        ann.remove_track(one.video)

        def said() -> list[str]:
            sent = [frame["data"] for frame in connection.frames if frame["type"] == "send"]
            kinds = []
            for data in sent:
                if data is not None and "__meteredTrackMeta" in data:
                    meta = data["__meteredTrackMeta"]
                    if "offers" in meta:
                        continue
                    assert meta["trackId"] == one.video.id
                    kinds.append("set" if "metadata" in meta else "clear")
                elif data is not None:
                    kinds.append(data["type"])
            return kinds

        wait_until(lambda: "clear" in said(), 20)
        assert said()[:2] == ["set", "rtc-description"]  # the metadata is there before its track


# --- tracks ---------------------------------------------------------------------------


def test_tracks_that_cannot_be_added(
    shared_cloud: LocalCloud, room: str, peer: PeerFactory
) -> None:
    with (
        pattern() as one,
        pattern() as two,
        ToneSource(440) as tone,
        peer(shared_cloud, "ann") as ann,
    ):
        stream = MediaStream([one.video], id="s")
        ann.add_stream(stream, metadata={"n": 1})
        ann.add_track(one.video)
        ann.add_track(one.video, stream)  # (once more: nothing)
        calls: list[tuple[type[BaseException], str, Callable[[], object]]] = [
            (
                MeteredPeerStateError,
                "in the stream 's'",
                lambda: ann.add_track(one.video, MediaStream()),
            ),
            (MediaError, "no track", lambda: ann.add_track(two.audio)),
            (ValueError, "no tracks", lambda: ann.add_stream(MediaStream())),
            (TypeError, "mapping", lambda: ann.add_track(two.video, metadata=[1])),
            (TypeError, "JSON", lambda: ann.add_track(two.video, metadata={"x": object()})),
            (
                OversizedPayloadError,
                "65536",
                lambda: ann.add_track(two.video, metadata={"x": "x" * 65536}),
            ),
            (ValueError, "codec", lambda: ann.add_track(two.video, codec="vp10")),
            (ValueError, "only audio", lambda: ann.add_track(tone.audio, video_bitrate=100_000)),
            (TypeError, "cannot become", lambda: ann.replace_track(one.video, tone.audio)),
            (MeteredPeerStateError, "not sent", lambda: ann.replace_track(two.video, one.video)),
        ]
        ann.join(room)
        for kind, match, call in calls:
            with pytest.raises(kind, match=match):
                call()
        link: Any = ann._link
        assert [track.source for track in link.our_tracks.tracks] == [one.video]


def test_no_track_is_replaced_while_reconnecting(
    cloud: LocalCloud, room: str, peer: PeerFactory
) -> None:
    with pattern() as one, pattern() as two, peer(cloud, "ann") as ann:
        ann.add_track(one.video)
        ann.join(room)
        reconnecting = pytest.raises(MeteredPeerStateError, match="reconnecting")
        with outage(cloud, ann, peer_id="ann"), reconnecting:
            ann.replace_track(one.video, two.video)


def test_how_a_track_is_encoded_and_that_it_is_done_once(
    shared_cloud: LocalCloud, room: str
) -> None:
    with (
        pattern(fps=20) as source,
        peer(shared_cloud, "ann") as ann,
        peer(shared_cloud, "bob") as bob,
        peer(shared_cloud, "cis") as cis,
    ):
        ann.add_track(source.video, codec="h264", max_framerate=10, video_bitrate=200_000)
        for one in (ann, bob, cis):
            one.join(room)
        for one in (bob, cis):
            track = one.wait_for_peer("ann", timeout=20).track("video", timeout=20)
            assert track.read(timeout=20).any()
        link: Any = ann._link
        (local,) = link.our_tracks.tracks
        (encoder,) = local.encoders
        assert (encoder.codec, encoder.bitrate, encoder.consumers) == ("h264", 200_000, 2)
        frames = track.frames(mode="fifo")
        times = [frames.get(timeout=20).time for _ in range(10)]
        assert times[-1] - times[0] > 0.8  # 20 a second would be half of that


def test_replacing_a_track_by_itself_or_by_one_that_is_sent(
    shared_cloud: LocalCloud, room: str, peer: PeerFactory
) -> None:
    with pattern() as one, pattern() as two, peer(shared_cloud, "ann") as ann:
        ann.add_track(one.video)
        ann.add_track(two.video)
        ann.join(room)
        ann.replace_track(one.video, one.video)
        with pytest.raises(MeteredPeerStateError, match="already"):
            ann.replace_track(one.video, two.video)
        link: Any = ann._link
        assert [track.source for track in link.our_tracks.tracks] == [one.video, two.video]
        ann.remove_track(one.video)
        ann.replace_track(two.video, None)
        assert link.our_tracks.tracks == ()
        assert not ann._sent.tracks


def test_edits_without_time_are_made_all_the_same(
    shared_cloud: LocalCloud, room: str, peer: PeerFactory
) -> None:
    """What is sent is never something else than what remove_track() has been told."""
    with pattern() as one, peer(shared_cloud, "ann") as ann:
        ann.join(room)
        link: Any = ann._link
        for _ in range(20):
            for edit, left in (
                (lambda: ann.add_track(one.video, timeout=0), [one.video]),
                (lambda: ann.remove_track(one.video, timeout=0), []),
            ):
                try:
                    edit()
                except TimeoutError:
                    pass
                wait_until(lambda left=left: [t.source for t in link.our_tracks.tracks] == left)


def test_a_removed_track_is_not_sent_to_those_who_come_later(
    shared_cloud: LocalCloud, room: str, peer: PeerFactory
) -> None:
    with (
        pattern() as one,
        pattern(320, 240) as two,
        peer(shared_cloud, "ann") as ann,
        peer(shared_cloud, "bob") as bob,
    ):
        ann.add_track(one.video, metadata={"secret": True})
        ann.add_track(two.video)
        ann.join(room)
        ann.replace_track(one.video, None)
        bob.join(room)
        there = bob.wait_for_peer(timeout=20)
        assert there.track("video", timeout=20).read(timeout=20).shape == (240, 320, 3)
        assert len(there.tracks) == 1
        assert not there._member.announced


def test_tracks_added_while_reconnecting_arrive(
    cloud: LocalCloud, room: str, peer: PeerFactory
) -> None:
    with pattern() as source, peer(cloud, "ann") as ann, peer(cloud, "bob") as bob:
        ann.join(room)
        bob.join(room)
        there = bob.wait_for_peer(timeout=20)
        with outage(cloud, ann, peer_id="ann"):
            ann.add_track(source.video, metadata={"late": 1})
        wait_until(lambda: ann.state == "joined", 20)
        there = bob.wait_for_peer("ann", timeout=20)
        track = there.track("video", timeout=20)
        assert track.metadata == {"late": 1}
        assert track.read(timeout=20).any()


# --- remote peers ---------------------------------------------------------------------


def test_a_peer_that_has_left_says_so(
    shared_cloud: LocalCloud, room: str, peer: PeerFactory
) -> None:
    timings = dataclasses.replace(DEFAULT_TIMINGS, room_limbo=0.5)
    with pattern() as source, peer(shared_cloud, "ann", _timings=timings) as ann:
        ann.join(room)
        with peer(shared_cloud, "bob") as bob:
            bob.add_track(source.video)
            bob.join(room)
            there = ann.wait_for_peer("bob", timeout=20)
            track = there.track(timeout=20)
            track.read(timeout=20)
        wait_until(lambda: there.state == "closed" and track.ended, 20)
        for call in (
            lambda: there.track("video", timeout=20),
            lambda: there.wait_connected(timeout=20),
            lambda: there.create_data_channel("x", timeout=20),
            lambda: there.create_data_channel("x", wait=False),
            lambda: there.wait_for(ConnectionReset, timeout=20),
        ):
            with pytest.raises(ClosedError, match=r"left|closed"):
                call()
        assert there.tracks == []
        assert there.stats()["state"] == "closed"


def test_a_data_channel_survives_a_new_generation_while_it_opens(
    shared_cloud: LocalCloud, room: str
) -> None:
    silent = dataclasses.replace(DEFAULT_TIMINGS, first_offer=0.0)  # he says no hello
    with peer(shared_cloud, "ann") as ann, peer(shared_cloud, "bob", _timings=silent) as bob:
        ann.join(room)
        bob.join(room)
        there = ann.wait_for_peer(timeout=20)  # ann is the polite one: she waits before she offers
        connection: Any = there._member.media
        engine: Any = ann._engine
        timer = threading.Timer(
            0.2, lambda: engine.post(lambda: connection.rebuild(local_id="ann"))
        )
        timer.start()
        with there.create_data_channel("x", timeout=20) as channel:
            assert channel.state == "open"
        wait_until(lambda: connection.generations >= 2)
        timer.join()


def test_the_options_of_a_data_channel_reach_the_other_side(
    shared_cloud: LocalCloud, room: str, peer: PeerFactory
) -> None:
    with (
        peer(shared_cloud, "ann") as ann,
        peer(shared_cloud, "bob") as bob,
    ):
        ann.join(room)
        bob.join(room)
        there, back = ann.wait_for_peer(timeout=20), bob.wait_for_peer(timeout=20)
        lossy: list[dict[str, Any]] = [
            {"ordered": False, "max_retransmits": 0, "protocol": "game"},
            {"max_packet_life_time": 0.25},
            {},
        ]
        found = []
        with back.events(DataChannelOpened) as opened, ExitStack() as stack:
            for options in lossy:
                stack.enter_context(there.create_data_channel("x", timeout=20, **options))
                raw: Any = opened.get(timeout=20).channel._link.raw
                found.append((raw.ordered, raw.maxRetransmits, raw.maxPacketLifeTime, raw.protocol))
        assert found == [(False, 0, None, "game"), (True, None, 250, ""), (True, None, None, "")]
        with pytest.raises(ValueError, match="max_retransmits"):
            there.create_data_channel("x", max_retransmits=1, max_packet_life_time=1)


def test_labels_that_cannot_be_sent_are_refused(shared_cloud: LocalCloud, room: str) -> None:
    with peer(shared_cloud, "ann") as ann, peer(shared_cloud, "bob") as bob:
        ann.join(room)
        bob.join(room)
        there = ann.wait_for_peer(timeout=20)
        with pytest.raises(ValueError, match="label"):
            there.create_data_channel("é")
        with pytest.raises(TypeError, match="label"):
            there.create_data_channel(7)  # type: ignore[arg-type]


def test_servers_that_cannot_be_used_do_not_end_the_room(
    shared_cloud: LocalCloud, room: str
) -> None:
    servers = [{"urls": "stun:"}, {"urls": "turn:", "username": "u", "credential": "c"}]
    claims = {"metadata": {"iceServers": servers}}
    with (
        pattern() as source,
        peer(shared_cloud, "ann", claims=claims, ice_servers=None) as ann,
        peer(shared_cloud, "bob") as bob,
    ):
        ann.add_track(source.video)
        ann.join(room)
        bob.join(room)
        assert bob.wait_for_peer(timeout=20).track(timeout=20).read(timeout=20).any()


def test_metadata_that_comes_after_its_track_is_shown(shared_cloud: LocalCloud, room: str) -> None:
    with (
        PatternSource(160, 120, fps=10) as source,
        peer(shared_cloud, "ann") as ann,
        peer(shared_cloud, "bob") as bob,
    ):
        ann.add_track(source.video)
        ann.join(room)
        bob.join(room)
        track = bob.wait_for_peer(timeout=20).track(timeout=20)
        assert track.metadata is None
        ann.send_to(
            "bob", {"__meteredTrackMeta": {"trackId": source.video.id, "metadata": {"n": 1}}}
        )
        wait_until(lambda: track.metadata == {"n": 1})


def test_a_connection_that_comes_about_after_all_is_used(
    shared_cloud: LocalCloud, room: str
) -> None:
    with pattern() as source, peer(shared_cloud, "ann") as ann, peer(shared_cloud, "bob") as bob:
        ann.join(room)
        bob.join(room)
        there = ann.wait_for_peer("bob", timeout=20)
        given_up = NegotiationFailedError("given up", stage="ICE")
        engine: Any = ann._engine
        with there.events(NegotiationError) as failures:
            engine.post(there._member.on_exhausted, given_up)
            failures.get(timeout=20)
        with pytest.raises(NegotiationFailedError):
            there.wait_connected(timeout=20)
        bob.add_track(source.video)  # the other side offers
        wait_until(lambda: there.state == "connected", 20)
        with there.create_data_channel("x", timeout=20) as channel:
            assert channel.state == "open"


def test_a_candidate_of_a_member_that_cannot_be_used(shared_cloud: LocalCloud, room: str) -> None:
    """As a browser would send it, one by one; the connection goes on."""
    with pattern() as source, peer(shared_cloud, "ann") as ann, peer(shared_cloud, "bob") as bob:
        ann.add_track(source.video)
        ann.join(room)
        bob.join(room)
        there, back = ann.wait_for_peer("bob", timeout=20), bob.wait_for_peer("ann", timeout=20)
        track = back.track("video", timeout=20)
        track.read(timeout=20)
        pc: Any = there.pc
        lines = pc.remoteDescription.sdp.splitlines()
        ours = next(line for line in lines if line.startswith("a=candidate:"))
        fragment = next(line for line in lines if line.startswith("a=ice-ufrag:"))
        (mid, *_) = (line.split(":")[1] for line in lines if line.startswith("a=mid:"))

        def trickle(text: str) -> None:
            candidate = {
                "candidate": text,
                "sdpMid": mid,
                "sdpMLineIndex": 0,
                "usernameFragment": fragment.split(":")[1],
            }
            bob.send_to("ann", {"type": "rtc-ice", "candidate": candidate})

        with there.events(IceCandidateError) as errors:
            trickle(ours.removeprefix("a="))  # one that can
            trickle(ours.removeprefix("a=").replace("typ host", "typ prflx"))
            error = errors.get(timeout=20).err
            assert "'prflx'" in str(error)
            assert len(errors) == 0
        assert there.state == "connected"
        track.read(timeout=20)


def test_a_data_channel_that_does_not_open_in_time() -> None:
    """It is closed, and nothing of it is left."""
    with (
        ScriptedServer() as server,
        MeteredPeer(api_key="pk_live_x", url=server.url, ice_servers=[], reconnect=FAST) as ann,
    ):
        ann.join("room")
        server.accept().send(type="presence", channel="room", joined=[{"peerId": "~"}], left=[])
        there = ann.wait_for_peer("~", timeout=20)
        with pytest.raises(MeteredTimeoutError, match=r"'x' to '~'.*the peer is"):
            there.create_data_channel("x", timeout=0.3)
        links = [link for link in ann._start().links if "DataChannel" in link.label]
        assert not links
        with there.create_data_channel("y", wait=False) as channel:
            assert channel.state == "connecting"
            assert there.channels == []
