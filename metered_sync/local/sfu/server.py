"""Run the local SFU as one object: its socket, its sessions, its HTTP routes, its faults."""

from __future__ import annotations

import ipaddress

import ifaddr
from aiohttp import web

from metered_sync.local.sfu.api import Api, Check
from metered_sync.local.sfu.dtls import DtlsIdentity
from metered_sync.local.sfu.session import Session, SessionContext
from metered_sync.local.sfu.transport import UdpPort
from metered_sync.wire.arguments import check_number
from metered_sync.wire.sfu import SessionInfo
from metered_sync.wire.timings import DEFAULT_TIMINGS, Timings

__all__ = ["Sfu"]


class Sfu:
    """A publish/subscribe point for media on this machine, of the Global SFU's HTTP API.

    It forwards RTP packets without decoding them, so that its cost does not depend on the
    codec. aiortc clients and browsers can use it; data channels are accepted but do not open.

    All methods belong to the asyncio loop on which :meth:`start` ran.

    Args:
        app_id: The app that the paths name.
        secret: What clients show as bearer token. It is in no ``repr`` and no log.
        host: The address of the UDP socket; with ``"0.0.0.0"`` or ``"::"``, all of the
            machine's addresses are offered to clients.
        timings: Intervals; tests shrink them.
    """

    def __init__(
        self,
        *,
        app_id: str,
        secret: str,
        host: str = "127.0.0.1",
        timings: Timings = DEFAULT_TIMINGS,
    ) -> None:
        self.app_id = app_id
        self._host_address = host
        self._timings = timings
        self._port = UdpPort()
        self._context: SessionContext | None = None
        self._sessions: dict[str, Session] = {}
        self._api = Api(self, app_id, secret)

    def __repr__(self) -> str:
        return f"Sfu(app_id={self.app_id!r}, sessions={len(self._sessions)})"

    async def start(self) -> None:
        """Open the UDP socket on a free port. Raises :class:`OSError` if that fails."""
        await self._port.open(self._host_address)
        self._context = SessionContext(
            port=self._port,
            identity=DtlsIdentity(),
            candidates=_candidates(*self._port.address),
            timings=self._timings,
            on_end=self._forget,
        )

    def routes(self) -> list[web.RouteDef]:
        """Return the HTTP routes, all of them under ``/api/sfu/``."""
        return self._api.routes()

    def routes_below(self, prefix: str, checked: Check) -> list[web.RouteDef]:
        """Return the seven calls below a path, with another check in place of the secret's."""
        return self._api.routes_below(prefix, checked)

    async def close(self) -> None:
        """End all sessions and close the socket."""
        self._end_sessions()
        self._port.close()
        self._context = None

    def _end_sessions(self) -> None:
        for session in list(self._sessions.values()):
            session.end()

    # --- faults ---

    def reset(self) -> None:
        """End all sessions, and lose no more media on purpose."""
        self._end_sessions()
        self.lose_media(0)

    def kill_session(self, session_id: str) -> None:
        """End a session as if the service had lost it; :class:`LookupError` if there is none.

        The client is told by the end of its DTLS association, and by 404 to its next call.
        """
        session = self._sessions.get(session_id)
        if session is None:
            raise LookupError(f"no SFU session {session_id!r}")
        session.end()

    def lose_media(self, fraction: float) -> None:
        """Drop this fraction of media packets at random, on the way in and on the way out.

        Connectivity checks and handshakes are spared. 0 ends it.
        """
        self._port.loss = check_number("fraction", fraction, most=1)

    @property
    def loss(self) -> float:
        """The fraction of media packets that are lost on purpose."""
        return self._port.loss

    # --- for the API ---

    def session(self, session_id: str) -> Session | None:
        """Return a living session."""
        return self._sessions.get(session_id)

    def sessions(self) -> list[SessionInfo]:
        """Return all living sessions as the API lists them, oldest first."""
        return [session.info() for session in self._sessions.values()]

    def new_session(self, metadata: str | None) -> Session:
        """Make a session, still without a client."""
        if self._context is None:
            raise RuntimeError("the SFU is not running: call start() first")
        session = Session(self._context, metadata)
        self._sessions[session.id] = session
        return session

    def _forget(self, session: Session) -> None:
        self._sessions.pop(session.id, None)


def _candidates(host: str, port: int) -> tuple[str, ...]:
    """Return an ICE host candidate for each address under which the socket is reached."""
    address = ipaddress.ip_address(host.partition("%")[0])
    hosts = _own_addresses(address.version) if address.is_unspecified else [str(address)]
    # RFC 8445, section 5.1.2.1: type preference 126, then local preference, then component.
    return tuple(
        f"{index + 1} 1 udp {(126 << 24) | ((65535 - index) << 8) | 255} {item} {port} typ host"
        for index, item in enumerate(hosts)
    )


def _own_addresses(version: int) -> list[str]:
    """Return the machine's addresses, IPv6 ones without those of a single link."""
    found = [item.ip for adapter in ifaddr.get_adapters() for item in adapter.ips]
    if version == 4:
        return [ip for ip in found if isinstance(ip, str)]
    return [ip[0] for ip in found if not isinstance(ip, str) and not ip[2]]
