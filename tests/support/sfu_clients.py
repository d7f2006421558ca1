"""Run bare clients for the SFU's tests: HTTP by aiohttp, media by aiortc, nothing of ours."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import fractions
import json
import time
from collections.abc import AsyncIterator, Callable, Iterator
from unittest import mock

import aiohttp
import numpy as np
from aiohttp import web
from aiortc import (
    MediaStreamTrack,
    RTCConfiguration,
    RTCPeerConnection,
    RTCRtpTransceiver,
    RTCSessionDescription,
)
from aiortc.mediastreams import MediaStreamError
from av import AudioFrame, VideoFrame

from metered_sync.local.sfu import Sfu
from metered_sync.wire.timings import DEFAULT_TIMINGS, Timings

APP = "app-1"
SECRET = "the-secret"
FAST = dataclasses.replace(DEFAULT_TIMINGS, report=0.2)


async def until(condition: Callable[[], object], timeout: float = 20.0, what: str = "") -> None:
    """Wait for a condition, or fail."""
    deadline = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout} s: {what or condition}")
        await asyncio.sleep(0.01)


@contextlib.contextmanager
def loopback_only() -> Iterator[None]:
    """Let aiortc clients use 127.0.0.1 and nothing else."""
    with mock.patch("aioice.ice.get_host_addresses", return_value=["127.0.0.1"]):
        yield


class Server:
    """The SFU on HTTP, and calls to it."""

    def __init__(self, sfu: Sfu, http: aiohttp.ClientSession, origin: str) -> None:
        self.sfu = sfu
        self.http = http
        self.origin = origin
        self.clients: list[Client] = []

    async def call(
        self, method: str, path: str, body: object = None, secret: str = SECRET
    ) -> tuple[int, object]:
        """Make a call; return its status and decoded body."""
        async with self.http.request(
            method,
            f"{self.origin}/api/sfu/{APP}{path}",
            json=body,
            headers={"Authorization": f"Bearer {secret}"},
        ) as response:
            return response.status, await response.json()

    async def refused(self, method: str, path: str, body: object = None) -> tuple[int, str]:
        """Make a call that is refused; return its status and the SFU's word for it."""
        status, answer = await self.call(method, path, body)
        assert isinstance(answer, dict)
        assert set(answer) == {"error", "message"}
        assert SECRET not in json.dumps(answer)
        return status, answer["error"]

    def client(self) -> Client:
        """Return a new client, which is closed with the server."""
        client = Client(self)
        self.clients.append(client)
        return client


@contextlib.asynccontextmanager
async def serve(timings: Timings = FAST) -> AsyncIterator[Server]:
    """Run an SFU on free ports of the loopback interface."""
    sfu = Sfu(app_id=APP, secret=SECRET, timings=timings)
    await sfu.start()
    app = web.Application()
    app.add_routes(sfu.routes())
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    origin = f"http://localhost:{runner.addresses[0][1]}"
    with loopback_only():
        async with aiohttp.ClientSession() as http:
            server = Server(sfu, http, origin)
            try:
                yield server
            finally:
                await asyncio.gather(*(client.close() for client in server.clients))
                await sfu.close()
                await runner.cleanup()


class Picture(MediaStreamTrack):
    """Video of a moving bar, paced in real time.

    Args:
        width: In pixels.
        height: In pixels.
        fps: Frames a second.
        noise: Add a patch that is hard to compress, for many packets a frame.
    """

    kind = "video"

    def __init__(
        self, width: int = 320, height: int = 240, fps: int = 30, noise: bool = False
    ) -> None:
        super().__init__()
        self._size = (width, height)
        self._fps = fps
        self._noise = np.random.default_rng(1) if noise else None
        self._start: float | None = None
        self.count = 0

    async def recv(self) -> VideoFrame:
        now = time.monotonic()
        if self._start is None:
            self._start = now
        await asyncio.sleep(max(0.0, self._start + self.count / self._fps - now))
        width, height = self._size
        image = np.full((height, width, 3), 40, np.uint8)
        left = self.count * 4 % (width - 40)
        image[:, left : left + 40] = 220
        if self._noise is not None:
            image[:96, :96] = self._noise.integers(0, 255, (96, 96, 3), np.uint8)
        frame = VideoFrame.from_ndarray(image, "bgr24")
        frame.pts = self.count * 90000 // self._fps
        frame.time_base = fractions.Fraction(1, 90000)
        self.count += 1
        return frame


