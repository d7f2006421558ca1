"""Test the table of public names: each can be loaded, and type checkers see the same."""

from __future__ import annotations

import ast
from typing import get_args

import metered_sync
from tests.conftest import ROOT


def names_for_type_checkers() -> set[tuple[str, str]]:
    """Return the names that the package imports for type checkers, and from where."""
    tree = ast.parse((ROOT / "metered_sync" / "__init__.py").read_text())
    return {
        (alias.asname or "", str(node.module))
        for block in ast.walk(tree)
        if isinstance(block, ast.If)
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }


def test_type_checkers_see_the_names_that_can_be_loaded() -> None:
    assert names_for_type_checkers() == set(metered_sync._MODULES.items())
    for name in metered_sync._MODULES:
        assert getattr(metered_sync, name) is not None


def test_literals_can_be_used_to_look_up_what_there_is() -> None:
    assert get_args(metered_sync.DuringOutage) == get_args(metered_sync.During) == ("wait", "fail")
    assert get_args(metered_sync.Overflow) == ("drop_oldest", "drop_newest")
    assert "joined" in get_args(metered_sync.MeteredPeerState)
    for name in ("SignallingClientState", "PeerConnectionState", "SfuClientState"):
        assert "connected" in get_args(getattr(metered_sync, name))
    assert "open" in get_args(metered_sync.DataChannelState)
