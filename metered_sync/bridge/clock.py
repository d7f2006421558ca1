"""Read the clock that deadlines, timers and intervals go by.

Tests of applications stop the clock: freezegun puts functions of its own into the module
``time``, and into each module that has one of that module's functions as an attribute. A
deadline would then never pass, and a rate limit never fill. So the clock comes from a copy of
the module, which nobody replaces; the event loop goes by it, too. What says which day it is
(a token's ``exp``) is left to ``time.time()``, which may be frozen, and may jump.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from importlib.machinery import BuiltinImporter
from importlib.util import module_from_spec

__all__ = ["monotonic"]

_spec = BuiltinImporter.find_spec("time")
_real = time if _spec is None else module_from_spec(_spec)  # (a partial is found by nobody, either)
monotonic: Callable[[], float] = functools.partial(_real.monotonic)
"""Return the seconds of ``time.monotonic()``, whatever was put in its place."""
