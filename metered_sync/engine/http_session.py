"""Make sessions of ``requests`` that nobody else's patch reaches.

Programs put something into the place of ``requests.Session``, or of its methods: a cache
(``requests_cache.install_cache()``), recorders, tracing. A cached answer to a call that publishes
reports as sent what never left, and stores of others would hold our keys. So the class comes from
a copy of the module ``requests.sessions`` that only this module knows.

The timeout of ``requests`` is one of each read, so a server that sends a byte now and then, or
``100 Continue`` without an end, would keep a thread for ever. So answers are read by the clock.
"""

from __future__ import annotations

import contextvars
import http.client
import importlib.util
import io
import math
from typing import Any

import requests
import requests.adapters
import urllib3
import urllib3.connection

from metered_sync.bridge.clock import monotonic

__all__ = ["give_up_at", "new_session"]

give_up_at: contextvars.ContextVar[float] = contextvars.ContextVar("give_up_at", default=math.inf)
"""The moment from which on no answer is read any more, in what runs in this context."""


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


class _Clocked(io.RawIOBase):
    """Read from a socket until the moment at which to give up."""

    def __init__(self, inner: io.RawIOBase) -> None:
        self._inner = inner
        self._give_up = give_up_at.get()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        if monotonic() > self._give_up:
            raise TimeoutError("the answer is too slow")
        return self._inner.readinto(buffer)

    def close(self) -> None:
        self._inner.close()
        super().close()


class _Response(http.client.HTTPResponse):
    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.fp: Any = io.BufferedReader(_Clocked(self.fp.detach()))


class _Connection(urllib3.connection.HTTPConnection):
    response_class = _Response


class _TlsConnection(urllib3.connection.HTTPSConnection):
    response_class = _Response


class _Pool(urllib3.HTTPConnectionPool):
    ConnectionCls = _Connection


class _TlsPool(urllib3.HTTPSConnectionPool):
    ConnectionCls = _TlsConnection


class _Adapter(requests.adapters.HTTPAdapter):
    """Make connections whose answers are read by the clock. (SOCKS has connections of its own.)"""

    def init_poolmanager(self, *args: Any, **options: Any) -> None:
        super().init_poolmanager(*args, **options)
        self._use_pools(self.poolmanager)

    def proxy_manager_for(self, proxy: Any, **options: Any) -> Any:
        manager = super().proxy_manager_for(proxy, **options)
        if not proxy.lower().startswith("socks"):
            self._use_pools(manager)
        return manager

    @staticmethod
    def _use_pools(manager: urllib3.PoolManager) -> None:
        manager.pool_classes_by_scheme = {"http": _Pool, "https": _TlsPool}


def new_session() -> requests.Session:
    """Return a session that takes proxies and certificates from nowhere but its caller."""
    session = Session()
    session.trust_env = False
    session.mount("http://", _Adapter())
    session.mount("https://", _Adapter())
    return session
