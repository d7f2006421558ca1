"""Move published and subscribed tracks from one session to the next, without an SFU."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any

from metered_sync import TrackInfo
from metered_sync.engine.sending.local_track import LocalTrack
from metered_sync.engine.sfu.tracks import Incoming, Outgoing
from metered_sync.engine.webrtc.peer_connection import peer_connection
from tests.support.local_tracks import Scripted, plain, run, take


def transceiver(kind: str = "video", mid: str = "3") -> Any:
    return SimpleNamespace(kind=kind, mid=mid)


def test_a_published_track_is_released_and_published_again() -> None:
    async def test() -> None:
        source = Scripted("video", plain)
        outgoing = Outgoing(LocalTrack(source), "camera")
        ids = set()
        for session in ("a", "b"):
            pc = peer_connection(())
            outlet = outgoing.outlet = outgoing.local.outlet(own_id=True)
            outgoing.transceiver = pc.addTransceiver(outlet, direction="sendonly")
            outgoing.session_id, outgoing.track_id, outgoing.mid = session, outlet.id, "0"
            ids.add(outgoing.info().track_id)
            assert outgoing.info() == TrackInfo(session, outlet.id, "camera", "video", "0")
            await take(outlet, 3)
            await outgoing.keep_counts()
            outgoing.release()
            outgoing.release()
            assert outlet.readyState == "ended"
            assert outgoing.outlet is outgoing.transceiver is None
            await outgoing.keep_counts()  # nothing is counted twice
            await pc.close()
        assert len(ids) == 2
        counts = await outgoing.sample()
        assert (counts["frames_sent"], counts["name"], counts["kind"]) == (6, "camera", "video")
        outgoing.close()
        assert outgoing.closed
        assert outgoing.local.closed
        assert source.readyState == "live"

    run(test())


def test_a_subscribed_track_is_attached_again() -> None:
    async def test() -> None:
        incoming = Incoming(TrackInfo("a", "t", "camera", "video", "0"))
        assert (incoming.id, incoming.name, incoming.stream_id) == ("t", "camera", "a")
        assert incoming.listed
        incoming.attach(transceiver())
        assert (incoming.live, incoming.mid, incoming.restarts) == (True, "3", 0)
        incoming.gone_at, incoming.pause, incoming.look_at = 1.0, 2.0, 3.0
        incoming.refer(TrackInfo("b", "u", "camera", "video", "0"))
        incoming.attach(transceiver(mid="4"))
        assert (incoming.id, incoming.stream_id, incoming.restarts) == ("u", "b", 1)
        assert (incoming.gone_at, incoming.pause, incoming.look_at) == (None, 0.0, 0.0)

    run(test())


def test_a_track_that_was_subscribed_to_by_its_ids_alone_learns_its_kind() -> None:
    incoming = Incoming(TrackInfo("a", "t", None, ""))
    assert not incoming.listed
    incoming.attach(transceiver("audio"))
    assert incoming.kind == "audio"


def test_silence_counts_from_the_latest_frame_or_from_the_beginning() -> None:
    incoming = Incoming(TrackInfo("a", "t", None, "video"))
    incoming.attach(transceiver())
    now = time.monotonic()
    assert incoming.silence(now + 5) - 5 < 1
    incoming.leave_out()
    assert incoming.silence(incoming.last + 2) == 2
