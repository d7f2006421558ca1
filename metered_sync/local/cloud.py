"""The local cloud as one object: messaging and SFU on free ports of this machine."""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable, Iterable
from typing import Any, TypeVar

import anyio
from aiohttp import web

from metered_sync.engine import guard
from metered_sync.engine.deadline import Deadline
from metered_sync.engine.loop import Engine, Link
from metered_sync.errors import ClosedError, MeteredError, SfuNotFoundError
from metered_sync.facade import Facade
from metered_sync.local.sfu import Sfu
from metered_sync.local.signalling import PublishableKey, SecretKey, SignallingServer
from metered_sync.tokens import mint_token
from metered_sync.wire.limits import ACTIONS
from metered_sync.wire.timings import DEFAULT, Timings
from metered_sync.wire.tokens import Grant
from metered_sync.wire.urls import is_loopback

__all__ = ["LocalCloud"]

T = TypeVar("T")


class _Cloud(Link):
    """The servers, on the engine's loop."""

    label = "LocalCloud"

    def __init__(
        self, engine: Engine, signalling: SignallingServer, sfu: Sfu, host: str, port: int
    ) -> None:
        self.signalling = signalling
        self.sfu = sfu
        self.port = port
        self._host = host
        self._engine = engine
        self._runner: web.AppRunner | None = None

    async def open(self) -> None:
        self._engine.links.add(self)
        app = web.Application()
        app.add_routes(self.signalling.routes())
        app.add_routes(self.sfu.routes())
        # No access log: request lines carry keys and tokens.
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
        await self._runner.setup()
        try:
            await self.sfu.start()
            await web.TCPSite(self._runner, self._host, self.port).start()
        except OSError as error:
            await self.aclose()
            raise MeteredError(
                f"LocalCloud cannot listen on {self._host} port {self.port}: {error.strerror}; "
                "choose another port, or 0 for a free one"
            ) from error
        self.port = self._runner.addresses[0][1]

    async def aclose(self) -> None:
        self._engine.links.discard(self)
        runner, self._runner = self._runner, None
        try:
            await self.signalling.close()
            await self.sfu.close()
        finally:
            try:
                if runner is not None:
                    with anyio.CancelScope(shield=True):
                        await runner.cleanup()
            finally:
                self._engine.stop()

    def abort(self, error: BaseException) -> None:
        pass  # its clients notice by themselves


class Faults:
    """What can be made to go wrong in a local cloud, to test how a program takes it."""

    def __init__(self, cloud: LocalCloud) -> None:
        self._cloud = cloud

    def drop_connections(self, peer_id: str | None = None) -> None:
        """Cut the TCP connection of every messaging client, or of one peer's (close code 1006)."""

        async def drop(cloud: _Cloud) -> None:
            cloud.signalling.drop_connections(peer_id)

        self._cloud._do(drop, "drop_connections")

    def close(self, code: int, peer_id: str | None = None) -> None:
        """Close the connection of every messaging client, or of one peer's, with a close code."""

        async def close(cloud: _Cloud) -> None:
            await cloud.signalling.close_connections(code, peer_id)

        self._cloud._do(close, "close")

    def kill_sfu_session(self, session_id: str) -> None:
        """End an SFU session at once, as if the SFU had forgotten it."""

        async def kill(cloud: _Cloud) -> None:
            try:
                cloud.sfu.kill_session(session_id)
            except LookupError:
                raise SfuNotFoundError(f"there is no SFU session {session_id!r} to end") from None

        self._cloud._do(kill, "kill_sfu_session")

    def lose_media(self, fraction: float) -> None:
        """Lose that fraction (0 to 1) of media packets from now on; 0 ends it."""
        if not 0 <= fraction <= 1:
            raise ValueError(f"fraction must be a number from 0 to 1, not {fraction!r}")

        async def lose(cloud: _Cloud) -> None:
            cloud.sfu.lose_media(fraction)

        self._cloud._do(lose, "lose_media")


