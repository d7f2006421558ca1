"""Send, receive and close through the engine's side of a data channel."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from metered_sync import (
    ClosedError,
    DataChannelOverflowError,
    EngineError,
    MeteredTimeoutError,
    OversizedPayloadError,
)
from metered_sync.bridge.deadline import Deadline
from metered_sync.engine.webrtc import data_channel as data_channels
from metered_sync.engine.webrtc import send_buffer
from metered_sync.engine.webrtc.data_channel import ChannelLink, MessageInbox
from metered_sync.events import DCClose, DCError, DCMessage, Event
from metered_sync.wire.data_channels import measure
from tests.conftest import wait_until
from tests.support.channel_pair import Pair, on_loop


@pytest.fixture
def pair() -> Iterator[Pair]:
    with Pair() as pair:
        yield pair


class Sink:
    """Collects events."""

    def __init__(self, takes_messages: bool = False) -> None:
        self.takes_messages = takes_messages
        self.events: list[Event] = []
        self.ended: list[BaseException | None] = []

    def emit(self, event: Event) -> None:
        self.events.append(event)

    def end(self, error: BaseException | None = None) -> None:
        self.ended.append(error)


def link_to(pair: Pair, **options: Any) -> ChannelLink:
    """Return an open link at ``one``."""
    raw = pair.raw()
    link = on_loop(lambda: ChannelLink(raw, pair.engine, **options))
    assert link.opened.wait(Deadline(30))
    return link


def close(pair: Pair, link: ChannelLink, timeout: float = 20) -> None:
    pair.engine.call(link.aclose, deadline=Deadline(timeout), what="close")


# --- the inbox ------------------------------------------------------------------------


def test_an_inbox_is_bounded_in_bytes_and_number() -> None:
    inbox = MessageInbox("inbox", maxsize=5, max_bytes=100)
    for number in range(10):
        inbox.put(bytes([number]) * 40)
    assert (len(inbox), inbox.dropped) == (2, 8)
    assert [inbox.get()[0], inbox.get()[0]] == [8, 9]
    for number in range(10):
        inbox.put(str(number))
    assert (len(inbox), inbox.dropped) == (5, 13)
    inbox.put(b"x" * 101)  # larger than all of it: what is newest is there
    assert (len(inbox), inbox.get()) == (1, b"x" * 101)
    assert inbox._came == inbox._went


# --- sending --------------------------------------------------------------------------


def test_a_burst_wakes_the_loop_once(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    link = link_to(pair)
    posted: list[Any] = []
    original = pair.engine.post

    def post(function: Any, *args: Any) -> None:
        posted.append(function)
        original(function, *args)

    hold = pair.stall()
    monkeypatch.setattr(pair.engine, "post", post)
    for number in range(1000):
        link.send(str(number), Deadline(20))
    assert len(posted) == 1
    assert link.buffered == sum(len(str(n)) for n in range(1000))
    hold.set()
    far = pair.far()
    assert [far.get(20) for _ in range(1000)] == [str(n) for n in range(1000)]
    close(pair, link)


def test_aiortc_gets_a_share_only_and_batches(pair: Pair) -> None:
    link = link_to(pair)
    shares: list[int] = []

    def fill() -> None:
        for _ in range(200):
            assert link.buffer._enter(b"x" * 4096, 4096)
        link._flush()
        shares.append(link.raw.bufferedAmount)

    on_loop(fill)
    assert 0 < shares[0] <= data_channels.AIORTC_SHARE
    far = pair.far()
    for _ in range(200):
        assert far.get(20) == b"x" * 4096
    wait_until(lambda: link.buffered == 0)
    close(pair, link)


def test_a_full_buffer_holds_messages_up_until_half_of_it_is_free(pair: Pair) -> None:
    link = link_to(pair, max_buffered=100_000)
    far = pair.far()
    hold = pair.stall()  # nothing leaves
    for _ in range(10):
        link.send(b"x" * 10_000, Deadline(5))
    with pytest.raises(MeteredTimeoutError, match="no room") as caught:
        link.send(b"y", Deadline(0.05))
    assert not caught.value.sent
    with pytest.raises(DataChannelOverflowError) as overflow:
        link.send_nowait(b"y")
    assert (overflow.value.queued, overflow.value.cap) == (100_000, 100_000)
    hold.set()
    link.send(b"z", Deadline(20))
    assert [len(far.get(20)) for _ in range(11)] == [10_000] * 10 + [1]
    close(pair, link)


def test_many_tiny_messages_are_bounded_by_their_number(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(send_buffer, "MAX_MESSAGES", 100)
    link = link_to(pair)
    hold = pair.stall()
    for _ in range(100):
        link.send_nowait(b"")
    with pytest.raises(DataChannelOverflowError):
        link.send_nowait(b"")
    hold.set()
    far = pair.far()
    assert [far.get(20) for _ in range(100)] == [b""] * 100
    close(pair, link)


def test_a_message_larger_than_the_buffer_is_sent_when_that_is_empty(pair: Pair) -> None:
    link = link_to(pair, max_buffered=1000)
    far = pair.far()
    for size in (60_000, 10, 50_000, 999):
        link.send(b"x" * size, Deadline(20))
    assert [len(far.get(20)) for _ in range(4)] == [60_000, 10, 50_000, 999]
    close(pair, link)


def test_room_is_found_though_aiortc_does_not_tell(pair: Pair) -> None:
    link = link_to(pair, max_buffered=20_000)
    on_loop(
        lambda: link.raw.remove_listener("bufferedamountlow", link._handlers["bufferedamountlow"])
    )
    for number in range(12):
        link.send(bytes([number]) * 10_000, Deadline(20))
    far = pair.far()
    assert [far.get(20)[0] for _ in range(12)] == list(range(12))
    close(pair, link)


def test_too_large_for_the_far_side(pair: Pair) -> None:
    link = link_to(pair)
    far = pair.far()
    assert link.buffer.cap in (65536, 262144)
    for data in (b"x" * (link.buffer.cap + 1), "é" * (link.buffer.cap // 2 + 1)):
        for call in (link.send_nowait, lambda data: link.send(data, Deadline(20))):
            with pytest.raises(OversizedPayloadError, match="nothing was sent") as caught:
                call(data)
            assert (caught.value.size, caught.value.cap) == (measure(data), link.buffer.cap)
    link.send(b"x" * link.buffer.cap, Deadline(20))
    assert len(far.get(20)) == link.buffer.cap
    assert link.buffered == 0
    close(pair, link)


def test_what_the_far_side_has_said_counts(pair: Pair) -> None:
    link = link_to(pair)
    if not hasattr(link.raw.transport, "_remote_max_message_size"):
        pytest.skip("this version of aiortc does not keep it")

    def says(cap: int) -> ChannelLink:
        pair.one.sctp._remote_max_message_size = cap
        return link_to(pair)

    with pytest.raises(OversizedPayloadError):
        says(1000).send(b"x" * 1001, Deadline(5))
    unlimited = says(0)
    unlimited.send(b"x" * 2_000_000, Deadline(20))
    assert unlimited.state == "open"


# --- before it is open ----------------------------------------------------------------


def test_messages_wait_for_the_channel_to_open() -> None:
    with Pair(connect=False) as pair:
        raw = pair.raw()
        link = on_loop(lambda: ChannelLink(raw, pair.engine))
        sink = Sink()
        link.listen(sink)
        assert link.state == "connecting"
        with pytest.raises(MeteredTimeoutError, match="did not open"):
            link.send(b"late", Deadline(0.05))
        for number in range(10):
            link.send_nowait(str(number))
        link.send_nowait(b"x" * 500_000)  # too large, as will turn out
        sender = threading.Thread(target=link.send, args=("10", Deadline(30)))
        sender.start()
        wait_until(lambda: link.buffer.waiting == 12)
        assert link.buffered == 500_010
        pair.connect()
        sender.join(30)
        far = pair.far()
        assert [far.get(20) for _ in range(11)] == [str(n) for n in range(11)]
        [error] = [event for event in sink.events if isinstance(event, DCError)]
        assert isinstance(error.err, OversizedPayloadError)
        close(pair, link)


def test_not_more_than_some_messages_wait_for_that() -> None:
    with Pair(connect=False) as pair:
        raw = pair.raw()
        link = on_loop(lambda: ChannelLink(raw, pair.engine, max_buffered=10_000))
        for _ in range(2):
            link.send_nowait(b"x" * 5_000)
        with pytest.raises(DataChannelOverflowError, match="wait for it to open") as caught:
            link.send_nowait(b"x")
        assert (caught.value.queued, caught.value.cap) == (10_000, 10_000)
        for _ in range(254):
            link.send_nowait(b"")
        with pytest.raises(DataChannelOverflowError) as caught:
            link.send_nowait(b"")
        assert (caught.value.queued, caught.value.cap) == (256, 256)


def test_a_connection_that_ends_before_the_channel_is_open() -> None:
    # (aiortc tells a channel that has no number yet nothing of it.)
    with Pair(connect=False) as pair:
        raw = pair.raw()
        link = on_loop(lambda: ChannelLink(raw, pair.engine))
        errors: list[BaseException] = []

        def send() -> None:
            try:
                link.send(b"x", Deadline(30))
            except BaseException as error:
                errors.append(error)

        sender = threading.Thread(target=send)
        sender.start()
        wait_until(lambda: link.buffer.waiting)
    sender.join(20)
    assert [type(error) for error in errors] == [ClosedError]
    assert link.state == "closed"
    assert link.opened.is_set
    assert link not in pair.engine.links


# --- receiving ------------------------------------------------------------------------


def test_nothing_is_lost_that_comes_before_anybody_listens(pair: Pair) -> None:
    link = link_to(pair)
    for number in range(50):
        link.send(str(number), Deadline(20))
    wait_until(lambda: pair.arrived and len(pair.arrived[-1].inbox) == 50)
    sink = Sink(takes_messages=True)
    far = pair.arrived[-1]
    far.listen(sink)
    link.send("50", Deadline(20))
    wait_until(lambda: len(sink.events) == 51)
    assert sink.events == [DCMessage(str(n)) for n in range(51)]  # what waited came first
    assert len(far.inbox) == 0
    close(pair, link)


def test_who_does_not_take_messages_sees_them_and_the_inbox_keeps_them(pair: Pair) -> None:
    link = link_to(pair)
    wait_until(lambda: any(a.name == "chat" for a in pair.arrived))
    far, sink = pair.arrived[-1], Sink()
    far.listen(sink)
    link.send("a", Deadline(20))
    assert far.inbox.get(20) == "a"
    assert sink.events == [DCMessage("a")]
    close(pair, link)


# --- the end --------------------------------------------------------------------------


def test_closing_sends_what_is_in_the_buffer(pair: Pair) -> None:
    for _ in range(5):
        link = link_to(pair)
        for number in range(100):
            link.send(number.to_bytes(2, "big") * 2000, Deadline(20))
        close(pair, link)
        assert link.state == "closed"
        assert link.undelivered == 0
        far = pair.far()
        assert [m[:2] for m in far] == [n.to_bytes(2, "big") for n in range(100)]
        wait_until(lambda: far.state == "closed")  # noqa: B023


def test_a_close_that_runs_out_of_time_says_what_is_lost(pair: Pair) -> None:
    link = link_to(pair)

    def cut() -> None:
        pair.two.sctp.transport._unregister_data_receiver(pair.two.sctp)  # it hears nothing more

    on_loop(cut)
    for _ in range(100):
        link.send(b"x" * 10_000, Deadline(20))
    with pytest.raises(MeteredTimeoutError):
        close(pair, link, timeout=0.3)
    assert link.state == "closed"
    assert link.undelivered > 500_000
    assert link not in pair.engine.links


def test_closing_twice_at_once(pair: Pair) -> None:
    link = link_to(pair)
    link.send(b"x", Deadline(20))

    async def both() -> None:
        await asyncio.gather(link.aclose(), link.aclose())

    pair.engine.call(both, deadline=Deadline(20), what="close")
    assert link.state == "closed"
    close(pair, link)


def test_losing_the_connection_ends_the_channel_for_everybody(pair: Pair) -> None:
    link, sink = link_to(pair), Sink()
    link.listen(sink)
    far = pair.far()
    on_loop(lambda: link.lose("its connection was rebuilt: open it again"))
    with pytest.raises(ClosedError, match="rebuilt"):
        link.send(b"x", Deadline(5))
    with pytest.raises(ClosedError, match="rebuilt"):
        link.send_nowait(b"x")
    with pytest.raises(ClosedError, match="rebuilt"):
        link.inbox.get(5)
    assert sink.events == [DCClose()]
    assert isinstance(sink.ended[0], ClosedError)
    late = Sink()
    link.listen(late)
    assert late.ended == [link.error]
    assert not any(link.raw.listeners(event) for event in link._handlers)
    on_loop(link.raw.close)
    wait_until(lambda: far.state == "closed")


def test_a_loop_that_dies_ends_the_channel_with_its_error(pair: Pair) -> None:
    link = link_to(pair)
    on_loop(lambda: link.abort(EngineError("dead")))
    for call in (lambda: link.send(b"x", Deadline(5)), lambda: link.inbox.get(5)):
        with pytest.raises(EngineError, match="dead"):
            call()


def test_a_channel_of_another_loop_is_refused(pair: Pair) -> None:
    from aiortc import RTCPeerConnection

    async def foreign() -> None:
        pc = RTCPeerConnection()
        raw = pc.createDataChannel("x")
        with pytest.raises(ValueError, match="event loop of your own"):
            ChannelLink(raw, pair.engine)
        await pc.close()

    asyncio.run(foreign())


@pytest.mark.parametrize("bad", [0, -1, True, 1.5, "1"])
def test_a_buffer_has_a_size(pair: Pair, bad: Any) -> None:
    raw = pair.raw()
    with pytest.raises(ValueError, match="max_buffered"):
        on_loop(lambda: ChannelLink(raw, pair.engine, max_buffered=bad))
