"""Two connections of one process that are each other's peer, over signalling that may fail."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import time
import warnings
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import replace
from typing import Any

from aiortc import RTCDataChannel

from metered_sync.engine.rooms.connection import RemoteConnection
from metered_sync.engine.rooms.media import ConnectionOptions
from metered_sync.engine.sending.local_track import LocalTrack
from metered_sync.engine.webrtc.incoming import IncomingTrack
from metered_sync.engine.webrtc.peer_connection import gather_on
from metered_sync.errors import MeteredError
from metered_sync.events import IceServer
from metered_sync.testing import PatternSource, ToneSource
from metered_sync.wire.signals import Hello, Signal, TrackMetadata, parse_signal
from metered_sync.wire.states import PeerConnectionState
from metered_sync.wire.timings import DEFAULT_TIMINGS, Timings

FAST = replace(
    DEFAULT_TIMINGS,
    first_offer=0.4,
    courtesy=0.05,
    answer=0.6,
    crossing=0.2,
    media_connect=4.0,
    media_closed=0.1,
    ladder=(0.0, 0.1, 0.2, 0.4),
)


def run(test: Coroutine[Any, Any, None], timeout: float = 60) -> None:
    """Run a test on a loop; nothing may be left on it."""

    async def checked() -> None:
        gather_on.set("127.0.0.1")
        await asyncio.wait_for(test, timeout)
        while _locals:
            _locals.pop().close()
        with warnings.catch_warnings():
            # aioice 0.10 leaves its socket to a TURN server that does not answer open
            warnings.simplefilter("ignore", ResourceWarning)
            gc.collect()
        deadline = time.monotonic() + 8
        while left := asyncio.all_tasks() - {asyncio.current_task()}:
            assert time.monotonic() < deadline, f"tasks are left: {left}"
            await asyncio.sleep(0.01)

    asyncio.run(checked())


async def until(condition: Callable[[], object], timeout: float = 30, what: str = "") -> None:
    """Wait until a condition holds."""
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, f"did not happen within {timeout} s: {what}"
        await asyncio.sleep(0.01)


_locals: list[LocalTrack] = []


def picture(**options: Any) -> LocalTrack:
    """Return a track to send."""
    track = PatternSource(160, 120, 15).video
    assert track is not None
    return _noted(LocalTrack(track, **options))


def tone(frequency: float = 440.0, **options: Any) -> LocalTrack:
    """Return a track to send."""
    track = ToneSource(frequency).audio
    assert track is not None
    return _noted(LocalTrack(track, **options))


def _noted(local: LocalTrack) -> LocalTrack:
    _locals.append(local)
    return local


class Side:
    """One end: the owner of a connection, which notes what it is told."""

    def __init__(
        self,
        local_id: str,
        remote_id: str,
        *,
        timings: Timings = FAST,
        servers: tuple[IceServer, ...] = (),
        gather_timeout: float = 5.0,
        relay_only: bool = False,
        greets: bool = True,
    ) -> None:
        """Prepare; with ``greets=False`` its hellos do not arrive: other clients send none."""
        self.signalling_is_up = True
        self.states: list[PeerConnectionState] = []
        self.present: list[IncomingTrack] = []
        self.first: list[IncomingTrack] = []
        self.gone: list[IncomingTrack] = []
        self.ended: list[IncomingTrack] = []
        self.channels: list[RTCDataChannel] = []
        self.resets = 0
        self.on_reset_do: Callable[[], object] = lambda: None
        self.errors: list[MeteredError] = []
        self.exhausted: list[MeteredError] = []
        self.sent: list[Signal] = []
        self.posted: list[TrackMetadata] = []
        self.greetings: list[Hello] = []
        self.greets = greets
        self.refused: list[MeteredError] = []
        self.announced: list[TrackMetadata] = []
        self.servers = servers
        self.carry: Callable[[Side, dict[str, Any], Signal], Coroutine[Any, Any, None]]
        self.link = RemoteConnection(
            self,
            local_id=local_id,
            remote_id=remote_id,
            label=f"{local_id}-{remote_id}",
            timings=timings,
            options=ConnectionOptions(None, relay_only, gather_timeout),
        )

    async def signal(self, data: dict[str, Any]) -> None:
        signal = parse_signal(data)
        assert signal is not None
        self.sent.append(signal)
        await self.carry(self, data, signal)

    def post(self, data: dict[str, Any]) -> None:
        signal = parse_signal(data)
        if isinstance(signal, Hello):
            self.greetings.append(signal)
            if self.greets:
                asyncio.get_running_loop().create_task(self.carry(self, data, signal))
            return
        assert isinstance(signal, TrackMetadata)
        self.posted.append(signal)

    def ice_servers(self) -> tuple[IceServer, ...]:
        return self.servers

    def on_state(self, state: PeerConnectionState) -> None:
        self.states.append(state)

    def on_track(self, track: IncomingTrack, first: bool) -> None:
        assert track not in self.present
        self.present.append(track)
        if first:
            self.first.append(track)

    def on_track_gone(self, track: IncomingTrack) -> None:
        self.present.remove(track)
        self.gone.append(track)

    def on_track_ended(self, track: IncomingTrack) -> None:
        self.ended.append(track)

    def on_metadata(self, announced: TrackMetadata) -> None:
        self.announced.append(announced)

    def on_channel(self, raw: RTCDataChannel) -> None:
        self.channels.append(raw)

    def on_reset(self) -> None:
        self.resets += 1
        self.on_reset_do()

    def on_error(self, error: MeteredError) -> None:
        self.errors.append(error)

    def on_candidate_error(self, error: MeteredError) -> None:
        self.refused.append(error)

    def on_exhausted(self, error: MeteredError) -> None:
        self.exhausted.append(error)

    def take(self, data: dict[str, Any]) -> None:
        """Hand over what came from the other side."""
        signal = parse_signal(data)
        assert signal is not None
        assert not isinstance(signal, TrackMetadata)
        self.link.receive(signal)

    def offers(self) -> int:
        """Return how many offers this side has sent."""
        return sum(getattr(signal, "type", "") == "offer" for signal in self.sent)


class Pair:
    """Two sides. ``polite`` gives way to ``impolite``."""

    def __init__(self, **options: Any) -> None:
        self.polite = Side("a", "b", **options)
        self.impolite = Side("b", "a", **options)
        self.sides = (self.polite, self.impolite)
        for side in self.sides:
            side.carry = self.carry
        self.filter: Callable[[Side, Signal], float | tuple[float, ...] | None] = (
            lambda _side, _signal: 0.0
        )
        """Says after how many seconds a signal arrives; ``None``: never; several: each time."""

    def other(self, side: Side) -> Side:
        return self.impolite if side is self.polite else self.polite

    async def carry(self, side: Side, data: dict[str, Any], signal: Signal) -> None:
        delays = self.filter(side, signal)
        if delays is None:
            return
        for delay in delays if isinstance(delays, tuple) else (delays,):
            if delay:
                asyncio.get_running_loop().call_later(delay, self.other(side).take, data)
            else:
                self.other(side).take(data)
        await asyncio.sleep(0)

    async def connected(self, timeout: float = 20) -> None:
        for side in self.sides:
            await until(lambda side=side: side.link.state == "connected", timeout, side.states)


@contextlib.asynccontextmanager
async def pair(**options: Any) -> AsyncIterator[Pair]:
    """Make two sides, and close them in the end."""
    both = Pair(**options)
    try:
        yield both
    finally:
        await asyncio.gather(*(side.link.aclose() for side in both.sides))


async def frames(track: IncomingTrack, more: int = 5, timeout: float = 20) -> None:
    """Wait until further frames have come."""
    start = track.frames
    await until(lambda: track.frames >= start + more, timeout, f"{track.kind} frames")
