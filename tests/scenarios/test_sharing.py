"""What one reader does to its data, no other reader sees, nor the library itself."""

from __future__ import annotations

import queue
from typing import Any

from metered_sync import (
    Data,
    Message,
    MeteredPeer,
    PeerJoined,
    Presence,
    RemoteTrack,
    SignallingClient,
    StreamAdded,
    Track,
)
from metered_sync.local import LocalCloud
from metered_sync.testing import ToneSource


def spoil(data: Any) -> None:
    """Change all that can be changed in data."""
    for inner in list(data.values() if isinstance(data, dict) else data):
        if isinstance(inner, (dict, list)):
            spoil(inner)
    data.clear()


def test_readers_and_callbacks_of_a_channel(shared_cloud: LocalCloud) -> None:
    data = {"list": [1, {"deep": ["x"]}], "dict": {"a": {}}}
    options = shared_cloud.token_options("the sender", peer_metadata={"role": ["tester"]})
    seen: queue.Queue[Any] = queue.Queue()

    def change(event: Any) -> None:
        seen.put((dict(event.data), event.sender_metadata))
        event.data["more"] = "by a callback"

    with (
        SignallingClient(**shared_cloud.client_options()) as client,
        SignallingClient(**options) as sender,
        client.events() as events,
    ):
        readers = [
            client.subscribe(name, include_sender_metadata=True)
            for name in ("sharing", "sharing", "shar*")
        ]
        client.on(Message, change)
        client.on(Message, lambda event: change(event))
        sender.subscribe("sharing")
        sender.publish("sharing", data)
        for reader in readers:
            message = reader.get(timeout=20)
            assert (message.data, message.sender_metadata) == (data, {"role": ["tester"]})
            spoil(message.data)
            spoil(message.sender_metadata)
        for _ in range(2):
            assert seen.get(timeout=20) == (data, {"role": ["tester"]})
        events.close()
        (message,) = [event for event in events if isinstance(event, Message)]
        assert message.data == data
        # Who is there is the client's own knowledge.
        roster = client.roster("sharing", timeout=20)
        assert roster["the sender"] == {"role": ["tester"]}
        spoil(roster)
        assert client.roster("sharing")["the sender"] == {"role": ["tester"]}


def test_what_is_known_of_members_and_their_tracks(shared_cloud: LocalCloud) -> None:
    about = {"camera": {"place": ["hall"]}}
    options = shared_cloud.token_options("the member", peer_metadata={"role": ["member"]})
    with (
        MeteredPeer(**shared_cloud.client_options(), ice_servers=[]) as peer,
        MeteredPeer(**options, ice_servers=[]) as member,
        peer.events(PeerJoined, Data) as events,
        ToneSource() as tone,
    ):
        peer.join("sharing members")
        member.add_track(tone, metadata=about)
        about["camera"]["place"].append("changed afterwards")
        member.join("sharing members")
        joined = events.get(timeout=20)
        assert isinstance(joined, PeerJoined)
        remote = joined.peer
        assert remote.metadata == {"role": ["member"]}
        spoil(remote.metadata)
        assert remote.metadata == {"role": ["member"]}
        with remote.events(Track, StreamAdded) as told:
            track = remote.track("audio", metadata={"camera": {"place": ["hall"]}}, timeout=20)
            assert isinstance(track, RemoteTrack)
            for event in list(iter_queue(told)):
                if event.metadata is not None:
                    spoil(event.metadata)
        spoil(track.metadata)
        assert track.metadata == {"camera": {"place": ["hall"]}}
        with peer.events(Data) as second:
            member.send({"to": ["all"]})
            for one in (events, second):
                event = one.get(timeout=20)
                assert event.data == {"to": ["all"]}
                spoil(event.data)


def test_presence_is_not_changed_by_who_hears_of_it(shared_cloud: LocalCloud) -> None:
    options = shared_cloud.token_options("the comer", peer_metadata={"role": ["comer"]})
    with (
        SignallingClient(**shared_cloud.client_options()) as client,
        SignallingClient(**options) as comer,
        client.events(Presence) as first,
        client.events(Presence) as second,
    ):
        client.subscribe("sharing presence")
        comer.subscribe("sharing presence")
        for events in (first, second):
            while not (presence := events.get(timeout=20)).joined:
                pass
            (comer_,) = presence.joined
            assert comer_.metadata == {"role": ["comer"]}
            spoil(comer_.metadata)
        assert client.roster("sharing presence") == {"the comer": {"role": ["comer"]}}


def iter_queue(events: Any) -> Any:
    """Yield what is queued now."""
    while True:
        try:
            yield events.get_nowait()
        except queue.Empty:
            return
