"""Test server-sent events: what a page reads, and what is left when it has gone."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator

import pytest

from metered_sync import SignallingClient
from metered_sync.contrib.event_stream import EventStream
from metered_sync.local import LocalCloud
from tests.conftest import wait_until

ODD_DATA = (
    "\n",
    "a\r\ndata: forged\n\nevent: forged\n\n",
    "\u2028\u2029\x85\x0b\x0c\x00",
    "snowman ☃, clef 𝄞",
    {"text": "line\nline", "list": [1, None, True, 1.5, []]},
    None,
    "",
    0,
    12345678901234567890,
)


@pytest.fixture
def pair(shared_cloud: LocalCloud) -> Iterator[tuple[SignallingClient, SignallingClient]]:
    options = shared_cloud.client_options()
    with SignallingClient(**options) as speaker, SignallingClient(**options) as listener:
        yield speaker, listener


def fields(chunk: bytes) -> list[bytes]:
    """Return the lines of one event; an empty one must end it."""
    assert chunk.endswith(b"\n\n")
    assert b"\n\n" not in chunk[:-2]
    return chunk[:-2].splitlines()


def test_a_message_is_one_line_whatever_is_in_it(
    pair: tuple[SignallingClient, SignallingClient],
) -> None:
    speaker, listener = pair
    stream = EventStream(listener.subscribe("odd"), 20)
    assert fields(next(stream)) == [b": subscribed"]
    for data in ODD_DATA:
        speaker.publish("odd", data)
        (line,) = fields(next(stream))
        assert line.startswith(b"data: ")
        assert line.isascii()
        assert json.loads(line[6:]) == data
    stream.close()


def test_deep_nesting_ends_nothing(
    pair: tuple[SignallingClient, SignallingClient],
) -> None:
    speaker, listener = pair
    subscription = listener.subscribe("deep")
    stream = EventStream(subscription, 20)
    next(stream)
    deep: list[object] = []
    for _ in range(900):  # as may be read
        deep = [deep]
    for data in (deep, "after it"):
        speaker.publish("deep", data)

    def read(depth: int) -> bytes:
        """Read where little of the stack is left, as in a server of many layers."""
        return next(stream) if depth == 0 else read(depth - 1)

    chunk = read(100)
    assert fields(chunk)[0].startswith((b"data: [[", b": "))
    assert fields(next(stream)) == [b'data: "after it"']
    stream.close()


def test_silence_is_broken_by_comments(pair: tuple[SignallingClient, SignallingClient]) -> None:
    stream = EventStream(pair[1].subscribe("silent"), 0.05)
    next(stream)
    assert {next(stream) for _ in range(3)} == {b":\n\n"}
    stream.close()


def test_what_was_lost_is_told(pair: tuple[SignallingClient, SignallingClient]) -> None:
    speaker, listener = pair
    subscription = listener.subscribe("fast", maxsize=3)
    stream = EventStream(subscription, 20)
    next(stream)
    for number in range(8):
        speaker.publish("fast", number)
    wait_until(lambda: subscription.dropped == 5, 30)
    assert next(stream).startswith(b": 5 messages were lost")
    assert [next(stream) for _ in range(3)] == [b"data: %d\n\n" % n for n in (5, 6, 7)]
    stream.close()


def test_it_ends_when_it_is_closed_and_when_the_client_is(
    pair: tuple[SignallingClient, SignallingClient],
) -> None:
    listener = pair[1]
    for close in (lambda stream: stream.close(), lambda stream: listener.close()):
        stream = EventStream(listener.subscribe("ends"))
        next(stream)
        ended = threading.Event()

        def read(stream: EventStream = stream, ended: threading.Event = ended) -> None:
            assert list(stream) == []
            ended.set()

        reader = threading.Thread(target=read)
        reader.start()
        close(stream)
        reader.join(20)
        assert ended.is_set()
        stream.close()


def test_it_is_closed_though_nobody_has_read_it(
    shared_cloud: LocalCloud, pair: tuple[SignallingClient, SignallingClient]
) -> None:
    """A server that never begins to answer closes it all the same."""
    control = shared_cloud.control_plane()
    stream = EventStream(pair[1].subscribe("unread"))
    assert len(control.peers("unread")) == 1
    stream.close()
    wait_until(lambda: control.peers("unread") == {}, 30)
    control.close()
