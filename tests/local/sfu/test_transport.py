"""Test what strangers may send to the SFU's socket, and who may begin DTLS."""

import asyncio
import dataclasses
import random
import socket
import struct

import pytest
from aioice import stun as other

from metered_sync.local.sfu import rtcp
from metered_sync.local.sfu.rtp import parse_packet
from metered_sync.local.sfu.stun import parse_check
from metered_sync.wire import sdp
from tests.support.sfu_clients import Picture, Server, serve, until


class Stranger:
    """A socket of nobody's."""

    def __init__(self, server: Server) -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.setblocking(False)
        self._socket.bind(("127.0.0.1", 0))
        self._target = server.sfu._port.address
        self.address = self._socket.getsockname()

    def send(self, data: bytes) -> None:
        self._socket.sendto(data, self._target)

    async def answer(self, timeout: float = 0.2) -> bytes | None:
        loop = asyncio.get_running_loop()
        try:
            return await asyncio.wait_for(loop.sock_recv(self._socket, 2048), timeout)
        except asyncio.TimeoutError:
            return None

    def check(self, ufrag: str, password: str, **attributes: object) -> None:
        message = other.Message(
            message_method=other.Method.BINDING,
            message_class=other.Class.REQUEST,
            attributes={"USERNAME": f"{ufrag}:x", **attributes},
        )
        message.add_message_integrity(password.encode())
        self.send(bytes(message))

    def close(self) -> None:
        self._socket.close()


def test_strangers_get_no_answer_and_do_no_harm():
    async def main():
        faults: list[dict] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, fault: faults.append(fault))
        async with serve() as server:
            publisher, subscriber = server.client(), server.client()
            picture = Picture()
            await publisher.connect(picture)
            await subscriber.connect()
            (received,) = await subscriber.subscribe((publisher.id, picture.id))
            await received.expect(3)
            section = sdp.parse(publisher.pc.remoteDescription.sdp).sections[0]
            stranger = Stranger(server)
            try:
                stranger.check(section.ice_ufrag, "guessed")
                stranger.check("nobody", section.ice_pwd)
                assert await stranger.answer() is None
                source = random.Random(1)
                for _ in range(500):
                    first = source.choice((0, 1, 20, 22, 63, 64, 128, 144, 191, 255))
                    size = source.randrange(64)
                    stranger.send(bytes((first,)) + source.randbytes(size))
                stranger.send(b"")
                # It thinks that it is controlled, as the SFU is: a conflict.
                stranger.check(section.ice_ufrag, section.ice_pwd, **{"ICE-CONTROLLED": 7})
                answer = await stranger.answer(2.0)
                assert answer is not None
                code, _ = other.parse_message(answer).attributes["ERROR-CODE"]
                assert code == 487
            finally:
                stranger.close()
            await received.expect(5)
        assert not faults

    asyncio.run(main())


class Failing:
    """A client whose packets cannot be handled."""

    def on_media(self, data: bytes) -> None:
        raise ValueError("cannot be handled")

    on_dtls = on_media


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_what_cannot_be_handled_does_not_close_the_socket(loop):
    module = asyncio if loop == "asyncio" else pytest.importorskip("uvloop")

    async def main():
        faults = []
        asyncio.get_running_loop().set_exception_handler(lambda _, fault: faults.append(fault))
        async with serve() as server:
            stranger = Stranger(server)
            try:
                server.sfu._port.register_address(stranger.address, Failing())
                for first in (0x80, 22, 0x80):
                    stranger.send(bytes((first, 0, 0, 0)))
                await until(lambda: len(faults) == 3, what="errors")
                client = server.client()
                await client.connect(Picture())  # by the same socket
            finally:
                stranger.close()

    running = module.new_event_loop()
    try:
        running.run_until_complete(main())
    finally:
        running.close()


def test_a_clients_addresses_are_bounded_and_its_path_may_move():
    async def main():
        async with serve() as server:
            client = server.client()
            client.pc.addTransceiver("video")
            body = {"sessionDescription": await client.offer()}
            _, answer = await server.call("POST", "/session/new", body)
            section = sdp.parse(answer["sessionDescription"]["sdp"]).sections[0]
            port = server.sfu._port
            for _ in range(12):
                stranger = Stranger(server)
                stranger.check(section.ice_ufrag, section.ice_pwd, **{"USE-CANDIDATE": None})
                assert await stranger.answer(2.0) is not None
                stranger.close()
            assert len(port._by_address) == 8
            server.sfu.kill_session(answer["sessionId"])
            assert not port._by_address
            assert not port._by_ufrag

    asyncio.run(main())


def test_another_certificate_than_the_offers_is_turned_away():
    async def main():
        async with serve() as server:
            client = server.client()
            client.pc.addTransceiver("video")
            parsed = sdp.parse((await client.offer())["sdp"])
            wrong = (sdp.Fingerprint("sha-256", ":".join(["AA"] * 32)),)
            sections = tuple(
                dataclasses.replace(item, fingerprints=wrong) for item in parsed.sections
            )
            offer = sdp.build(dataclasses.replace(parsed, sections=sections))
            body = {"sessionDescription": {"type": "offer", "sdp": offer}}
            status, answer = await server.call("POST", "/session/new", body)
            assert status == 200
            assert len(server.sfu.sessions()) == 1
            await client.take(answer)
            await until(lambda: not server.sfu.sessions(), what="end of the session")

    asyncio.run(main())


def test_parsers_take_anything():
    source = random.Random(2)
    for _ in range(20_000):
        data = source.randbytes(source.randrange(80))
        parse_check(struct.pack("!HHI", 1, max(0, len(data) - 12), 0x2112A442) + data)
        parse_packet(bytes((0x90 | source.randrange(16),)) + data)
        head = bytes((0x80 | source.randrange(32), source.randrange(200, 207), 0))
        for message in rtcp.parse_compound(head + data):
            rtcp.sender_info(message)
            feedback = rtcp.feedback(message)
            if feedback is not None:
                list(rtcp.nacked(feedback.details))
                list(rtcp.fir_targets(feedback.details))
