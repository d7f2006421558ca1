"""What connections and readers cost, the local cloud's side apart; see ``growth.py``."""

from __future__ import annotations

import json
import sys
from typing import Any

from _processes import Taken, answer, child, local_cloud, questions

from metered_sync import SignallingClient

__all__ = ["connections", "readers"]

CHANNEL = "growth"
DATA = {"sensor": 17, "celsius": [20.5, 21.25, 22.125], "note": "x" * 150}
PUBLISHES = 2000
DELIVERIES = 50_000
BURST = 20
"""Messages published without waiting for their acknowledgements."""
PATIENCE = 60.0


def connections(count: int) -> dict[str, float]:
    """Return what each of so many connections of one process takes, and a message on them."""
    with local_cloud() as (cloud, facts), child(__file__, "clients", facts) as (ours, ask):
        ask({"connect": 1})  # loads what is loaded once
        ask({"publish": 100})
        taken = Taken(ours, cloud)
        ask({"connect": count})
        figures = taken.memory(count) | taken.cpu("connect", count)
        taken = Taken(ours, cloud)
        ask({"publish": PUBLISHES})
        return figures | taken.cpu("message", PUBLISHES)


def readers(count: int) -> dict[str, float]:
    """Return what each of so many readers of a channel takes, and a message for one of them.

    Each has a connection of its own, and the list of all others.
    """
    with (
        local_cloud() as (cloud, facts),
        child(__file__, "clients", facts) as (ours, ask),
        SignallingClient(
            url=facts["url"], api_key=facts["publishable_key"], rate_limit=None
        ) as publisher,
    ):
        messages = max(BURST, DELIVERIES // max(count, 10))
        ask({"connect": count + 1})
        taken = Taken(ours, cloud)
        ask({"subscribe": count})
        figures = taken.memory(count)
        taken = Taken(ours, cloud)
        for number in range(messages):
            publisher.publish_nowait(CHANNEL, DATA)
            if number % BURST == BURST - 1:
                publisher.flush()
        publisher.flush()
        ask({"read": messages})
        return figures | taken.cpu("delivery", messages * count)


def clients(facts: dict[str, Any]) -> None:
    """Connect, subscribe, publish and read as asked."""
    made: list[SignallingClient] = []
    subscriptions: list[Any] = []
    for question in questions():
        ((what, count),) = question.items()
        if what == "connect":
            for _ in range(count):
                client = SignallingClient(
                    url=facts["url"], api_key=facts["publishable_key"], rate_limit=None
                )
                client.connect(timeout=PATIENCE)
                made.append(client)
        elif what == "subscribe":
            subscriptions += [
                one.subscribe(CHANNEL, maxsize=DELIVERIES, timeout=PATIENCE) for one in made[:count]
            ]
            for one in made[:count]:
                while len(one.roster(CHANNEL, timeout=PATIENCE)) < count - 1:
                    pass
        elif what == "publish":
            for number in range(count):
                made[number % len(made)].publish(CHANNEL, DATA, timeout=PATIENCE)
        elif what == "read":
            for one in subscriptions:
                for _ in range(count):
                    one.get(timeout=PATIENCE)
        answer("done")
    for client in made:
        client.close()


if __name__ == "__main__":
    {"clients": clients}[sys.argv[1]](*json.loads(sys.argv[2]))
