"""Test listen: what it prints, when it ends, and that nothing steers the terminal."""

from __future__ import annotations

import re
import signal
import threading
import time
from collections.abc import Callable
from datetime import datetime
from typing import Any

import pytest

from metered_sync import SignallingClient
from metered_sync.local import LocalCloud
from tests.conftest import wait_until
from tests.support.command_line import Outcome, call, on_terminal, running


def heard(
    dev: LocalCloud,
    channel: str,
    messages: list[Any],
    *args: str,
    then: Callable[[], object] = lambda: None,
    **options: Any,
) -> Outcome:
    """Return what listen does while messages are published by ann, from when it is there."""

    def publish() -> None:
        claims = {"peer_metadata": {"name": "Ann"}}
        with SignallingClient(**dev.token_options("ann", **claims)) as ann:
            wait_until(lambda: dev.control_plane().peers(channel), 60, "listen is there")
            for message in messages:
                ann.publish(channel, message)
            then()

    thread = threading.Thread(target=publish)
    thread.start()
    try:
        return call("listen", "--local", channel, *args, **options)
    finally:
        thread.join(30)


def test_lines_for_a_pipe(dev: LocalCloud) -> None:
    done = heard(dev, "listen/lines", [{"a": 1}, "ü\t\x1b[31m\x9b"], "-n", "2")
    assert done.status == 0
    assert done.err == "listening to listen/lines; Ctrl-C ends it\n"
    rows = [line.split("\t") for line in done.lines]
    assert [row[1:] for row in rows] == [
        ["listen/lines", "ann", '{"a": 1}'],
        ["listen/lines", "ann", '"ü\\t\\u001b[31m\\u009b"'],
    ]
    assert datetime.fromisoformat(rows[0][0].replace("Z", "+00:00")).tzinfo is not None


def test_json_has_everything(dev: LocalCloud) -> None:
    (message,) = heard(dev, "listen/json", [[None]], "-n", "1", "--json").json
    at = message.pop("at")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", at)
    assert message == {
        "type": "message",
        "channel": "listen/json",
        "from": "ann",
        "data": [None],
        "metadata": {"name": "Ann"},
    }


def test_the_data_alone_can_be_published_again(dev: LocalCloud) -> None:
    data = [1, "zwei\n", {"three": "\u2028\u202e"}, None]
    done = heard(dev, "listen/data", data, "-n", "4", "--data")
    assert done.json == data
    assert len(done.lines) == 4


def test_output_in_another_encoding(dev: LocalCloud) -> None:
    done = heard(dev, "listen/ascii", ["ü😀"], "-n", "1", "--data", encoding="ascii")
    assert (done.status, done.out) == (0, '"\\xfc\\U0001f600"\n')


def test_who_joins_and_leaves(dev: LocalCloud) -> None:
    def come_and_go() -> None:
        with SignallingClient(**dev.token_options("bob", peer_metadata={"n": 1})) as bob:
            bob.subscribe("listen/presence")
            bob.publish("listen/presence", 1)
        wait_until(lambda: len(dev.control_plane().peers("listen/presence")) == 1)
        with SignallingClient(**dev.client_options()) as last:
            last.publish("listen/presence", 2)

    args = ["--presence", "--json", "-n", "2", "-W", "60"]
    done = heard(dev, "listen/presence", [], *args, then=come_and_go)
    assert done.status == 0
    bob = {"peer": "bob", "metadata": {"n": 1}}
    told = [event for event in done.json if event["type"] == "presence"]
    assert all(set(event) == {"type", "channel", "joined", "left"} for event in told)
    assert [bob] in [event["joined"] for event in told]
    assert "bob" in [peer["peer"] for event in told for peer in event["left"]]


def test_several_channels_and_a_pattern_tell_each_message_once(dev: LocalCloud) -> None:
    done = heard(
        dev, "listen/many/1", [1, 2], "listen/many/1", "listen/many/*", "-n", "2", "-W", "5",
        "--json",
    )  # fmt: skip
    assert [event["data"] for event in done.json] == [1, 2]


