"""Test media through the SFU between aiortc clients, which decode what they receive."""

import asyncio
import dataclasses

import pytest
from aiortc import RTCRtpSender

from metered_sync.wire import sdp
from tests.support.sfu_clients import FAST, Client, Picture, Server, Tone, serve, until


def test_publish_in_the_first_offer():
    async def main():
        async with serve() as server:
            publisher, subscriber = server.client(), server.client()
            picture, tone = Picture(), Tone()
            await publisher.connect(picture, tone)
            # Read once, right after the connection is up, as the quick start does.
            first, second = await publisher.tracks()
            assert first == {
                "sessionId": publisher.id,
                "sfuAppId": "app-1",
                "trackId": picture.id,
                "customTrackName": None,
                "mid": "0",
                "trackKind": "video",
                "subscribers": 0,
            }
            assert (second["trackId"], second["trackKind"]) == (tone.id, "audio")
            await subscriber.connect()
            video, audio = await subscriber.subscribe(
                (publisher.id, picture.id), (publisher.id, tone.id)
            )
            await video.expect(15)
            await audio.expect(15)
            assert [item["subscribers"] for item in await publisher.tracks()] == [1, 1]
            assert (video.last.width, video.last.height) == (320, 240)
            # Sections in the order of the request; the publisher's session as stream id.
            description = sdp.parse(subscriber.pc.remoteDescription.sdp)
            new = description.sections[-2:]
            assert [item.mid for item in new] == [video.mid, audio.mid] == ["s0", "s1"]
            assert [item.msid[0] for item in new] == [publisher.id, publisher.id]
            assert new[0].msid[1] != new[1].msid[1]

    asyncio.run(main())


def test_publish_by_call():
    async def main():
        async with serve() as server:
            publisher, subscriber = server.client(), server.client()
            await publisher.connect(channel=True)
            assert await publisher.tracks() == []
            picture, tone = Picture(), Tone()
            await publisher.publish(picture, tone, name="both")
            tracks = await publisher.tracks()
            assert [item["trackId"] for item in tracks] == [picture.id, tone.id]
            assert {item["customTrackName"] for item in tracks} == {"both"}
            await subscriber.connect(channel=True)
            audio, video = await subscriber.subscribe(
                (publisher.id, tone.id), (publisher.id, picture.id)
            )
            assert (audio.track.kind, video.track.kind) == ("audio", "video")
            await video.expect(10)
            await audio.expect(10)

    asyncio.run(main())


def test_an_idle_section_is_no_track():
    timings = dataclasses.replace(FAST, first_packet_hold=0.3)

    async def main():
        async with serve(timings) as server:
            client = server.client()
            client.pc.addTransceiver("audio", direction="sendrecv")
            await client.connect(channel=True)
            description = sdp.parse(client.pc.localDescription.sdp)
            assert description.sections[0].msid is not None
            assert await asyncio.wait_for(client.tracks(), 20) == []
            # It may become one later on.
            tone = Tone()
            client.pc.addTrack(tone)
            await client.publish()
            await until(lambda: server.sfu.session(client.id).listed_tracks())
            (track,) = await client.tracks()
            assert track["mid"] == "0"

    asyncio.run(main())


def test_publish_and_subscribe_in_one_session():
    async def main():
        async with serve() as server:
            one, two = server.client(), server.client()
            first, second, third = Picture(), Picture(160, 120), Picture(176, 144)
            await one.connect(first)
            await two.connect(channel=True)
            (at_two,) = await two.subscribe((one.id, first.id))
            await two.publish(second)
            (at_one,) = await one.subscribe((two.id, second.id))
            await one.publish(third)
            (more,) = await two.subscribe((one.id, third.id))
            for received, width in ((at_two, 320), (at_one, 160), (more, 176)):
                await received.expect(10)
                assert received.last.width == width

    asyncio.run(main())


def test_subscribe_to_ones_own_track_and_twice():
    async def main():
        async with serve() as server:
            client = server.client()
            picture = Picture()
            await client.connect(picture)
            own = (client.id, picture.id)
            received = await client.subscribe(own, own)
            received += await client.subscribe(own)
            for item in received:
                await item.expect(5)
            sections = sdp.parse(client.pc.remoteDescription.sdp).sections[1:]
            assert len({item.msid[1] for item in sections}) == 3
            assert len({item.ssrcs[0] for item in sections}) == 3

    asyncio.run(main())


