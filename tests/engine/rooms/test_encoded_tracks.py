"""Tracks that are encoded already on a connection to a peer: offered alone, refused, told of."""

from __future__ import annotations

import asyncio
from pathlib import Path

from metered_sync import from_file
from metered_sync.engine.rooms.sections import Sections
from metered_sync.engine.rooms.slot import Slot
from metered_sync.engine.sending.local_track import LocalTrack
from metered_sync.engine.webrtc.stream_formats import StreamFormat
from tests.support.connections import Side, run, tone, until
from tests.support.encoded import write
from tests.support.refusing_member import RefusingMember


def test_a_peer_without_the_codec_is_told_of_once_and_all_else_goes_on(tmp_path: Path) -> None:
    film = write(tmp_path / "film.mkv", profile="high")

    async def test() -> None:
        with await asyncio.to_thread(from_file, film, encoded=True) as source:
            side = Side("a", "b")
            member = RefusingMember(side)
            member.refuses = lambda section: section.kind == "video"
            local = LocalTrack(source.tracks[0], metadata={"role": "film"})
            side.link.set_tracks([tone(), local])
            await until(lambda: side.errors, what="an error")
            await until(lambda: side.link.state == "connected", what="a connection")
            (error,) = side.errors
            assert "the peer does not take H.264 (High profile, 64" in str(error)
            assert "open its source without encoded=True" in str(error)
            (video,) = (s for s in member.offers[-1].sections if s.kind == "video")
            assert [codec.name for codec in video.codecs] == ["H264", "rtx"]
            assert video.codecs[0].parameters["profile-level-id"].startswith("6400")
            assert video.direction == "sendonly"
            # Another one is offered, and refused, and told of as well; not the first once more.
            other = LocalTrack(source.tracks[0])
            side.link.set_tracks([tone(), local, other])
            await until(lambda: len(side.errors) == 2, what="another error")
            assert other.id in str(side.errors[1])
            for track in (local, other):
                track.close()
            await side.link.aclose()
            await member.pc.close()

    run(test())


def test_an_offer_that_crosses_ours_keeps_its_codecs() -> None:
    """The other side has given the mid that we have given, to a section of its own."""
    sections, high = Sections(), StreamFormat("h264", "64001f")
    slot = Slot("video", "0", ours=True, format=high)
    sections.slots = [slot]
    assert sections.formats() == {"0": high}
    assert sections.formats(agreed=True) == {}
    slot.agreed = True
    assert sections.formats(agreed=True) == {"0": high}
