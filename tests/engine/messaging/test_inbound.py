from __future__ import annotations

import dataclasses
import io
import json
import time
from collections import deque
from typing import Any

import pytest

from metered_sync import ServerRequestError
from metered_sync.bridge.reader import Reader
from metered_sync.engine.messaging.inbound import ROW, STEP, Inbound
from metered_sync.engine.messaging.outbox import Outbox
from metered_sync.engine.messaging.request import Request
from metered_sync.engine.messaging.subscriptions import Subscriptions
from metered_sync.wire.events import Direct, Event, GoingAway, Message, Presence, ServerError
from metered_sync.wire.timings import DEFAULT_TIMINGS

TIMINGS = dataclasses.replace(DEFAULT_TIMINGS, going_away_default=2.0, going_away_max=60.0)


FROM = {"from": "b"}


class Client:
    """The parts that receive, without a connection; the sink of their events."""

    def __init__(self) -> None:
        self.outbox = Outbox(None, [].append)
        self.subscriptions = Subscriptions(self.outbox)
        self.events: list[Event] = []
        self.inbound = Inbound(
            self.outbox, self.subscriptions, self, "a test", TIMINGS, own_id="me"
        )

    def emit(self, event: Event) -> None:
        self.events.append(event)

    def wants(self, event: Event) -> bool:
        return True

    def end(self, error: BaseException | None = None) -> None:
        pass

    def receive(self, **fields: Any) -> None:
        self.take(json.dumps(fields).encode())

    def take(self, *texts: bytes | None) -> None:
        """Receive messages that have arrived together, in as many steps of the loop as it takes."""
        arrived = deque(texts)
        while arrived:
            self.inbound.receive(arrived)

    def pending(self, request_id: str = "1") -> Request:
        """Return a request that waits for its acknowledgement."""
        request = Request(request_id, "{}", "do a thing")
        self.outbox.put(request)
        return request


@pytest.fixture
def client() -> Client:
    return Client()


@pytest.mark.parametrize(
    "text", ['{"type":"ack","requestId":"1"}', '{ "requestId": "1", "type": "ack", "new": 1 }']
)
def test_an_acknowledgement_settles_its_request(client: Client, text: str) -> None:
    request = client.pending()
    client.take(text.encode())
    client.take(text.encode())
    assert request.ended.is_set
    assert request.error is None
    assert client.events == []


def test_an_error_settles_its_request(client: Client) -> None:
    request = client.pending()
    client.receive(type="error", requestId="1", code="peer_not_found", message="key=abc")
    assert isinstance(request.error, ServerRequestError)
    assert request.error.code == "peer_not_found"
    assert str(request.error).startswith("do a thing: the server refused it (peer_not_found): ")
    assert "no such peer is connected now" in str(request.error)
    assert client.events == []


def test_an_error_of_no_request_is_an_event(client: Client) -> None:
    client.receive(type="error", code="over_message_quota", message="no more")
    client.receive(type="error", code="late", requestId="9")
    client.receive(type="error", code="unknown_type")  # an old server's answer to a ping
    assert client.events == [
        ServerError("over_message_quota", "no more", None),
        ServerError("late", None, "9"),
    ]


def test_messages_and_presence_go_to_the_channel_and_to_the_events(client: Client) -> None:
    reader: Reader[Message] = Reader("a reader")
    request = client.subscriptions.subscribe("c", reader, False)
    assert request is not None
    client.receive(type="ack", requestId=request.id)
    client.receive(
        type="presence", channel="c", joined=[{"peerId": "me"}, {"peerId": "b"}], left=[]
    )
    client.receive(type="message", channel="c", data=1, **{"from": "b"})
    client.receive(type="direct", data=2, **{"from": "b"})
    assert reader.get_nowait() == Message("c", "b", 1)
    assert client.subscriptions.members("c") == {"b": None}
    assert [type(event) for event in client.events] == [Presence, Message, Direct]


def test_every_reader_has_data_of_its_own(client: Client) -> None:
    readers: list[Reader[Message]] = [Reader(name) for name in ("a", "b", "c", "of all")]
    for name, reader in zip(("c", "c", "c", "*"), readers, strict=True):
        client.subscriptions.subscribe(name, reader, False)
    data = {"list": [1, {"deep": [[]]}]}
    client.receive(type="message", channel="c", data=data, fromMetadata={"x": []}, **FROM)
    messages = [reader.get_nowait() for reader in readers]
    (event,) = client.events
    messages.append(event)  # type: ignore[arg-type]
    for number, message in enumerate(messages):
        assert (message.data, message.sender_metadata) == (data, {"x": []}), number
        message.data["list"][1]["deep"][0].append(number)
        message.data["list"].append(number)
        assert message.sender_metadata is not None
        message.sender_metadata["x"].append(number)


def test_the_only_reader_gets_what_was_parsed(client: Client) -> None:
    reader: Reader[Message] = Reader("the only one")
    client.subscriptions.subscribe("c", reader, False)
    message = Message("c", "b", [[]])
    client.subscriptions.deliver([message])
    assert reader.get_nowait() is message


class Unheard(Client):
    """One whose messages go to readers alone."""

    def wants(self, event: Event) -> bool:
        return False


