"""Test the SFU's HTTP calls: who may call, preflights, bodies, and what is not there."""

import asyncio
import io

import pytest

from tests.support.sfu_clients import APP, SECRET, Picture, serve


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
                assert response.status == 401
                assert (await response.json())["error"] == "unauthorized"
            async with server.http.get(f"{base}/{APP}/nothing", headers=headers) as response:
                assert response.status == 404
                assert (await response.json())["error"] == "not_found"
            assert await server.refused("DELETE", "/sessions") == (404, "not_found")

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


def test_unknown_sessions_and_tracks():
    async def main():
        async with serve() as server:
            client, other = server.client(), server.client()
            track = Picture()
            await client.connect(track)
            await other.connect()
            offer = {"sessionDescription": await other.offer()}
            wish = [{"trackId": "t", "mid": "0"}]
            for method, path, body in (
                ("POST", "/track/publish", {"tracks": wish, **offer}),
                ("POST", "/track/subscribe", {"tracks": [{}]}),
                ("PUT", "/renegotiate", offer),
                ("POST", "/track/close", {"tracks": [{"trackId": "t"}], **offer}),
                ("GET", "/tracks", None),
            ):
                path = f"/session/nobody{path}"
                assert await server.refused(method, path, body) == (404, "not_found")
            own = f"/session/{other.id}"
            for session, name in ((client.id, "no"), ("nobody", track.id), (other.id, track.id)):
                body = {"tracks": [{"remoteSessionId": session, "remoteTrackId": name}]}
                found = await server.refused("POST", own + "/track/subscribe", body)
                assert found == (404, "not_found")
            found = await server.refused("POST", own + "/track/subscribe", {"tracks": []})
            assert found == (400, "bad_request")
            body = {"tracks": [{"trackId": "t"}], **offer}
            assert await server.refused("POST", own + "/track/close", body) == (404, "not_found")
            # A section that sends nothing, and one that is not there.
            for mid in ("0", "9"):
                body = {"tracks": [{"trackId": "t", "mid": mid}], **offer}
                found = await server.refused("POST", own + "/track/publish", body)
                assert found == (400, "bad_track")
            answer = {"sessionDescription": {**offer["sessionDescription"], "type": "answer"}}
            assert await server.refused("PUT", own + "/renegotiate", answer) == (409, "no_offer")

    asyncio.run(main())