def test_many_subscribers():
    async def main():
        async with serve() as server:
            publisher = server.client()
            picture = Picture(160, 120, 15)
            await publisher.connect(picture)
            clients = [server.client() for _ in range(6)]
            await asyncio.gather(*(client.connect(channel=True) for client in clients))
            received = [
                (await client.subscribe((publisher.id, picture.id)))[0] for client in clients
            ]
            await asyncio.gather(*(item.expect(8) for item in received))
            # One leaves; the others go on.
            await clients[0].close()
            await until(lambda: len(server.sfu.sessions()) == 6)
            await asyncio.gather(*(item.expect(8) for item in received[1:]))

    asyncio.run(main())


def test_a_track_may_be_named_before_its_first_packet():
    async def main():
        async with serve() as server:
            publisher, subscriber = server.client(), server.client()
            await subscriber.connect()
            picture = Picture()
            publisher.pc.addTransceiver(picture, direction="sendonly")
            offer = {"sessionDescription": await publisher.offer()}
            _, answer = await server.call("POST", "/session/new", offer)
            publisher.id = answer["sessionId"]
            (received,) = await subscriber.subscribe((publisher.id, picture.id))
            await publisher.take(answer)
            await received.expect(3)

    asyncio.run(main())


async def close_track(client: Client, track_id: str) -> None:
    body = {"tracks": [{"trackId": track_id}], "sessionDescription": await client.offer()}
    answer = await client.call("POST", "/track/close", body)
    assert answer["success"] is True
    await client.take(answer)


def test_close_a_track():
    async def main():
        async with serve() as server:
            publisher, subscriber = server.client(), server.client()
            picture, other = Picture(), Picture(160, 120)
            await publisher.connect(picture, other)
            await subscriber.connect()
            first, second = await subscriber.subscribe(
                (publisher.id, picture.id), (publisher.id, other.id)
            )
            await first.expect(3)
            publisher.pc.getTransceivers()[0].direction = "inactive"
            await close_track(publisher, picture.id)
            assert [item["trackId"] for item in await publisher.tracks()] == [other.id]
            # The subscriber is told, and the other track goes on.
            await until(lambda: first.ended)
            await second.expect(5)
            status, _ = await server.call(
                "POST",
                f"/session/{subscriber.id}/track/subscribe",
                {"tracks": [{"remoteSessionId": publisher.id, "remoteTrackId": picture.id}]},
            )
            assert status == 404
            # Another track may follow in both sessions.
            again = Picture(176, 144)
            await publisher.publish(again)
            (third,) = await subscriber.subscribe((publisher.id, again.id))
            await third.expect(5)

    asyncio.run(main())


def test_a_closed_track_does_not_come_back_by_its_last_packets():
    async def main():
        async with serve() as server:
            publisher = server.client()
            picture = Picture()
            await publisher.connect(picture)
            await publisher.tracks()
            # The section goes on sending: a client that takes its time.
            await close_track(publisher, picture.id)
            count = picture.count
            await until(lambda: picture.count > count + 5)
            assert await publisher.tracks() == []
            # Published again by name, it is back.
            body = {
                "tracks": [{"trackId": picture.id, "mid": "0"}],
                "sessionDescription": await publisher.offer(),
            }
            await publisher.take(await publisher.call("POST", "/track/publish", body))
            assert len(await publisher.tracks()) == 1

    asyncio.run(main())


def test_unsubscribe():
    async def main():
        async with serve() as server:
            publisher, subscriber = server.client(), server.client()
            picture = Picture()
            await publisher.connect(picture)
            await subscriber.connect()
            first, second = await subscriber.subscribe(*[(publisher.id, picture.id)] * 2)
            await first.expect(3)
            first.transceiver.direction = "inactive"
            msid = sdp.parse(subscriber.pc.remoteDescription.sdp).sections[1].msid
            await close_track(subscriber, msid[1])
            await second.expect(10)
            before = first.frames  # (what was still to be decoded has been)
            await second.expect(10)
            assert first.frames == before
            assert len(await publisher.tracks()) == 1

    asyncio.run(main())


def test_ids_belong_to_their_session():
    """Closing a track of one's own leaves another session's of the same id alone."""

    async def main():
        async with serve() as server:
            one, two = server.client(), server.client()
            pictures = [Picture(), Picture(160, 120)]
            for client, picture in zip((one, two), pictures, strict=True):
                await client.connect(channel=True)
                picture._id = "camera"
                await client.publish(picture)
            (received,) = await two.subscribe((one.id, "camera"))
            await received.expect(3)
            await close_track(two, "camera")
            assert await two.tracks() == []
            await received.expect(5)
            await close_track(two, "camera")
            frames, count = received.frames, pictures[0].count
            await until(lambda: pictures[0].count > count + 5)
            assert received.frames <= frames + 1

    asyncio.run(main())