def a_message(channel: str, number: int) -> bytes:
    return json.dumps({"type": "message", "channel": channel, "data": number, **FROM}).encode()


def test_messages_that_arrive_together_keep_their_order_and_their_place_among_others() -> None:
    client = Unheard()
    readers: dict[str, Reader[Message]] = {name: Reader(name) for name in ("a", "b", "*")}
    for name, reader in readers.items():
        client.subscriptions.subscribe(name, reader, False)
    request, waiting = client.pending("last"), []
    request.then(lambda _: waiting.append(len(readers["*"])))
    texts = [a_message("ab"[number % 7 > 3], number) for number in range(10 * ROW)]
    texts[500:500] = [b"not JSON", None, b'{"type":"ack","requestId":"last"}']  # type: ignore[list-item]
    client.take(*texts)
    assert waiting == [500]
    got = {name: [each.data for each in reader] for name, reader in drained(readers).items()}
    assert got["*"] == list(range(10 * ROW))
    for name in "ab":
        assert got[name] == [n for n in range(10 * ROW) if "ab"[n % 7 > 3] == name]


def drained(readers: dict[str, Reader[Message]]) -> dict[str, Reader[Message]]:
    """End readers, so that iterating over them does."""
    for reader in readers.values():
        reader.end()
    return readers


def test_what_takes_long_is_left_for_the_next_step() -> None:
    class Slow(Client):
        def emit(self, event: Event) -> None:
            until = time.monotonic() + 2 * STEP
            while time.monotonic() < until:
                pass
            super().emit(event)

    client = Slow()
    arrived: deque[bytes | None] = deque(a_message("c", number) for number in range(3))
    for left in (2, 1, 0):
        client.inbound.receive(arrived)
        assert (len(arrived), len(client.events)) == (left, 3 - left)


def test_a_reader_that_fails_keeps_nothing_else_from_being_handled(log: io.StringIO) -> None:
    class Fails(Reader[Message]):
        def _size(self, item: Message) -> int:
            raise AttributeError("a mistake in a reader")

    client = Unheard()
    reader = Fails("a reader")
    client.subscriptions.subscribe("c", reader, False)
    request = client.pending()
    client.take(a_message("c", 1), b'{"type":"ack","requestId":"1"}')
    assert request.ended.is_set
    assert "a mistake in a reader" in log.getvalue()


def test_who_is_there_is_not_changed_by_a_reader(client: Client) -> None:
    request = client.subscriptions.subscribe("c", Reader("a reader"), False)
    assert request is not None
    client.receive(type="ack", requestId=request.id)
    joined = [{"peerId": "b", "metadata": {"role": ["x"]}}]
    client.receive(type="presence", channel="c", joined=joined, left=[])
    (event,) = client.events
    assert isinstance(event, Presence)
    assert event.joined[0].metadata == {"role": ["x"]}
    event.joined[0].metadata["role"].append("event")
    members = client.subscriptions.members("c")
    assert members == {"b": {"role": ["x"]}}
    members["b"]["role"].append("members")  # type: ignore[index]
    members["c"] = None
    assert client.subscriptions.members("c") == {"b": {"role": ["x"]}}


@pytest.mark.parametrize(("asked", "seconds"), [(None, 2.0), (1500, 1.5), (10_000_000, 60.0)])
def test_a_server_that_goes_away_says_when_to_come_back(
    client: Client, asked: int | None, seconds: float
) -> None:
    assert client.inbound.retry_after is None
    client.receive(type="going_away", **({} if asked is None else {"retryAfterMs": asked}))
    assert client.inbound.retry_after == seconds
    assert client.events == [GoingAway(round(seconds * 1000))]


def test_what_cannot_be_understood_is_ignored_and_logged(client: Client, log: io.StringIO) -> None:
    client.take(None)
    client.take(b"not JSON")
    client.receive(type="from_the_future")
    assert client.events == []
    for words in ("a binary frame", "ignored a frame: ", "of a type that is not known"):
        assert words in log.getvalue()


@pytest.mark.parametrize(
    "frame",
    [
        '{"type":"error","code":"internal_error"}',
        '{"type":"from_the_future"}',
        "not JSON",
        None,
    ],
)
def test_a_flood_of_frames_is_logged_at_a_bounded_rate(
    client: Client, log: io.StringIO, frame: str | None
) -> None:
    for _ in range(500):
        client.take(None if frame is None else frame.encode())
    assert len(log.getvalue().splitlines()) == 10
    client.inbound._log_at -= 61  # a minute later
    for _ in range(20):
        client.take(None if frame is None else frame.encode())
    lines = log.getvalue().splitlines()
    assert len(lines) == 20
    assert "(and 490 more since the one before)" in lines[10]


def test_what_goes_wrong_while_a_frame_is_handled_is_logged(log: io.StringIO) -> None:
    class Fails(Client):
        def emit(self, event: Event) -> None:
            raise AttributeError("a mistake in what handles events")

    client = Fails()
    client.receive(type="direct", **{"from": "ann", "data": 1})
    client.take(b'{"type":"presence","channel":"c","joined":[],"left":[]}')
    assert "a mistake in what handles events" in log.getvalue()
    request = client.pending()
    client.receive(type="ack", requestId="1")
    assert request.ended.is_set
