"""Mistakes in a plain script: a type checker reports each line that is marked as wrong."""

from __future__ import annotations

import metered_sync
from metered_sync import (
    Direct,
    DuringOutage,
    Message,
    Outage,
    Overflow,
    Presence,
    SignallingClient,
    SignallingClientState,
)

client = SignallingClient(api_key="pk_live_key", timeout="15")  # wrong
client.publish("room")  # wrong
client.publish("room", 1, during_outage="later")  # wrong
client.publish("room", 1, 5.0)  # wrong
client.subscribe(42)  # wrong
client.subscribe("room", overflow="drop")  # wrong
sent: str = client.publish("room", 1)  # wrong
late: DuringOutage = "never"  # wrong
full: Overflow = "drop_all"  # wrong
state: SignallingClientState = "joined"  # wrong
print(client.state == "conected")  # wrong
print(metered_sync.Messages)  # wrong


@client.on(Message)  # wrong
def for_another_event(event: Direct) -> None: ...


@client.on(Message)  # wrong
def without_an_argument() -> None: ...


@client.on(Message)  # wrong
def with_too_many(event: Message, more: int) -> None: ...


@client.once(Presence)
def shown(event: Presence) -> int:
    return len(event.left)


shown("presence")  # wrong
name: str = shown(Presence("room", (), ()))  # wrong


def take_direct(event: Direct) -> None: ...


class Bot:
    def answer(self, event: Message) -> None:
        print(event.text)  # wrong


client.on(Message, take_direct)  # wrong
client.on(Direct, Bot().answer)  # wrong
client.off(Direct, Bot().answer)  # wrong
client.on(Message, lambda event: print(event.body))  # wrong
client.on("message", print)  # wrong
client.on_error = lambda error: print(error)  # wrong
client.events(Presence).get().data  # wrong
client.events(Message, Direct).get().joined  # wrong
client.events().get().channel  # wrong
client.wait_for(Outage, where=lambda event: event.seconds)  # wrong
client.wait_for(Outage).seconds  # wrong
with client.subscribe("room") as inbox:
    print(inbox.get("5"))  # wrong
    print(inbox.get(timeout=5).body)  # wrong
    for message in inbox:
        print(message["data"])  # wrong
client.roster("room")["ann"]["name"]  # wrong
client.publish_nowait("room", 1).result().data  # wrong
client.peer_id.upper()  # wrong
