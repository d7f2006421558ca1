"""Test which members a track's metadata reaches, and that it stays with its track."""

from __future__ import annotations

from typing import Any

from metered_sync import ConnectionReset, MediaStream, MeteredPeer, PeerJoined
from metered_sync.local import LocalCloud
from tests.conftest import wait_until
from tests.support.outage import outage
from tests.support.rooms import FAST, PeerFactory, pattern, peer
from tests.support.scripted_service import Scripted, ScriptedServer


def words(connection: Scripted) -> list[tuple[str, Any]]:
    """Return what a peer was told about tracks: ids, and metadata or ``None``."""
    sent = (frame["data"] for frame in connection.frames if frame["type"] == "send")
    told = (data["__meteredTrackMeta"] for data in sent if "__meteredTrackMeta" in (data or {}))
    return [(one["trackId"], one.get("metadata")) for one in told if "offers" not in one]


def test_a_replaced_track_keeps_its_metadata(cloud: LocalCloud, room: str) -> None:
    """Without a stream, it can be found by its id alone, which goes on being the first one's."""
    with (
        pattern() as one,
        pattern(192) as two,
        peer(cloud, "ann") as ann,
        peer(cloud, "bob") as bob,
        peer(cloud, "cis") as cis,
    ):
        ann.add_track(one.video, metadata={"role": "camera"})
        ann.join(room)
        bob.join(room)
        there = bob.wait_for_peer("ann", timeout=20)
        track = there.track("video", timeout=20)
        track.read(timeout=20)
        ann.replace_track(one.video, two.video)
        wait_until(lambda: track.read(timeout=20).shape == (120, 192, 3), 20)
        assert track.metadata == {"role": "camera"}
        cis.join(room)
        late = cis.wait_for_peer("ann", timeout=20).track("video", timeout=20)
        assert (late.id, late.metadata) == (two.video.id, {"role": "camera"})
        with there.events(ConnectionReset) as resets:
            cloud.faults.drop_connections("bob")
            resets.get(timeout=20)
        restarts = track.restarts
        wait_until(lambda: track.restarts > restarts or there.state == "connected", 20)
        assert track.read(timeout=20).shape == (120, 192, 3)
        assert there.track("video") is track
        assert track.metadata == {"role": "camera"}
        ann.remove_track(two.video)
        wait_until(lambda: not there.tracks, 20)
        assert not there._member.announced


def test_a_source_that_was_replaced_is_sent_elsewhere(
    cloud: LocalCloud, room: str, peer: PeerFactory
) -> None:
    """It is not taken for the track in whose place it was, which is known by its id."""
    sizes = {"one": (120, 192, 3), "two": (120, 160, 3), "three": (120, 208, 3)}
    with (
        pattern() as first,
        pattern(192) as second,
        pattern(208) as third,
        peer(cloud, "ann") as ann,
        peer(cloud, "bob") as bob,
    ):
        ann.add_stream(MediaStream([first], id="one"), {"n": 1})
        ann.add_stream(MediaStream([third], id="three"))
        ann.join(room)
        bob.join(room)
        there = bob.wait_for_peer("ann", timeout=20)
        ann.replace_track(first, second)
        ann.add_stream(MediaStream([first], id="two"))
        tracks = {name: there.track(stream_id=name, timeout=20) for name in sizes}

        def show() -> bool:
            return {name: t.read(timeout=20).shape for name, t in tracks.items()} == sizes

        wait_until(show, 20)
        assert [t.metadata for t in tracks.values()] == [{"n": 1}, None, None]
        assert len({t.id for t in tracks.values()}) == 3
        ann.remove_track(first)
        wait_until(lambda: len(there.tracks) == 2, 20)
        ann.replace_track(third, first)
        del sizes["two"], tracks["two"]
        sizes["three"] = (120, 160, 3)
        wait_until(show, 20)
        with outage(cloud, bob, peer_id="bob"):
            pass
        there.wait_connected(timeout=20)
        wait_until(show, 20)
        assert {t.stream_id: t for t in there.tracks} == tracks


def test_what_others_are_told_of_a_replaced_track() -> None:
    with (
        pattern() as one,
        pattern() as two,
        pattern() as three,
        ScriptedServer() as server,
        MeteredPeer(api_key="pk_live_x", url=server.url, ice_servers=[], reconnect=FAST) as ann,
    ):
        a, b, c = (source.video.id for source in (one, two, three))
        ann.join("room")
        connection = server.accept()
        connection.send(type="presence", channel="room", joined=[{"peerId": "~"}], left=[])
        ann.wait_for_peer("~", timeout=20)
        ann.add_track(one.video, metadata={"n": 1})
        ann.replace_track(one.video, two.video)
        ann.replace_track(two.video, three.video)
        told = [(a, {"n": 1}), (b, {"n": 1}), (c, {"n": 1})]
        wait_until(lambda: words(connection) == told)
        ann.add_track(one.video, metadata={"n": 2})  # another one, known by another id
        wait_until(lambda: len(words(connection)) == 4)
        other = words(connection)[-1][0]
        assert other not in (a, b, c)
        told.append((other, {"n": 2}))
        wait_until(lambda: words(connection) == told)
        ann.remove_track(three.video)
        told += [(a, None), (b, None), (c, None)]
        wait_until(lambda: words(connection) == told)
        ann.replace_track(one.video, None)
        told.append((other, None))
        wait_until(lambda: words(connection) == told)


def test_metadata_of_a_track_that_is_announced_under_another_id(
    shared_cloud: LocalCloud, room: str
) -> None:
    """As Chromium does where a track takes a section that we have made."""
    with (
        pattern() as one,
        pattern() as two,
        peer(shared_cloud, "ann") as ann,
        peer(shared_cloud, "bob") as bob,
        bob.events(PeerJoined) as joins,
    ):
        bob.join(room)
        ann.add_track(one.video)
        ann.join(room)
        there = joins.get(timeout=20).peer
        first = there.track("video", timeout=20)
        ann.send_to("bob", {"__meteredTrackMeta": {"trackId": "real", "metadata": {"n": 1}}})
        ann.add_track(two.video)
        wait_until(lambda: len(there.tracks) == 2, 20)
        second = next(track for track in there.tracks if track is not first)
        assert (first.metadata, second.metadata) == (None, {"n": 1})
        ann.send_to("bob", {"__meteredTrackMeta": {"trackId": "real", "metadata": {"n": 2}}})
        wait_until(lambda: second.metadata == {"n": 2})
        assert first.metadata is None
