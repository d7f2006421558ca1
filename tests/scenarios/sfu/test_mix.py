"""Publish, subscribe and close in any order, on several sessions at once."""

from __future__ import annotations

import random
import threading
from dataclasses import dataclass, field
from typing import Any

import pytest

from metered_sync import Publication, RemoteTrack, SfuClient
from metered_sync.local import LocalCloud
from metered_sync.testing import PatternSource, ToneSource, read_number
from tests.conftest import wait_until

STEPS = 18


@dataclass
class World:
    """What is going on, as it should be."""

    clients: list[SfuClient]
    published: dict[Publication, SfuClient] = field(default_factory=dict)
    sources: dict[Publication, Any] = field(default_factory=dict)
    received: dict[RemoteTrack, tuple[SfuClient, Publication]] = field(default_factory=dict)
    history: list[str] = field(default_factory=list)


def make_source(dice: random.Random) -> Any:
    if dice.random() < 0.5:
        return ToneSource(frequency=300 + 100 * dice.randrange(8))
    return PatternSource(160, 120, 10)


def publish(world: World, dice: random.Random) -> None:
    client = dice.choice(world.clients)
    sources = [make_source(dice) for _ in range(dice.choice((1, 1, 1, 2, 3)))]
    name = f"n{len(world.history)}" if dice.random() < 0.5 else None
    options = {"codec": "h264"} if dice.random() < 0.2 else {}
    if not any(isinstance(s, PatternSource) for s in sources):
        options = {}
    given = sources[0].tracks[0] if len(sources) == 1 and dice.random() < 0.5 else sources
    made = client.publish(given, name=name, timeout=30, **options)
    made = made if isinstance(made, list) else [made]
    world.history.append(f"{world.clients.index(client)} publishes {made}")
    for publication, source in zip(made, sources, strict=True):
        assert publication.name == name
        world.published[publication] = client
        world.sources[publication] = source


def subscribe(world: World, dice: random.Random) -> None:
    if not world.published:
        return
    client = dice.choice(world.clients)
    wanted = dice.sample(
        list(world.published), min(len(world.published), dice.choice((1, 1, 2, 3)))
    )
    world.history.append(f"{world.clients.index(client)} subscribes to {wanted}")
    way = dice.randrange(3)
    if way == 0:
        tracks = client.subscribe(wanted, timeout=30)
    elif way == 1:
        tracks = [client.subscribe(p.session_id, p.track_id, timeout=30) for p in wanted]
    else:
        listed = {t.track_id: t for p in wanted for t in client.tracks(p.session_id)}
        tracks = client.subscribe([listed[p.track_id] for p in wanted], timeout=30)
    for track, publication in zip(tracks, wanted, strict=True):
        assert (track.kind, track.id) == (publication.kind, publication.track_id)
        world.received[track] = (client, publication)


def close(world: World, dice: random.Random) -> None:
    if world.published:
        publication = dice.choice(list(world.published))
        world.history.append(f"{publication} is closed")
        publication.close(timeout=30)
        del world.published[publication]
        world.sources.pop(publication).stop()
        for track in [t for t, (_, p) in world.received.items() if p is publication]:
            wait_until(lambda track=track: track.ended, 20, f"the end of {track}")
            del world.received[track]


def unsubscribe(world: World, dice: random.Random) -> None:
    if world.received:
        track = dice.choice(list(world.received))
        client, _ = world.received.pop(track)
        world.history.append(f"{world.clients.index(client)} unsubscribes from {track}")
        client.unsubscribe(track, timeout=30)
        assert track.ended


def check(world: World) -> None:
    """Check that everything flows that should, and that the SFU lists what is published."""
    for client in world.clients:
        assert client.state == "connected"
        listed = {t.track_id for t in client.tracks(str(client.session_id))}
        mine = {p.track_id for p, owner in world.published.items() if owner is client}
        assert listed == mine
    readers = {track: track.frames() for track in world.received}
    for track, frames in readers.items():
        assert not track.ended
        frame = frames.get(timeout=20)
        if track.kind == "video":
            wait_until(
                lambda frames=frames: (
                    read_number(frames.get(timeout=20).to_ndarray(format="gray")) is not None
                ),
                20,
            )
        else:
            assert frame.sample_rate == 48000


