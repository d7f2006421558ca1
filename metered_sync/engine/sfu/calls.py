"""Make the SFU's seven HTTP calls, to the SFU itself or to a gate before it. Needs no WebRTC."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from metered_sync.bridge.deadline import Deadline
from metered_sync.engine.rest import Rest, Service
from metered_sync.errors import SfuAuthError, SfuConflictError, SfuError, SfuNotFoundError
from metered_sync.wire.sfu import SESSIONS, TICKET_EXPIRED, Endpoint, plain_session_id

__all__ = ["Calls", "GateCalls", "SfuCalls"]

T = TypeVar("T")
_WRONG_SECRET = "check the app id and the secret"


def _service(label: str, origin: str, refused: str) -> Service:
    return Service(
        label,
        origin,
        SfuError,
        errors={
            401: SfuAuthError,
            403: SfuAuthError,
            404: SfuNotFoundError,
            409: SfuConflictError,
        },
        remedies={
            401: refused,
            403: refused,
            404: "no such app, session or track (any more)",
            409: "another negotiation of the session is under way; try again",
        },
    )


class Calls(ABC):
    """The calls, to where a service takes them."""

    origin: str
    """Scheme, host and port of the service."""
    lists_sessions = True
    """Whether all sessions of the app can be listed."""

    @abstractmethod
    def close(self) -> None:
        """Close idle connections."""

    async def ask(
        self,
        endpoint: Endpoint,
        parse: Callable[[object], T],
        deadline: Deadline,
        *,
        session_id: str = "",
        body: Any = None,
    ) -> T:
        """Make a call and return its parsed answer.

        Raises:
            SfuAuthError: 401 and 403, and, without a gate, 404 of a call that names no session.
            SfuError: As :meth:`~metered_sync.engine.rest.Rest.call`; its class tells 401, 403,
                404 and 409 from the rest.
        """
        rest, path = await self._way(endpoint, session_id)
        try:
            return await rest.call(
                endpoint.method, path, parse, deadline=deadline, body=body, safe=endpoint.safe
            )
        except SfuError as error:
            meaning = self._meaning(error, session_id)
            if meaning is error:
                raise
            raise meaning from error.__cause__

    @abstractmethod
    async def _way(self, endpoint: Endpoint, session_id: str) -> tuple[Rest, str]:
        """Return the connections to use now, and the path of a call."""

    @abstractmethod
    def _meaning(self, error: SfuError, session_id: str) -> SfuError:
        """Return what an error means here: often itself."""


class SfuCalls(Calls):
    """The calls to one app, with its secret."""

    def __init__(
        self, label: str, origin: str, app_id: str, secret: str, *, ca_file: str | None = None
    ) -> None:
        self.origin = origin
        self._app_id = app_id
        self._rest = Rest(_service(label, origin, _WRONG_SECRET), secret, ca_file=ca_file)

    def close(self) -> None:
        self._rest.close()

    async def _way(self, endpoint: Endpoint, session_id: str) -> tuple[Rest, str]:
        return self._rest, endpoint.path(self._app_id, plain_session_id(session_id))

    def _meaning(self, error: SfuError, session_id: str) -> SfuError:
        if session_id or not isinstance(error, SfuNotFoundError):
            return error
        # Nothing but the app can be unknown.
        unknown = SfuAuthError(f"{error}; {_WRONG_SECRET}, and that the url is right")
        unknown.__dict__.update(error.__dict__)
        return unknown


class GateCalls(Calls):
    """The same calls to a gate, with a room's token."""

    lists_sessions = False

    def __init__(
        self,
        label: str,
        origin: str,
        prefix: str,
        token: Callable[[], Awaitable[str]],
        *,
        ca_file: str | None = None,
    ) -> None:
        """Prepare.

        Args:
            label: The client's name in errors.
            origin: The gate's scheme, host and port.
            prefix: Its path.
            token: Returns a token that is valid now; may raise an ``SfuAuthError``.
            ca_file: The certificates that are trusted; else the environment's.
        """
        self.origin = origin
        self._prefix = prefix
        self._ca_file = ca_file
        self._token = token
        self._service = _service(label, origin, "does the token permit it, and is it still valid?")
        self._rest: Rest | None = None
        self._held: Callable[[], str] = str
        """Returns the token that the connections in use send."""

    def close(self) -> None:
        if self._rest is not None:
            self._rest.close()

    async def _way(self, endpoint: Endpoint, session_id: str) -> tuple[Rest, str]:
        if endpoint is SESSIONS:
            raise SfuAuthError(
                f"{self._service.label}: a gate does not list sessions: name the session, or find "
                "tracks by the states of a room's members",
                status=403,
                endpoint=f"{endpoint.method} {endpoint.route}",
            )
        return await self._fresh(), endpoint.path_at_gate(self._prefix, session_id)

    def _meaning(self, error: SfuError, session_id: str) -> SfuError:
        if not isinstance(error, SfuAuthError) or not isinstance(error.body, dict):
            return error
        if error.body.get("error") != TICKET_EXPIRED:
            return error
        # The session cannot be changed any more: it has to be made anew.
        return SfuConflictError(str(error), status=409, endpoint=error.endpoint)

    async def _fresh(self) -> Rest:
        """Return the connections that send the present token."""
        token = await self._token()
        try:
            if self._rest is None or token != self._held():
                self.close()
                self._rest = Rest(self._service, token, ca_file=self._ca_file)
                held = token
                self._held = lambda: held
            return self._rest
        finally:
            del token  # no frame of a traceback shows it
