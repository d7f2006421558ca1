"""What subscribers and members of a room cost, the local cloud's side apart; see ``growth.py``.

The pictures are 160x120, five a second (VP8). Those who receive them count them and do not decode
them. Each subscriber has a session with the SFU of its own; so has each member of the room, and a
connection to the messaging service besides.
"""

from __future__ import annotations

import json
import sys
import time
from contextlib import ExitStack
from typing import Any

from _processes import Taken, answer, child, local_cloud, questions

from metered_sync import MeteredPeer, RemoteTrack, SfuClient, SfuMedia, TrackInfo, mint_token
from metered_sync.testing import PatternSource

__all__ = ["members", "subscribers"]

WIDTH, HEIGHT, FPS = 160, 120, 5
SPEAKERS = 2
"""Members of the room that send; all others only receive."""
ROOM = "growth"
SECONDS = 10.0
PATIENCE = 90.0


def subscribers(count: int) -> dict[str, float]:
    """Return what each of so many subscribers of a track takes, and a picture for one of them."""
    return _receiving("publisher", "subscribe", count)


def members(count: int) -> dict[str, float]:
    """Return what each of so many members takes beside those that send, and a picture for one."""
    return _receiving("speakers", "join", count)


def _receiving(senders: str, what: str, count: int) -> dict[str, float]:
    with (
        local_cloud() as (cloud, facts),
        child(__file__, senders, facts) as (_, ask_senders),
        child(__file__, "receivers", facts) as (ours, ask),
    ):
        ask_senders("ready?")
        ask({what: 1})  # loads what is loaded once
        taken = Taken(ours, cloud)
        ask({what: count})
        figures = taken.memory(count) | taken.cpu(what, count, unit=1e-3)
        taken = Taken(ours, cloud)
        return figures | taken.cpu("picture", ask({"count": SECONDS}))


def publisher(facts: dict[str, Any]) -> None:
    """Publish a track."""
    with SfuClient(**_sfu(facts)) as client, PatternSource(WIDTH, HEIGHT, FPS) as source:
        client.publish(source.video, name="pattern")
        for _ in questions():
            answer("ready")


def speakers(facts: dict[str, Any]) -> None:
    """Send a track each, in a room."""
    with ExitStack() as stack:
        for number in range(SPEAKERS):
            source = stack.enter_context(PatternSource(WIDTH, HEIGHT, FPS))
            one = stack.enter_context(_member(facts, f"speaker-{number}"))
            one.add_track(source.video)
            one.join(ROOM, timeout=PATIENCE)
        for _ in questions():
            answer("ready")


class Subscribing:
    """Subscribe to the publisher's track again and again, each time in a session of its own."""

    def __init__(self, facts: dict[str, Any], stack: ExitStack) -> None:
        self._facts, self._stack = facts, stack
        self._found: TrackInfo | None = None  # once: a search asks session after session

    def one_more(self) -> list[RemoteTrack]:
        """Return the track that one more subscriber has."""
        client = self._stack.enter_context(SfuClient(**_sfu(self._facts), timeout=PATIENCE))
        if self._found is None:
            self._found = client.wait_for_track(name="pattern", timeout=PATIENCE)
        return [client.subscribe(self._found)]


class Joining:
    """Join the room as one member after the other."""

    def __init__(self, facts: dict[str, Any], stack: ExitStack) -> None:
        self._facts, self._stack, self._count = facts, stack, 0

    def one_more(self) -> list[RemoteTrack]:
        """Return the tracks that one more member has."""
        self._count += 1
        one = self._stack.enter_context(_member(self._facts, f"member-{self._count}"))
        one.join(ROOM, timeout=PATIENCE)
        senders = [f"speaker-{number}" for number in range(SPEAKERS)]
        return [
            one.wait_for_peer(sender, timeout=PATIENCE).track("video", timeout=PATIENCE)
            for sender in senders
        ]


def receivers(facts: dict[str, Any]) -> None:
    """Subscribe, join and count pictures as asked."""
    tracks: list[RemoteTrack] = []
    with ExitStack() as stack:
        add: dict[str, Any] = {
            "subscribe": Subscribing(facts, stack),
            "join": Joining(facts, stack),
        }
        for question in questions():
            ((what, asked),) = question.items()
            if what == "count":
                before = _received(tracks)
                time.sleep(asked)
                answer(_received(tracks) - before)
                continue
            for _ in range(asked):
                tracks += add[what].one_more()
            until = time.monotonic() + PATIENCE
            while not all(track.frames_received for track in tracks):
                if time.monotonic() > until:
                    raise SystemExit("not every track has arrived")
                time.sleep(0.1)
            answer("done")


def _received(tracks: list[RemoteTrack]) -> int:
    return sum(track.frames_received for track in tracks)


def _sfu(facts: dict[str, Any]) -> dict[str, str]:
    names = {"app_id": "sfu_app_id", "secret": "sfu_secret", "url": "http_url"}
    return {name: facts[fact] for name, fact in names.items()}


def _member(facts: dict[str, Any], name: str) -> MeteredPeer:
    return MeteredPeer(
        url=facts["url"],
        token_provider=mint_token(facts["key_id"], facts["key_secret"], peer_id=name),
        ice_servers=[],
        media=SfuMedia(**_sfu(facts)),
        subscribe="all",
    )


if __name__ == "__main__":
    roles = {"publisher": publisher, "speakers": speakers, "receivers": receivers}
    roles[sys.argv[1]](*json.loads(sys.argv[2]))
