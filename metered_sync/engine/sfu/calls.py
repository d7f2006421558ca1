"""Make the SFU's seven HTTP calls. Needs no WebRTC."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from metered_sync.bridge.deadline import Deadline
from metered_sync.engine.rest import Rest, Service
from metered_sync.errors import SfuAuthError, SfuConflictError, SfuError, SfuNotFoundError
from metered_sync.wire.sfu import Endpoint

__all__ = ["SfuCalls"]

T = TypeVar("T")
_WRONG_SECRET = "check the app id and the secret"


class SfuCalls:
    """The calls to one app, with its secret."""

    def __init__(self, label: str, origin: str, app_id: str, secret: str) -> None:
        self._app_id = app_id
        service = Service(
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
                401: _WRONG_SECRET,
                403: _WRONG_SECRET,
                404: "no such app, session or track (any more)",
                409: "another negotiation of the session is under way; try again",
            },
        )
        self._rest = Rest(service, secret)

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
                endpoint.path(self._app_id, session_id),
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