def test_tracks_that_clash():
    async def main():
        async with serve() as server:
            client = server.client()
            first, second = Picture(), Picture()
            await client.connect(first, second)
            await client.tracks()
            offer = {"sessionDescription": await client.offer()}
            path = f"/session/{client.id}/track/publish"
            for tracks, expected in (
                ([("x", "0"), ("x", "1")], (409, "track_exists")),
                ([(first.id, "1")], (409, "track_exists")),
                ([("x", "0"), ("y", "0")], (400, "bad_track")),
            ):
                wishes = [{"trackId": name, "mid": mid} for name, mid in tracks]
                status, answer = await server.call("POST", path, {"tracks": wishes, **offer})
                assert (status, answer["error"]) == expected
            # A track of the first offer may get another id, and a name, afterwards.
            wish = {"trackId": "x", "mid": "0", "customTrackName": "late"}
            await client.take(
                await client.call("POST", "/track/publish", {"tracks": [wish], **offer})
            )
            names = [(item["trackId"], item["customTrackName"]) for item in await client.tracks()]
            assert names == [("x", "late"), (second.id, None)]

    asyncio.run(main())


def test_pause_and_resume():
    async def main():
        async with serve() as server:
            publisher, subscriber = server.client(), server.client()
            picture = Picture()
            await publisher.connect(picture)
            await subscriber.connect()
            (received,) = await subscriber.subscribe((publisher.id, picture.id))
            await received.expect(3)
            for direction in ("inactive", "recvonly"):
                received.transceiver.direction = direction
                body = {"sessionDescription": await subscriber.offer()}
                await subscriber.take(await subscriber.call("PUT", "/renegotiate", body))
                if direction == "inactive":
                    count, frames = picture.count, received.frames
                    await until(lambda count=count: picture.count > count + 8)
                    assert received.frames <= frames + 1
            await received.expect(5)

    asyncio.run(main())


def test_the_end_of_the_publisher_reaches_its_subscribers():
    async def main():
        async with serve() as server:
            publisher, subscriber = server.client(), server.client()
            picture = Picture()
            await publisher.connect(picture)
            await subscriber.connect()
            (received,) = await subscriber.subscribe((publisher.id, picture.id))
            await received.expect(3)
            server.sfu.kill_session(publisher.id)
            await until(lambda: received.ended)
            # Its section is offered for rejection with the next offer, and that works.
            other, again = server.client(), Picture(160, 120)
            await other.connect(again)
            (second,) = await subscriber.subscribe((other.id, again.id))
            sections = sdp.parse(subscriber.pc.remoteDescription.sdp).sections
            assert [item.rejected for item in sections] == [False, True, False]
            await second.expect(5)

    asyncio.run(main())


def test_loss():
    async def main():
        async with serve() as server:
            publisher, subscriber = server.client(), server.client()
            picture = Picture(640, 480, noise=True)
            await publisher.connect(picture)
            await subscriber.connect()
            (received,) = await subscriber.subscribe((publisher.id, picture.id))
            await received.expect(5)
            server.sfu.lose_media(0.03)
            sent, decoded = picture.count, received.frames
            await until(lambda: picture.count >= sent + 90)
            share = (received.frames - decoded) / (picture.count - sent)
            assert share > 0.8, f"{share:.0%} of the frames"

    asyncio.run(main())


def test_total_loss_and_back():
    async def main():
        async with serve() as server:
            publisher, subscriber = server.client(), server.client()
            picture = Picture()
            await publisher.connect(picture)
            await subscriber.connect()
            (received,) = await subscriber.subscribe((publisher.id, picture.id))
            await received.expect(3)
            server.sfu.lose_media(1)
            count = picture.count
            await until(lambda: picture.count > count + 20)
            server.sfu.lose_media(0)
            await received.expect(10)

    asyncio.run(main())


@pytest.mark.parametrize("name", ["VP8", "H264"])
def test_codecs(name):
    async def main():
        async with serve() as server:
            publisher, subscriber = server.client(), server.client()
            picture = Picture()
            transceiver = publisher.pc.addTransceiver(picture, direction="sendonly")
            capabilities = RTCRtpSender.getCapabilities("video").codecs
            transceiver.setCodecPreferences(
                [item for item in capabilities if item.mimeType == f"video/{name}"]
            )
            await publisher.connect(channel=True)
            await subscriber.connect()
            (received,) = await subscriber.subscribe((publisher.id, picture.id))
            await received.expect(10)

    asyncio.run(main())


