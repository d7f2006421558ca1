"""Publish and subscribe again and again on one session: nothing of earlier tracks stays behind."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

from metered_sync import SfuClient
from metered_sync.bridge import engines
from metered_sync.bridge.deadline import Deadline
from metered_sync.local import LocalCloud
from metered_sync.testing import PatternSource, ToneSource
from metered_sync.wire import sdp
from tests.conftest import wait_until
from tests.support.sfu_front import sfu_front

ROUNDS = 5


def left(client: SfuClient) -> tuple[int, int, int]:
    """Count tasks that report on media, threads that decode, and sections of a session."""

    async def tasks() -> int:
        return sum("_run_rtcp" in repr(task) for task in asyncio.all_tasks())

    link: Any = client._link
    sections = sdp.parse(link.session.pc.localDescription.sdp).sections
    decoders = [t for t in threading.enumerate() if t.name.endswith("-decoder")]
    reporting = engines.current().call(tasks, deadline=Deadline(5), what="tasks")
    return reporting, len(decoders), len(sections)


def test_tracks_that_come_and_go_leave_nothing(shared_cloud: LocalCloud) -> None:
    options = shared_cloud.sfu_options()
    with SfuClient(**options) as sender, SfuClient(**options) as receiver, ToneSource(440) as tone:
        before = left(receiver)
        for number in range(2 * ROUNDS):
            publication = sender.publish(tone.audio, name=f"{number}")
            track = receiver.subscribe(publication)
            with track.frames() as frames:
                frames.get(timeout=20)
            if number % 2:
                receiver.unsubscribe(track)
            publication.close()
            if not number % 2:
                track.wait_ended(timeout=20)
        wait_until(lambda: left(receiver)[:2] == before[:2], 20)
        assert left(receiver)[2] <= before[2] + 2
        last = receiver.subscribe(sender.publish(tone.audio, name="last"))
        with last.frames() as frames:
            frames.get(timeout=20)
        assert last.restarts == 0


def test_a_track_that_moves_leaves_nothing_though_its_goodbye_is_lost(cloud: LocalCloud) -> None:
    options = cloud.sfu_options()
    with SfuClient(**options) as sender, SfuClient(**options) as receiver, ToneSource(440) as tone:
        track = receiver.subscribe(sender.publish(tone.audio, name="tone"))
        with track.frames() as frames:
            frames.get(timeout=20)
            before = left(receiver)[:2]
            cloud.faults.lose_media(1)
            cloud.faults.kill_sfu_session(str(sender.session_id))
            cloud.faults.lose_media(0)
            wait_until(lambda: track.restarts == 1, 30)
            frames.get(timeout=20)
            wait_until(lambda: left(receiver)[:2] == before, 20)


def test_what_comes_late_of_a_track_leaves_the_others_alone(shared_cloud: LocalCloud) -> None:
    options = shared_cloud.sfu_options()
    with (
        sfu_front(options["url"]) as front,
        SfuClient(**options) as sender,
        SfuClient(**{**options, "url": front.url}) as receiver,
        PatternSource(160, 120, 30) as pattern,
    ):
        over, kept = (sender.publish(pattern.video, name=name) for name in ("over", "kept"))
        ends, stays = receiver.subscribe([over, kept])
        ends.read(timeout=20)
        with stays.frames() as frames:
            front.delay(0.3)
            for _ in range(12):  # until the path is full
                frames.get(timeout=20)
            over.close()  # of which the SFU tells behind the last packets
            receiver.unsubscribe(ends)
            for _ in range(12):  # until they have come
                frames.get(timeout=20)
            assert (stays.restarts, stays.ended) == (0, False)
