"""The loop of an engine: which one, by which clock, and where it looks names up."""

from __future__ import annotations

import sys
import types

import pytest

from metered_sync.bridge import event_loop


@pytest.mark.parametrize("there", [True, False])
def test_uvloop_is_used_where_it_is_and_not_opted_out_of(
    monkeypatch: pytest.MonkeyPatch, there: bool
) -> None:
    monkeypatch.setitem(sys.modules, "uvloop", types.ModuleType("uvloop") if there else None)
    monkeypatch.delenv("METERED_SYNC_LOOP", raising=False)
    assert event_loop.uvloop_wanted() is there
    monkeypatch.setenv("METERED_SYNC_LOOP", "asyncio")
    assert not event_loop.uvloop_wanted()
