"""Run the local cloud as one blocking object: messaging and SFU on ports of this machine."""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable, Iterable
from typing import TYPE_CHECKING, Any, TypeVar

from metered_sync.bridge import guard
from metered_sync.bridge.deadline import Deadline
from metered_sync.bridge.facade import Facade
from metered_sync.bridge.loop import Engine
from metered_sync.errors import ClosedError, MeteredError, NotConnectedError
from metered_sync.gate import SfuGate
from metered_sync.local.console import Console, JoinPage, check_name
from metered_sync.local.faults import Faults
from metered_sync.local.frame_log import FrameLog
from metered_sync.local.keys import KeyRing, PublishableKey, SecretKey
from metered_sync.local.meter import UsageMeter
from metered_sync.local.servers import Servers
from metered_sync.local.sfu import Sfu
from metered_sync.local.signalling import SignallingServer
from metered_sync.local.turn import DEFAULT_ICE_SERVERS, TurnService, check_announced
from metered_sync.tokens import as_texts, mint_token
from metered_sync.wire.arguments import check_choice, check_whole, shown
from metered_sync.wire.limits import ACTIONS, FREE_CONNECTIONS, FREE_MESSAGES
from metered_sync.wire.names import check_one_channel
from metered_sync.wire.timings import DEFAULT_TIMINGS, Timings
from metered_sync.wire.tokens import Grant
from metered_sync.wire.turn import GivenIceServers
from metered_sync.wire.urls import is_loopback

if TYPE_CHECKING:
    from metered_sync.control import ControlPlane
from metered_sync.wire.secrets import hides_arguments

__all__ = ["LocalCloud"]

T = TypeVar("T")
_KEYS = (
    "publishable_key", "key_id", "key_secret", "sfu_app_id", "sfu_secret",
    "turn_app", "turn_api_key", "turn_secret_key", "turn_secret",
)  # fmt: skip
"""The attributes that the console shows, masked, and has to copy."""


