"""Test data channels as users have them: two on loopback, and the rules for them."""

from __future__ import annotations

import gc
import hashlib
import os
import queue
import random
import sys
import threading
import time
import tracemalloc
import warnings
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest

import metered_sync
from metered_sync import (
    ClosedError,
    DataChannel,
    DataChannelOverflowError,
    DCClose,
    DCMessage,
    DCOpen,
    MeteredTimeoutError,
    OversizedPayloadError,
    WrongThreadError,
)
from metered_sync.engine.webrtc import data_channel as data_channels
from tests.conftest import run_script, wait_until
from tests.rules.test_fork import START as FORK
from tests.rules.test_interrupt import interrupt
from tests.rules.test_leaks import check
from tests.support.channel_pair import Pair, on_loop


@pytest.fixture
def pair() -> Iterator[Pair]:
    with Pair() as pair:
        yield pair


# --- messages -------------------------------------------------------------------------


def test_text_and_bytes_go_both_ways(pair: Pair) -> None:
    near, far = pair.channel()
    assert (near.label, near.state, far.label, far.state) == ("chat", "open", "chat", "open")
    messages = ["hello", "", "grüße 😀", b"", b"\x00\xff", "x" * 65536, b"y" * 65536]
    for one, other in ((near, far), (far, near)):
        for message in messages:
            one.send(message)
        one.send(bytearray(b"ba"))
        one.send_nowait(memoryview(b"mv"))
        received = [other.get(timeout=20) for _ in range(len(messages) + 2)]
        assert received == [*messages, b"ba", b"mv"]
    assert near.buffered_amount == 0
    assert near.ready_state == far.ready_state == "open"
    near.close()
    assert near.ready_state == near.state == "closed"


def test_get_and_iteration_follow_the_readers_contract(pair: Pair) -> None:
    near, far = pair.channel()
    assert far
    assert len(far) == 0
    with pytest.raises(queue.Empty):
        far.get_nowait()
    with pytest.raises(MeteredTimeoutError, match="'chat'"):
        far.get(timeout=0.01)
    with pytest.raises(TimeoutError):
        far.get(timeout=0)
    for number in range(3):
        near.send(str(number))
    wait_until(lambda: len(far) == 3)
    assert far.get_nowait() == "0"
    near.close()
    assert list(far) == ["1", "2"]
    for call in (far.get, far.get_nowait):
        with pytest.raises(ClosedError, match="far side"):
            call()


def test_a_slow_reader_drops_the_oldest_and_counts(pair: Pair) -> None:
    slow: dict[str, DataChannel] = {}

    def on_raw(raw: Any) -> None:  # the handlers are attached on the loop, in the event
        slow[raw.label] = DataChannel(raw, maxsize=10)

    pair.on_raw = on_raw
    near = DataChannel(pair.raw())
    for number in range(50):
        near.send(str(number))
    near.close()
    far = slow["chat"]
    assert list(far) == [str(n) for n in range(40, 50)]
    assert far.dropped == 40


