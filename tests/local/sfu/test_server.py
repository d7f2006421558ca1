"""The HTTP side: errors, limits, preflights; and the life of sessions."""

import asyncio
import dataclasses
import io
import json

import pytest
from aiortc import RTCSessionDescription

from metered_sync.local.sfu import Sfu
from metered_sync.wire import sdp
from tests.support.sfu_clients import APP, FAST, SECRET, Client, Picture, Server, serve, until


async def refused(server: Server, method: str, path: str, body: object = None) -> tuple[int, str]:
    status, answer = await server.call(method, path, body)
    assert set(answer) == {"error", "message"}
    assert SECRET not in json.dumps(answer)
    return status, answer["error"]


def test_who_may_call():
    async def main():
        async with serve() as server:
            assert await server.call("GET", "/sessions") == (200, [])
            status, answer = await server.call("GET", "/sessions", secret="wrong")
            assert (status, answer["error"]) == (401, "unauthorized")
            base = f"{server.origin}/api/sfu"
            async with server.http.get(f"{base}/{APP}/sessions") as response:
                assert response.status == 401
            headers = {"Authorization": f"Bearer {SECRET}"}
            async with server.http.get(f"{base}/other/sessions", headers=headers) as response:
                assert response.status == 404
                assert (await response.json())["error"] == "not_found"
            async with server.http.get(f"{base}/{APP}/nothing", headers=headers) as response:
                assert response.status == 404
                assert (await response.json())["error"] == "not_found"
            assert await refused(server, "DELETE", "/sessions") == (404, "not_found")

    asyncio.run(main())


def test_preflights_are_answered():
    async def main():
        async with serve() as server:
            url = f"{server.origin}/api/sfu/{APP}/session/x/track/publish"
            headers = {
                "Origin": "https://example.com",
                "Access-Control-Request-Method": "POST",
                "Access-Control-Request-Headers": "authorization,content-type",
            }
            async with server.http.options(url, headers=headers) as response:
                assert response.status == 204
                assert response.headers["Access-Control-Allow-Origin"] == "*"
                assert "authorization" in response.headers["Access-Control-Allow-Headers"]
                assert "PUT" in response.headers["Access-Control-Allow-Methods"]
            async with server.http.post(url) as response:
                assert response.status == 401
                assert response.headers["Access-Control-Allow-Origin"] == "*"

    asyncio.run(main())


@pytest.mark.parametrize(
    "raw",
    [b"", b"{", b"[" * 100_000, b"\xff\xfe", b"null", b"{}", b'{"sessionDescription": 5}'],
    ids=["empty", "cut", "deep", "bytes", "null", "object", "number"],
)
def test_a_malformed_body(raw):
    async def main():
        async with serve() as server:
            headers = {"Authorization": f"Bearer {SECRET}"}
            url = f"{server.origin}/api/sfu/{APP}/session/new"
            async with server.http.post(url, data=raw, headers=headers) as response:
                assert response.status == 400
                assert (await response.json())["error"] == "bad_request"
            assert await server.call("GET", "/sessions") == (200, [])

    asyncio.run(main())