@pytest.mark.parametrize(
    ("messages", "args", "status"),
    [([], [], 124), ([], ["-n", "1"], 124), ([1], ["-n", "2"], 124), ([1], [], 0)],
)
def test_nothing_came_in_time(
    dev: LocalCloud, messages: list[Any], args: list[str], status: int
) -> None:
    seconds = "3" if messages else "0.6"  # (what is to come has time on a busy machine)
    done = heard(dev, "listen/quiet", messages, "-W", seconds, *args)
    assert (done.status, len(done.lines)) == (status, len(messages))


@pytest.mark.parametrize(
    ("args", "words"),
    [
        ([], "Missing argument 'CHANNEL...'"),
        ([""], "must not be empty"),
        (["a", "-n", "0"], "-n"),
        (["a", "-W", "-1"], "-W"),
        (["a", "--data", "--json"], "--data"),
        (["a", "--key", "pk_live_x", "--token", "x"], "--key and --token"),
    ],
)
def test_misuse(dev: LocalCloud, args: list[str], words: str) -> None:
    done = call("listen", "--local", *args)
    assert (done.status, done.out) == (2, "")
    assert words in done.err


def test_a_refused_subscription_is_one_line(dev: LocalCloud) -> None:
    token = call("token", "--local", "--peer-id", "a", "--channel", "mine").out.strip()
    done = call("listen", "--local", "--token", token, "theirs")
    assert (done.status, done.out, done.err.count("\n")) == (1, "", 1)
    assert token not in done.err


def test_it_ends_when_it_is_disconnected(dev: LocalCloud) -> None:
    token = call("token", "--local", "--peer-id", "listen-kicked").out.strip()
    kick = lambda: dev.control_plane().disconnect("listen-kicked")  # noqa: E731
    done = heard(dev, "listen/kicked", [1], "--token", token, then=kick)
    assert (done.status, len(done.lines)) == (1, 1)
    assert "4020" in done.err
    assert "Traceback" not in done.err


def test_a_reader_that_has_enough_ends_it_quietly(dev: LocalCloud) -> None:
    """As ``| head -1`` does: though nothing more comes that could not be written."""
    with running("listen", "--local", "listen/head", "--data") as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert "listening" in process.stderr.readline()
        with SignallingClient(**dev.client_options()) as client:
            client.publish("listen/head", 1)
            assert process.stdout.readline() == "1\n"
        process.stdout.close()
        assert process.wait(60) == 0
        assert process.stderr.read() == ""


def test_ctrl_c_on_a_terminal(dev: LocalCloud) -> None:
    with on_terminal("listen", "--local", "listen/tty", columns=20) as terminal:
        terminal.read_until("Ctrl-C ends it")
        with SignallingClient(**dev.token_options("ann")) as client:
            client.publish("listen/tty", "\x1b]0;title\x07")
        shown = terminal.read_until("title")
        assert "\x1b[32mann" in shown  # in colour
        assert "\x1b]" not in shown
        terminal.type(b"\x03")
        terminal.read_until(None)
        assert terminal.process.wait(60) == 130
        assert "Traceback" not in terminal.text
    wait_until(lambda: not dev.control_plane().peers("listen/tty"), what="it has left")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_signals_close_it(dev: LocalCloud, number: signal.Signals) -> None:
    with running("listen", "--local", "listen/signal") as process:
        assert process.stderr is not None
        assert "listening" in process.stderr.readline()
        process.send_signal(number)
        assert process.wait(60) == 128 + number
        assert process.stderr.read() == ""
    assert not dev.control_plane().peers("listen/signal")


def test_an_outage_is_told(dev: LocalCloud) -> None:
    def drop() -> None:
        dev.faults.drop_connections()
        started = time.monotonic()
        wait_until(lambda: dev.control_plane().peers("listen/outage"), 20)
        with SignallingClient(**dev.client_options()) as client:
            while time.monotonic() < started + 20:
                client.publish("listen/outage", 2)
                time.sleep(0.2)  # (the outage is told from a thread of its own)
                if not dev.control_plane().peers("listen/outage"):
                    return

    done = heard(dev, "listen/outage", [1], "-n", "11", then=drop)
    assert done.status == 0
    assert "the connection was lost for" in done.err
