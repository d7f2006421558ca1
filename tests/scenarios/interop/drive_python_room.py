"""The part of ``drive_python.py`` about rooms: the published ``MeteredPeer``, with media."""

from __future__ import annotations

import array
import asyncio
import base64
import fractions
import itertools
import math
import time
from typing import Any

import aioice.ice
import metered_realtime as published
from aiortc import RTCConfiguration, RTCPeerConnection
from aiortc.mediastreams import MediaStreamError, MediaStreamTrack
from av import AudioFrame, VideoFrame

WIDTH, HEIGHT, FPS = 160, 120, 10
RATE, SAMPLES = 48000, 960

_find = aioice.ice.get_host_addresses
# It finds none on a machine without a network.
aioice.ice.get_host_addresses = lambda *args, **kwargs: _find(*args, **kwargs) or ["127.0.0.1"]


class Paced(MediaStreamTrack):  # type: ignore[misc, unused-ignore]
    """A track that makes a frame each ``step`` seconds."""

    step = 1.0

    def __init__(self) -> None:
        super().__init__()
        self.started = time.monotonic()
        self.count = 0

    async def recv(self) -> Any:
        await asyncio.sleep(self.started + self.count * self.step - time.monotonic())
        if self.readyState != "live":
            raise MediaStreamError
        frame = self.make(self.count)
        self.count += 1
        return frame

    def make(self, count: int) -> Any:
        raise NotImplementedError


class Grey(Paced):
    """Video of one grey."""

    kind = "video"
    step = 1 / FPS

    def __init__(self, light: int) -> None:
        super().__init__()
        self.light = light

    def make(self, count: int) -> VideoFrame:
        frame = VideoFrame(WIDTH, HEIGHT, "yuv420p")
        for plane, value in zip(frame.planes, (self.light, 128, 128), strict=True):
            plane.update(bytes([value]) * plane.buffer_size)
        frame.pts, frame.time_base = count * 90000 // FPS, fractions.Fraction(1, 90000)
        return frame


class Sine(Paced):
    """Sound of one pitch."""

    kind = "audio"
    step = SAMPLES / RATE

    def __init__(self, pitch: float) -> None:
        super().__init__()
        self.pitch = pitch

    def make(self, count: int) -> AudioFrame:
        step = 2 * math.pi * self.pitch / RATE
        first = count * SAMPLES
        wave = array.array("h", (int(8000 * math.sin(step * (first + n))) for n in range(SAMPLES)))
        frame = AudioFrame("s16", "mono", SAMPLES)
        frame.planes[0].update(wave.tobytes())
        frame.sample_rate, frame.pts = RATE, first
        frame.time_base = fractions.Fraction(1, RATE)
        return frame


