"""Test the life of the SFU and of its sessions."""

import asyncio
import dataclasses

import pytest

from metered_sync.local.sfu import Sfu
from tests.support.sfu_clients import APP, FAST, SECRET, Picture, serve, until


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
            assert await server.refused("GET", path) == (404, "not_found")

    asyncio.run(main())


def test_a_client_that_says_goodbye_is_gone_at_once():
    async def main():
        async with serve() as server:
            client = server.client()
            await client.connect()
            assert [item.state for item in server.sfu.sessions()] == ["connected"]
            await client.close()
            await until(lambda: not server.sfu.sessions(), 10.0, "end of the session")

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
            assert await server.refused("GET", path) == (404, "not_found")

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
