"""Make the SFU's seven HTTP calls, to the SFU itself or to a gate before it. Needs no WebRTC."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from metered_sync.bridge.deadline import Deadline
from metered_sync.engine.rest import Rest, Service
from metered_sync.errors import SfuAuthError, SfuConflictError, SfuError, SfuNotFoundError
from metered_sync.wire.sfu import SESSIONS, TICKET_EXPIRED, Endpoint, plain_session_id

__all__ = ["GateCalls", "SfuCalls"]

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


class SfuCalls:
    """The calls to one app, with its secret."""

    lists_sessions = True
    """Whether all sessions of the app can be listed."""

    def __init__(
        self, label: str, origin: str, app_id: str, secret: str, *, ca_file: str | None = None
    ) -> None:
        self.origin = origin
        self._app_id = app_id
        self._rest = Rest(_service(label, origin, _WRONG_SECRET), secret, ca_file=ca_file)

    def close(self) -> None:
        """Close idle connections."""
        self._rest.close()

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
            SfuAuthError: 401 and 403, and 404 of a call that names no session.
            SfuError: As :meth:`~metered_sync.engine.rest.Rest.call`; its class tells 401, 403,
                404 and 409 from the rest.
        """
        try:
            return await self._rest.call(
                endpoint.method,
                endpoint.path(self._app_id, plain_session_id(session_id)),
                parse,
                deadline=deadline,
                body=body,
                safe=endpoint.safe,
            )
        except SfuNotFoundError as error:
            if session_id:
                raise
            # Nothing but the app can be unknown.
            unknown = SfuAuthError(f"{error}; {_WRONG_SECRET}, and that the url is right")
            unknown.__dict__.update(error.__dict__)
            raise unknown from error.__cause__


class GateCalls:
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
        """Close idle connections."""
        if self._rest is not None:
            self._rest.close()

    async def ask(
        self,
        endpoint: Endpoint,
        parse: Callable[[object], T],
        deadline: Deadline,
        *,
        session_id: str = "",
        body: Any = None,
    ) -> T:
        """Make a call and return its parsed answer; errors as :meth:`SfuCalls.ask`."""
        if endpoint is SESSIONS:
            raise SfuAuthError(
                f"{self._service.label}: a gate does not list sessions: name the session, or find "
                "tracks by the states of a room's members",
                status=403,
                endpoint=f"{endpoint.method} {endpoint.route}",
            )
        rest = await self._fresh()
        try:
            return await rest.call(
                endpoint.method,
                endpoint.path_at_gate(self._prefix, session_id),
                parse,
                deadline=deadline,
                body=body,
                safe=endpoint.safe,
            )
        except SfuAuthError as error:
            if not isinstance(error.body, dict) or error.body.get("error") != TICKET_EXPIRED:
                raise
            # The session cannot be changed any more: it has to be made anew.
            lost = SfuConflictError(str(error), status=409, endpoint=error.endpoint)
            raise lost from None

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
