"""Two bare peer connections on the engine, side by side, and data channels between them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Coroutine
from types import TracebackType
from typing import Any, TypeVar

from aiortc import RTCDataChannel, RTCPeerConnection

from metered_sync.bridge import engines
from metered_sync.bridge.deadline import Deadline
from metered_sync.data_channel import DataChannel, channel_options, check_label
from metered_sync.engine.webrtc.data_channel import ChannelLink
from metered_sync.engine.webrtc.peer_connection import gather_on, peer_connection
from tests.conftest import wait_until

__all__ = ["Pair", "on_loop"]

T = TypeVar("T")


def on_loop(function: Callable[[], T]) -> T:
    """Run a plain function on the engine's loop and return what it returns."""

    async def run() -> T:
        return function()

    return _call(run)


def _call(function: Callable[..., Coroutine[Any, Any, T]], *args: Any) -> T:
    return engines.current().call(function, *args, deadline=Deadline(30), what="a test")


class Pair:
    """``one`` creates channels, ``two`` gets them; ``with`` closes both connections."""

    def __init__(self, *, connect: bool = True, **link_options: Any) -> None:
        self.engine = engines.current()
        self.arrived: list[ChannelLink] = []
        self.on_raw: Callable[[RTCDataChannel], object] = self._take
        self.kept: list[DataChannel] = []
        """Channels that are given out: the end of one that a test has closed may take a moment."""
        self._link_options = link_options
        self.one: RTCPeerConnection
        self.two: RTCPeerConnection
        _call(self._make)
        if connect:
            self.connect()

    def __enter__(self) -> Pair:
        return self

    def __exit__(
        self, kind: type | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _take(self, raw: RTCDataChannel) -> None:
        self.arrived.append(ChannelLink(raw, self.engine, **self._link_options))

    async def _make(self) -> None:
        self.one, self.two = peer_connection(()), peer_connection(())
        self.two.on("datachannel", lambda raw: self.on_raw(raw))
        self.first = self.one.createDataChannel("first")  # what brings the connection about

    def connect(self) -> None:
        """Negotiate."""
        _call(self._connect)

    async def _connect(self) -> None:
        gather_on.set("127.0.0.1")
        await self.one.setLocalDescription(await self.one.createOffer())
        await self.two.setRemoteDescription(self.one.localDescription)
        await self.two.setLocalDescription(await self.two.createAnswer())
        await self.one.setRemoteDescription(self.two.localDescription)

    def raw(self, label: str = "chat", **options: Any) -> RTCDataChannel:
        """Create a channel at ``one``."""
        label, options = check_label(label), channel_options(**options)
        return on_loop(lambda: self.one.createDataChannel(label, **options))

    def channel(
        self, label: str = "chat", *, face: dict[str, Any] | None = None, **options: Any
    ) -> tuple[DataChannel, DataChannel]:
        """Create a channel and return both ends of it, open."""
        near = DataChannel(self.raw(label, **options), **(face or {}))
        self.kept.append(near)
        near.wait_open(timeout=30)
        return near, self.far(label)

    def far(self, label: str = "chat") -> DataChannel:
        """Return ``two``'s end of a channel."""
        wait_until(lambda: any(link.name == label for link in self.arrived), 30, "a far end")
        [link] = [link for link in self.arrived if link.name == label]
        self.arrived.remove(link)
        channel = DataChannel(link)
        self.kept.append(channel)
        return channel

    def stall(self) -> threading.Event:
        """Hold the loop up until the event is set, for 20 s at most."""
        held, hold = threading.Event(), threading.Event()

        def wait() -> None:
            held.set()
            hold.wait(20)

        self.engine.post(wait)
        assert held.wait(20)
        return hold

    def close(self) -> None:
        """Close both connections."""

        async def close() -> None:
            for link in self.arrived:
                link.lose("the test is over")
            await self.one.close()
            await self.two.close()

        _call(close)
