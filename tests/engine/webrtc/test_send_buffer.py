"""Fill and empty the buffer of a channel's messages, without a channel."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest

from metered_sync import (
    ClosedError,
    DataChannelOverflowError,
    EngineError,
    MeteredTimeoutError,
    OversizedPayloadError,
)
from metered_sync.bridge.deadline import Deadline
from metered_sync.engine.webrtc import send_buffer
from metered_sync.engine.webrtc.send_buffer import Message, SendBuffer
from tests.conftest import wait_until


class Below:
    """What takes the messages: by hand."""

    def __init__(self, max_bytes: int = 1000, *, low: int = 0, cap: int | None = 0) -> None:
        self.pending = 0
        self.wakes = 0
        self.buffer = SendBuffer(
            "channel", max_bytes, low=low, below=lambda: self.pending, wake=self._wake
        )
        if cap is not None:
            self.buffer.open(cap)

    def _wake(self) -> None:
        self.wakes += 1

    def take(self, count: int = 10**6) -> list[Message]:
        """Take messages in one turn; they are sent at once."""
        taken: list[Message] = []
        while len(taken) < count and (message := self.buffer.take()) is not None:
            taken.append(message)
        assert self.buffer.end_turn(sending=True) == []
        return taken


def in_thread(call: Callable[[], object]) -> tuple[threading.Thread, list[BaseException]]:
    """Make a call on a thread; return that and the list that gets its error."""
    errors: list[BaseException] = []

    def run() -> None:
        try:
            call()
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return thread, errors


def test_messages_leave_in_their_order_and_a_burst_wakes_the_loop_once() -> None:
    below = Below()
    for text in "abc":
        below.buffer.send_nowait(text)
    below.buffer.send(b"d", Deadline(1))
    assert (below.wakes, below.buffer.bytes, below.buffer.is_empty) == (1, 4, False)
    assert below.take() == ["a", "b", "c", b"d"]
    assert (below.buffer.bytes, below.buffer.is_empty) == (0, True)
    below.buffer.send_nowait("e")
    assert below.wakes == 2


def test_the_loop_is_not_woken_while_it_has_messages_left() -> None:
    below = Below()
    below.buffer.send_nowait("a")
    below.buffer.send_nowait("b")
    assert below.take(1) == ["a"]
    assert below.buffer.has_messages
    below.buffer.send_nowait("c")
    assert below.wakes == 1


def test_bytes_are_counted_until_what_takes_them_has_sent_them() -> None:
    below = Below()
    below.buffer.send_nowait("é" * 10)
    below.pending = 5
    assert below.buffer.bytes == 25
    assert below.buffer.take() == "é" * 10
    assert below.buffer.bytes == 25  # until the turn ends: never too few
    below.buffer.end_turn(sending=True)
    assert below.buffer.bytes == 5


def test_a_full_buffer_refuses_and_the_message_is_not_kept() -> None:
    below = Below(100)
    below.buffer.send_nowait(b"x" * 100)
    with pytest.raises(DataChannelOverflowError, match="100 of 100 bytes") as caught:
        below.buffer.send_nowait(b"y")
    assert (caught.value.queued, caught.value.cap) == (100, 100)
    with pytest.raises(MeteredTimeoutError, match="no room in the buffer"):
        below.buffer.send(b"y", Deadline(0.01))
    assert below.take() == [b"x" * 100]
    assert below.buffer.is_empty


def test_small_messages_are_bounded_by_their_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(send_buffer, "MAX_MESSAGES", 3)
    below = Below()
    for _ in range(3):
        below.buffer.send_nowait(b"")
    with pytest.raises(DataChannelOverflowError):
        below.buffer.send_nowait(b"")


def test_who_waits_is_let_in_when_half_is_free_first_come_first_served() -> None:
    below = Below(100)
    for _ in range(10):
        below.buffer.send_nowait(b"0" * 10)
    threads = []
    for number in (b"1", b"2", b"3"):
        threads.append(in_thread(lambda number=number: below.buffer.send(number, Deadline(20)))[0])
        wait_until(lambda: below.buffer.waiting == len(threads))
    assert below.take(4) == [b"0" * 10] * 4
    assert below.buffer.waiting == 3  # 60 of 100 bytes are taken still
    with pytest.raises(DataChannelOverflowError):  # and nobody overtakes
        below.buffer.send_nowait(b"4")
    assert below.take(1) == [b"0" * 10]
    for thread in threads:
        thread.join(20)
    assert below.take() == [*[b"0" * 10] * 5, b"1", b"2", b"3"]


def test_a_message_larger_than_the_buffer_waits_until_that_is_low() -> None:
    below = Below(100, low=20)
    below.buffer.send_nowait(b"x" * 30)
    with pytest.raises(DataChannelOverflowError):
        below.buffer.send_nowait(b"y" * 500)
    assert below.take() == [b"x" * 30]
    below.pending = 20
    below.buffer.send_nowait(b"y" * 500)
    assert below.take() == [b"y" * 500]


def test_a_message_that_is_too_large_is_refused_and_those_behind_it_go_on() -> None:
    below = Below(1000, cap=10)
    for call in (below.buffer.send_nowait, lambda data: below.buffer.send(data, Deadline(1))):
        with pytest.raises(OversizedPayloadError, match="nothing was sent") as caught:
            call(b"x" * 11)
        assert (caught.value.size, caught.value.cap) == (11, 10)
    below.buffer.send_nowait(b"x" * 10)
    assert below.take() == [b"x" * 10]


def test_messages_wait_for_the_channel_to_open() -> None:
    below = Below(100, cap=None)
    with pytest.raises(MeteredTimeoutError, match="did not open"):
        below.buffer.send("late", Deadline(0.01))
    below.buffer.send_nowait("a")
    below.buffer.send_nowait(b"x" * 50)
    thread, errors = in_thread(lambda: below.buffer.send(b"y" * 50, Deadline(20)))
    wait_until(lambda: below.buffer.waiting == 3)
    assert below.buffer.bytes == 51  # of those for which nobody waits
    assert below.buffer.end_turn(sending=False) == []
    assert below.buffer.waiting == 3
    below.buffer.open(20)
    [error] = below.buffer.end_turn(sending=True)  # of the one for which nobody waits
    assert isinstance(error, OversizedPayloadError)
    thread.join(20)
    assert [type(error) for error in errors] == [OversizedPayloadError]
    assert below.take() == ["a"]


def test_not_more_than_some_messages_wait_for_that(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(send_buffer, "MAX_EARLY_SENDS", 2)
    below = Below(100, cap=None)
    below.buffer.send_nowait(b"x" * 60)
    with pytest.raises(DataChannelOverflowError, match="60 of 100 bytes wait for it to open"):
        below.buffer.send_nowait(b"x" * 41)
    below.buffer.send_nowait(b"")
    with pytest.raises(DataChannelOverflowError, match="2 of 2 sends wait for it to open"):
        below.buffer.send_nowait(b"")


def test_who_gives_up_makes_room_for_those_behind() -> None:
    below = Below(100)
    below.buffer.send_nowait(b"x" * 60)
    impatient, errors = in_thread(lambda: below.buffer.send(b"y" * 100, Deadline(0.5)))
    wait_until(lambda: below.buffer.waiting == 1)
    patient, _ = in_thread(lambda: below.buffer.send(b"z", Deadline(20)))
    wait_until(lambda: below.buffer.waiting == 2)
    below.pending = 40  # too much for the first of them
    assert below.take() == [b"x" * 60]
    wakes = below.wakes
    impatient.join(20)
    assert [type(error) for error in errors] == [MeteredTimeoutError]
    assert below.wakes == wakes + 1
    below.buffer.end_turn(sending=True)
    patient.join(20)
    assert below.take() == [b"z"]


def test_closing_wakes_threads_at_once_and_keeps_what_was_taken_over() -> None:
    below = Below(10)
    below.buffer.send_nowait(b"x" * 10)
    thread, errors = in_thread(lambda: below.buffer.send(b"y", Deadline(20)))
    wait_until(lambda: below.buffer.waiting == 1)
    below.buffer.refuse()
    thread.join(20)
    assert [str(error) for error in errors] == ["channel is closed"]
    with pytest.raises(ClosedError):
        below.buffer.send_nowait(b"z")
    assert below.take() == [b"x" * 10]


@pytest.mark.parametrize("error", [ClosedError("gone"), EngineError("dead"), ValueError("odd")])
def test_the_end_drops_everything_and_is_told_to_everybody(error: Exception) -> None:
    below = Below(10)
    below.buffer.send_nowait(b"x" * 10)
    thread, errors = in_thread(lambda: below.buffer.send(b"y", Deadline(20)))
    wait_until(lambda: below.buffer.waiting == 1)
    assert below.buffer.end(error) == 10
    thread.join(20)
    assert (below.buffer.bytes, below.buffer.is_empty, below.buffer.take()) == (0, True, None)
    [told] = errors  # who waits gets an error of ours in any case
    assert isinstance(told, ClosedError if isinstance(error, ValueError) else type(error))
    for call in (below.buffer.send_nowait, lambda data: below.buffer.send(data, Deadline(1))):
        with pytest.raises(type(error), match=str(error)) as caught:
            call(b"z")
        assert caught.value is not error  # its traceback would grow


def test_many_threads_send_and_nothing_is_lost_or_doubled() -> None:
    below = Below(50)
    threads = [
        in_thread(
            lambda sender=sender: [
                below.buffer.send(f"{sender}:{number}", Deadline(30)) for number in range(200)
            ]
        )
        for sender in range(4)
    ]
    taken: list[Message] = []
    deadline = Deadline(30)
    while len(taken) < 800 and deadline.left():
        taken += below.take(3)
        assert below.buffer.bytes <= 50
    for thread, errors in threads:
        thread.join(20)
        assert not errors
    for sender in range(4):
        mine = [text for text in taken if str(text).startswith(f"{sender}:")]
        assert mine == [f"{sender}:{number}" for number in range(200)]
