from __future__ import annotations

import asyncio
import gc
from typing import Any

import pytest

from metered_sync import ClosedError, DisconnectedError
from metered_sync.bridge.deadline import Deadline
from metered_sync.bridge.reader import Reader
from metered_sync.engine.messaging.outbox import Outbox
from metered_sync.engine.messaging.request import Request
from metered_sync.engine.messaging.subscriptions import Subscriptions
from metered_sync.wire.events import Message, Presence, PresencePeer
from tests.support.open_websocket import json_in, upgraded


class Table:
    """Subscriptions over an outbox whose connection comes when the test asks for it."""

    def __init__(self) -> None:
        self.outbox = Outbox(None, [].append)
        self.subscriptions = Subscriptions(self.outbox)

    def subscribe(
        self, name: str, *, metadata: bool = False, again: bool = False, acknowledge: bool = True
    ) -> Reader[Message]:
        """Subscribe a new reader; it is acknowledged if it asks."""
        reader: Reader[Message] = Reader(f"reader of {name}")
        request = self.subscriptions.subscribe(name, reader, metadata, again=again)
        if request is not None and acknowledge:
            self.acknowledge(request)
        return reader

    def acknowledge(self, request: Request) -> None:
        assert self.outbox.take(request.id) is request
        request.finish()

    def asked(self) -> list[tuple[str, str]]:
        """Return the type and channel of what has been queued so far."""

        async def run() -> list[dict[str, Any]]:
            connection, transport = upgraded()
            self.outbox.up(connection)
            self.outbox.flush()
            self.outbox.stop()
            return json_in(transport.written)

        return [(frame["type"], frame["channel"]) for frame in asyncio.run(run())]


@pytest.fixture
def table() -> Table:
    return Table()


def message(channel: str, data: object = None) -> Message:
    return Message(channel, "b", data)


def drained(reader: Reader[Message]) -> list[Any]:
    items = []
    while len(reader):
        items.append(reader.get_nowait().data)
    return items


# --- when the server is asked ---------------------------------------------------------


def test_a_channel_is_asked_for_once(table: Table) -> None:
    first, second = table.subscribe("c"), table.subscribe("c")
    assert table.asked() == [("subscribe", "c")]
    table.subscriptions.deliver([message("c", 1)])
    assert (drained(first), drained(second)) == ([1], [1])


def test_it_is_asked_for_again_until_it_is_acknowledged(table: Table) -> None:
    first = table.subscribe("c", acknowledge=False)
    second = table.subscribe("c", acknowledge=False)
    assert table.asked() == [("subscribe", "c"), ("subscribe", "c")]
    assert not first.ended
    assert not second.ended


def test_it_is_asked_for_again_where_metadata_is_wanted_later(table: Table) -> None:
    readers = [table.subscribe("c"), table.subscribe("c", metadata=True), table.subscribe("c")]
    assert len(table.asked()) == 2
    assert not any(reader.ended for reader in readers)


def test_it_is_asked_for_again_on_demand_with_the_same_reader(table: Table) -> None:
    reader = table.subscribe("c")
    assert table.subscriptions.subscribe("c", reader, False) is None
    request = table.subscriptions.subscribe("c", reader, False, again=True)
    assert request is not None
    table.subscriptions.deliver([message("c", 1)])
    assert drained(reader) == [1]
    table.subscriptions.remove("c", reader)
    assert table.asked() == [("subscribe", "c"), ("subscribe", "c"), ("unsubscribe", "c")]


def test_the_last_reader_takes_the_subscription_along(table: Table) -> None:
    first, second = table.subscribe("c"), table.subscribe("c")
    table.subscriptions.remove("c", first)
    assert table.asked() == [("subscribe", "c")]
    table.subscriptions.remove("c", second)
    table.subscriptions.remove("c", second)
    table.subscriptions.remove("never", second)
    assert table.asked() == [("unsubscribe", "c")]


def test_a_reader_that_was_forgotten_leaves_the_channel_subscribed(table: Table) -> None:
    forgotten, kept = table.subscribe("c"), table.subscribe("c")
    del forgotten
    gc.collect()
    table.subscriptions.remove("c", kept)
    assert table.asked() == [("subscribe", "c")]
    assert table.subscriptions.members("c") == {}


def test_all_readers_of_a_channel_can_be_ended(table: Table) -> None:
    readers = [table.subscribe("c"), table.subscribe("c")]
    request = table.subscriptions.remove_all("c")
    assert request is not None
    assert request.what == "unsubscribe from 'c'"
    for reader in readers:
        with pytest.raises(ClosedError):
            reader.get_nowait()
    assert table.subscriptions.remove_all("c") is None


def test_an_acknowledgement_that_nobody_wants_any_more_is_undone(table: Table) -> None:
    reader: Reader[Message] = Reader("a reader")
    request = table.subscriptions.subscribe("c", reader, False)
    assert request is not None
    table.subscriptions.remove("c", reader)
    table.acknowledge(request)
    assert table.asked() == [("subscribe", "c"), ("unsubscribe", "c"), ("unsubscribe", "c")]


