"""Make sessions of ``requests`` that nobody else's patch reaches.

Programs put something into the place of ``requests.Session``, or of its methods: a cache
(``requests_cache.install_cache()``), recorders, tracing. A cached answer to a call that publishes
reports as sent what never left, and stores of others would hold our keys. So the class comes from
a copy of the module ``requests.sessions`` that only this module knows.
"""

from __future__ import annotations

import importlib.util

import requests

__all__ = ["Session"]


def _copy() -> type[requests.Session]:
    spec = importlib.util.find_spec("requests.sessions")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    found: type[requests.Session] = module.Session
    return found


Session = _copy()
"""The class of sessions, as ``requests`` has made it."""