@pytest.mark.parametrize(
    ("size", "chunked"), [(600_000, False), (600_000, True), (1_200_000, True)]
)
def test_a_body_that_is_too_large(size, chunked):
    async def chunks():
        for _ in range(size // 10_000):
            yield b" " * 10_000

    async def main():
        async with serve() as server:
            headers = {"Authorization": f"Bearer {SECRET}"}
            url = f"{server.origin}/api/sfu/{APP}/session/new"
            data = chunks() if chunked else io.BytesIO(b" " * size)
            async with server.http.post(url, data=data, headers=headers) as response:
                assert response.status == 413
                assert (await response.json())["error"] == "too_large"

    asyncio.run(main())


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
                found = await refused(server, "POST", "/session/new", body)
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


def test_unknown_sessions_and_tracks():
    async def main():
        async with serve() as server:
            client, other = server.client(), server.client()
            track = Picture()
            await client.connect(track)
            await other.connect()
            offer = await renegotiated(other)
            wish = [{"trackId": "t", "mid": "0"}]
            for method, path, body in (
                ("POST", "/track/publish", {"tracks": wish, **offer}),
                ("POST", "/track/subscribe", {"tracks": [{}]}),
                ("PUT", "/renegotiate", offer),
                ("POST", "/track/close", {"tracks": [{"trackId": "t"}], **offer}),
                ("GET", "/tracks", None),
            ):
                path = f"/session/nobody{path}"
                assert await refused(server, method, path, body) == (404, "not_found")
            own = f"/session/{other.id}"
            for session, name in ((client.id, "no"), ("nobody", track.id), (other.id, track.id)):
                body = {"tracks": [{"remoteSessionId": session, "remoteTrackId": name}]}
                found = await refused(server, "POST", own + "/track/subscribe", body)
                assert found == (404, "not_found")
            found = await refused(server, "POST", own + "/track/subscribe", {"tracks": []})
            assert found == (400, "bad_request")
            body = {"tracks": [{"trackId": "t"}], **offer}
            assert await refused(server, "POST", own + "/track/close", body) == (404, "not_found")
            # A section that sends nothing, and one that is not there.
            for mid in ("0", "9"):
                body = {"tracks": [{"trackId": "t", "mid": mid}], **offer}
                found = await refused(server, "POST", own + "/track/publish", body)
                assert found == (400, "bad_track")
            answer = {"sessionDescription": {**offer["sessionDescription"], "type": "answer"}}
            assert await refused(server, "PUT", own + "/renegotiate", answer) == (409, "no_offer")

    asyncio.run(main())


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
                assert await refused(server, "PUT", path, body) == (400, "bad_description")

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
            assert await refused(server, "POST", own + "/track/subscribe", wish) == pending
            assert await refused(server, "PUT", own + "/renegotiate", offer) == pending
            for call in ("publish", "close"):
                body = {"tracks": [], **offer}
                assert await refused(server, "POST", f"{own}/track/{call}", body) == pending

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
                found = await refused(server, "PUT", own + "/renegotiate", body)
                assert found == (400, "bad_description")
            # The offer still waits for the right one.
            await client.call("PUT", "/renegotiate", {"sessionDescription": client.local()})

    asyncio.run(main())


def test_silence_ends_a_session():
    timings = dataclasses.replace(FAST, stun_silence=0.6)

    async def main():
        async with serve(timings) as server:
            client, other = server.client(), server.client()
            # A client that never sends anything at all.
            other.pc.addTransceiver("video")
            offer = {"sessionDescription": await other.offer()}
            status, _ = await server.call("POST", "/session/new", offer)
            assert status == 200
            # One that falls silent: aiortc asks again after some 5 s only.
            await client.connect()
            assert len(server.sfu.sessions()) == 2
            await until(lambda: not server.sfu.sessions(), what="end of the sessions")
            path = f"/session/{client.id}/tracks"
            assert await refused(server, "GET", path) == (404, "not_found")

    asyncio.run(main())


def test_a_client_that_says_goodbye_is_gone_at_once():
    async def main():
        async with serve() as server:
            client = server.client()
            await client.connect()
            assert [item.state for item in server.sfu.sessions()] == ["connected"]
            await client.close()
            await until(lambda: not server.sfu.sessions(), 2.0, "end of the session")

    asyncio.run(main())


def test_kill_session():
    async def main():
        async with serve() as server:
            client = server.client()
            await client.connect(Picture())
            with pytest.raises(LookupError):
                server.sfu.kill_session("nobody")
            server.sfu.kill_session(client.id)
            assert await server.call("GET", "/sessions") == (200, [])
            await until(lambda: client.pc.connectionState in ("closed", "failed"))
            path = f"/session/{client.id}/tracks"
            assert await refused(server, "GET", path) == (404, "not_found")

    asyncio.run(main())


def test_faults_are_checked():
    sfu = Sfu(app_id=APP, secret=SECRET)
    for fraction in (-0.1, 1.1, float("nan")):
        with pytest.raises(ValueError, match="fraction"):
            sfu.lose_media(fraction)
    assert SECRET not in repr(sfu)


def test_nothing_is_left_after_close():
    async def main():
        for _ in range(3):
            async with serve() as server:
                first, second = server.client(), server.client()
                track = Picture()
                await first.connect(track)
                await second.connect()
                (received,) = await second.subscribe((first.id, track.id))
                await received.expect(1)
        loop = asyncio.get_running_loop()
        await until(lambda: len(asyncio.all_tasks()) == 1, what="end of all tasks")
        timers = [item for item in loop._scheduled if not item.cancelled()]
        ours = [item for item in timers if "local/sfu" in repr(item)]
        assert not ours

    asyncio.run(main())


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0", "::1"])
def test_hosts(host):
    async def main():
        sfu = Sfu(app_id=APP, secret=SECRET, host=host)
        await sfu.start()
        try:
            candidates = sfu._context.candidates
            assert candidates
            assert all(item.endswith(" typ host") for item in candidates)
            if host == "0.0.0.0":
                assert any(" 127.0.0.1 " in item for item in candidates)
            else:
                assert f" {host} " in candidates[0]
        finally:
            await sfu.close()

    asyncio.run(main())