class Room:
    """A published peer whose doings are told by ``say``."""

    def __init__(self, say: Any, **options: Any) -> None:
        self.say = say
        self.peer = published.MeteredPeer(
            **options,
            # Without servers it would use a public one.
            _pc_factory=lambda servers: RTCPeerConnection(RTCConfiguration(iceServers=[])),
        )
        self.streams: dict[str, published.MediaStream] = {}
        self.channels: dict[tuple[str, str], Any] = {}
        self.tasks: set[asyncio.Task[None]] = set()
        on = self.peer.on
        on(published.Joined, lambda e: say(event="connected", peerId=e.peer_id))
        on(published.StateChange, lambda e: say(event="state", to=e.to))
        on(published.PeerJoined, lambda e: self.watch(e.peer))
        on(published.PeerLeft, lambda e: say(event="left", peer=e.peer.id))
        on(
            published.Data,
            lambda e: say(event="data", peer=e.sender_peer_id, data=e.data, kind=e.kind),
        )

    def watch(self, remote: Any) -> None:
        say, peer = self.say, remote.id
        remote.on(published.StateChange, lambda e: say(event="peer_state", peer=peer, to=e.to))
        remote.on(
            published.NegotiationError,
            lambda e: say(event="negotiation_error", peer=peer, error=repr(e.err)),
        )
        remote.on(published.Track, lambda e: self.take(peer, e))
        remote.on(
            published.StreamRemoved,
            lambda e: say(event="stream_removed", peer=peer, stream=e.stream.id),
        )
        remote.on(published.DataChannelOpened, lambda e: self.keep(peer, e.channel, "opened"))
        say(event="joined", peer=peer, metadata=remote.metadata)

    def take(self, peer: str, event: Any) -> None:
        about = {
            "peer": peer,
            "kind": event.track.kind,
            "stream": event.streams[0].id if event.streams else None,
        }
        self.say(event="track", **about, metadata=event.metadata)
        read = self.look if event.track.kind == "video" else self.listen
        task = asyncio.ensure_future(read(event.track, about))
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    async def look(self, track: Any, about: dict[str, Any]) -> None:
        count = 0
        try:
            while True:
                frame = await track.recv()
                count += 1
                if count % 3 == 1:
                    plane = frame.planes[0]
                    rows = bytes(plane)
                    size = plane.line_size
                    grey = b"".join(
                        rows[y * size : y * size + frame.width] for y in range(frame.height)
                    )
                    self.say(
                        event="seen",
                        **about,
                        size=[frame.height, frame.width],
                        grey=base64.b64encode(grey).decode(),
                    )
        except MediaStreamError:
            self.say(event="ended", **about)

    async def listen(self, track: Any, about: dict[str, Any]) -> None:
        samples = array.array("h")
        try:
            while True:
                frame = await track.recv()
                channels = len(frame.layout.channels)
                every = array.array("h", bytes(frame.planes[0])[: 2 * channels * frame.samples])
                samples.extend(every[::channels])
                if len(samples) >= RATE // 2:
                    rises = sum(a < 0 <= b for a, b in itertools.pairwise(samples))
                    self.say(event="heard", **about, pitch=rises * RATE / len(samples))
                    samples = array.array("h")
        except MediaStreamError:
            self.say(event="ended", **about)

    def keep(self, peer: str, raw: Any, event: str) -> Any:
        channel = published.DataChannel(raw)
        label = channel.label
        self.channels[peer, label] = channel
        channel.on(
            published.DCMessage,
            lambda e: self.say(event="message", peer=peer, label=label, data=e.data),
        )
        channel.on(
            published.DCClose, lambda e: self.say(event="channel_closed", peer=peer, label=label)
        )
        self.say(event=event, peer=peer, label=label)
        return channel

    def remote(self, peer: str) -> Any:
        return next(remote for remote in self.peer.remote_peers if remote.id == peer)

    # --- commands ---

    @property
    def state(self) -> str:
        return self.peer.state

    async def join(self, channel: str) -> None:
        await self.peer.join(channel)

    async def close(self) -> None:
        await self.peer.close()

    async def send(self, data: Any) -> None:
        await self.peer.send(data)

    async def send_to(self, peer: str, data: Any) -> None:
        await self.peer.send_to(peer, data)

    async def add(
        self, name: str, light: int | None, pitch: float | None, metadata: dict[str, Any] | None
    ) -> None:
        tracks: list[Any] = []
        if light is not None:
            tracks.append(Grey(light))
        if pitch is not None:
            tracks.append(Sine(pitch))
        self.streams[name] = published.MediaStream(tracks, id=name)
        self.peer.add_stream(self.streams[name], metadata)

    async def remove(self, name: str) -> None:
        self.peer.remove_stream(self.streams.pop(name))

    async def create_channel(self, peer: str, label: str) -> None:
        channel = self.keep(peer, self.remote(peer).create_data_channel(label), "created")
        opened = asyncio.Event()
        channel.on(published.DCOpen, lambda e: opened.set())
        await asyncio.wait_for(opened.wait(), 15)

    async def write(self, peer: str, label: str, data: str) -> None:
        await self.channels[peer, label].send(data)
