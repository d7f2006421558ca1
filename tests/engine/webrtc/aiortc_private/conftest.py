"""Versions that have less of what is used."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from metered_sync.engine.webrtc.aiortc_private import capabilities

NEEDS = capabilities._needs()


@pytest.fixture
def unprobed() -> Iterator[None]:
    """Have this version looked at anew, now and after the test."""
    capabilities.capabilities.cache_clear()
    yield
    capabilities.capabilities.cache_clear()


@pytest.fixture
def nothing(unprobed: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """As if a version had none of these names."""
    lacking = tuple(
        need._replace(names=tuple(f"_no{name}" for name in need.names)) for need in NEEDS
    )
    monkeypatch.setattr(capabilities, "_needs", lambda: lacking)
