"""A member of a room that does what no client does, by hand-made signals and packets.

It runs on an event loop and a thread of its own: what it costs its victim's is measured apart.
"""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from aiortc import RTCPeerConnection, RTCSessionDescription
from websockets.asyncio.client import ClientConnection, connect

from metered_sync import MeteredPeer, RemotePeer, mint_token
from metered_sync.bridge.engines import current
from metered_sync.local import LocalCloud
from metered_sync.testing import ToneSource
from tests.conftest import wait_until
from tests.support.victim import MAX_STEP

__all__ = ["Mallory", "Stage", "stage"]

T = TypeVar("T")
ROOM = "room"
MAX_GROWTH = 50 << 20
MAX_WAIT = 5.0


class Mallory:
    """One member, connected and subscribed; its coroutines run on its own loop."""

    def __init__(self, cloud: LocalCloud, peer_id: str) -> None:
        self.id = peer_id
        self.pc: RTCPeerConnection
        self.answers: asyncio.Queue[dict[str, Any]]
        self._token = mint_token(cloud.key_id, cloud.key_secret, peer_id=peer_id)
        self._url = f"{cloud.url}/v1?token={self._token}"
        self._connection: ClientConnection
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(20)

    def __enter__(self) -> Mallory:
        self._thread.start()
        self.run(self._open())
        return self

    def __exit__(self, *exc: object) -> None:
        self.run(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(20)
        self._loop.close()

    async def _open(self) -> None:
        self.answers = asyncio.Queue()
        self.pc = RTCPeerConnection()
        self._connection = await connect(self._url, proxy=None, max_size=None, ping_interval=None)
        self._reading = asyncio.create_task(self._read())
        await self.frame(type="subscribe", channel=ROOM, requestId="1")

    async def _close(self) -> None:
        self._reading.cancel()
        await self.pc.close()
        await self._connection.close()

    async def _read(self) -> None:
        async for text in self._connection:
            frame = json.loads(text)
            data = frame.get("data") if frame["type"] == "direct" else None
            about = data.get("description") if isinstance(data, dict) else None
            if about is not None and about["type"] == "answer":
                await self.answers.put(about)

    async def frame(self, **fields: Any) -> None:
        await self._connection.send(json.dumps(fields))

    async def tell(self, data: Any, to: str = "victim") -> None:
        """Send a direct message; the victim takes it for a signal, if it looks like one."""
        await self.frame(type="send", to=to, data=data)

    async def offer(self, text: Any) -> None:
        await self.tell({"type": "rtc-description", "description": {"type": "offer", "sdp": text}})

    async def connect_media(self, *kinds: str) -> None:
        """Negotiate, with a data channel and a transceiver of each kind, and connect."""
        self.channel = self.pc.createDataChannel("first")
        for kind in kinds:
            self.pc.addTransceiver(kind, direction="sendonly")
        await self.pc.setLocalDescription(await self.pc.createOffer())
        await self.offer(self.pc.localDescription.sdp)
        answer = await asyncio.wait_for(self.answers.get(), 20)
        await self.pc.setRemoteDescription(RTCSessionDescription(answer["sdp"], answer["type"]))
        while self.pc.connectionState != "connected":
            await asyncio.sleep(0.01)
        while self.channel.readyState != "open":
            await asyncio.sleep(0.01)

    @property
    def dtls(self) -> Any:
        return self.pc.sctp.transport if self.pc.sctp else None


class Stage:
    """The victim, and a member whose media it receives meanwhile."""

    def __init__(self, cloud: LocalCloud, victim: MeteredPeer, friend: RemotePeer) -> None:
        self.cloud = cloud
        self.victim = victim
        self.sound = friend.track("audio", timeout=20).frames()
        self._number = 0

    @contextmanager
    def attack(
        self, *, lines: int = 1, steps: int = 1, joined: bool = True
    ) -> Iterator[tuple[Mallory, RemotePeer]]:
        """Let a new member do something in the block; then see what it has cost.

        Args:
            lines: Warnings and errors that the log may have of it.
            steps: How many steps of the loop may exceed the limit: something made them so.
        """
        self._number += 1
        records: list[logging.LogRecord] = []
        handler = logging.Handler(logging.WARNING)
        handler.emit = records.append  # type: ignore[method-assign]
        logger = logging.getLogger("metered_sync")
        with Mallory(self.cloud, f"mallory{self._number}") as mallory:
            remote = self.victim.wait_for_peer(mallory.id, timeout=20)
            logger.addHandler(handler)
            before = memory()
            try:
                with steps_of_the_loop() as costs:
                    yield mallory, remote
                    self.check_alive()
            finally:
                logger.removeHandler(handler)
            grown = memory() - before
        assert max(costs, default=0) < MAX_STEP, sorted(costs)[-5:]
        assert grown < MAX_GROWTH
        told = {record.getMessage() for record in records}
        assert len(told) <= lines, sorted(told)[:5]

    def check_alive(self) -> None:
        """See that the loop answers, and that the friend's sound goes on."""
        begin = time.monotonic()
        for _ in range(len(self.sound) + 1):
            self.sound.get(timeout=MAX_WAIT)
        assert time.monotonic() - begin < 2 * MAX_WAIT


@contextmanager
def stage() -> Iterator[Stage]:
    with (
        LocalCloud(limits=False) as cloud,
        MeteredPeer(**cloud.token_options("victim"), ice_servers=[]) as victim,
        MeteredPeer(**cloud.token_options("friend"), ice_servers=[]) as friend,
    ):
        friend.add_track(ToneSource(440))
        victim.join(ROOM)
        friend.join(ROOM)
        yield Stage(cloud, victim, victim.wait_for_peer("friend", timeout=20))


def memory() -> int:
    """Return the bytes of memory that this process uses, once the garbage is collected."""
    gc.collect()
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096


@contextmanager
def steps_of_the_loop() -> Iterator[list[float]]:
    """Collect the CPU time of the engine's thread between two beats of its loop.

    They come once a millisecond, or as soon as the step that is under way has ended.
    """
    costs: list[float] = []
    engine = current()
    loop = engine._loop
    going, last = True, 0.0

    def beat() -> None:
        nonlocal last
        now = time.thread_time()
        if last:
            costs.append(now - last)
        last = now
        if going:
            loop.call_later(0.001, beat)

    gc.collect()
    gc.freeze()  # going through all that the tests have made is no cost of a member's
    engine.post(beat)
    wait_until(lambda: costs, 20, "the loop's beat")
    try:
        yield costs
    finally:
        going = False
        gc.unfreeze()


def until(condition: Callable[[], object], what: str) -> None:
    wait_until(condition, 20, what)
