"""Test kick: connections are closed, and nobody there is 1."""

from __future__ import annotations

from metered_sync import Disconnected, SignallingClient
from metered_sync.local import LocalCloud
from tests.support.command_line import Outcome, call


def test_a_peer_is_disconnected(dev: LocalCloud) -> None:
    with SignallingClient(**dev.token_options("kick-bob")) as bob, bob.events(Disconnected) as gone:
        done = call("kick", "--local", "kick-bob")
        assert done == Outcome(0, "", "kick-bob: 1 connection closed\n")
        assert gone.get(timeout=30).code == 4020


def test_nobody_there_is_1(dev: LocalCloud) -> None:
    done = call("kick", "--local", "kick-nobody")
    assert (done.status, done.out) == (1, "")
    assert "0 connections" in done.err
    as_json = call("kick", "--local", "kick-nobody", "--json")
    assert (as_json.status, as_json.json, as_json.err) == (1, [{"disconnected": 0}], "")


def test_misuse(dev: LocalCloud) -> None:
    assert call("kick", "--local").status == 2
    assert call("kick", "--local", "é").status == 2
    assert call("kick", "--local", "a", "b").status == 2
