"""Announce streams by ids that no session description should have."""

from __future__ import annotations

from contextlib import ExitStack

from metered_sync import MediaStream, MeteredPeer
from metered_sync.local import LocalCloud
from metered_sync.testing import ToneSource

IDS = ("user:1", "a/b", "größe", "x" * 1000, "(", "@")


def test_stream_ids_of_others_are_taken_as_they_are(cloud: LocalCloud) -> None:
    with (
        MeteredPeer(**cloud.token_options("victim"), ice_servers=[]) as victim,
        MeteredPeer(**cloud.token_options("mallory"), ice_servers=[]) as mallory,
        ExitStack() as stack,
    ):
        for stream_id in IDS:
            source = stack.enter_context(ToneSource(440))
            stream = MediaStream(source)
            stream._id = stream_id  # (the constructor would refuse it)
            mallory.add_stream(stream)
        victim.join("room")
        mallory.join("room")
        remote = victim.wait_for_peer("mallory", timeout=20)
        for stream_id in IDS:
            track = remote.track("audio", stream_id=stream_id, timeout=20)
            assert track.stream_id == stream_id
        assert {stream.id for stream in remote.streams} == set(IDS)
        assert all(len(stream.tracks) == 1 for stream in remote.streams)