@pytest.mark.parametrize("seed", range(2))
def test_a_random_walk(cloud: LocalCloud, seed: int) -> None:
    dice = random.Random(seed)
    clients = [SfuClient(**cloud.sfu_options()) for _ in range(3)]
    world = World(clients)
    try:
        for client in clients:
            client.connect()
        sessions = [client.session_id for client in clients]
        for step in range(STEPS):
            (action,) = dice.choices(
                (publish, subscribe, close, unsubscribe), (4, 5, 2 if step > 4 else 0, 2)
            )
            action(world, dice)
            if step % 6 == 5:
                check(world)
        check(world)
        assert [client.session_id for client in clients] == sessions  # nothing was lost over it
    except BaseException:
        print("\n".join(world.history))
        raise
    finally:
        for client in clients:
            client.close()
        for source in world.sources.values():
            source.stop()


@pytest.mark.parametrize("seed", range(2))
def test_a_random_walk_with_losses(cloud: LocalCloud, seed: int) -> None:
    dice = random.Random(seed)
    clients = [SfuClient(**cloud.sfu_options()) for _ in range(2)]
    world = World(clients)
    try:
        for client in clients:
            client.connect()
        for number in range(6):
            client = clients[number % 2]
            source = make_source(dice)
            publication = client.publish(source.tracks[0], name=f"track {number}")
            world.published[publication], world.sources[publication] = client, source
        for _ in range(6):
            subscribe(world, dice)
        check(world)
        for track, (_, publication) in world.received.items():
            wait_until(lambda t=track, p=publication: t.name == p.name, 20)
        for client in (clients[0], clients[1], clients[0]):
            before = client.session_id
            cloud.faults.kill_sfu_session(str(before))
            dice.choice((publish, unsubscribe))(world, dice)  # it may hit the gap
            wait_until(lambda c=client, b=before: c.state == "connected" and c.session_id != b, 30)
            for track, (_, publication) in world.received.items():
                wait_until(lambda t=track, p=publication: t.id == p.track_id, 30, str(track))
            check(world)
    finally:
        for client in clients:
            client.close()
        for source in world.sources.values():
            source.stop()


def test_many_sessions_in_one_process(shared_cloud: LocalCloud) -> None:
    options = shared_cloud.sfu_options()
    clients = [SfuClient(**options) for _ in range(12)]
    with ToneSource(frequency=440) as tone, PatternSource(160, 120, 10) as pattern:
        try:
            threads = [threading.Thread(target=client.connect) for client in clients]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(30)
            published = clients[0].publish([tone.audio, pattern.video])
            received = [client.subscribe(published) for client in clients]
            for sound, picture in received:
                assert sound.frames().get(timeout=20) is not None
                assert picture.read(timeout=20) is not None
        finally:
            for client in clients:
                client.close()


def test_threads_that_publish_subscribe_and_close_at_once(shared_cloud: LocalCloud) -> None:
    options = shared_cloud.sfu_options()
    with SfuClient(**options) as client:
        failures: list[BaseException] = []

        def work(number: int) -> None:
            try:
                for _ in range(3):
                    with ToneSource(frequency=300 + 50 * number) as tone:
                        published = client.publish(tone.audio, timeout=60)
                        track = client.subscribe(published, timeout=60)
                        assert track.frames().get(timeout=30) is not None
                        client.unsubscribe(track, timeout=60)
                        published.close(timeout=60)
            except BaseException as error:
                failures.append(error)

        threads = [threading.Thread(target=work, args=(number,)) for number in range(5)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(90)
        assert not failures
        assert client.tracks(str(client.session_id)) == []
        assert client.stats()["recoveries"] == 0