def test_two_hundred_thousand_messages_of_a_line_that_has_no_loss(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Handed to the far side's handler directly: aiortc takes a minute for so many.
    near, far = pair.channel(face={"maxsize": 4096})
    count = 200_000
    transport = near._link.raw

    def send(data: Any) -> None:
        far._link._on_message(data)

    monkeypatch.setattr(transport, "send", send)
    seen: list[int] = []

    def receive() -> None:
        seen.extend(int(far.get(timeout=30)) for _ in range(count))

    far._link.inbox._maxsize = count
    reader = threading.Thread(target=receive)
    reader.start()
    for number in range(count):
        near.send(str(number), timeout=30)
    reader.join(60)
    assert seen == list(range(count))
    assert far.dropped == 0
    near.close()


def test_small_messages_arrive_all_and_in_order(pair: Pair) -> None:
    near, far = pair.channel()
    count, seen = 5000, []
    reader = threading.Thread(target=lambda: seen.extend(far.get(timeout=60) for _ in range(count)))
    reader.start()
    for number in range(count):
        near.send(number.to_bytes(8, "big"), timeout=60)
    reader.join(100)
    assert seen == [n.to_bytes(8, "big") for n in range(count)]
    near.close()


def test_four_megabytes_in_pieces_arrive_whole(pair: Pair) -> None:
    near, far = pair.channel()
    data = random.Random(1).randbytes(1 << 20) * 4
    received = hashlib.sha256()

    def receive() -> None:
        for piece in far:
            received.update(piece)  # type: ignore[arg-type]

    reader = threading.Thread(target=receive)
    reader.start()
    started = time.monotonic()
    for start in range(0, len(data), 16384):
        near.send(data[start : start + 16384], timeout=60)
        assert near.buffered_amount <= data_channels.MAX_BUFFERED
    near.close(timeout=60)  # sends the rest
    reader.join(60)
    assert received.digest() == hashlib.sha256(data).digest()
    assert time.monotonic() - started < 60
    assert far.dropped == 0


def test_memory_stays_bounded_with_a_reader_that_does_not_read(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(data_channels, "MAX_INBOX", 1 << 20)
    near, far = pair.channel(face={"max_buffered_amount": 1 << 18})
    near.send(b"first")
    assert far.get(timeout=20) == b"first"
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for _ in range(400):  # 6.4 MiB
            near.send(b"x" * 16384 + os.urandom(1), timeout=60)
        near.send(b"last", timeout=60)
        wait_until(lambda: near.buffered_amount == 0, 60)
        wait_until(lambda: len(far) and far._link.inbox._items[-1] == b"last", 60)
        grown = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert far.dropped > 300
    assert grown < 3 << 20
    near.close()


def test_lossy_and_unordered_channels(pair: Pair) -> None:
    for options in (
        {"ordered": False},
        {"max_retransmits": 0},
        {"ordered": False, "max_retransmits": 2},
        {"max_packet_life_time": 0.5},
    ):
        label = repr(options)
        near, far = pair.channel(label, **options)
        raws = [near._link.raw, far._link.raw]
        assert raws[0].ordered is raws[1].ordered is options.get("ordered", True)
        assert raws[0].maxRetransmits == raws[1].maxRetransmits == options.get("max_retransmits")
        assert raws[0].maxPacketLifeTime == raws[1].maxPacketLifeTime
        for number in range(20):
            near.send(str(number))
        assert {far.get(timeout=20) for _ in range(20)} == {str(n) for n in range(20)}
        near.close()


def test_what_a_lossy_channel_loses_holds_nothing_up(pair: Pair) -> None:
    near, far = pair.channel(max_retransmits=0, ordered=False)
    ice: Any = pair.one.sctp.transport.transport  # type: ignore[union-attr]
    original, dice = ice._send, random.Random(7)

    async def lossy(data: bytes) -> None:
        if dice.random() > 0.1:
            await original(data)

    ice._send = lossy
    for number in range(300):
        near.send(str(number), timeout=30)
    wait_until(lambda: near.buffered_amount == 0, 60)
    ice._send = original
    seen: list[str] = []
    deadline = time.monotonic() + 60
    while "end" not in seen and time.monotonic() < deadline:
        near.send("end", timeout=30)
        with suppress(MeteredTimeoutError):
            while "end" not in seen:
                seen.append(str(far.get(timeout=0.5)))
    assert 100 < len(seen) < 301
    assert len(set(seen)) == len(seen)
    near.close(timeout=60)  # (SCTP's pauses have grown with what was lost)


# --- many threads ---------------------------------------------------------------------


def test_each_of_many_threads_keeps_its_order(pair: Pair) -> None:
    near, far = pair.channel(face={"max_buffered_amount": 20_000})  # so that they often wait
    threads, each = 8, 100

    def send(name: int) -> None:
        for number in range(each):
            near.send(f"{name} {number} {'x' * 500}", timeout=60)

    senders = [threading.Thread(target=send, args=(name,)) for name in range(threads)]
    for thread in senders:
        thread.start()
    seen: dict[str, list[int]] = {}
    for _ in range(threads * each):
        name, number, _ = str(far.get(timeout=60)).split()
        seen.setdefault(name, []).append(int(number))
    for thread in senders:
        thread.join(20)
    assert seen == {str(name): list(range(each)) for name in range(threads)}
    near.close()


def test_a_message_that_is_refused_fails_none_behind_it(pair: Pair) -> None:
    near, far = pair.channel()
    near.send("before")
    with pytest.raises(OversizedPayloadError):
        near.send(b"x" * 3_000_000)
    with pytest.raises(TypeError, match="str or bytes"):
        near.send(7)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="lone surrogate"):
        near.send("\ud800")
    near.send("behind")
    assert [far.get(timeout=20), far.get(timeout=20)] == ["before", "behind"]
    near.close()


def test_deadlines(pair: Pair) -> None:
    near, _ = pair.channel(face={"max_buffered_amount": 1000, "timeout": 0.1})
    hold = pair.stall()
    near.send(b"x" * 1000, timeout=0)  # there is room: no need to wait
    for options in ({}, {"timeout": 0}, {"timeout": 0.05}):
        started = time.monotonic()
        with pytest.raises(MeteredTimeoutError) as caught:
            near.send(b"y", **options)
        assert not caught.value.sent
        assert time.monotonic() - started < 5
    with pytest.raises(DataChannelOverflowError):
        near.send_nowait(b"y")
    hold.set()
    near.send(b"z", timeout=20)
    for bad in (-1, float("nan"), True):
        with pytest.raises(ValueError, match="timeout"):
            near.send(b"z", timeout=bad)
    near.close(timeout=20)


# --- events ---------------------------------------------------------------------------


def test_callbacks_get_what_came_before_them_and_then_all(pair: Pair) -> None:
    near, far = pair.channel()
    for number in range(20):
        near.send(str(number))
    wait_until(lambda: len(far) == 20)
    seen: list[Any] = []
    far.on(DCClose, lambda event: seen.append(event))
    far.on(DCMessage, lambda event: seen.append(event.data))
    for number in range(20, 40):
        near.send(str(number))
    near.close()
    wait_until(lambda: len(seen) == 41)
    assert seen == [*(str(n) for n in range(40)), DCClose()]
    assert len(far) == 0
    assert far.dropped == 0


def test_a_callback_may_send_on_its_own_channel(pair: Pair) -> None:
    near, far = pair.channel()
    far.on(DCMessage, lambda event: far.send(f"echo {event.data}"))
    for number in range(100):
        near.send(str(number))
    assert [near.get(timeout=20) for _ in range(100)] == [f"echo {n}" for n in range(100)]
    near.close()


def test_without_the_callback_the_inbox_keeps_messages_again(pair: Pair) -> None:
    near, far = pair.channel()
    seen: list[Any] = []
    far.on(DCMessage, seen.append)
    near.send("callback")
    wait_until(lambda: seen)
    far.off(DCMessage)
    near.send("inbox")
    assert far.get(timeout=20) == "inbox"
    assert seen == [DCMessage("callback")]
    near.close()


def test_waiting_for_a_message_takes_none_from_readers(pair: Pair) -> None:
    near, far = pair.channel()
    with far.events(DCMessage) as events:
        near.send("a")
        assert events.get(timeout=20) == DCMessage("a")
    once: list[Any] = []
    far.once(DCMessage, once.append)
    near.send("b")
    assert [far.get(timeout=20), far.get(timeout=20)] == ["a", "b"]
    wait_until(lambda: once == [DCMessage("b")])
    near.close()
    with pytest.raises(ClosedError):
        far.wait_for(DCMessage, timeout=20)


def test_opening_is_told() -> None:
    with Pair(connect=False) as pair:
        channel = DataChannel(pair.raw())
        with channel.events(DCOpen) as opened:
            assert channel.state == "connecting"
            with pytest.raises(MeteredTimeoutError, match="not open"):
                channel.wait_open(timeout=0.01)
            pair.connect()
            channel.wait_open(timeout=30)
            assert opened.get(timeout=20) == DCOpen()
        assert channel.state == "open"
        channel.close()


# --- what it wraps --------------------------------------------------------------------


def test_wrapping_what_is_wrapped_returns_it(pair: Pair) -> None:
    raw = pair.raw()
    channel = DataChannel(raw, timeout=3.0)
    assert DataChannel(channel) is channel
    assert DataChannel(channel, timeout=9.0)._timeout == 3.0
    for wrong in (None, "chat", pair.one):
        with pytest.raises(TypeError, match="RTCDataChannel"):
            DataChannel(wrong)
    with pytest.raises(ValueError, match="maxsize"):
        DataChannel(pair.raw(), maxsize=0)
    channel.close()


def test_the_name_is_loaded_on_first_use() -> None:
    assert "DataChannel" in dir(metered_sync)
    done = run_script(
        "import sys, metered_sync\n"
        "assert 'aiortc' not in sys.modules\n"
        "metered_sync.DataChannel, metered_sync.DCMessage\n"
        "assert 'aiortc' in sys.modules\n"
    )
    assert (done.returncode, done.stderr) == (0, "")


# --- the end --------------------------------------------------------------------------


def cut_off(pair: Pair) -> None:
    """Let nothing of ``one``'s arrive any more."""
    sctp: Any = pair.two.sctp
    on_loop(lambda: sctp.transport._unregister_data_receiver(sctp))


def fill(channel: DataChannel) -> None:
    """Send until the buffer is full and stays so."""
    with pytest.raises(MeteredTimeoutError):
        while True:
            channel.send(b"x" * 10_000, timeout=0.2)


def test_closing_wakes_everybody_who_waits(pair: Pair) -> None:
    near, _ = pair.channel(face={"max_buffered_amount": 20_000})
    cut_off(pair)
    fill(near)
    errors: list[BaseException] = []
    woken: list[float] = []

    def attempt(call: Any) -> None:
        try:
            call()
        except BaseException as error:
            errors.append(error)
            woken.append(time.monotonic())

    calls = [lambda: near.send(b"y" * 10_000, timeout=30), near.get]
    waiting = [threading.Thread(target=attempt, args=(call,)) for call in calls]
    for thread in waiting:
        thread.start()
    wait_until(lambda: near._link.buffer.waiting and near._link.inbox._sleepers)
    started = time.monotonic()
    with pytest.raises(MeteredTimeoutError, match=r"close: .* bytes were not delivered"):
        near.close(timeout=4)
    for thread in waiting:
        thread.join(20)
    assert [type(error) for error in errors] == [ClosedError] * 2
    assert max(woken) - started < 3.5  # they did not wait for what could not be sent
    near.close()
    assert near.state == "closed"
    for call in (lambda: near.send(b"z"), lambda: near.send_nowait(b"z"), near.wait_open):
        with pytest.raises(ClosedError, match="closed"):
            call()
    with pytest.raises(ClosedError):
        near.on(DCMessage, print)


def test_closing_with_no_time_closes_all_the_same(pair: Pair) -> None:
    near, far = pair.channel()
    near.close(timeout=0)  # nothing is lost: no error
    wait_until(lambda: near.state == far.state == "closed")
    second, _ = pair.channel("second")
    hold = pair.stall()
    second.send("lost")
    with pytest.raises(MeteredTimeoutError, match="4 bytes were not delivered"):
        second.close(timeout=0)
    hold.set()
    wait_until(lambda: second.state == "closed")


def test_when_the_far_side_closes_this_side_is_told(pair: Pair) -> None:
    near, far = pair.channel()
    closed = near.events(DCClose)
    far.close()
    assert closed.get(timeout=20) == DCClose()
    assert near.state == "closed"
    with pytest.raises(ClosedError, match="far side"):
        near.send("x")
    near.close()


def test_when_the_connection_ends_the_channel_does(pair: Pair) -> None:
    near, far = pair.channel()
    pair.close()
    for channel in (near, far):
        with pytest.raises(ClosedError):
            channel.get(timeout=20)
        with pytest.raises(ClosedError):
            channel.send("x")
        channel.close()


def test_the_with_block_closes_and_after_an_error_it_does_not_wait_long(pair: Pair) -> None:
    near, far = pair.channel()
    with near as same:
        assert same is near
        near.send("x")
    assert near.state == "closed"
    assert list(far) == ["x"]
    second, _ = pair.channel("second")
    cut_off(pair)
    started = time.monotonic()
    with pytest.raises(ZeroDivisionError), second:
        second.send(b"x" * 60_000)
        second.send(b"x" * 60_000)
        raise ZeroDivisionError
    assert time.monotonic() - started < 11
    assert second.state == "closed"


def test_a_channel_that_is_forgotten_is_closed(pair: Pair) -> None:
    near, far = pair.channel()
    link = near._link
    channels = [near]
    del near
    pair.kept.remove(channels[0])
    with pytest.warns(ResourceWarning, match="'chat' was not closed"):
        channels.clear()  # it is in no cycle
    wait_until(lambda: link.state == "closed")
    with pytest.raises(ClosedError):
        far.get(timeout=20)


def test_a_channel_with_callbacks_is_not_forgotten(pair: Pair) -> None:
    near, far = pair.channel()
    far.on(DCMessage, lambda event, far=far: far.send(event.data))
    pair.kept.remove(far)
    del far
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        gc.collect()
    near.send("still there?")
    assert near.get(timeout=20) == "still there?"
    near.close()


# --- the rules ------------------------------------------------------------------------


def test_blocking_calls_on_the_loop_thread_are_refused(pair: Pair) -> None:
    near, _ = pair.channel()

    def calls() -> list[type]:
        errors: list[type] = []
        for call in (lambda: near.send("x"), near.get, near.close, near.wait_open):
            try:
                call()
            except BaseException as error:
                errors.append(type(error))
        return errors

    assert on_loop(calls) == [WrongThreadError] * 4
    near.close()


CHILD = """
import sys, threading, time
from tests.support.channel_pair import Pair, on_loop
from metered_sync import *
from metered_sync import DataChannel
"""


@pytest.mark.skipif(sys.platform == "win32", reason="sends POSIX signals")
@pytest.mark.parametrize(
    "wait",
    [
        "far.get()",
        "for m in far: pass",
        "near.send('x', timeout=60)",
        "early.wait_open(timeout=60)",
    ],
)
def test_ctrl_c_ends_every_wait(wait: str) -> None:
    source = f"""{CHILD}
pair = Pair()
near, far = pair.channel(face=dict(max_buffered_amount=10_000))
other = Pair(connect=False)
early = DataChannel(other.raw("early"))
on_loop(lambda: pair.two.sctp.transport._unregister_data_receiver(pair.two.sctp))
try:
    while True:
        near.send(b"x" * 10_000, timeout=0.2)
except MeteredTimeoutError:
    pass
print("ready", flush=True)
try:
    {wait}
except KeyboardInterrupt:
    print("interrupted", near.state, flush=True)
    assert not near._link.buffer.waiting
    sys.exit(7)
"""
    status, lines, err, seconds = interrupt(source)
    assert (status, lines) == (7, ["interrupted open"]), err
    assert err == ""
    assert seconds < 10


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
def test_fork() -> None:
    start = FORK.replace("options = dict(url=sys.argv[1], api_key=sys.argv[2])", "")
    done = run_script(
        f"""{start}
from tests.support.channel_pair import Pair
from metered_sync import DataChannel
pair = Pair()
near, far = pair.channel()
near.send("before")
assert far.get(timeout=20) == "before"
def child():
    assert near.label == "chat" and near.state == "open"
    for call in (
        lambda: near.send("x"), lambda: near.send_nowait("x"), near.get, near.get_nowait, far.close,
        near.wait_open, lambda: next(iter(near)), lambda: near.on(DCMessage, print),
        lambda: near.buffered_amount, lambda: near.wait_for(DCMessage),
    ):
        refused(call)
    with Pair() as mine:
        one, two = mine.channel()
        one.send("child")
        assert two.get(timeout=20) == "child"
        one.close()
assert in_child(child) == 0
near.send("after")
assert far.get(timeout=20) == "after"
near.close()
pair.close()
"""
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_a_script_that_forgets_to_close_ends_promptly() -> None:
    started = time.monotonic()
    done = run_script(
        f"""{CHILD}
pair = Pair()
near, far = pair.channel()
far.on(DCMessage, print)
def chatter():
    try:
        while True:
            near.send(b"x" * 1000, timeout=60)
    except ClosedError:
        pass
threading.Thread(target=chatter, daemon=True).start()
far.wait_for(DCMessage, timeout=20)
print("end")
"""
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "end" in done.stdout
    assert time.monotonic() - started < 30


def test_nothing_leaks_from_channels(pair: Pair) -> None:
    def round_() -> None:
        near, far = pair.channel()
        far.on(DCMessage, lambda event: None)
        near.send("x")
        with near.events(DCMessage):
            far.send("y")
            assert near.get(timeout=20) == "y"
        near.close()
        far.close()
        pair.kept.clear()

    check(round_, per_round=1000)