class LocalCloud(Facade):
    """A messaging service and an SFU on this machine, for as long as a ``with`` block lasts.

    Ready when the block is entered. Its keys are made anew each time, and it forgets
    everything when it is closed. It runs on an event loop and a thread of its own.

    Args:
        host: A loopback address; it serves nobody else.
        port: The TCP port of HTTP and WebSocket; 0 takes a free one. (Media uses one
            UDP port besides, always a free one.)
        limits: Whether the service's abuse limits hold (message rate, channels per
            connection). Sizes are limited always.
        permissions: What its publishable key may do: out of ``publish``, ``subscribe``,
            ``presence`` and ``send``; all four unless said otherwise.
    """

    def __init__(
        self,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        limits: bool = True,
        permissions: Iterable[str] = ACTIONS,
        timeout: float = 15.0,
        _timings: Timings = DEFAULT,
    ) -> None:
        super().__init__("LocalCloud", timeout)
        if not is_loopback(host):
            raise ValueError(
                f"host must be a loopback address, not {host!r}: it is for this machine"
            )
        if isinstance(port, bool) or not isinstance(port, int) or not 0 <= port <= 65535:
            raise ValueError(f"port must be a number from 0 to 65535, not {port!r}")
        granted = frozenset(permissions)
        if not granted <= set(ACTIONS):
            raise ValueError(f"permissions must be out of {', '.join(ACTIONS)}; got {granted}")
        self.publishable_key = f"pk_live_{secrets.token_hex(16)}"
        """A publishable key, for clients."""
        self.key_id = f"sk_id_{secrets.token_hex(8)}"
        """The public id of the secret key pair."""
        self.key_secret = f"sk_secret_{secrets.token_hex(24)}"
        """The secret of the pair, which signs tokens."""
        self.sfu_app_id = f"app_{secrets.token_hex(8)}"
        self.sfu_secret = f"sfu_secret_{secrets.token_hex(24)}"
        self.faults = Faults(self)
        """Faults to inject."""
        self._host = host
        self._port = port
        self._grant = Grant(actions=granted)
        self._limits = limits
        self._timings = _timings
        self._cloud: _Cloud | None = None

    def __repr__(self) -> str:
        return f"<LocalCloud {self.http_url if self._serving else 'not serving'}>"

    @property
    def _serving(self) -> bool:
        return self._cloud is not None and not self._closed

    # --- life ---

    def connect(self, *, timeout: float | None = None) -> None:
        """Start serving, and return when clients can connect. ``with`` does it."""
        deadline = self._deadline(timeout)
        guard.check_process(self._born, self._label)
        with self._life:  # held to the end: a second caller waits until it serves
            if self._closed:
                raise ClosedError("LocalCloud is closed; make a new one")
            if self._cloud is not None:
                return
            self._engine = engine = Engine("metered-sync-cloud").start()
            cloud = self._make(engine)
            try:
                self._call(cloud.open, deadline=deadline, what="start")
            except BaseException:
                engine.post(engine.abandon, cloud)
                self._engine = None
                raise
            self._cloud = cloud
            self._opened(cloud)

    def _make(self, engine: Engine) -> _Cloud:
        return _Cloud(
            engine,
            SignallingServer(
                [PublishableKey(self.publishable_key, self._grant)],
                [SecretKey(self.key_id, self.key_secret)],
                timings=self._timings,
                limits=self._limits,
            ),
            Sfu(
                app_id=self.sfu_app_id,
                secret=self.sfu_secret,
                host="127.0.0.1" if self._host == "localhost" else self._host,
                timings=self._timings,
            ),
            self._host,
            self._port,
        )

    start = connect

    def close(self, *, timeout: float | None = None) -> None:
        """Tell the clients, close all connections and free the ports. Repeatable."""
        guard.check_process(self._born, self._label)
        with self._life:
            self._closed = True
        engine = self._engine
        if self._cloud is not None and engine is not None:
            self._close(self._cloud, timeout)
            engine.join(self._deadline(timeout))

    def _do(self, function: Callable[[_Cloud], Awaitable[T]], what: str) -> T:
        cloud = self._serving_cloud(what)
        return self._call(function, cloud, deadline=Deadline(self._timeout), what=what)

    def _serving_cloud(self, what: str) -> _Cloud:
        if self._closed:
            raise ClosedError(f"{what}: LocalCloud is closed")
        if self._cloud is None:
            raise ClosedError(f"{what}: LocalCloud does not serve yet; use `with`, or call start()")
        return self._cloud

    # --- where and how to connect ---

    @property
    def port(self) -> int:
        """The TCP port."""
        return self._serving_cloud("port").port

    @property
    def url(self) -> str:
        """The WebSocket origin, for :class:`~metered_sync.SignallingClient`."""
        return f"ws://{self._authority}"

    @property
    def http_url(self) -> str:
        """The HTTP origin, for :class:`~metered_sync.SfuClient`."""
        return f"http://{self._authority}"

    @property
    def _authority(self) -> str:
        return f"[{self._host}]:{self.port}" if ":" in self._host else f"{self._host}:{self.port}"

    def client_options(self) -> dict[str, Any]:
        """Return keyword arguments for a client that uses the publishable key."""
        return {"api_key": self.publishable_key, "url": self.url}

    def token_options(self, peer_id: str, **claims: Any) -> dict[str, Any]:
        """Return keyword arguments for a client that connects with freshly minted tokens.

        ``claims`` are those of :func:`~metered_sync.mint_token`; a new token is minted
        for each connection.
        """

        def provide() -> str:
            return mint_token(key_id, secret, peer_id=peer_id, **claims)

        key_id, secret = self.key_id, self.key_secret
        provide()  # a bad claim is better told here than at connecting
        return {"token_provider": provide, "url": self.url}

    def sfu_options(self) -> dict[str, Any]:
        """Return keyword arguments for :class:`~metered_sync.SfuClient`."""
        return {"app_id": self.sfu_app_id, "secret": self.sfu_secret, "url": self.http_url}
