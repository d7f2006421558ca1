"""Soak: an application in trouble for as long as one likes, which must not grow and must work.

Twenty messaging clients that publish to one channel and read it, a room of four with pictures, an
SFU publisher with six readers, and a recorder: all in one process, with its local cloud. All
messaging connections are cut every 20 s, at times an SFU session is killed, and the SFU loses 2 %
of the media. Prints what the process holds as it goes, and at the end how long outages took and
what was lost in them; draws it with ``--plot soak.png`` (matplotlib, from the ``notebook`` extra).

Exits with status 1 where something has grown, where a message was lost outside of an outage of
its reader's, where something does not work in the end, or at an error that nobody expects.

    python benchmarks/soak.py --minutes 60 --plot benchmarks/soak.png
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import logging
import os
import re
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

from _soak_figures import Series, draw, summary

from metered_sync import (
    Disconnected,
    EventQueue,
    MediaError,
    Message,
    MeteredError,
    MeteredPeer,
    Outage,
    Recorder,
    RemoteTrack,
    SfuClient,
    SignallingClient,
)
from metered_sync.bridge import engines
from metered_sync.bridge.deadline import Deadline
from metered_sync.local import LocalCloud
from metered_sync.testing import PatternSource
from tests.rules.test_leaks import census

CLIENTS, MEMBERS, READERS = 20, 4, 6
PUBLISH_EVERY = 0.5
"""Seconds between two messages of a client."""
LOSS = 0.02
"""The share of media packets that the SFU loses."""
GROWTH = 40.0
"""MiB that the process may grow by after the first third, in which caches and heaps fill up."""
SLACK = {"threads": 0, "tasks": 0, "links": 0, "files": 4}
"""More than at the beginning that is accepted: the pool of HTTP connections has its own ways."""
SETTLING = 60.0
"""Seconds that everything may take to work once more."""


def resident() -> int:
    """Return the process's resident memory in bytes; 0 where the system does not tell."""
    try:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0


def names() -> Counter[str]:
    """Return which threads and tasks there are, and how many of each."""

    async def tasks() -> list[str]:
        return [f"task {task.get_coro().__qualname__}" for task in asyncio.all_tasks()]

    found = engines.current().call(tasks, deadline=Deadline(5), what="names")
    threads = [re.sub(r"\d+", "#", f"thread {one.name}") for one in threading.enumerate()]
    return Counter([*found, *threads])


def held() -> dict[str, int]:
    """Return the lowest counts of a second, so that work under way does not count."""
    samples = []
    for _ in range(10):
        samples.append(census())
        time.sleep(0.1)
    return {name: min(sample[name] for sample in samples) for name in samples[0]}


class Inbox:
    """What one client reads, and what it has missed of the others' messages."""

    def __init__(self, number: int, series: Series) -> None:
        self.number = number
        self.received = 0
        self.unexplained: list[str] = []
        """Gaps with no loss of the connection since the message before them."""
        self._series = series
        self._losses = 0
        self._last: dict[int, tuple[int, int]] = {}

    def read(self, events: EventQueue[Message | Disconnected]) -> None:
        for event in events:  # in the order in which they came
            if isinstance(event, Disconnected):
                self._losses += 1
                continue
            sender, count = event.data
            last, losses = self._last.get(sender, (count - 1, self._losses))
            if count > last + 1:
                self._series.lost += count - last - 1
                if losses == self._losses:
                    gap = f"{last + 1} to {count - 1} of client {sender}"
                    self.unexplained.append(f"client {self.number}: {gap}")
            self._last[sender] = count, self._losses
            self.received += 1


