"""Test peers: who is in a channel, as lines, as JSON, as a table."""

from __future__ import annotations

import re

import pytest

from metered_sync import SignallingClient
from metered_sync.local import LocalCloud
from tests.support.command_line import Outcome, call, on_terminal


def test_who_is_there(dev: LocalCloud) -> None:
    bob = dev.token_options("peers-bob", peer_metadata={"name": "B\u009b"})
    with SignallingClient(**bob) as one, SignallingClient(**dev.token_options("peers-a")) as two:
        one.subscribe("peers/here")
        two.subscribe("peers/here")
        done = call("peers", "--local", "peers/here")
        assert sorted(done.lines) == ["peers-a\t", 'peers-bob\t{"name": "B\\u009b"}']
        (told,) = call("peers", "--local", "peers/here", "--json").json
        assert sorted(told, key=lambda entry: entry["peer"]) == [
            {"peer": "peers-a", "metadata": None},
            {"peer": "peers-bob", "metadata": {"name": "B\x9b"}},
        ]
        for columns, plain in ((80, ""), (8, "1")):
            with on_terminal(
                "peers", "--local", "peers/here", columns=columns, NO_COLOR=plain
            ) as terminal:
                shown = terminal.read_until(None)
            assert ("\x1b[1m" in shown) == (not plain)
            assert "pee" in shown
            assert "\u009b" not in shown
            shown = re.sub(r"\x1b\[\d*m", "", shown)
            assert max(map(len, shown.splitlines())) <= columns


def test_nobody_is_there(dev: LocalCloud) -> None:
    assert call("peers", "--local", "peers/none") == Outcome(0, "", "nobody is in peers/none\n")
    assert call("peers", "--local", "peers/none", "--json").json == [[]]


@pytest.mark.parametrize("channel", ["", "a*", "\x1b", "x" * 257])
def test_misuse(dev: LocalCloud, channel: str) -> None:
    done = call("peers", "--local", channel)
    assert (done.status, done.out) == (2, "")
    assert "\x1b" not in done.err
