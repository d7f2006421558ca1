"""Publish and subscribe again and again on one session: nothing of earlier tracks stays behind."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import replace
from typing import Any

from metered_sync import SfuClient
from metered_sync.bridge import engines
from metered_sync.bridge.deadline import Deadline
from metered_sync.local import LocalCloud
from metered_sync.testing import PatternSource, ToneSource
from metered_sync.wire import sdp
from tests.conftest import wait_until
from tests.support.scripted_sfu import ScriptedSfu
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


def sections_of(client: SfuClient) -> list[sdp.Section]:
    link: Any = client._link
    return list(sdp.parse(link.session.pc.localDescription.sdp).sections)


def test_what_is_published_takes_the_places_of_what_was(shared_cloud: LocalCloud) -> None:
    options = shared_cloud.sfu_options()
    with (
        SfuClient(**options) as sender,
        SfuClient(**options) as receiver,
        ToneSource(440) as tone,
        PatternSource(160, 120, 30) as pattern,
    ):
        reporting, _, before = left(sender)
        for number in range(ROUNDS):
            opened = [sender.publish(tone.audio), sender.publish(pattern.video)]
            assert len(sections_of(sender)) == before + 2
            for publication in opened[:: 1 if number % 2 else -1]:
                publication.close()
        wait_until(lambda: left(sender)[0] <= reporting, 20)
        seen = receiver.subscribe(sender.publish(pattern.video, name="seen"))
        heard = receiver.subscribe(sender.publish(tone.audio, name="heard"))
        assert seen.read(timeout=20) is not None
        with heard.frames() as frames:
            frames.get(timeout=20)
        assert len(sections_of(sender)) == before + 2
        sender.publish(tone.audio, name="one more at a time").close()
        assert len(sections_of(sender)) == before + 3
        assert sender.stats()["recoveries"] == seen.restarts == heard.restarts == 0


def test_an_sfu_that_takes_a_section_once_only_gets_new_ones(shared_cloud: LocalCloud) -> None:
    refused: list[str] = []
    used: list[str] = []

    def once_only(status: int, answer: Any) -> tuple[int, Any]:
        description = sdp.parse(answer["sessionDescription"]["sdp"])
        taken = [one.mid for one in description.sections if one.receives]
        refused.extend(mid for mid in taken if mid in used)
        used.extend(mid for mid in taken if mid not in used)
        sections = (
            replace(one, direction="inactive") if one.mid in refused else one
            for one in description.sections
        )
        text = sdp.build(replace(description, sections=tuple(sections)))
        return status, {**answer, "sessionDescription": {"type": "answer", "sdp": text}}

    with ScriptedSfu(shared_cloud.http_url) as scripted, ToneSource(440) as tone:
        options = {**shared_cloud.sfu_options(), "url": scripted.url}
        with SfuClient(**options) as sender, SfuClient(**options) as receiver:
            scripted.spoil["track/publish"] = once_only
            for _ in range(3):
                publication = sender.publish(tone.audio)
                with receiver.subscribe(publication).frames() as frames:
                    frames.get(timeout=20)
                publication.close()
            assert sender.stats()["recoveries"] == 0
            assert len(refused) == 1  # from then on it is not tried any more
            assert len(used) == 3


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