class Application:
    """Clients, a room, a publisher with its readers, and a recorder, each on its threads."""

    def __init__(self, cloud: LocalCloud, stack: ExitStack, series: Series, path: str) -> None:
        self.stop = threading.Event()
        self.errors: list[str] = []
        self.published = [0] * CLIENTS
        self.pictures = [0] * (MEMBERS + READERS)
        self._series = series
        self.inboxes = [Inbox(n, series) for n in range(CLIENTS)]
        self.clients = [
            stack.enter_context(SignallingClient(**cloud.token_options(f"client-{n}")))
            for n in range(CLIENTS)
        ]
        self.sender = stack.enter_context(SfuClient(**cloud.sfu_options()))
        self.readers = [
            stack.enter_context(SfuClient(**cloud.sfu_options())) for _ in range(READERS)
        ]
        camera = self.sender.publish(PatternSource(160, 120, 8).video, name="soak")
        self.members = [
            stack.enter_context(MeteredPeer(**cloud.token_options(f"member-{n}"), ice_servers=[]))
            for n in range(MEMBERS)
        ]
        for member in self.members:
            member.add_track(PatternSource(160, 120, 8).video)
            member.join("soak-room")
        tracks = [
            member.wait_for_peer(f"member-{(n + 1) % MEMBERS}", timeout=30).track(timeout=30)
            for n, member in enumerate(self.members)
        ] + [reader.subscribe(camera) for reader in self.readers]
        self.recorder = stack.enter_context(Recorder(path, tracks[0], tracks[-1]))
        work: list[tuple[Any, ...]] = [(self.watch, n, track) for n, track in enumerate(tracks)]
        for n, client in enumerate(self.clients):
            client.on(Outage, self.note_outage)
            events = stack.enter_context(client.events(Message, Disconnected))
            stack.enter_context(client.subscribe("soak", maxsize=1))  # not read
            work += [(self.inboxes[n].read, events), (self.publish, n, client)]
        for other in (*self.members, *self.readers, self.sender):
            other.on(Outage, self.note_outage)
        self._threads = [
            threading.Thread(target=self.run, args=(function, *args), daemon=True)
            for function, *args in work
        ]
        for thread in self._threads:
            thread.start()

    def note_outage(self, outage: Outage) -> None:
        self._series.outages.append((self._series.now(), outage.duration))

    def run(self, function: Callable[..., None], *args: Any) -> None:
        try:
            function(*args)
        except BaseException as error:
            self.errors.append(f"{function.__qualname__}: {error!r}")

    def publish(self, number: int, client: SignallingClient) -> None:
        while not self.stop.wait(PUBLISH_EVERY):
            with suppress(MeteredError):  # lost with a connection: published again
                client.publish("soak", [number, self.published[number]], timeout=30)
                self.published[number] += 1

    def watch(self, number: int, track: RemoteTrack) -> None:
        while not self.stop.is_set():
            try:
                track.read(timeout=10)
                self.pictures[number] += 1
            except (MediaError, MeteredError):
                self.stop.wait(0.1)

    def unexplained(self) -> list[str]:
        """Return what readers have missed while they were connected."""
        gaps = [gap for inbox in self.inboxes for gap in inbox.unexplained]
        return [f"lost without an outage: {gap}" for gap in gaps]

    def progress(self) -> dict[str, int]:
        """Return what has been done so far, by who does it."""
        done = {f"publisher {n}": count for n, count in enumerate(self.published)}
        done |= {f"reader {one.number}": one.received for one in self.inboxes}
        return done | {f"track {n}": count for n, count in enumerate(self.pictures)}

    def stuck(self) -> list[str]:
        """Return what does not move on, or is not connected, within ``SETTLING`` seconds."""
        before, deadline = self.progress(), time.monotonic() + SETTLING
        others = (*self.clients, *self.members, *self.readers, self.sender)
        while True:
            stuck = [name for name, count in self.progress().items() if count == before[name]]
            stuck += [repr(one) for one in others if one.state not in ("connected", "joined")]
            if not stuck or time.monotonic() > deadline:
                return stuck
            time.sleep(0.05)

    def close(self) -> None:
        self.stop.set()
        for client in self.clients:
            client.close()
        for thread in self._threads:
            thread.join(30)
        if any(thread.is_alive() for thread in self._threads):
            self.errors.append("threads that read or publish do not end")


def soak(seconds: float, every: float, series: Series, say: Callable[[str], None]) -> list[str]:
    """Run the application in trouble for so long; return what is wrong with it."""
    wrong: list[str] = []
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        cloud = stack.enter_context(LocalCloud(limits=False))
        application = Application(cloud, stack, series, f"{folder}/soak.mkv")
        stack.callback(application.close)
        if stuck := application.stuck():
            return [f"from the beginning {one} does not work" for one in stuck]
        gc.collect()
        before, there, began = held(), names(), time.monotonic()
        cloud.faults.lose_media(LOSS)
        turn = 0
        while time.monotonic() < began + seconds:
            turn += 1
            cloud.faults.drop_connections()
            if turn % 3 == 2:
                victim = (application.sender, *application.readers)[turn // 3 % (READERS + 1)]
                with suppress(MeteredError):
                    cloud.faults.kill_sfu_session(victim.session_id or "")
            time.sleep(every)
            counts = census()
            series.add({**counts, "memory": resident() / 2**20})
            say(
                f"{series.now():6.0f} s  {resident() >> 20} MiB  "
                + "  ".join(f"{count} {name}" for name, count in counts.items())
                + f"  {len(series.outages)} outages  {series.lost} messages lost"
                + f"  {sum(application.pictures)} pictures"
            )
        cloud.faults.lose_media(0)
        wrong += [f"in the end {one} does not work" for one in application.stuck()]
        if grown := _grown(before):
            wrong += [*grown, f"new: {dict(names() - there)}"]
        memory = series.counts["memory"]
        growth = memory[-1] - max(memory[: len(memory) // 3 + 1])
        if growth > GROWTH:
            wrong.append(f"memory has grown by {growth:.0f} MiB")
        recorded = application.recorder.stop()
        if recorded.duration < seconds * 0.8:
            wrong.append(f"{recorded.duration:.0f} of {seconds:.0f} s were recorded")
        wrong += application.unexplained() + application.errors
    return wrong


def _grown(before: dict[str, int]) -> list[str]:
    """Return what is held that was not before, once it has had time to go."""
    deadline = time.monotonic() + SETTLING
    while True:
        gc.collect()
        now = held()
        grown = [
            f"there were {count} {name}, there are {now[name]}"
            for name, count in before.items()
            if now[name] > count + SLACK[name]
        ]
        if not grown or time.monotonic() > deadline:
            return grown


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--every", type=float, help="seconds between two losses of connections")
    parser.add_argument("--plot", help="a file to draw it into")
    options = parser.parse_args()
    logging.getLogger("metered_sync").setLevel(logging.CRITICAL)
    seconds = options.minutes * 60
    every = options.every or min(20.0, max(2.0, seconds / 20))
    series = Series()
    wrong = soak(seconds, every, series, lambda line: print(line, flush=True))
    print(summary(series))
    if options.plot:
        draw(series, options.plot)
    for one in wrong:
        print(f"WRONG: {one}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
