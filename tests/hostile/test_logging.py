"""What listens to the log cannot break anything: handlers and filters that raise, or call us."""

from __future__ import annotations

import logging
import queue
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from metered_sync import Connected, Direct, Message, ReconnectOptions, SignallingClient
from metered_sync.local import LocalCloud
from tests.conftest import wait_until

QUICK = ReconnectOptions(initial_delay=0.05, max_delay=0.1)


class Handler(logging.Handler):
    """Do something with each record, but not because of what that logs itself."""

    def __init__(self, action: Callable[[], object]) -> None:
        super().__init__()
        self.action = action
        self.busy = False
        self.levels: set[int] = set()

    def emit(self, record: logging.LogRecord) -> None:
        self.levels.add(record.levelno)
        if not self.busy:
            self.busy = True
            try:
                self.action()
            finally:
                self.busy = False


@contextmanager
def listening(action: Callable[[], object], filtering: bool = False) -> Iterator[Handler]:
    """Listen to all that is logged, at every level."""
    handler = Handler(action)

    def wrong(record: logging.LogRecord) -> bool:
        handler.emit(record)
        return True

    root, ours = logging.getLogger(), logging.getLogger("metered_sync")
    level, own = root.level, ours.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    ours.setLevel(logging.DEBUG)
    if filtering:
        ours.addFilter(wrong)
    try:
        yield handler
    finally:
        ours.removeFilter(wrong)
        root.removeHandler(handler)
        root.setLevel(level)
        ours.setLevel(own)


def fail() -> None:
    raise ZeroDivisionError("in what listens to the log")


def go_through_everything(client: SignallingClient, cloud: LocalCloud, handler: Handler) -> None:
    """Have callbacks that fail, an outage and attempts to reconnect that fail; all goes on."""
    seen: queue.Queue[Any] = queue.Queue()

    @client.on(Message)
    def note(message: Message) -> None:
        seen.put(message.data)
        raise ValueError("in a callback")

    client.on_error = lambda event, error: 1 / 0
    client.subscribe("c")
    with SignallingClient(**cloud.token_options("another"), reconnect=QUICK) as other:
        for number in range(2):
            other.publish("c", number)
            assert seen.get(timeout=20) == number
        with client.events(Connected) as back:
            handler.levels.clear()
            cloud.faults.refuse_connections(60)
            cloud.faults.drop_connections()
            wait_until(lambda: logging.INFO in handler.levels)  # an attempt has failed
            cloud.faults.refuse_connections(0)
            assert back.get(timeout=20).is_reconnect
        other.publish("c", 2, timeout=10)
        assert seen.get(timeout=20) == 2
        client.publish("c", 3, timeout=10)


@pytest.mark.parametrize("filtering", [False, True], ids=["a handler", "a filter"])
def test_what_listens_to_the_log_may_raise(
    cloud: LocalCloud, capsys: pytest.CaptureFixture[str], filtering: bool
) -> None:
    client = SignallingClient(**cloud.token_options("one"), reconnect=QUICK)
    with listening(fail, filtering) as handler, client:
        go_through_everything(client, cloud, handler)
    assert "in what listens to the log" in capsys.readouterr().err


def test_what_listens_to_the_log_may_call_us(cloud: LocalCloud) -> None:
    client = SignallingClient(**cloud.token_options("one"), reconnect=QUICK)

    def call() -> None:
        client.on(Direct, print)
        client.off(Direct, print)
        repr(client)
        if client.state == "connected":
            client.publish_nowait("nobody", 1)
            client.publish("nobody", 1, timeout=0.5)  # refused on the loop, and shown

    with listening(call) as handler, client:
        go_through_everything(client, cloud, handler)
