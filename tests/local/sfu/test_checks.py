"""Test that the SFU refuses descriptions which it cannot use, whole or by section."""

import asyncio
import dataclasses

import pytest
from aiortc import RTCSessionDescription

from metered_sync.wire import sdp
from tests.support.sfu_clients import FAST, Client, Picture, serve


def edited(description: dict, edit) -> dict:
    """Change the offer's parsed form."""
    parsed = sdp.parse(description["sdp"])
    return {"type": "offer", "sdp": sdp.build(edit(parsed))}


def each(**changes):
    def edit(parsed: sdp.Description) -> sdp.Description:
        sections = tuple(dataclasses.replace(item, **changes) for item in parsed.sections)
        return dataclasses.replace(parsed, sections=sections)

    return edit


def test_descriptions_that_cannot_be_used():
    async def main():
        async with serve() as server:
            client = server.client()
            client.pc.addTransceiver("audio")
            client.pc.addTransceiver("video")
            offer = await client.offer()
            for bad in (
                {"type": "offer", "sdp": "hello"},
                {"type": "offer", "sdp": "v=0\r\n"},
                edited(offer, each(mid="")),
                edited(offer, each(mid="same")),
                edited(offer, each(port=0)),
                edited(offer, each(ice_ufrag="", ice_pwd="")),
                edited(offer, each(fingerprints=())),
                edited(offer, each(setup="passive")),
                edited(offer, lambda parsed: dataclasses.replace(parsed, sections=())),
            ):
                body = {"sessionDescription": bad}
                found = await server.refused("POST", "/session/new", body)
                assert found == (400, "bad_description"), bad["sdp"]
            assert await server.call("GET", "/sessions") == (200, [])

    asyncio.run(main())


def test_unusable_sections_are_rejected_one_by_one():
    async def main():
        async with serve() as server:
            client = server.client()
            client.pc.addTransceiver("audio")
            client.pc.addTransceiver("video")
            parsed = sdp.parse((await client.offer())["sdp"])
            audio, video = parsed.sections
            unknown = (sdp.Codec(96, "H999", 90000),)
            text = dataclasses.replace(audio, kind="text", mid="2", msid=None)
            foreign = dataclasses.replace(video, mid="3", codecs=unknown[:0], formats=("99",))
            sections = (audio, video, text, foreign)
            offer = sdp.build(dataclasses.replace(parsed, sections=sections))
            body = {"sessionDescription": {"type": "offer", "sdp": offer}}
            status, answer = await server.call("POST", "/session/new", body)
            assert status == 200
            result = sdp.parse(answer["sessionDescription"]["sdp"])
            assert [item.rejected for item in result.sections] == [False, False, True, True]
            assert [item.mid for item in result.sections] == ["0", "1", "2", "3"]
            assert result.bundle == ("0", "1")
            assert result.ice_lite
            assert {item.setup for item in result.sections} == {"passive"}
            names = {codec.name for item in result.sections[:2] for codec in item.codecs}
            assert "rtx" not in names

    asyncio.run(main())


async def renegotiated(client: Client) -> dict:
    return {"sessionDescription": await client.offer()}


def test_sections_may_not_move():
    async def main():
        async with serve() as server:
            client = server.client()
            client.pc.addTransceiver("audio")
            await client.connect(channel=True)
            offer = (await client.offer())["sdp"]

            def swap(parsed):
                return dataclasses.replace(parsed, sections=parsed.sections[::-1])

            def shorten(parsed):
                return dataclasses.replace(parsed, sections=parsed.sections[:1])

            for edit in (swap, shorten):
                body = {"sessionDescription": edited({"sdp": offer}, edit)}
                path = f"/session/{client.id}/renegotiate"
                assert await server.refused("PUT", path, body) == (400, "bad_description")

    asyncio.run(main())


def test_one_offer_at_a_time():
    timings = dataclasses.replace(FAST, offer_pending=0.5)

    async def main():
        async with serve(timings) as server:
            publisher, client = server.client(), server.client()
            track = Picture()
            await publisher.connect(track)
            await client.connect()
            own = f"/session/{client.id}"
            wish = {"tracks": [{"remoteSessionId": publisher.id, "remoteTrackId": track.id}]}
            status, first = await server.call("POST", own + "/track/subscribe", wish)
            assert status == 200
            offer = await renegotiated(client)
            pending = (409, "offer_pending")
            assert await server.refused("POST", own + "/track/subscribe", wish) == pending
            assert await server.refused("PUT", own + "/renegotiate", offer) == pending
            for call in ("publish", "close"):
                body = {"tracks": [], **offer}
                assert await server.refused("POST", f"{own}/track/{call}", body) == pending

            # It is taken back after a while, and everything goes on as before.
            async def answered() -> bool:
                status, _ = await server.call("PUT", own + "/renegotiate", offer)
                return status == 200

            for _ in range(100):
                if await answered():
                    break
                await asyncio.sleep(0.02)
            else:
                pytest.fail("the offer is still pending")
            status, answer = await server.call("PUT", own + "/renegotiate", offer)
            await client.take(answer)
            (received,) = await client.subscribe((publisher.id, track.id))
            await received.expect(3)
            assert "s0" in first["sessionDescription"]["sdp"]
            assert received.mid == "s1"

    asyncio.run(main())


def test_an_answer_that_does_not_fit():
    async def main():
        async with serve() as server:
            publisher, client = server.client(), server.client()
            track = Picture()
            await publisher.connect(track)
            await client.connect()
            own = f"/session/{client.id}"
            wish = {"tracks": [{"remoteSessionId": publisher.id, "remoteTrackId": track.id}]}
            _, answer = await server.call("POST", own + "/track/subscribe", wish)
            offer = answer["sessionDescription"]
            await client.pc.setRemoteDescription(RTCSessionDescription(offer["sdp"], offer["type"]))
            await client.pc.setLocalDescription(await client.pc.createAnswer())
            good = sdp.parse(client.local()["sdp"])
            short = dataclasses.replace(good, sections=good.sections[:1])
            server_side = each(setup="passive")(good)
            for bad in (short, server_side):
                body = {"sessionDescription": {"type": "answer", "sdp": sdp.build(bad)}}
                found = await server.refused("PUT", own + "/renegotiate", body)
                assert found == (400, "bad_description")
            # The offer still waits for the right one.
            await client.call("PUT", "/renegotiate", {"sessionDescription": client.local()})

    asyncio.run(main())