class Tone(MediaStreamTrack):
    """Audio, 20 ms a frame, paced in real time."""

    kind = "audio"

    def __init__(self) -> None:
        super().__init__()
        self._start: float | None = None
        self._count = 0

    async def recv(self) -> AudioFrame:
        now = time.monotonic()
        if self._start is None:
            self._start = now
        await asyncio.sleep(max(0.0, self._start + self._count * 0.02 - now))
        at = np.arange(self._count * 960, (self._count + 1) * 960) / 48000
        samples = (np.sin(at * 440 * 2 * np.pi) * 8000).astype(np.int16)[np.newaxis]
        frame = AudioFrame.from_ndarray(samples, "s16", "mono")
        frame.sample_rate = 48000
        frame.pts = self._count * 960
        frame.time_base = fractions.Fraction(1, 48000)
        self._count += 1
        return frame


class Received:
    """A subscribed track, and how many of its frames were decoded."""

    def __init__(self, transceiver: RTCRtpTransceiver) -> None:
        self.transceiver = transceiver
        self.mid: str = transceiver.mid
        self.track = transceiver.receiver.track
        self.frames = 0
        self.ended = False
        self.last: VideoFrame | AudioFrame | None = None
        self._task = asyncio.ensure_future(self._read())

    async def _read(self) -> None:
        try:
            while True:
                self.last = await self.track.recv()
                self.frames += 1
        except MediaStreamError:
            self.ended = True

    async def expect(self, count: int, timeout: float = 20.0) -> None:
        """Wait until *count* more frames were decoded."""
        goal = self.frames + count
        await until(lambda: self.frames >= goal, timeout, f"{count} frames on {self.mid}")

    async def stop(self) -> None:
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task


class Client:
    """An aiortc peer connection to the SFU."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.pc = RTCPeerConnection(RTCConfiguration(iceServers=[]))
        self.id = ""
        self.received: list[Received] = []

    async def call(self, method: str, path: str, body: object = None) -> dict:
        status, answer = await self.server.call(method, f"/session/{self.id}{path}", body)
        assert status == 200, answer
        return answer

    async def offer(self) -> dict:
        await self.pc.setLocalDescription(await self.pc.createOffer())
        return self.local()

    def local(self) -> dict:
        description = self.pc.localDescription
        return {"type": description.type, "sdp": description.sdp}

    async def take(self, answer: dict) -> None:
        description = answer["sessionDescription"]
        await self.pc.setRemoteDescription(
            RTCSessionDescription(description["sdp"], description["type"])
        )

    async def connect(self, *tracks: MediaStreamTrack, channel: bool = False) -> None:
        """Make a session: with tracks, with a data channel, or with an idle section."""
        for track in tracks:
            self.pc.addTransceiver(track, direction="sendonly")
        if channel:
            self.pc.createDataChannel("idle")
        elif not tracks:
            self.pc.addTransceiver("video", direction="recvonly")
        status, answer = await self.server.call(
            "POST", "/session/new", {"sessionDescription": await self.offer()}
        )
        assert status == 200, answer
        self.id = answer["sessionId"]
        await self.take(answer)
        await until(lambda: self.pc.connectionState == "connected", what="connection")

    async def publish(self, *tracks: MediaStreamTrack, name: str | None = None) -> None:
        transceivers = [self.pc.addTransceiver(track, direction="sendonly") for track in tracks]
        offer = await self.offer()
        wishes = [
            {"trackId": track.id, "mid": transceiver.mid, "customTrackName": name}
            for track, transceiver in zip(tracks, transceivers, strict=True)
        ]
        body = {"tracks": wishes, "sessionDescription": offer}
        await self.take(await self.call("POST", "/track/publish", body))

    async def subscribe(self, *tracks: tuple[str, str]) -> list[Received]:
        """Subscribe to ``(session id, track id)`` pairs, in one call."""
        old = {transceiver.mid for transceiver in self.pc.getTransceivers()}
        wishes = [{"remoteSessionId": a, "remoteTrackId": b} for a, b in tracks]
        answer = await self.call("POST", "/track/subscribe", {"tracks": wishes})
        assert answer["immediateRenegotiationRequired"] is True
        await self.take(answer)
        await self.pc.setLocalDescription(await self.pc.createAnswer())
        await self.call("PUT", "/renegotiate", {"sessionDescription": self.local()})
        new = [Received(item) for item in self.pc.getTransceivers() if item.mid not in old]
        assert len(new) == len(tracks)
        self.received += new
        return new

    async def tracks(self, session_id: str = "") -> list[dict]:
        path = f"/session/{session_id or self.id}/tracks"
        status, answer = await self.server.call("GET", path)
        assert status == 200, answer
        return answer

    async def close(self) -> None:
        await asyncio.gather(*(item.stop() for item in self.received))
        await self.pc.close()