async def renegotiate(client: Client, edit) -> sdp.Description:
    """Make an edited offer and return the SFU's answer."""
    parsed = edit(sdp.parse((await client.offer())["sdp"]))
    body = {"sessionDescription": {"type": "offer", "sdp": sdp.build(parsed)}}
    answer = await client.call("PUT", "/renegotiate", body)
    return sdp.parse(answer["sessionDescription"]["sdp"])


def test_an_ice_restart_changes_the_credentials():
    async def main():
        async with serve() as server:
            client = server.client()
            await client.connect()
            before = sdp.parse(client.pc.remoteDescription.sdp).sections[0]

            def restart(parsed):
                sections = tuple(
                    dataclasses.replace(item, ice_ufrag="another") for item in parsed.sections
                )
                return dataclasses.replace(parsed, sections=sections)

            for _ in range(3):
                after = (await renegotiate(client, restart)).sections[0]
            assert after.ice_ufrag != before.ice_ufrag
            assert after.ice_pwd != before.ice_pwd
            # Asking again for the same changes nothing.
            again = (await renegotiate(client, restart)).sections[0]
            assert again.ice_ufrag == after.ice_ufrag

    asyncio.run(main())


def test_a_rejected_section_is_used_again_by_either_side():
    async def main():
        async with serve() as server:
            publisher, client = server.client(), server.client()
            tone = Tone()
            await publisher.connect(tone)
            client.pc.addTransceiver("audio")
            client.pc.addTransceiver("video")
            await client.connect(channel=True)

            def stop(parsed):
                audio = dataclasses.replace(parsed.sections[0], port=0, direction="inactive")
                return dataclasses.replace(parsed, sections=(audio, *parsed.sections[1:]))

            answer = await renegotiate(client, stop)
            assert answer.sections[0].rejected
            assert answer.bundle == ("1", "2")

            # The SFU's offer takes the free place first.
            wish = {"remoteSessionId": publisher.id, "remoteTrackId": tone.id}
            body = {"tracks": [wish, wish]}
            offer = await client.call("POST", "/track/subscribe", body)
            parsed = sdp.parse(offer["sessionDescription"]["sdp"])
            assert [item.mid for item in parsed.sections] == ["s0", "1", "2", "s1"]

    asyncio.run(main())


def test_simulcast_is_negotiated_down_to_one_layer():
    async def main():
        async with serve() as server:
            client = server.client()
            picture = Picture()
            client.pc.addTransceiver(picture, direction="sendonly")
            parsed = sdp.parse((await client.offer())["sdp"])
            section = dataclasses.replace(
                parsed.sections[0],
                rids=(("hi", "send"), ("lo", "send")),
                simulcast="send hi;lo",
                ssrcs=(),
                ssrc_groups=(),
            )
            offer = sdp.build(dataclasses.replace(parsed, sections=(section,)))
            body = {"sessionDescription": {"type": "offer", "sdp": offer}}
            status, answer = await server.call("POST", "/session/new", body)
            assert status == 200
            client.id = answer["sessionId"]
            text = answer["sessionDescription"]["sdp"]
            assert "simulcast" not in text
            assert "a=rid" not in text
            # Without an SSRC in the offer, the packets' mid leads to the track.
            await client.take(answer)
            (track,) = await client.tracks()
            assert track["trackId"] == picture.id

    asyncio.run(main())


def test_too_many_sections():
    async def main():
        async with serve() as server:
            client = server.client()
            picture = Picture()
            await client.connect(picture)
            wish = {"remoteSessionId": client.id, "remoteTrackId": picture.id}
            path = f"/session/{client.id}/track/subscribe"
            status, answer = await server.call("POST", path, {"tracks": [wish] * 200})
            assert (status, answer["error"]) == (413, "too_many_tracks")

    asyncio.run(main())


async def churn(server: Server, publisher: Client, picture: Picture, rounds: int) -> None:
    for _ in range(rounds):
        client = server.client()
        await client.connect(channel=True)
        (received,) = await client.subscribe((publisher.id, picture.id))
        await received.expect(1)
        await client.close()
        server.clients.remove(client)
    await until(lambda: len(server.sfu.sessions()) == 1)


def test_nothing_grows_with_its_clients():
    async def main():
        async with serve() as server:
            publisher = server.client()
            picture = Picture(160, 120)
            await publisher.connect(picture)
            await publisher.tracks()
            await churn(server, publisher, picture, 8)
            port = server.sfu._port
            session = server.sfu.session(publisher.id)
            assert len(port._by_ufrag) == len(port._by_address) == 1
            assert not session.find_track(picture.id)._subscriptions

    asyncio.run(main())