def test_a_refused_request_acknowledges_nothing(table: Table) -> None:
    reader: Reader[Message] = Reader("a reader")
    seen: list[Request] = []
    request = table.subscriptions.subscribe("c", reader, False, on_end=seen.append)
    assert request is not None
    request.finish(OSError("refused"))
    assert seen == [request]
    assert table.subscriptions.acknowledged() == []


# --- what arrives ---------------------------------------------------------------------


def test_messages_go_to_the_readers_of_the_name_and_of_patterns(table: Table) -> None:
    exact, pattern, other = (table.subscribe(name) for name in ("a/b", "a/*", "b/*"))
    table.subscriptions.deliver([message("a/b", 1)])
    table.subscriptions.deliver([message("a/c", 2)])
    table.subscriptions.deliver([message("a/*", 3)])  # (a pattern's own name is no other's)
    assert (drained(exact), drained(pattern), drained(other)) == ([1], [1, 2, 3], [])
    table.subscriptions.remove("a/*", pattern)
    table.subscriptions.deliver([message("a/c", 4)])
    assert drained(pattern) == []


def presence(joined: dict[str, Any] | None = None, left: tuple[str, ...] = ()) -> Presence:
    came = tuple(PresencePeer(name, metadata) for name, metadata in (joined or {}).items())
    return Presence("c", came, tuple(PresencePeer(name) for name in left))


def test_members_are_what_presence_says(table: Table) -> None:
    reader = table.subscribe("c")
    listed = table.subscriptions.listed("c")
    assert not listed.wait(Deadline(0))
    note = table.subscriptions.note_presence
    note(presence({"me": None, "b": {"n": 1}}, left=("b",)), "me")  # a list: nobody has left
    assert listed.wait(Deadline(0))
    assert table.subscriptions.members("c") == {"b": {"n": 1}}
    note(presence({"c": None}), "me")
    note(presence(left=("b", "nobody")), "me")
    assert table.subscriptions.members("c") == {"c": None}
    # Once it is subscribed to again, the next presence is a new list.
    request = table.subscriptions.subscribe("c", reader, False, again=True)
    assert request is not None
    table.acknowledge(request)
    note(presence({"d": None}), "me")
    assert table.subscriptions.members("c") == {"d": None}


def test_presence_of_an_earlier_subscription_does_not_count(table: Table) -> None:
    table.subscriptions.note_presence(presence({"b": None}), "me")
    reader = table.subscribe("c", acknowledge=False)
    table.subscriptions.note_presence(presence({"b": None}), "me")
    assert table.subscriptions.members("c") == {}
    assert not table.subscriptions.listed("c").is_set
    assert not reader.ended
    for question in (table.subscriptions.members, table.subscriptions.listed):
        with pytest.raises(KeyError):
            question("another")


# --- outages and ends -----------------------------------------------------------------


def test_what_a_new_connection_must_be_asked_for(table: Table) -> None:
    readers = [table.subscribe("b", metadata=True), table.subscribe("a")]
    readers.append(table.subscribe("c", acknowledge=False))  # (is repeated by the outbox)
    assert table.subscriptions.acknowledged() == ["a", "b"]
    requests = table.subscriptions.requests(["a", "b", "gone"])
    assert list(requests) == ["a", "b"]
    assert {request.outage for request in requests.values()} == {"fail"}
    table.subscriptions.lapse()
    assert table.subscriptions.acknowledged() == []
    assert not any(reader.ended for reader in readers)


def test_a_channel_that_is_refused_ends_its_readers_with_the_error(table: Table) -> None:
    reader, other = table.subscribe("c"), table.subscribe("d")
    table.subscriptions.deliver([message("c", 1)])
    table.subscriptions.refuse("c", error := DisconnectedError("no", code=1, reason=""))
    table.subscriptions.refuse("c", error)
    assert reader.get_nowait().data == 1
    with pytest.raises(DisconnectedError):
        reader.get_nowait()
    assert not other.ended


@pytest.mark.parametrize("error", [ClosedError("x"), DisconnectedError("x", code=1, reason="")])
def test_the_end(table: Table, error: BaseException) -> None:
    reader = table.subscribe("c")
    listed = table.subscriptions.listed("c")
    table.outbox.close(error)
    table.subscriptions.close(error)
    table.subscriptions.close(OSError("a second end"))
    assert listed.is_set
    with pytest.raises(type(error)):
        reader.get_nowait()
    with pytest.raises(type(error), match="x"):
        table.subscribe("d")
    table.subscriptions.remove("c", reader)
    assert table.subscriptions.remove_all("c") is None


def test_unsubscribing_from_what_is_closed_meanwhile_fails_its_request_alone(table: Table) -> None:
    reader = table.subscribe("c")
    table.outbox.close(ClosedError("the end"))
    request = table.subscriptions.remove_all("c")
    assert request is not None
    assert isinstance(request.error, ClosedError)
    assert reader.ended
