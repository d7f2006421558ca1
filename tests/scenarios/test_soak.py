"""An application in trouble for a while: afterwards it works, and holds no more than before."""

from __future__ import annotations

import gc
import os
import threading
import time
from contextlib import ExitStack
from typing import Any

import pytest

from metered_sync import (
    MediaError,
    MeteredError,
    MeteredPeer,
    RemoteTrack,
    SfuClient,
    SignallingClient,
    Subscription,
)
from metered_sync.local import LocalCloud
from metered_sync.testing import PatternSource
from tests.conftest import wait_until
from tests.rules.test_leaks import census

CLIENTS = 6
DROP_EVERY = 2.0
"""Seconds between two losses of all messaging connections."""
KILL_EVERY = 5.0
"""Seconds between two losses of the publisher's SFU session."""
GROWTH = 60 << 20
"""Bytes that the process may have grown by: caches, encoders of several sizes, fragmentation."""


def resident() -> int:
    """Return the process's resident memory in bytes; 0 where the system does not tell."""
    try:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0


class Application:
    """Clients that publish to one channel and read it, a room of two, a publisher and readers."""

    def __init__(self, cloud: LocalCloud, stack: ExitStack) -> None:
        self.cloud = cloud
        self.stop = threading.Event()
        self.received = [0] * CLIENTS
        self.published = [0] * CLIENTS
        self.pictures = [0, 0]
        self.unexpected: list[BaseException] = []
        self.clients = [
            stack.enter_context(SignallingClient(**cloud.token_options(f"client-{n}")))
            for n in range(CLIENTS)
        ]
        self.sender = stack.enter_context(SfuClient(**cloud.sfu_options()))
        self.receiver = stack.enter_context(SfuClient(**cloud.sfu_options()))
        self.camera = self.sender.publish(PatternSource(320, 240, 15).video, name="soak")
        self.members = [
            stack.enter_context(MeteredPeer(**cloud.token_options(f"member-{n}"))) for n in range(2)
        ]
        self.members[0].add_track(PatternSource(320, 240, 15).video)
        for member in self.members:
            member.join("soak-room")
        tracks = [
            self.receiver.subscribe(self.camera),
            self.members[1].wait_for_peer("member-0", timeout=30).track("video", timeout=30),
        ]
        work: list[tuple[Any, ...]] = [(self.read, n, track) for n, track in enumerate(tracks)]
        for number, client in enumerate(self.clients):
            inbox = client.subscribe("soak")
            work += [(self.publish, number, client), (self.listen, number, inbox)]
        self.threads = [
            threading.Thread(target=self.run, args=(function, *args), daemon=True)
            for function, *args in work
        ]
        for thread in self.threads:
            thread.start()

    def run(self, function: Any, *args: Any) -> None:
        try:
            function(*args)
        except BaseException as error:
            self.unexpected.append(error)

    def publish(self, number: int, client: SignallingClient) -> None:
        while not self.stop.wait(0.05):
            try:
                client.publish("soak", self.published[number], timeout=10)
                self.published[number] += 1
            except MeteredError:  # lost with a connection: at most once is what is promised
                pass

    def listen(self, number: int, inbox: Subscription) -> None:
        for _ in inbox:
            self.received[number] += 1

    def read(self, number: int, track: RemoteTrack) -> None:
        while not self.stop.is_set():
            try:
                track.read(timeout=10)
                self.pictures[number] += 1
            except (MediaError, MeteredError):
                if self.stop.wait(0.1):
                    return

    def works(self) -> bool:
        """Say whether everything has moved on since a moment ago, and is settled."""
        before = [*self.received, *self.published, *self.pictures]

        def moved() -> bool:
            now = [*self.received, *self.published, *self.pictures]
            return all(after > start for start, after in zip(before, now, strict=True))

        wait_until(moved, 60, what="everything moves on")
        return all(client.state == "connected" for client in self.clients)

    def close(self) -> None:
        self.stop.set()
        for client in self.clients:
            client.close()
        for thread in self.threads:
            thread.join(30)
        assert not any(thread.is_alive() for thread in self.threads)


def held() -> dict[str, int]:
    """Return the lowest counts of a second, so that work under way does not count."""
    samples = []
    for _ in range(10):
        samples.append(census())
        # The loop's pool of threads, for codecs, grows to its bound when it is needed.
        pool = [t for t in threading.enumerate() if t.name.startswith(("asyncio_", "uvloop_"))]
        samples[-1]["threads"] -= len(pool)
        time.sleep(0.1)
    return {name: min(sample[name] for sample in samples) for name in samples[0]}


@pytest.mark.parametrize(
    "seconds",
    [
        10,
        pytest.param(300, marks=[pytest.mark.slow, pytest.mark.timeout(900)]),
    ],
)
def test_an_application_in_trouble(seconds: int) -> None:
    with ExitStack() as stack:
        cloud = stack.enter_context(LocalCloud(limits=False))
        application = Application(cloud, stack)
        stack.callback(application.close)
        wait_until(application.works, 60)
        gc.collect()
        before, memory = held(), resident()
        end, kill_at = time.monotonic() + seconds, time.monotonic() + KILL_EVERY / 2
        while time.monotonic() < end:
            cloud.faults.drop_connections()
            if time.monotonic() >= kill_at:
                kill_at += KILL_EVERY
                # The receiver's session keeps a media section, with a task, for each track that
                # it ever received.
                before["tasks"] += 1
                cloud.faults.kill_sfu_session(application.sender.session_id or "")
            time.sleep(DROP_EVERY)
        wait_until(application.works, 60)

        def settled() -> bool:
            gc.collect()
            return all(held()[name] <= count for name, count in before.items())

        wait_until(settled, 60, what=f"no more than {before} is held")
        assert resident() - memory < GROWTH
        assert not application.unexpected
        assert min(application.published) > seconds
