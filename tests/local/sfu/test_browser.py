"""Test the SFU with a real Chromium, alone and together with aiortc."""

import asyncio
import contextlib

import pytest

from metered_sync.wire import sdp
from tests.support.chromium import chromium
from tests.support.sfu_clients import APP, SECRET, Picture, Tone, serve, until

pytestmark = pytest.mark.browser


@contextlib.asynccontextmanager
async def browser(server, tabs=1):
    """Open pages that are clients of the server."""
    async with chromium() as chrome:
        yield [await chrome.open_client(server.origin, APP, SECRET) for _ in range(tabs)]


def test_browser_to_aiortc():
    async def main():
        async with serve() as server, browser(server) as (page,):
            video = await page.run("""
                pc.createDataChannel('idle');
                await connect();
                return publish(await camera(), 'camera');
            """)
            audio = await page.run("return publish(await camera({audio: true}), 'microphone')")
            client = server.client()
            await client.connect(channel=True)
            tracks = await client.tracks(video["sessionId"])
            assert [item["customTrackName"] for item in tracks] == ["camera", "microphone"]
            picture, sound = await client.subscribe(
                *((item["sessionId"], item["trackId"]) for item in (video, audio))
            )
            await picture.expect(20)
            await sound.expect(20)
            assert picture.last.width >= 320
            # The bitrate leaves its start behind.
            for _ in range(100):
                rtp = await page.run("return statistics(mid, 'outbound-rtp')", mid=video["mid"])
                if rtp["targetBitrate"] > 600_000:
                    break
                await picture.expect(1)
            else:
                pytest.fail(f"the bitrate stays at {rtp['targetBitrate']}")

    asyncio.run(main())


def test_aiortc_to_browser():
    async def main():
        async with serve() as server, browser(server) as (page,):
            client = server.client()
            picture, tone = Picture(), Tone()
            await client.connect(picture, tone)
            mids = await page.run(
                """
                pc.createDataChannel('idle');
                await connect();
                return subscribe([{sessionId: s, trackId: a}, {sessionId: s, trackId: v}]);
                """,
                s=client.id,
                a=tone.id,
                v=picture.id,
            )
            assert mids == ["s0", "s1"]
            assert await page.run("return decoded(mid, 30)", mid=mids[1]) >= 30
            received = await page.run("return statistics(mid, 'inbound-rtp')", mid=mids[0])
            assert received["packetsReceived"] > 10
            assert received["totalSamplesReceived"] > 0

    asyncio.run(main())


def test_publish_and_subscribe_in_one_session():
    """Published video must go on, unharmed by the offers of the SFU."""

    async def main():
        async with serve() as server, browser(server) as (page,):
            client = server.client()
            await client.connect(channel=True)
            own = await page.run("""
                pc.addTransceiver('audio');
                await connect();
                return publish(await camera(), 'camera');
            """)
            (seen,) = await client.subscribe((own["sessionId"], own["trackId"]))
            await seen.expect(10)
            for size in ((320, 240), (160, 120)):
                picture = Picture(*size)
                await client.publish(picture)
                (mid,) = await page.run(
                    "return subscribe([{sessionId: s, trackId: t}])", s=client.id, t=picture.id
                )
                await page.run("return decoded(mid, 15)", mid=mid)
                await seen.expect(15)
            # Its own track back, and one more track of its own.
            (mid,) = await page.run("return subscribe([own])", own=own)
            await page.run("return decoded(mid, 15)", mid=mid)
            more = await page.run("return publish(await camera({audio: true}), 'microphone')")
            (heard,) = await client.subscribe((own["sessionId"], more["trackId"]))
            await heard.expect(10)
            await seen.expect(15)
            types = await page.run(
                """
                const report = await pc.getTransceivers().find(t => t.mid === mid)
                    .sender.getStats();
                return [...report.values()].filter(item => item.type === 'codec')
                    .map(item => item.payloadType);
                """,
                mid=own["mid"],
            )
            assert len(types) == 1

    asyncio.run(main())


def test_the_transceiver_of_a_received_track_is_used_for_sending():
    """``addTrack`` takes it over, so one section carries a track in each direction."""

    async def main():
        async with serve() as server, browser(server) as (page,):
            client = server.client()
            picture = Picture()
            await client.connect(picture)
            own = await page.run(
                """
                pc.createDataChannel('idle');
                await connect();
                const [mid] = await subscribe([{sessionId: s, trackId: t}]);
                await decoded(mid, 5);
                const track = await camera();
                pc.addTrack(track);
                const transceiver = pc.getTransceivers().find(t => t.sender.track === track);
                return publishOn(transceiver, track, 'camera');
                """,
                s=client.id,
                t=picture.id,
            )
            assert own["mid"] == "s0"
            (seen,) = await client.subscribe((own["sessionId"], own["trackId"]))
            await seen.expect(10)
            await page.run("return decoded('s0', 10)")

    asyncio.run(main())


