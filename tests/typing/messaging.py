"""A plain script of a user who annotates everything: messages, presence, direct messages."""

from __future__ import annotations

import queue
import sys
from typing import Any

from metered_sync import (
    Connected,
    Delivery,
    Direct,
    Disconnected,
    DuringOutage,
    Event,
    EventQueue,
    IceServer,
    Message,
    MeteredError,
    MeteredTimeoutError,
    Outage,
    Overflow,
    Presence,
    ReconnectOptions,
    ServerRequestError,
    SignallingClient,
    SignallingClientState,
    StateChange,
    Subscription,
)

DURING: DuringOutage = "fail"
OVERFLOW: Overflow = "drop_newest"


def fetch_token() -> str:
    return "a.b.c"


def connect() -> SignallingClient:
    return SignallingClient(
        token_provider=fetch_token,
        url="wss://rms.metered.ca",
        reconnect=ReconnectOptions(max_attempts=5),
        rate_limit=None,
    )


class Bot:
    """Answer what arrives, and count it."""

    def __init__(self, client: SignallingClient) -> None:
        self.client = client
        self.count = 0
        client.on(Message, self.answer)
        client.on(Direct)(self.take)
        client.once(Connected, lambda event: print(event.peer_id, event.server_time))
        client.on_error = self.failed

    def answer(self, message: Message) -> None:
        self.count += 1
        self.client.send(message.sender_peer_id, {"count": self.count})

    def take(self, direct: Direct) -> int:
        print(direct.sender_peer_id, direct.data)
        return self.count

    def failed(self, event: Event, error: BaseException) -> None:
        print(event, error, file=sys.stderr)

    def stop(self) -> None:
        self.client.off(Message, self.answer)
        self.client.off(Direct)


def listen(client: SignallingClient) -> None:
    @client.on(Message)
    @client.on(Direct)
    def show(event: Message | Direct, prefix: str = "> ") -> str:
        return f"{prefix}{event.sender_peer_id}: {event.data}"

    @client.on(Event)
    def note(event: Event) -> None:
        print(event)

    print(show(event=Message("room", "ann", "hello"), prefix="# "))
    note(Outage(0.5))
    client.on(Disconnected, lambda event: print(event.code, event.reason))


def drain(events: EventQueue) -> list[Event]:
    found: list[Event] = []
    while True:
        try:
            found.append(events.get_nowait())
        except queue.Empty:
            return found


def first_data(inbox: Subscription) -> Any:
    with inbox as messages:
        message = messages.get(timeout=5)
    for later in inbox:
        print(later.channel, later.sender_metadata)
    return message.data


def watch(client: SignallingClient) -> str:
    with client.events(Presence) as presence:
        names: list[str] = [peer.peer_id for peer in presence.get(timeout=5).joined]
    with client.events(Message, Direct, maxsize=10, overflow=OVERFLOW) as both:
        for event in both:
            print(event.data, event.sender_peer_id)
    with client.events(Message, Direct, Outage) as three:
        one = three.get(timeout=1)
        if isinstance(one, Outage):
            print(one.duration)
        else:
            print(one.data)
    with client.events() as everything:
        print(drain(everything), drain(client.events(StateChange)), everything.dropped)
    outage = client.wait_for(Outage, where=lambda event: event.duration > 1, timeout=1)
    print(outage.duration + 1, names)
    state: SignallingClientState = client.state
    return state


def publish(client: SignallingClient) -> list[Delivery]:
    client.publish("room", {"n": 1}, during_outage=DURING, timeout=3)
    deliveries = [client.publish_nowait("room", number) for number in range(10)]
    deliveries[0].add_done_callback(lambda delivery: print(delivery.done()))
    client.flush(timeout=5)
    members: dict[str, dict[str, Any] | None] = client.roster("room", timeout=1)
    print(members)
    servers: tuple[IceServer, ...] | None = client.ice_servers
    print(servers)
    return deliveries


def main() -> int:
    try:
        with connect() as client:
            bot = Bot(client)
            listen(client)
            print(first_data(client.subscribe("room", include_sender_metadata=True)))
            print(watch(client), publish(client))
            bot.stop()
    except MeteredTimeoutError as error:
        print(error.sent)
    except ServerRequestError as error:
        print(error.code, error.request_id)
    except MeteredError as error:
        print(error)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
