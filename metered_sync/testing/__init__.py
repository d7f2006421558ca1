"""What tests of applications use: sources that are recognised at the other end, a pytest plug-in.

>>> from metered_sync.testing import PatternSource, read_number
>>> source = PatternSource(320, 240, fps=30)
>>> # publish source.video; at the other end: read_number(track.read(timeout=10))

============= ==================================================================
sources       pictures and sound whose frames can be told apart after a codec
pytest_plugin a local cloud, clients of it, and a look at the wire, as fixtures
leaks         the check that a test leaves nothing open (``--metered-leaks``)
============= ==================================================================

The names of ``sources`` are loaded on first use, for they need the extra ``webrtc``.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from metered_sync.testing.sources import PatternSource as PatternSource
    from metered_sync.testing.sources import ToneSource as ToneSource
    from metered_sync.testing.sources import dominant_frequency as dominant_frequency
    from metered_sync.testing.sources import read_number as read_number

__all__ = ["PatternSource", "ToneSource", "dominant_frequency", "read_number"]


def _load(name: str) -> Any:
    if name in __all__:
        return getattr(importlib.import_module("metered_sync.testing.sources"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


if not TYPE_CHECKING:  # a type checker would take every name for one that exists
    __getattr__ = _load