class LocalCloud(Facade):
    """A messaging service and an SFU on this machine, for as long as a ``with`` block lasts.

    Ready when the block is entered. It speaks the service's protocols: WebSocket, the control
    plane's and TURN's REST calls, the SFU's. Its keys are made anew each time, and it forgets
    everything when it is closed. It runs on an event loop and a thread of its own.

    Args:
        host: A loopback address; it serves nobody else.
        port: The TCP port of HTTP and WebSocket; 0 takes a free one. (Media uses one
            UDP port besides, always a free one.)
        limits: Whether the service's abuse and plan limits hold: 100 messages a second and
            connection (close code 4011), 100 channels a connection, 60 attempts to connect a
            minute (HTTP 429), and the two next. Sizes are limited always.
        max_connections: Connections at once; more are closed with 4010. The free plan's 100.
        max_messages: Messages until it is closed; more get the error ``over_message_quota``,
            and new connections are closed with 4010. The free plan's 100,000.
        permissions: What its publishable key may do: out of ``publish``, ``subscribe``,
            ``presence`` and ``send``; all four unless said otherwise.
        ice_servers: What clients are told to use for WebRTC, in their welcome and by
            :class:`~metered_sync.TurnApi`; in any form that ``MeteredPeer`` takes them in. TURN
            servers that come without a name get credentials for ``turn_secret``. Without this,
            welcomes carry none (no TURN server runs in here, and gathering from a dead one
            takes seconds), and ``TurnApi`` gets a list with a server on port 3478.
        turn_secret: The secret that you start a TURN server with (coturn:
            ``use-auth-secret``, ``static-auth-secret=…``). Made anew unless given.
        console: Whether it serves pages that show it in a browser, at :attr:`console_url`.
    """

    @hides_arguments
    def __init__(
        self,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        limits: bool = True,
        max_connections: int = FREE_CONNECTIONS,
        max_messages: int = FREE_MESSAGES,
        permissions: Iterable[str] = ACTIONS,
        ice_servers: GivenIceServers | None = None,
        turn_secret: str | None = None,
        console: bool = False,
        timeout: float = 15.0,
        _timings: Timings = DEFAULT_TIMINGS,
    ) -> None:
        super().__init__("LocalCloud", timeout)
        if not is_loopback(host):
            raise ValueError(
                f"host must be a loopback address, not {shown(host)}: it is for this machine"
            )
        if turn_secret is not None and not (isinstance(turn_secret, str) and turn_secret):
            raise ValueError("turn_secret must be a non-empty string")
        granted = frozenset(as_texts("permissions", permissions) or ())
        if unknown := sorted(granted - set(ACTIONS), key=str):
            raise ValueError(
                f"permissions must be out of {', '.join(ACTIONS)}, not {shown(unknown)}"
            )
        self.publishable_key = f"pk_live_{secrets.token_hex(16)}"
        """A publishable key, for clients."""
        self.key_id = f"sk_id_{secrets.token_hex(8)}"
        """The public id of the secret key pair."""
        self.key_secret = f"sk_secret_{secrets.token_hex(24)}"
        """The secret of the pair, which signs tokens."""
        self.sfu_app_id = f"app_{secrets.token_hex(8)}"
        self.sfu_secret = f"sfu_secret_{secrets.token_hex(24)}"
        self.turn_app = "local"
        self.turn_api_key = secrets.token_hex(20)
        """What clients show to get the list of ICE servers."""
        self.turn_secret_key = secrets.token_hex(24)
        """What your own servers show to make TURN credentials."""
        self.turn_secret = secrets.token_hex(24) if turn_secret is None else turn_secret
        """What a TURN server is to be started with, so that it accepts these credentials."""
        self.faults = Faults(self._do)
        """Faults to inject."""
        self._log = FrameLog(self._do)
        self._host = host
        self._port = check_whole("port", port, most=65535)
        self._max_connections = check_whole("max_connections", max_connections)
        self._max_messages = check_whole("max_messages", max_messages)
        self._ice_servers = None if ice_servers is None else check_announced(ice_servers)
        self._grant = Grant(actions=granted)
        self._limits = limits
        self._timings = _timings
        self._with_console = console
        self._console: Console | None = None
        self._servers: Servers | None = None
        self._starting = guard.CallLock()  # a second call returns when the cloud serves

    def __repr__(self) -> str:
        return f"<LocalCloud {self.http_url if self._serving else 'not serving'}>"

    @property
    def _serving(self) -> bool:
        return self._servers is not None and not self._closed

    # --- life ---

    def connect(self, *, timeout: float | None = None) -> None:
        """Start serving, and return when clients can connect. ``with`` does it."""
        deadline = self._deadline(timeout)
        guard.check_process(self._born, self._label)
        with self._starting.held(deadline, "LocalCloud: start"):
            if self._closed:
                raise self._closed_error()
            if self._servers is None:
                self._serve(deadline)

    def _serve(self, deadline: Deadline) -> None:
        self._engine = engine = Engine("metered-sync-cloud").start()
        servers = self._make(engine)
        try:
            self._call(servers.open, deadline=deadline, what="start")
        except BaseException:
            engine.post(engine.abandon, servers)
            self._engine = None
            raise
        self._servers = servers
        self._opened(servers)
        if self._closed:  # meanwhile
            self.close()
            raise self._closed_error()

    def _closed_error(self) -> ClosedError:
        return ClosedError("LocalCloud is closed; make a new one")

    def _make(self, engine: Engine) -> Servers:
        turn = TurnService(
            self.turn_app,
            self.turn_api_key,
            self.turn_secret_key,
            shared_secret=self.turn_secret,
            servers=DEFAULT_ICE_SERVERS if self._ice_servers is None else self._ice_servers,
        )
        signalling = SignallingServer(
            KeyRing(
                [PublishableKey(self.publishable_key, self._grant)],
                [SecretKey(self.key_id, self.key_secret)],
            ),
            UsageMeter(
                self.sfu_app_id,
                max_connections=self._max_connections,
                max_messages=self._max_messages,
                limits=self._limits,
                timings=self._timings,
            ),
            timings=self._timings,
            limits=self._limits,
            ice_servers=None if self._ice_servers is None else turn.ice_servers,
        )
        signalling.scheduler.log = self._log
        sfu = Sfu(
            app_id=self.sfu_app_id,
            secret=self.sfu_secret,
            host="127.0.0.1" if self._host == "localhost" else self._host,
            timings=self._timings,
        )
        servers = Servers(engine, signalling, turn, sfu, self._host, self._port)
        if self._with_console:
            keys = {name: getattr(self, name) for name in _KEYS}
            join = JoinPage(self._mint, self._gate)
            self._console = servers.pages = Console(servers, keys, join)
        return servers

    start = connect

    def _enter(self) -> None:
        self.connect()

    def close(self, *, timeout: float | None = None) -> None:
        """Tell the clients, close all connections and free the ports. Repeatable."""
        deadline = self._deadline(timeout)
        guard.check_process(self._born, self._label)
        self._closed = True  # first: connect(), once it has made the servers, looks at it
        engine = self._engine
        if self._servers is not None and engine is not None:
            self._close(self._servers, deadline)
            engine.join(deadline)

    def reset(self, *, timeout: float | None = None) -> None:
        """Be as new, at the same address and with the same keys: for the next test.

        Faults end; messaging connections are closed (1001), SFU sessions end; what was counted,
        made and logged is forgotten. A client that somebody still holds comes back by itself.
        Returns when all that is done.
        """

        async def reset(servers: Servers) -> None:
            await servers.reset()
            self._log.clear()

        self._do("reset", timeout, reset)

    @property
    def log(self) -> FrameLog:
        """The frames that clients sent and got, from the first look at this on."""
        self._log.recording = True
        return self._log

    def _do(
        self, what: str, timeout: float | None, function: Callable[[Servers], Awaitable[T]]
    ) -> T:
        deadline = self._deadline(timeout)
        return self._call(function, self._serving_servers(what), deadline=deadline, what=what)

    def _serving_servers(self, what: str) -> Servers:
        if self._closed:
            raise ClosedError(f"{what}: LocalCloud is closed; make a new one")
        if self._servers is None:
            raise NotConnectedError(
                f"{what}: LocalCloud has not been started yet, so nothing can connect to it; use "
                "`with`, or call start()"
            )
        return self._servers

    # --- where and how to connect ---

    @property
    def port(self) -> int:
        """The TCP port."""
        return self._serving_servers("port").port

    @property
    def url(self) -> str:
        """The WebSocket origin, for :class:`~metered_sync.SignallingClient`."""
        self._serving_servers("url")
        return f"ws://{self._authority}"

    @property
    def http_url(self) -> str:
        """The HTTP origin, for :class:`~metered_sync.SfuClient`."""
        self._serving_servers("http_url")
        return f"http://{self._authority}"

    @property
    def _authority(self) -> str:
        return f"[{self._host}]:{self.port}" if ":" in self._host else f"{self._host}:{self.port}"

    @property
    def console_url(self) -> str:
        """The address of the console, for a browser on this machine; whoever has it may look in.

        In a notebook: ``IPython.display.IFrame(cloud.console_url, "100%", 600)``.
        ``MeteredError`` for a cloud that was made without ``console=True``.
        """
        path = self._pages("console_url").path()
        return self.http_url + path

    def join_url(self, channel: str, name: str | None = None, media: str = "mesh") -> str:
        """Return the address of a page in which a browser joins a room: camera, sound and chat.

        Members in Python join the same channel. See docs/rooms.md#join-from-a-browser.

        Args:
            channel: The room.
            name: The member's name, ``peerMetadata.name`` to the others; the page lets its user
                change it.
            media: ``"mesh"``, or ``"sfu"`` for a room through the SFU, as for
                :class:`~metered_sync.MeteredPeer`.

        Raises:
            MeteredError: The cloud was made without ``console=True``.
            ValueError: A channel's or member's name that cannot be one; other media.
        """
        query = {"channel": check_one_channel(channel, "join_url")}
        query["media"] = check_choice("join_url: media", media, ("mesh", "sfu"))
        if (called := check_name(name, "join_url")) is not None:
            query["name"] = called
        path = self._pages("join_url").join_path(**query)
        return self.http_url + path

    def _pages(self, what: str) -> Console:
        if not self._with_console:
            raise MeteredError(
                f"{what}: this LocalCloud serves no console; make it with LocalCloud(console=True)"
            )
        self._serving_servers(what)
        assert self._console is not None
        return self._console

    def _mint(self, **claims: Any) -> str:
        return mint_token(self.key_id, self.key_secret, **claims)

    def _gate(self, url: str) -> SfuGate:
        keys = {self.key_id: self.key_secret}
        return SfuGate(self.sfu_app_id, self.sfu_secret, keys, url=url)

    def client_options(self) -> dict[str, Any]:
        """Return keyword arguments for a client that uses the publishable key."""
        self._serving_servers("client_options()")
        return {"api_key": self.publishable_key, "url": self.url}

    def token_options(self, peer_id: str, **claims: Any) -> dict[str, Any]:
        """Return keyword arguments for a client that connects with freshly minted tokens.

        ``claims`` are those of :func:`~metered_sync.mint_token`; a new token is minted
        for each connection.
        """

        self._serving_servers("token_options()")

        def provide() -> str:
            return mint_token(key_id, secret, peer_id=peer_id, **claims)

        key_id, secret = self.key_id, self.key_secret
        provide()  # a bad claim is better told here than at connecting
        return {"token_provider": provide, "url": self.url}

    def room_options(self, peer_id: str, **claims: Any) -> dict[str, Any]:
        """Return keyword arguments for a :class:`~metered_sync.MeteredPeer` whose media go
        through the local SFU; otherwise as :meth:`token_options`."""
        from metered_sync.sfu_api import SfuMedia

        self._serving_servers("room_options()")
        return {**self.token_options(peer_id, **claims), "media": SfuMedia(**self.sfu_options())}

    def sfu_options(self) -> dict[str, Any]:
        """Return keyword arguments for :class:`~metered_sync.SfuClient`."""
        self._serving_servers("sfu_options()")
        return {"app_id": self.sfu_app_id, "secret": self.sfu_secret, "url": self.http_url}

    def turn_options(self) -> dict[str, Any]:
        """Return keyword arguments for :class:`~metered_sync.TurnApi`."""
        self._serving_servers("turn_options()")
        return {
            "app": self.turn_app,
            "api_key": self.turn_api_key,
            "secret_key": self.turn_secret_key,
            "url": self.http_url,
        }

    def control_plane(self) -> ControlPlane:
        """Return a control plane that uses the secret key pair."""
        from metered_sync.control import ControlPlane

        self._serving_servers("control_plane()")
        return ControlPlane(self.key_id, self.key_secret, url=self.http_url)
