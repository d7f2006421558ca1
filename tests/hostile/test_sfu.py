"""Let an SFU send what it should not over a data channel that nobody asked for."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

import pytest
from aiortc import RTCPeerConnection, RTCSessionDescription, VideoStreamTrack

from metered_sync import SfuClient
from metered_sync.engine.webrtc.aiortc_private.sctp import MAX_PARTS, MAX_STREAMS
from metered_sync.engine.webrtc.peer_connection import close_quietly, gather_on, peer_connection
from tests.conftest import wait_until
from tests.support.raw_sctp import SCTP, send_chunk
from tests.support.scripted_sfu import ScriptedSfu

T = TypeVar("T")
PACKETS = 1200


class HostileSfu:
    """An SFU of one session, which offers a data section together with a track.

    It runs on an event loop and a thread of its own.
    """

    def __init__(self, scripted: ScriptedSfu) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self.pc: RTCPeerConnection
        for call, answer in (
            ("session/new", self._new),
            ("track/subscribe", self._subscribe),
            ("renegotiate", self._renegotiate),
        ):
            scripted.answers[call] = lambda body, answer=answer: self.run(answer(body))
        scripted.answers["tracks"] = 200, []

    def __enter__(self) -> HostileSfu:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.run(close_quietly(self.pc, 20))  # type: ignore[arg-type]
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(20)
        self._loop.close()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(30)

    def _body(self, **more: Any) -> tuple[int, Any]:
        local = self.pc.localDescription
        described = {"type": local.type, "sdp": local.sdp}
        return 200, {"sessionId": "s", "sessionDescription": described, **more}

    async def _new(self, body: Any) -> tuple[int, Any]:
        gather_on.set("127.0.0.1")
        self.pc = peer_connection(())
        await self.pc.setRemoteDescription(RTCSessionDescription(**body["sessionDescription"]))
        await self.pc.setLocalDescription(await self.pc.createAnswer())
        return self._body()

    async def _subscribe(self, body: Any) -> tuple[int, Any]:
        self.pc.addTransceiver(VideoStreamTrack(), "sendonly")
        self.pc.createDataChannel("what nobody asked for")
        await self.pc.setLocalDescription(await self.pc.createOffer())
        return self._body(immediateRenegotiationRequired=True)

    async def _renegotiate(self, body: Any) -> tuple[int, Any]:
        await self.pc.setRemoteDescription(RTCSessionDescription(**body["sessionDescription"]))
        return 200, {}

    async def storm(self, kind: str) -> None:
        sctp: Any = self.pc.sctp
        while sctp.state != "connected":
            await asyncio.sleep(0.01)
        first = sctp._local_tsn
        for number in range(PACKETS):
            await send_chunk(sctp, SCTP[kind](number, first))
            if number % 20 == 0:
                await asyncio.sleep(0.002)


@pytest.mark.parametrize("kind", ["a message without an end", "in small pieces", "streams"])
def test_parts_of_messages_of_an_sfu(kind: str) -> None:
    with (
        ScriptedSfu() as scripted,
        HostileSfu(scripted) as sfu,
        SfuClient(app_id="app", secret="secret", url=scripted.url) as client,
    ):
        track = client.subscribe("other", "t")
        assert track.read(timeout=20) is not None
        link: Any = client._link
        pc = link.session.connection.pc
        sfu.run(sfu.storm(kind))
        seen = track.stats()["frames_decoded"]
        wait_until(lambda: track.stats()["frames_decoded"] > seen + 2, 20, "pictures go on")
        streams = pc.sctp._inbound_streams
        wait_until(lambda: kept(streams), 20, "parts that wait")
        parts = kept(streams)
        assert len(parts) <= 2 * MAX_PARTS
        assert sum(parts) <= 17 << 16
        assert len(streams) <= MAX_STREAMS


def kept(streams: dict[int, Any]) -> list[int]:
    """Return the sizes of the parts of messages that are kept."""
    return [len(part.user_data) for one in tuple(streams.values()) for part in one.reassembly]