def test_stopped_transceivers_free_their_sections():
    async def main():
        async with serve() as server, browser(server) as (page,):
            client = server.client()
            picture = Picture(160, 120)
            await client.connect(picture)
            mids = await page.run(
                """
                pc.createDataChannel('idle');
                await connect();
                const wish = {sessionId: s, trackId: t};
                const mids = [];
                for (let round = 0; round < 4; round++) {
                  const [mid] = await subscribe([wish]);
                  await decoded(mid, 3);
                  mids.push(mid);
                  const transceiver = pc.getTransceivers().find(t => t.mid === mid);
                  transceiver.stop();
                  const own = await camera();
                  const published = await publish(own, 'camera ' + round);
                  pc.getTransceivers().find(t => t.mid === published.mid).stop();
                  await closeTracks([own.id]);
                }
                return mids;
                """,
                s=client.id,
                t=picture.id,
            )
            assert mids == ["s0", "s1", "s2", "s3"]
            (info,) = [item for item in server.sfu.sessions() if item.session_id != client.id]
            session = server.sfu.session(info.session_id)
            assert session.listed_tracks() == ()
            assert len(session._slots) <= 3
            (mid,) = await page.run(
                "return subscribe([{sessionId: s, trackId: t}])", s=client.id, t=picture.id
            )
            await page.run("return decoded(mid, 5)", mid=mid)

    asyncio.run(main())


def test_a_page_that_stops_its_only_transceiver_may_publish_again():
    """The browser closes its transport with its last section, and begins anew."""

    async def main():
        async with serve() as server, browser(server) as (page,):
            await page.run("""
                const track = await camera();
                const transceiver = pc.addTransceiver(track, {direction: 'sendonly'});
                await connect();
                transceiver.stop();
                await closeTracks([track.id]);
            """)
            own = await page.run("return publish(await camera(), 'again')")
            client = server.client()
            await client.connect(channel=True)
            (seen,) = await client.subscribe((own["sessionId"], own["trackId"]))
            await seen.expect(10)
            assert {item.state for item in server.sfu.sessions()} == {"connected"}

    asyncio.run(main())


def test_sections_of_ended_tracks_are_given_back():
    async def main():
        async with serve() as server, browser(server) as (page,):
            await page.run("pc.createDataChannel('idle'); await connect()")
            for _ in range(4):
                client = server.client()
                picture = Picture(160, 120)
                await client.connect(picture)
                (mid,) = await page.run(
                    "return subscribe([{sessionId: s, trackId: t}])", s=client.id, t=picture.id
                )
                await page.run("return decoded(mid, 3)", mid=mid)
                await client.close()
                await until(lambda: len(server.sfu.sessions()) == 1)
            text = await page.run("return pc.remoteDescription.sdp")
            assert len(sdp.parse(text).sections) <= 3

    asyncio.run(main())


@pytest.mark.parametrize("codec", ["VP9", "H264", "AV1"])
def test_codecs(codec):
    async def main():
        async with serve() as server, browser(server, tabs=2) as (publisher, subscriber):
            if not await publisher.run(
                "return RTCRtpSender.getCapabilities('video').codecs"
                ".some(item => item.mimeType === 'video/' + codec)",
                codec=codec,
            ):
                pytest.skip(f"this Chromium has no encoder for {codec}")
            track = await publisher.run(
                """
                const transceiver = pc.addTransceiver(await camera(), {direction: 'sendonly'});
                transceiver.setCodecPreferences(RTCRtpSender.getCapabilities('video').codecs
                    .filter(item => item.mimeType === 'video/' + codec));
                await connect();
                return (await call('GET', `/session/${sessionId}/tracks`))[0];
                """,
                codec=codec,
            )
            name = await subscriber.run(
                """
                pc.addTransceiver('audio');
                await connect();
                const [mid] = await subscribe([track]);
                await decoded(mid, 20);
                return codec(mid);
                """,
                track=track,
            )
            assert name == f"video/{codec}"

    asyncio.run(main())


def test_simulcast_sends_one_layer():
    async def main():
        async with serve() as server, browser(server) as (page,):
            own = await page.run("""
                pc.createDataChannel('idle');
                await connect();
                return publish(await camera(), 'camera', {sendEncodings: [
                    {rid: 'lo', scaleResolutionDownBy: 2}, {rid: 'hi'}]});
            """)
            client = server.client()
            await client.connect(channel=True)
            (seen,) = await client.subscribe((own["sessionId"], own["trackId"]))
            await seen.expect(20)

    asyncio.run(main())


def test_loss_between_browsers():
    async def main():
        async with serve() as server, browser(server, tabs=2) as (publisher, subscriber):
            own = await publisher.run("""
                pc.addTransceiver('audio');
                await connect();
                return publish(await camera(), 'camera');
            """)
            (mid,) = await subscriber.run(
                "pc.addTransceiver('video'); await connect(); return subscribe([own])", own=own
            )
            await subscriber.run("return decoded(mid, 5)", mid=mid)
            server.sfu.lose_media(0.03)
            await subscriber.run("return decoded(mid, 40)", mid=mid)
            server.sfu.lose_media(0)
            await subscriber.run("return decoded(mid, 10)", mid=mid)

    asyncio.run(main())
