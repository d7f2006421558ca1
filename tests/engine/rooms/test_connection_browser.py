"""A connection of ours whose other peer is a browser."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from metered_sync import from_file
from metered_sync.bridge.reader import Reader
from metered_sync.engine.sending.local_track import LocalTrack
from metered_sync.media.pixels import PixelConverter
from metered_sync.wire.signals import SessionDescription
from metered_sync.wire.timings import DEFAULT_TIMINGS
from tests.support.colours import PATCHES, colours
from tests.support.connections import FAST, Side, frames, picture, run, tone, until
from tests.support.encoded import write
from tests.support.peer_page import PeerPage, peer_page

pytestmark = pytest.mark.browser
POLITE, IMPOLITE = ("a", "b"), ("b", "a")
LONG = DEFAULT_TIMINGS.answer_max
PATIENT = replace(FAST, answer=LONG, crossing=LONG, media_connect=30.0)
"""For a browser on a busy machine: what is repeated to it is a complaint of the page."""


async def gets(side: Side, kinds: Sequence[str]) -> None:
    """Wait until these tracks have come, and play."""
    await until(lambda: sorted(t.kind for t in side.present) == sorted(kinds), 20, "tracks")
    await asyncio.gather(*map(frames, side.present))


async def plays(page: PeerPage, count: int) -> list[str]:
    """Wait until the page receives that many tracks; return their sections."""
    for _ in range(200):
        mids: list[str] = await page.run("return receiving()")
        if len(mids) == count:
            break
        await asyncio.sleep(0.05)
    assert len(mids) == count, mids
    await asyncio.gather(*(page.run("await plays(mid)", mid=mid) for mid in mids))
    return mids


async def in_order(page: PeerPage) -> None:
    assert await page.complaints() == []
    assert page.side.errors == []


@pytest.mark.parametrize("ids", [POLITE, IMPOLITE])
def test_it_offers_two_sections_and_we_have_three_tracks(ids: tuple[str, str]) -> None:
    async def test() -> None:
        side = Side(*ids, timings=PATIENT, greets=False)
        async with peer_page(side) as page:
            await page.run("await camera('audio', 'video')")
            await gets(side, ["audio", "video"])
            ours = [tone(), picture(), picture(stream_id="second")]
            side.link.set_tracks(ours)
            mids = await plays(page, 3)
            assert mids == ["0", "1", "2"]
            received = await page.run("return videos")
            assert received["2"]["id"] == ours[2].id
            assert received["2"]["streams"] == ["second"]
            await gets(side, ["audio", "video"])  # still
            assert side.link.generations == 1
            await in_order(page)

    run(test())


def test_both_begin_at_once_with_three_against_two() -> None:
    async def test() -> None:
        side = Side(*POLITE, timings=PATIENT, greets=False)
        async with peer_page(side) as page:
            side.link.set_tracks([tone(metadata={}), picture(), picture()])
            await page.run("await camera('audio', 'video')")
            await gets(side, ["audio", "video"])
            await plays(page, 3)
            await gets(side, ["audio", "video"])
            await in_order(page)

    run(test())


def test_we_offer_and_it_joins_in() -> None:
    async def test() -> None:
        side = Side(*IMPOLITE, timings=PATIENT, greets=False)
        async with peer_page(side) as page:
            ours = [tone(stream_id="s", metadata={}), picture(stream_id="s")]
            side.link.set_tracks(ours)
            await plays(page, 2)
            received = await page.run("return videos")
            assert [received[mid]["id"] for mid in "01"] == [local.id for local in ours]
            assert received["0"]["streams"] == ["s"]
            await page.run("await camera('video', 'audio')")
            await gets(side, ["audio", "video"])
            await plays(page, 2)
            await in_order(page)

    run(test())


@pytest.mark.parametrize("ids", [POLITE, IMPOLITE])
def test_tracks_with_metadata_keep_their_ids_there(ids: tuple[str, str]) -> None:
    async def test() -> None:
        side = Side(*ids, timings=PATIENT, greets=False)
        async with peer_page(side) as page:
            ours = [tone(metadata={}), picture(metadata={})]
            side.link.set_tracks(ours)  # both begin at once
            await page.run("await camera('audio', 'video')")
            await gets(side, ["audio", "video"])
            mids = await plays(page, 2)
            received = await page.run("return videos")
            assert {received[mid]["id"] for mid in mids} == {local.id for local in ours}
            await page.run("await camera('audio', 'video')")  # may use sections that we made
            await gets(side, ["audio", "audio", "video", "video"])
            await in_order(page)

    run(test())


def test_a_track_comes_back_in_another_section() -> None:
    async def test() -> None:
        side = Side(*POLITE, timings=PATIENT, greets=False)
        async with peer_page(side) as page:
            local = tone(metadata={})
            await page.run("await camera('audio')")
            await gets(side, ["audio"])
            side.link.set_tracks([local])
            assert await plays(page, 1) == ["1"]
            side.link.set_tracks([])
            await plays(page, 0)
            await page.run("await camera('video')")  # and it offers to receive in all
            await gets(side, ["audio", "video"])
            local.metadata = None
            side.link.set_tracks([local])
            assert await plays(page, 1) == ["0"]
            await in_order(page)

    run(test())


def test_it_stops_a_transceiver_and_uses_its_section_again() -> None:
    async def test() -> None:
        side = Side(*POLITE, timings=PATIENT, greets=False)
        async with peer_page(side) as page:
            side.link.set_tracks([tone()])
            await page.run("await camera('audio', 'video')")
            await gets(side, ["audio", "video"])
            await page.run("pc.getTransceivers()[1].stop()")
            await gets(side, ["audio"])
            assert [track.kind for track in side.gone] == ["video"]
            # our own offer leaves the section rejected
            extra = tone()
            side.link.set_tracks([*side.link._sections.tracks, extra])
            await plays(page, 2)
            await page.run("await camera('video')")
            await gets(side, ["audio", "video"])
            await plays(page, 2)
            side.link.set_tracks([*side.link._sections.tracks, picture(metadata={})])
            mids = await plays(page, 3)
            assert "1" not in mids  # that name has been used up
            assert side.link.generations == 1
            await in_order(page)

    run(test())


def test_it_stops_the_first_transceiver() -> None:
    async def test() -> None:
        side = Side(*POLITE, timings=PATIENT, greets=False)
        async with peer_page(side) as page:
            await page.run("await camera('audio', 'video')")
            await gets(side, ["audio", "video"])
            await page.run("pc.getTransceivers()[0].stop()")
            await gets(side, ["video"])
            side.link.set_tracks([tone()])
            await plays(page, 1)
            await gets(side, ["video"])
            await in_order(page)

    run(test())


def test_it_removes_a_track_and_adds_it_again() -> None:
    async def test() -> None:
        side = Side(*POLITE, timings=PATIENT, greets=False)
        async with peer_page(side) as page:
            await page.run("await camera('audio', 'video')")
            await gets(side, ["audio", "video"])
            await page.run(
                "const sender = pc.getSenders()[1]; window.old = sender.track;"
                "pc.removeTrack(sender)"
            )
            await gets(side, ["audio"])
            await page.run("pc.addTrack(old, new MediaStream())")
            await gets(side, ["audio", "video"])
            assert len(side.gone) == 1
            assert len(side.link.pc.getTransceivers()) == 3  # a browser takes a new section
            await in_order(page)

    run(test())


def test_it_pauses_a_section_and_goes_on_in_it() -> None:
    async def test() -> None:
        side = Side(*POLITE, timings=PATIENT, greets=False)
        async with peer_page(side) as page:
            await page.run("await camera('audio', 'video')")
            await gets(side, ["audio", "video"])
            for _ in range(2):
                await page.run("pc.getTransceivers()[1].direction = 'inactive'")
                await gets(side, ["audio"])
                await asyncio.sleep(0.5)
                await page.run("pc.getTransceivers()[1].direction = 'sendonly'")
                await gets(side, ["audio", "video"])
            assert len(side.first) == 2
            await in_order(page)

    run(test())


@pytest.mark.parametrize("ids", [POLITE, IMPOLITE])
def test_our_rebuilt_offer_meets_its_live_connection(ids: tuple[str, str]) -> None:
    # Where Chromium is to begin the new handshake, it does so on the old path, for some 6 s.
    async def test() -> None:
        side = Side(*ids, timings=PATIENT, greets=False)
        async with peer_page(side) as page:
            side.link.set_tracks([tone(), picture()])
            if ids == POLITE:  # (rolled back, Chromium would offer its channel over and over)
                await page.run("pc.createDataChannel('first')")
            await page.run("await camera('audio', 'video')")
            await page.run("await camera('video')")
            await gets(side, ["audio", "video", "video"])
            await plays(page, 2)
            await page.run("pc.getTransceivers()[2].stop()")
            await gets(side, ["audio", "video"])
            before = list(side.present)
            side.link.rebuild(local_id=ids[0])
            await gets(side, ["audio", "video"])
            await plays(page, 2)
            assert side.present == before
            assert side.link.generations == 2
            await in_order(page)

    run(test())


def test_it_restarts_ice() -> None:
    async def test() -> None:
        side = Side(*POLITE, timings=PATIENT, greets=False)
        async with peer_page(side) as page:
            side.link.set_tracks([tone(), picture()])
            await page.run("await camera('audio', 'video')")
            await gets(side, ["audio", "video"])
            before = list(side.present)
            await page.run("pc.restartIce()")
            await until(lambda: side.link.generations == 2, what="a new generation")
            await page.run("pc.restartIce()")
            await until(lambda: side.link.generations == 3, what="a new generation")
            await gets(side, ["audio", "video"])
            await plays(page, 2)
            assert side.present == before
            await in_order(page)

    run(test())


KINDS = {"audio": tone, "video": picture}
CROSSINGS = [
    # (Each pair of values is in one that is not slow.)
    pytest.param(
        ids, ours, theirs, marks=() if (ids == POLITE) == (ours == theirs) else pytest.mark.slow
    )
    for ids in (POLITE, IMPOLITE)
    for ours in KINDS
    for theirs in KINDS
]


@pytest.mark.parametrize(("ids", "ours", "theirs"), CROSSINGS)
def test_first_offers_that_cross(ids: tuple[str, str], ours: str, theirs: str) -> None:
    # Chromium is stuck if the numbers in ours clash with those in its own.
    async def test() -> None:
        side = Side(*ids, timings=PATIENT, greets=False)
        async with peer_page(side) as page:
            await page.run("hold = []; await camera(kind)", kind=theirs)
            side.link.set_tracks([KINDS[ours]()])
            channel = await side.link.open_channel("ours", {})
            received: list[str] = []
            channel.on("message", received.append)
            await until(side.offers, what="our offer")
            await asyncio.sleep(0.2)
            await page.run("release()")
            await gets(side, [theirs])
            await plays(page, 1)
            await until(lambda: channel.readyState == "open", what="open")
            channel.send("hello")
            await until(lambda: received == ["echo hello"], what="an echo")
            assert side.link.generations == 1
            await in_order(page)

    run(test())


@pytest.mark.parametrize("ids", [POLITE, IMPOLITE])
def test_offers_that_cross(ids: tuple[str, str]) -> None:
    async def test() -> None:
        side = Side(*ids, timings=PATIENT, greets=False)
        async with peer_page(side) as page:
            side.link.set_tracks([tone()])
            await page.run("await camera('audio')")
            await gets(side, ["audio"])
            await plays(page, 1)
            # its offer is held back until ours has arrived
            await page.run("hold = []; await camera('video')")
            offers = side.offers()
            side.link.set_tracks([*side.link._sections.tracks, picture()])
            await until(lambda: side.offers() > offers, what="our offer")
            await asyncio.sleep(0.2)
            await page.run("release()")
            await gets(side, ["audio", "video"])
            await plays(page, 2)
            assert side.link.generations == 1
            await in_order(page)

    run(test())


def test_only_a_data_channel_then_more() -> None:
    async def test() -> None:
        side = Side(*POLITE, timings=PATIENT, greets=False)
        async with peer_page(side) as page:
            await page.run("pc.createDataChannel('its')")
            await until(lambda: side.channels, what="its channel")
            side.link.set_tracks([tone(), picture()])
            await plays(page, 2)
            channel = await side.link.open_channel("ours", {})
            received: list[str] = []
            channel.on("message", received.append)
            await until(lambda: channel.readyState == "open", what="open")
            channel.send("hello")
            await until(lambda: received == ["echo hello"], what="an echo")
            await page.run("await camera('audio')")
            await gets(side, ["audio"])
            side.link.rebuild(local_id="a")
            await gets(side, ["audio"])
            await plays(page, 2)
            await in_order(page)

    run(test())


def test_a_codec_that_we_do_not_have() -> None:
    async def test() -> None:
        side = Side(*POLITE, timings=PATIENT, greets=False)
        async with peer_page(side) as page:
            await page.run(
                "const [track] = await media({video: true});"
                "const transceiver = pc.addTransceiver(track);"
                "const {codecs} = RTCRtpSender.getCapabilities('video');"
                "transceiver.setCodecPreferences(codecs.filter(c => c.mimeType === 'video/AV1'));"
                "await camera('audio')"
            )
            await gets(side, ["audio"])
            side.link.set_tracks([picture(), tone()])
            await plays(page, 2)
            await gets(side, ["audio"])
            answer = next(s for s in side.sent if isinstance(s, SessionDescription))
            assert "m=video 0 " in answer.sdp
            [error] = side.errors  # once, though it was described more than once
            assert "AV1" in str(error)
            side.errors.clear()
            await in_order(page)

    run(test())


def test_its_connection_is_closed_and_made_again() -> None:
    async def test() -> None:
        side = Side(*POLITE, timings=PATIENT, greets=False)
        async with peer_page(side) as page:
            side.link.set_tracks([tone()])
            await page.run("await camera('audio')")
            await gets(side, ["audio"])
            await side.link.pc.close()  # as when the network goes
            await until(lambda: side.link.generations == 2, what="a new generation")
            await gets(side, ["audio"])
            await plays(page, 1)
            await in_order(page)

    run(test())


@pytest.mark.parametrize("ids", [POLITE, pytest.param(IMPOLITE, marks=pytest.mark.slow)])
def test_its_canvas_has_the_right_colours(ids: tuple[str, str]) -> None:
    """It sends them from 0 to 255, in BT.709, and says so in the packets only."""

    async def test() -> None:
        side = Side(*ids, timings=PATIENT, greets=False)
        async with peer_page(side) as page:
            if ids == IMPOLITE:  # we offer first
                side.link.set_tracks([picture()])
                await plays(page, 1)
            await page.run(
                """
                const canvas = document.createElement('canvas');
                [canvas.width, canvas.height] = [patches.length * 64, 128];
                const context = canvas.getContext('2d');
                let number = 0;
                setInterval(() => {
                  patches.forEach((c, i) => {
                    context.fillStyle = `rgb(${c})`;
                    context.fillRect(i * 64, 0, 64, 128);
                  });
                  context.fillRect(0, 0, 8 + ++number % 2 * 4, 8);
                }, 66);
                pc.addTrack(canvas.captureStream(15).getVideoTracks()[0]);
                """,
                patches=PATCHES,
            )
            await gets(side, ["video"])
            [track] = side.present
            converter = PixelConverter()
            newest: Reader[Any] = Reader("test", maxsize=1)
            track.add(newest)

            def is_right() -> bool:
                if not len(newest):
                    return False
                rgb = converter.convert(newest.get_nowait(), "rgb24")
                return bool(np.abs(colours(rgb) - PATCHES).max() <= 8)

            await until(is_right, 20, "the right colours")
            newest.end()
            await in_order(page)

    run(test())


@pytest.mark.parametrize("ids", [POLITE, IMPOLITE])
def test_it_plays_what_is_encoded_already(ids: tuple[str, str], tmp_path: Path) -> None:
    """In Main profile, beside a camera of its own, whose section has all codecs."""
    film = write(
        tmp_path / "film.mkv",
        count=250,
        gop=1000,
        size=(320, 180),
        audio="libopus",
        profile="main",
    )

    async def test() -> None:
        with await asyncio.to_thread(from_file, film, encoded=True, loop=True) as source:
            side = Side(*ids, timings=PATIENT, greets=False)
            async with peer_page(side) as page:
                tracks = [LocalTrack(track) for track in source.tracks]
                side.link.set_tracks([*tracks, picture()])
                await page.run("await camera('video')")
                await gets(side, ["video"])
                await plays(page, 3)
                await page.run("await camera('video')")  # it makes an offer of its own
                await gets(side, ["video", "video"])
                mids = await plays(page, 3)
                seen = await page.run("return codecs(mids)", mids=mids)
                assert sorted(seen) == ["audio/opus", "video/H264", "video/VP8"]
                await in_order(page)
        for track in tracks:
            track.close()

    run(test())
